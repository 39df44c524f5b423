// Pictures that are picked, by click, Shift and keys or on the map; they stay picked from question to question.

import { h } from "./dom.js";
import { on, state, tell } from "./state.js";
import { strings } from "./strings.js";

export const picked = new Set(); // ids, in the order of the clicks
let last = 0; // the place from which Shift goes on
let mapped = []; // what was taken on the map, which the next line around points replaces

export function pick(ids, now = true) {
  for (const id of ids) {
    if (now) picked.add(id);
    else picked.delete(id);
  }
  tell("picked");
}

export function clear() {
  mapped = [];
  pick([...picked], false);
}

// Pick a hit or let it go; with `range` all from the last one to it, as this one is to be.
export function toggle(place, range) {
  const now = !picked.has(state.hits[place].id);
  const from = range ? Math.min(last, state.hits.length - 1) : place;
  pick(state.hits.slice(Math.min(from, place), Math.max(from, place) + 1).map((hit) => hit.id), now);
  last = place;
}

// By keys: the hit that was left and the one that was reached.
export function extend(from, to) {
  pick(state.hits.slice(Math.min(from, to), Math.max(from, to) + 1).map((hit) => hit.id));
  last = to;
}

export function box(hit, place) {
  const input = h("input", { type: "checkbox", checked: picked.has(hit.id), tabIndex: -1, aria: { label: strings.pick(hit.id) },
    onclick: (event) => toggle(place, event.shiftKey) });
  return h("label", { className: "pick", title: strings.pick_title }, input);
}

document.addEventListener("retr:selected", ({ detail }) => {
  if (detail.index !== state.index.index) return;
  for (const id of mapped) picked.delete(id);
  mapped = detail.ids;
  pick(mapped);
});
on("index", clear);
