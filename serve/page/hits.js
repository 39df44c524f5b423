// The answer: pictures with rank, similarity and columns, and what to know of them before anything else.

import * as api from "./api.js";
import { $, h, shown } from "./dom.js";
import { addRow } from "./question.js";
import { on, state } from "./state.js";
import { strings } from "./strings.js";
import { compare } from "./viewer.js";

let mine = null;
const urls = [];

export function showHits() {
  mine?.abort();
  mine = new AbortController();
  for (const url of urls.splice(0)) URL.revokeObjectURL(url);
  const asked = state.parts.length > 0;
  $("status").textContent = state.hits.length
    ? asked ? strings.found(state.hits.length, false) : strings.start(state.index.rows)
    : strings.empty;
  const said = [state.note, state.exact ? null : strings.approximate].filter(Boolean).join("; ");
  $("note").textContent = said;
  $("note").hidden = !said;
  $("more").hidden = state.hits.length < state.k || state.k >= 1000;
  $("hits").replaceChildren(...state.hits.map(card));
}

function card(hit, place) {
  const image = h("img", { alt: "", loading: "lazy" });
  const facts = state.columns.filter((name) => shown(hit[name]) !== "");
  const score = hit.score === undefined ? null : hit.score.toFixed(3);
  const open = h("button", { type: "button", className: "picture", data: { place },
    aria: { label: score ? strings.hit(hit.rank, hit.id, score) : hit.id }, onclick: () => compare(place) }, image);
  // below the picture: who it is, then what can be done with it
  const element = h("li", { className: "hit" }, open,
    h("p", { className: "facts" },
      score ? h("strong", {}, `${hit.rank}`) : null, score ? h("span", { className: "score" }, score) : null,
      h("span", { className: "id", title: hit.id }, hit.id)),
    facts.length ? h("p", { className: "facts" }, ...facts.map((name) => h("span", { title: name }, shown(hit[name])))) : null,
    h("div", { className: "do" },
      ...(score ? [mark(hit, strings.like, 0.5, "+"), mark(hit, strings.unlike, -0.5, "−")] : []),
      h("button", { type: "button", onclick: () => addRow(hit.id, null) }, strings.ask_with)));
  api.rowPicture(state.index.index, hit.id, 320, mine.signal)
    .then((url) => {
      urls.push(url);
      image.src = url;
    })
    .catch(() => {
      if (!mine.signal.aborted) open.append(h("span", { className: "quiet" }, strings.no_picture));
    });
  return element;
}

const mark = (hit, text, weight, sign) =>
  h("button", { type: "button", title: text, aria: { label: `${text}: ${hit.id}` }, onclick: () => addRow(hit.id, weight) }, sign);

// Arrows go from hit to hit, as in a folder of pictures.
$("hits").addEventListener("keydown", (event) => {
  const buttons = [...$("hits").querySelectorAll(".picture")];
  const at = buttons.indexOf(document.activeElement);
  if (at < 0) return;
  const across = buttons.filter((one) => one.getBoundingClientRect().top === buttons[0].getBoundingClientRect().top).length;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -at, End: buttons.length - 1 - at }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  buttons[Math.min(buttons.length - 1, Math.max(0, at + by))].focus();
});

on("columns", showHits);
