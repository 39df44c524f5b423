// Question and hit side by side, with one zoom for both; deep grey through its window, volumes frame by frame.

import { $, h, shown } from "./dom.js";
import { strip } from "./patient.js";
import { side } from "./side.js";
import { LIKE, marked, state, technical } from "./state.js";
import { strings } from "./strings.js";

let place = 0;
let view = { scale: 1, x: 0, y: 0 };
let level = { brightness: 1, contrast: 1 };

export async function compare(at) {
  place = at;
  view = { scale: 1, x: 0, y: 0 };
  level = { brightness: 1, contrast: 1 };
  draw(state.hits[place]);
}

function draw(hit) {
  const dialog = $("viewer");
  const asked = state.parts.find((part) => part.kind === "upload") || state.parts.find((part) => part.kind === "id")
    || marked(LIKE).map((id) => ({ kind: "id", value: id }))[0];
  const sides = [];
  if (asked && !(asked.kind === "id" && asked.value === hit.id)) sides.push(side(strings.question, { [asked.kind]: asked.value }));
  const title = hit.score === undefined ? hit.id : `${hit.rank}. ${hit.id}`;
  sides.push(side(title, { id: hit.id }));
  const facts = Object.entries(hit).filter(([name, value]) => !["rank", "id"].includes(name) && shown(value) !== "");
  const list = (some) => h("dl", { className: "facts" }, ...some.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, shown(value))]));
  dialog.replaceChildren(
    h("div", { className: "bar" }, h("h2", { id: "viewer-title" }, strings.compare),
      slider(strings.level, "brightness"), slider(strings.width, "contrast"),
      h("button", { type: "button", onclick: () => compare(place) }, strings.reset),
      h("button", { type: "button", onclick: () => dialog.close() }, strings.close)),
    h("div", { className: "sides", tabIndex: 0, aria: { label: strings.zoom }, role: "group" }, ...sides),
    strip(hit, draw),
    list(facts.filter(([name]) => !technical(name))),
    h("details", {}, h("summary", { className: "quiet" }, strings.more_facts), list(facts.filter(([name]) => technical(name)))),
    h("p", { className: "quiet long" }, strings.zoom));
  if (!dialog.open) dialog.showModal();
  listen(dialog.querySelector(".sides"));
  apply();
}

function slider(text, name) {
  return h("label", { className: "quiet" }, text,
    h("input", { type: "range", min: 0.2, max: 3, step: 0.05, value: level[name], oninput: (event) => {
      level[name] = Number(event.target.value);
      apply();
    } }));
}

function apply() {
  for (const image of $("viewer").querySelectorAll(".frame img")) {
    image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
    image.style.filter = `brightness(${level.brightness}) contrast(${level.contrast})`;
  }
  for (const figure of figures()) figure.sharpen(view);
}

function zoom(by) {
  view.scale = Math.min(20, Math.max(1, view.scale * by));
  if (view.scale === 1) Object.assign(view, { x: 0, y: 0 });
  apply();
}

function move(x, y) {
  if (view.scale === 1) return;
  view.x += x;
  view.y += y;
  apply();
}

// Keys go to both pictures, the mouse to the one that it is over.
const figures = () => [...$("viewer").querySelectorAll(".sides figure")];

function listen(sides) {
  sides.addEventListener("wheel", (event) => {
    event.preventDefault();
    const by = event.deltaY < 0 ? -1 : 1;
    if (event.ctrlKey || event.shiftKey) event.target.closest("figure")?.scroll(Math.sign(event.deltaY || event.deltaX));
    else zoom(by < 0 ? 1.2 : 1 / 1.2);
  }, { passive: false });
  let from = null;
  sides.addEventListener("pointerdown", (event) => {
    from = { x: event.clientX, y: event.clientY, figure: event.target.closest("figure"), leveling: event.button === 2 || event.altKey };
    sides.setPointerCapture(event.pointerId);
  });
  sides.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [x, y] = [event.clientX - from.x, event.clientY - from.y];
    // unmagnified there is nothing to move: dragging changes the window, as in a radiologist's viewer
    if (!((from.leveling || view.scale === 1) && from.figure?.level(x, y))) move(x, y);
    Object.assign(from, { x: event.clientX, y: event.clientY });
  });
  sides.addEventListener("contextmenu", (event) => event.preventDefault());
  sides.addEventListener("pointerup", () => {
    from = null;
  });
  sides.focus();
}

$("viewer").addEventListener("keydown", (event) => {
  if (event.target.matches("input")) return;
  const steps = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
  if (event.key === "+" || event.key === "=") zoom(1.2);
  else if (event.key === "-") zoom(1 / 1.2);
  else if (event.key === "0") zoom(0);
  else if (event.key === "PageDown") figures().forEach((figure) => figure.scroll(1));
  else if (event.key === "PageUp") figures().forEach((figure) => figure.scroll(-1));
  else if (steps[event.key] && event.shiftKey) figures().forEach((figure) => figure.level(-steps[event.key][0] / 2, -steps[event.key][1] / 2));
  else if (steps[event.key]) move(...steps[event.key]);
  else if (event.key === "n" && place + 1 < state.hits.length) compare(place + 1);
  else if (event.key === "p" && place > 0) compare(place - 1);
  else return;
  event.preventDefault();
});
