// Question and hit side by side, or both eyes of a patient, with one zoom for all; deep grey through its window, volumes
// frame by frame.

import { $, h, shown } from "./dom.js";
import * as heat from "./heat.js";
import { fellow, isRight, ofPatient, strip } from "./patient.js";
import { listen } from "./pointer.js";
import { outline } from "./regions.js";
import { side } from "./side.js";
import { LIKE, marked, sideColumn, state, technical } from "./state.js";
import { strings } from "./strings.js";

let place = 0;
let both = false; // whether the other eye is shown too
let view = { scale: 1, x: 0, y: 0 };
let level = { brightness: 1, contrast: 1 };

export async function compare(at) {
  place = at;
  restore();
  draw(state.hits[place]);
}

// A row that is no hit of its own: a part of a case.
export function look(row) {
  restore();
  draw(row);
}

function restore() {
  view = { scale: 1, x: 0, y: 0 };
  level = { brightness: 1, contrast: 1 };
}

const question = () => state.set ? null : state.parts.find((part) => part.kind === "upload") || state.parts.find((part) => part.kind === "id")
  || marked(LIKE).map((id) => ({ kind: "id", value: id }))[0];

const titled = (row) => [row.rank === undefined ? row.id : `${row.rank}. ${row.id}`, shown(row[sideColumn()])].filter(Boolean).join(", ");

function draw(hit) {
  const dialog = $("viewer");
  const asked = question();
  const own = side(titled(hit), { id: hit.id });
  own.outline(outline(hit));
  const figures = h("div", { className: "sides", tabIndex: 0, aria: { label: strings.zoom }, role: "group" }, own);
  if (asked && !(asked.kind === "id" && asked.value === hit.id)) figures.prepend(side(strings.question, { [asked.kind]: asked.value }));
  const facts = Object.entries(hit).filter(([name, value]) => !["rank", "id"].includes(name) && shown(value) !== "");
  const list = (some) => h("dl", { className: "facts" }, ...some.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, shown(value)))));
  const eyes = h("button", { type: "button", className: "eyes", hidden: true, aria: { pressed: "false", keyshortcuts: "b" } }, strings.both);
  dialog.replaceChildren(
    ...[h("div", { className: "bar" }, ...[h("h2", { id: "viewer-title" }, strings.compare),
      heat.button(hit, () => own), eyes,
      slider(strings.level, "brightness"), slider(strings.width, "contrast"),
      h("button", { type: "button", onclick: () => compare(place) }, strings.reset),
      h("button", { type: "button", onclick: () => dialog.close() }, strings.close)].filter(Boolean)),
      heat.offered() ? heat.legend() : null,
      figures, h("div", { className: "strip", hidden: true }),
      list(facts.filter(([name]) => !technical(name))),
      h("details", {}, h("summary", { className: "quiet" }, strings.more_facts), list(facts.filter(([name]) => technical(name)))),
      h("p", { className: "quiet long" }, strings.zoom)].filter(Boolean));
  if (!dialog.open) dialog.showModal();
  listen(figures, { zoom, move });
  figures.focus();
  apply();
  ofPatient(hit).then((rows) => {
    if (!own.isConnected) return;
    dialog.querySelector(".strip").replaceWith(strip(hit, rows, draw));
    const other = fellow(hit, rows);
    if (other) offer(eyes, hit, own, other);
  }).catch(() => {});
}

// The other eye beside this one, the right eye on the left.
function offer(button, hit, own, other) {
  let beside = null;
  const show = () => {
    button.setAttribute("aria-pressed", String(both));
    beside?.remove();
    beside = both ? side(titled(other), { id: other.id }) : null;
    if (beside) own[isRight(hit) ? "after" : "before"](beside);
    apply();
  };
  button.hidden = false;
  button.onclick = () => {
    both = !both;
    show();
  };
  show();
}

function slider(text, name) {
  return h("label", { className: "quiet" }, text,
    h("input", { type: "range", min: 0.2, max: 3, step: 0.05, value: level[name], oninput: (event) => {
      level[name] = Number(event.target.value);
      apply();
    } }));
}

function apply() {
  for (const image of $("viewer").querySelectorAll(".frame img, .frame .region")) {
    image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
    if (image.matches("img:not(.heat)")) image.style.filter = `brightness(${level.brightness}) contrast(${level.contrast})`;
  }
  for (const figure of figures()) figure.sharpen(view);
}

function zoom(by) {
  view.scale = Math.min(20, Math.max(1, view.scale * by));
  if (view.scale === 1) Object.assign(view, { x: 0, y: 0 });
  apply();
}

// False where there is nothing to move: a picture that is not magnified.
function move(x, y) {
  if (view.scale === 1) return false;
  view.x += x;
  view.y += y;
  apply();
  return true;
}

// Keys go to all pictures, the mouse to the one that it is over.
const figures = () => [...$("viewer").querySelectorAll(".sides figure")];

$("viewer").addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  const steps = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
  if (event.key === "+" || event.key === "=") zoom(1.2);
  else if (event.key === "-") zoom(1 / 1.2);
  else if (event.key === "0") zoom(0);
  else if (event.key === "PageDown") figures().forEach((figure) => figure.scroll(1));
  else if (event.key === "PageUp") figures().forEach((figure) => figure.scroll(-1));
  else if (steps[event.key] && event.shiftKey) figures().forEach((figure) => figure.level(-steps[event.key][0] / 2, -steps[event.key][1] / 2));
  else if (steps[event.key]) move(...steps[event.key]);
  else if (event.key === "h") $("viewer").querySelector(".heat-toggle")?.click();
  else if (event.key === "b") $("viewer").querySelector(".eyes:not([hidden])")?.click();
  else if (event.key === "n" && place + 1 < state.hits.length) compare(place + 1);
  else if (event.key === "p" && place > 0) compare(place - 1);
  else return;
  event.preventDefault();
});
