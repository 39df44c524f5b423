// The canvas of a map: what part of it is seen, moved by mouse, fingers and keys, and the line that takes points.

import { pixel } from "./map_colours.js";

const REACH = 12; // pixels from a point that still mean it
const MOST_RINGS = 2000;
const MARKED = "#e4002b";

export class MapView {
  // `look` is called with the point that is pointed at, or -1; `take` with the points within a line or in view
  constructor(canvas, points, { look, take, enter, lassoed }) {
    Object.assign(this, { canvas, points, look, take, enter, lassoed });
    this.colours = new Uint32Array(points.count);
    this.taken = [];
    this.marked = [];
    this.lasso = false;
    this.moved = false;
    this.line = null;
    this.#listen();
    new ResizeObserver(() => this.redraw()).observe(canvas);
  }

  paint(colours) {
    this.colours = colours;
    this.redraw();
  }

  ring(points) {
    this.taken = points;
    this.redraw();
  }

  // Points that are pointed out, whatever is taken.
  mark(points) {
    this.marked = points;
    this.redraw();
  }

  fit() {
    const { canvas, points: { box } } = this;
    this.scale = 0.92 * Math.min(canvas.width / box.width, canvas.height / box.height);
    this.left = box.left - (canvas.width / this.scale - box.width) / 2;
    this.top = box.top - (canvas.height / this.scale - box.height) / 2;
    this.moved = false;
    this.redraw();
  }

  setLasso(now) {
    this.lasso = now;
    this.canvas.classList.toggle("lasso", now);
    this.lassoed(now);
  }

  takeView() {
    const seen = this.points.within(...this.#place([0, 0]), ...this.#place([this.canvas.width, this.canvas.height]));
    this.take([...seen].sort((one, other) => one - other));
  }

  redraw() {
    cancelAnimationFrame(this.drawing);
    this.drawing = requestAnimationFrame(() => this.draw());
  }

  draw() {
    const { canvas, points } = this;
    const ratio = Math.min(2, devicePixelRatio);
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (!width || !height) return undefined;
    if (canvas.width !== width || canvas.height !== height) {
      Object.assign(canvas, { width, height });
      if (!this.moved) return this.fit();
    }
    const began = performance.now();
    const context = canvas.getContext("2d", { alpha: false });
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer).fill(pixel(matchMedia("(prefers-color-scheme: dark)").matches ? "#121617" : "#ffffff"));
    const size = Math.max(2, Math.min(8, Math.round(ratio * Math.sqrt(20_000 / points.count) + 1)));
    points.draw(pixels, width, height, this, this.colours, size);
    context.putImageData(image, 0, 0);
    context.strokeStyle = getComputedStyle(canvas).color;
    context.lineWidth = 2 * ratio;
    if (this.taken.length <= MOST_RINGS) for (const at of this.taken) this.#ringed(context, at, size);
    context.strokeStyle = MARKED;
    context.lineWidth = 3 * ratio;
    for (const at of this.marked) this.#ringed(context, at, 2 * size);
    context.strokeStyle = getComputedStyle(canvas).color;
    context.lineWidth = 2 * ratio;
    context.beginPath();
    for (const [x, y] of this.line || []) context.lineTo(x, y);
    context.stroke();
    performance.measure("map redraw", { start: began, end: performance.now() });
    return undefined;
  }

  #ringed(context, at, size) {
    const { xy } = this.points;
    context.strokeRect((xy[2 * at] - this.left) * this.scale - size, (xy[2 * at + 1] - this.top) * this.scale - size, 2 * size, 2 * size);
  }

  #place([x, y]) {
    return [this.left + x / this.scale, this.top + y / this.scale];
  }

  #zoom(by, [x, y] = [this.canvas.width / 2, this.canvas.height / 2]) {
    const [mapX, mapY] = this.#place([x, y]);
    this.scale *= by;
    Object.assign(this, { moved: true, left: mapX - x / this.scale, top: mapY - y / this.scale });
    this.redraw();
  }

  #move(x, y) {
    this.moved = true;
    this.left -= x / this.scale;
    this.top -= y / this.scale;
    this.redraw();
  }

  #near(at, reach) {
    this.look(this.points.nearest(...this.#place(at), reach / this.scale));
  }

  #at(event) {
    const frame = this.canvas.getBoundingClientRect();
    const ratio = this.canvas.width / frame.width;
    return [(event.clientX - frame.left) * ratio, (event.clientY - frame.top) * ratio];
  }

  #listen() {
    const { canvas } = this;
    const down = new Map(); // pointers on the canvas, each where it was last
    let began = null;
    const far = ([one, other]) => Math.hypot(one[0] - other[0], one[1] - other[1]);
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      began = this.#at(event);
      down.set(event.pointerId, began);
      this.line = (this.lasso || event.shiftKey) && down.size === 1 ? [began] : null;
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = this.#at(event);
      const before = down.get(event.pointerId);
      if (!before) {
        if (event.pointerType === "mouse") this.#near(now, REACH);
        return;
      }
      const apart = far([...down.values(), now]);
      down.set(event.pointerId, now);
      const [one, other] = [...down.values()];
      if (this.line) {
        this.line.push(now);
        this.redraw();
      } else if (other) this.#zoom(far([one, other]) / (apart || 1), [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2]);
      else this.#move(now[0] - before[0], now[1] - before[1]);
    });
    const up = (event) => {
      if (!down.delete(event.pointerId)) return;
      const drawn = this.line;
      this.line = null;
      if (drawn?.length > 2) {
        this.take(this.points.inside(drawn.map((at) => this.#place(at))));
        this.setLasso(false);
      } else if (far([began, this.#at(event)]) < 4) this.#near(began, 2 * REACH);
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, this.#at(event));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  // By keys the point nearest to the middle is the one that is looked at.
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    const middle = [this.canvas.width / 2, this.canvas.height / 2];
    if (steps) this.#move(steps[0] * 60, steps[1] * 60);
    else if (event.key === "+" || event.key === "=") this.#zoom(1.2);
    else if (event.key === "-") this.#zoom(1 / 1.2);
    else if (event.key === "0") this.fit();
    else if (event.key === "l") this.setLasso(!this.lasso);
    else if (event.key === "s") this.takeView();
    else if (event.key === "Enter") this.enter();
    else return;
    event.preventDefault();
    if (!["l", "s", "Enter"].includes(event.key)) this.#near(middle, Math.hypot(...middle));
  }
}
