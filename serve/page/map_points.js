// Points of a map on a canvas: where they lie, which is near, which are within a line; drawn pixel by pixel, since a
// hundred thousand shapes would take a canvas longer than a frame.

const CELLS = 128;
const cell = (share) => Math.max(0, Math.min(CELLS - 1, Math.floor(share * CELLS)));

export class Points {
  // xy: float32, x and y of each point
  constructor(xy) {
    this.xy = xy;
    this.count = xy.length / 2;
    let [left, top, right, bottom] = this.count ? [Infinity, Infinity, -Infinity, -Infinity] : [0, 0, 0, 0];
    for (let at = 0; at < xy.length; at += 2) {
      left = Math.min(left, xy[at]);
      right = Math.max(right, xy[at]);
      top = Math.min(top, xy[at + 1]);
      bottom = Math.max(bottom, xy[at + 1]);
    }
    this.box = { left, top, width: right - left || 1, height: bottom - top || 1 };
    this.#sort();
  }

  // the points of each cell of a grid, one after another
  #sort() {
    this.starts = new Uint32Array(CELLS * CELLS + 1);
    const cells = new Uint32Array(this.count);
    for (let at = 0; at < this.count; at += 1) {
      cells[at] = this.#row(this.xy[2 * at + 1]) * CELLS + this.#column(this.xy[2 * at]);
      this.starts[cells[at] + 1] += 1;
    }
    for (let at = 0; at < CELLS * CELLS; at += 1) this.starts[at + 1] += this.starts[at];
    const next = this.starts.slice();
    this.sorted = new Uint32Array(this.count);
    for (let at = 0; at < this.count; at += 1) this.sorted[next[cells[at]]++] = at;
  }

  #column(x) {
    return cell((x - this.box.left) / this.box.width);
  }

  #row(y) {
    return cell((y - this.box.top) / this.box.height);
  }

  // The points within a rectangle.
  *within(left, top, right, bottom) {
    for (let row = this.#row(top); row <= this.#row(bottom); row += 1) {
      const end = this.starts[row * CELLS + this.#column(right) + 1];
      for (let place = this.starts[row * CELLS + this.#column(left)]; place < end; place += 1) {
        const at = this.sorted[place];
        const [x, y] = [this.xy[2 * at], this.xy[2 * at + 1]];
        if (x >= left && x <= right && y >= top && y <= bottom) yield at;
      }
    }
  }

  // The point nearest to a place, at most so far away; -1 for none.
  nearest(x, y, reach) {
    let [best, least] = [-1, reach * reach];
    for (const at of this.within(x - reach, y - reach, x + reach, y + reach)) {
      const far = (this.xy[2 * at] - x) ** 2 + (this.xy[2 * at + 1] - y) ** 2;
      if (far <= least) [best, least] = [at, far];
    }
    return best;
  }

  // The points within a closed line of [x, y], by how often a ray from each crosses it.
  inside(line) {
    const [xs, ys] = [line.map(([x]) => x), line.map(([, y]) => y)];
    const found = [];
    for (const at of this.within(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys))) {
      const [x, y] = [this.xy[2 * at], this.xy[2 * at + 1]];
      let odd = false;
      for (let one = 0, before = line.length - 1; one < line.length; before = one, one += 1) {
        const crosses = ys[one] > y !== ys[before] > y;
        if (crosses && x < ((xs[before] - xs[one]) * (y - ys[one])) / (ys[before] - ys[one]) + xs[one]) odd = !odd;
      }
      if (odd) found.push(at);
    }
    return found.sort((one, other) => one - other);
  }

  // Draw into the pixels of an image, uint32 each: a square of `size` pixels in the colour of each point. `view` has the
  // place of the image's corner on the map, and pixels a unit.
  draw(pixels, width, height, { left, top, scale }, colours, size) {
    const { xy, count } = this;
    const half = size / 2;
    for (let at = 0; at < count; at += 1) {
      const x = Math.floor((xy[2 * at] - left) * scale - half);
      const y = Math.floor((xy[2 * at + 1] - top) * scale - half);
      if (x < 0 || y < 0 || x + size > width || y + size > height) continue;
      const colour = colours[at];
      for (let start = y * width + x; start < (y + size) * width + x; start += width) {
        for (let column = 0; column < size; column += 1) pixels[start + column] = colour;
      }
    }
  }
}
