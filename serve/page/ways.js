// How a question is answered: in which columns its words are looked for, what they weigh beside pictures, and whether
// pictures or whole cases answer.

import { $, h, refill } from "./dom.js";
import { asking, cases, inParts, LIKE, marked, mixed, on, state, tell, worded } from "./state.js";
import { strings } from "./strings.js";

const REPORTS = ["findings", "impression", "report", "caption", "text", "description"];
const AROUND = 40; // characters that are shown before and behind the words
const MOST = 240;

// Where nothing embeds words, they are looked for in reports, so that the field for them is of use.
export function openWays() {
  const texts = state.texts;
  const reports = texts.filter((name) => REPORTS.includes(name.toLowerCase()));
  Object.assign(state, { wordsIn: state.index.text ? [] : reports.length ? reports : texts.slice(0, texts.length === 1 ? 1 : 0), fuse: 0.5, item: null, regions: false });
}

function changed(asks) {
  tell("parts");
  if (asks) tell("asked");
}

function columns() {
  const among = (name) => h("label", { className: "check" },
    h("input", { type: "checkbox", checked: state.wordsIn.includes(name), onchange: (event) => {
      state.wordsIn = state.texts.filter((other) => (other === name ? event.target.checked : state.wordsIn.includes(other)));
      changed(state.parts.some((part) => part.kind === "text"));
    } }), h("span", { className: "name" }, name));
  return h("fieldset", { disabled: Boolean(state.item) }, h("legend", {}, strings.words_in),
    h("div", { className: "values" }, ...state.texts.map(among)),
    h("p", { className: "quiet" }, state.item ? strings.words_not_in_cases : strings.words_in_help));
}

function fusing() {
  const said = h("output", {}, strings.fused(state.fuse));
  return h("label", { className: "fusing" }, h("span", {}, strings.fuse),
    h("input", { type: "range", min: 0, max: 1, step: 0.05, value: state.fuse,
      oninput: (event) => { said.textContent = strings.fused(Number(event.target.value)); },
      onchange: (event) => {
        state.fuse = Number(event.target.value);
        changed(true);
      } }), said);
}

function comparing() {
  return h("div", {}, h("label", { className: "check" },
    h("input", { type: "checkbox", checked: state.regions, disabled: Boolean(state.item) || worded(), onchange: (event) => {
      state.regions = event.target.checked;
      changed(asking());
    } }), h("span", { className: "name" }, strings.in_regions)),
    h("p", { className: "quiet" }, strings.in_regions_help));
}

// Marks move a question that is one vector, and a case's is several: what was right is asked with where nothing else is.
function unmark() {
  if (!state.parts.length) state.parts = marked(LIKE).map((value) => ({ kind: "id", value, weight: 1 }));
  state.marks.clear();
  state.seen.clear();
}

function answering(kinds) {
  const select = h("select", { onchange: () => {
    state.item = select.value || null;
    if (state.item) unmark();
    changed(asking());
  } }, ...[["", strings.pictures_answer], ...kinds.map((kind) => [kind, strings.item[kind] || kind])].map(([value, text]) =>
    h("option", { value, selected: value === (state.item || "") }, text)));
  return h("label", { className: "answering" }, h("span", {}, strings.answer_with), select);
}

function show() {
  const kinds = state.index ? cases() : [];
  const parts = Boolean(state.index?.regions);
  $("ways").hidden = !state.texts.length && !kinds.length && !parts;
  $("ways-now").textContent = [worded() || state.wordsIn.length && !state.item ? state.wordsIn.join(", ") : "", state.item ? strings.item[state.item] || state.item : "", inParts() ? strings.in_regions_now : ""].filter(Boolean).join("; ");
  refill($("ways-fields"), [state.texts.length ? columns() : null, worded() && mixed() ? fusing() : null, parts ? comparing() : null, kinds.length ? answering(kinds) : null]);
}

// Of a hit by words: the part of its texts in which they stand, each marked. Places are counted in characters.
export function found(hit, spans) {
  return Object.entries(spans || {}).map(([name, places]) => {
    const text = [...String(hit[name] ?? hit[`${name}_meta`] ?? "")];
    const begin = Math.max(0, places[0][0] - AROUND);
    const end = Math.max(Math.min(places.at(-1)[1] + AROUND, begin + MOST, text.length), places[0][1]);
    const pieces = [begin ? "… " : ""];
    let at = begin;
    for (const [start, stop] of places.filter((one) => one[1] <= end)) {
      pieces.push(text.slice(at, start).join(""), h("mark", {}, text.slice(start, stop).join("")));
      at = stop;
    }
    pieces.push(text.slice(at, end).join(""), end < text.length ? " …" : "");
    return h("p", { className: "found" }, h("span", { className: "quiet" }, `${name}: `), ...pieces);
  });
}

on("parts", show);
on("index", show);
