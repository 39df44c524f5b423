// Hits marked as right or wrong: each mark moves the question, and takes its picture out of the answer.

import { $, h, refill } from "./dom.js";
import { asking, LIKE, marked, on, PAGE, state, tell, UNLIKE } from "./state.js";
import { strings } from "./strings.js";
import { thumbnail } from "./thumbnail.js";

// Who marks is done with what they see, and wants to see others.
const MOST = 5000;

export function mark(id, sign) {
  if (asking()) for (const hit of state.hits) if (state.seen.size < MOST) state.seen.add(hit.id);
  state.marks.set(id, sign);
  state.k = PAGE;
  changed();
}

function changed() {
  tell("parts");
  tell("asked");
}

function showMarks() {
  // wrong ones alone are no question
  if (!asking()) state.marks.clear();
  if (!state.marks.size) state.seen.clear();
  const kinds = [[LIKE, "like", strings.right], [UNLIKE, "unlike", strings.wrong]].filter(([sign]) => marked(sign).length);
  $("marks").hidden = !kinds.length;
  refill($("marks"), [
    ...kinds.map(([sign, name, text]) =>
      h("div", { className: `marked ${name}`, role: "group", aria: { label: text } }, h("p", {}, text),
        h("ul", {}, ...marked(sign).map((id) => h("li", {}, shown(id, text)))))),
    kinds.length ? h("button", { type: "button", onclick: () => take([...state.marks.keys()]) }, strings.unmark) : ""]);
}

function shown(id, text) {
  return h("button", { type: "button", title: id, aria: { label: strings.remove(`${text}: ${id}`) }, onclick: () => take([id]) },
    thumbnail(id, 96), h("span", { aria: { hidden: true } }, "×"));
}

function take(ids) {
  for (const id of ids) state.marks.delete(id);
  changed();
  ($("marks").querySelector("button") || $("answer")).focus();
}

on("parts", showMarks);
on("index", showMarks);
