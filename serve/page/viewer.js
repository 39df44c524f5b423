// Question and hit side by side, with one zoom for both; deep grey through its window, volumes frame by frame.

import * as api from "./api.js";
import { $, h, named, shown } from "./dom.js";
import { strip } from "./patient.js";
import { state, technical } from "./state.js";
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
  const asked = state.parts.find((part) => part.kind === "upload") || state.parts.find((part) => part.kind === "id" && part.weight > 0);
  const sides = [];
  if (asked && !(asked.kind === "id" && asked.value === hit.id)) sides.push(side(strings.question, asked.kind === "upload" ? api.uploadPicture(asked.value, 2048) : api.rowPicture(state.index.index, asked.value, 2048)));
  const title = hit.score === undefined ? hit.id : `${hit.rank}. ${hit.id}`;
  sides.push(side(title, api.rowPicture(state.index.index, hit.id, 2048)));
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

function side(title, loading) {
  const image = h("img", { alt: title, draggable: false });
  const figure = h("figure", {}, h("div", { className: "frame" }, image), h("figcaption", {}, named(title)));
  loading.then((url) => {
    image.src = url;
    image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
  }).catch(() => figure.append(h("p", {}, strings.no_picture)));
  return figure;
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

function listen(sides) {
  sides.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2);
  }, { passive: false });
  let from = null;
  sides.addEventListener("pointerdown", (event) => {
    from = [event.clientX, event.clientY];
    sides.setPointerCapture(event.pointerId);
  });
  sides.addEventListener("pointermove", (event) => {
    if (!from) return;
    move(event.clientX - from[0], event.clientY - from[1]);
    from = [event.clientX, event.clientY];
  });
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
  else if (steps[event.key]) move(...steps[event.key]);
  else if (event.key === "n" && place + 1 < state.hits.length) compare(place + 1);
  else if (event.key === "p" && place > 0) compare(place - 1);
  else return;
  event.preventDefault();
});
