// The answer: pictures with rank, similarity and columns, and what to know of them before anything else.

import * as api from "./api.js";
import { $, h, named, shown } from "./dom.js";
import { mark } from "./marks.js";
import { askWith } from "./question.js";
import { outline, regionOf } from "./regions.js";
import { box, extend, picked, toggle } from "./select.js";
import { labelsOf } from "./sets.js";
import { asking, condition, LIKE, marked, on, state, technical, tell, UNLIKE } from "./state.js";
import { strings } from "./strings.js";
import { thumbnail } from "./thumbnail.js";
import { compare, look } from "./viewer.js";
import { found } from "./ways.js";

let mine = null;
const urls = [];

export function showHits() {
  mine?.abort();
  mine = new AbortController();
  for (const url of urls.splice(0)) URL.revokeObjectURL(url);
  const asked = state.set ? state.set.asked : asking();
  const at = pictures().indexOf(document.activeElement?.closest(".hit")?.querySelector(".picture"));
  const atMore = document.activeElement === $("more");
  $("answer-title").textContent = state.set ? strings.set_title(state.set.name) : asked ? (state.matched ? strings.answer_cases : state.weights ? strings.answer_fused : state.highlights ? strings.answer_words : state.hits.some(regionOf) ? strings.answer_regions : strings.answer) : strings.own;
  $("status").textContent = counted(asked);
  $("problem").hidden = true;
  trust(asked);
  $("more").hidden = state.hits.length < state.k || state.k >= 1000;
  $("before").hidden = !state.before;
  $("before").textContent = state.before ? strings.seen_before(state.before.hits.length) : "";
  $("hits").replaceChildren(...state.hits.map(card));
  // who marks by keys goes on where they were
  tell("hits");
  if (at >= 0) (pictures()[Math.min(at, state.hits.length - 1)] || $("answer")).focus();
  else if (atMore && $("more").hidden) (pictures().at(-1) || $("answer")).focus();
}

// What was seen before goes behind what was not, at its own rank.
$("before").addEventListener("click", () => {
  const { hits, highlights } = state.before;
  const from = state.hits.length;
  Object.assign(state, { hits: [...state.hits, ...hits], highlights: highlights && [...state.highlights, ...highlights], before: null });
  showHits();
  $("more").hidden = true;
  (pictures()[from] || $("answer")).focus();
});

const pictures = () => [...$("hits").querySelectorAll(".picture")];

function counted(asked) {
  if (state.set && !asked) return strings.set_shown(state.hits.length, state.total);
  const marks = state.marks.size ? ` ${strings.marked(marked(LIKE).length, marked(UNLIKE).length)}` : "";
  if (state.hits.length && state.matched) return strings.found_cases(state.hits.length);
  const fresh = state.hits.filter((hit) => !state.seen.has(hit.id)).length;
  if (asked && state.seen.size && state.hits.length) return strings.found_unseen(fresh) + marks;
  if (state.hits.length) return asked ? strings.found(state.hits.length) + marks : strings.start(state.hits.length, state.total);
  return condition() ? strings.empty : strings.empty_index;
}

// How far the answer can be trusted, above the first picture: what the index says, else that nothing was left out.
function trust(asked) {
  const warn = [state.note, state.exact ? null : strings.approximate].filter(Boolean);
  const box = $("trust");
  box.hidden = !asked || (!state.hits.length && !warn.length);
  box.className = warn.length ? "warn" : "calm";
  box.replaceChildren(h("strong", {}, warn.length ? strings.trust_warn : strings.trust_calm), " ", warn.length ? warn.join("; ") : strings.exact);
}

function card(hit, place) {
  const image = h("img", { alt: "", draggable: false });
  const facts = (state.columns || []).filter((name) => shown(hit[name]) !== "");
  const parts = state.matched?.[place];
  const score = hit.score === undefined ? null : state.highlights ? hit.score.toPrecision(3) : hit.score.toFixed(3);
  const meaning = state.weights ? strings.fused_score : state.highlights ? strings.words_score : parts ? strings.case_score : strings.similarity;
  const open = h("button", { type: "button", className: "picture", data: { place, id: hit.id }, title: strings.compare,
    aria: { label: !score ? hit.id : state.highlights || parts ? strings.hit_scored(hit.rank, hit.id, score) : strings.hit(hit.rank, hit.id, score) },
    onclick: () => compare(place) }, image, outline(hit));
  // below the picture: who it is, then what can be done with it
  const fresh = state.set?.fresh?.has(hit.id);
  const element = h("li", { className: picked.has(hit.id) ? "hit picked" : "hit" }, open, box(hit, place),
    h("p", { className: "facts" },
      // its id may be a patient's number: a case is known by its rank
      score ? h("strong", { title: strings.rank }, parts ? strings.case_number(hit.rank) : `${hit.rank}`) : null,
      score ? h("span", { className: "score", title: meaning }, score) : null,
      fresh ? h("strong", { className: "fresh" }, strings.fresh_one) : null,
      state.seen.has(hit.id) ? h("span", { className: "quiet" }, strings.seen_one) : null, named(hit.id)),
    labelsOf(hit.id), ...found(hit, state.highlights?.[place]), parts ? matches(parts) : null,
    facts.length ? h("p", { className: "facts" }, ...facts.map((name) => h("span", { title: name }, shown(hit[name])))) : null,
    h("div", { className: "do" },
      // marks move a question that is one vector
      parts || state.item ? null : marking(hit, strings.like, LIKE, strings.like_short),
      score && !parts && !state.item ? marking(hit, strings.unlike, UNLIKE, strings.unlike_short) : null,
      h("button", { type: "button", className: "ask", aria: { label: `${strings.ask_with}: ${hit.id}` }, onclick: () => askWith("id", hit.id) }, strings.ask_with)));
  shape(element, hit.width, hit.height);
  image.addEventListener("load", () => shape(element, image.naturalWidth, image.naturalHeight));
  api.rowPicture(state.index.index, hit.id, 400, mine.signal)
    .then((url) => {
      urls.push(url);
      image.src = url;
    })
    .catch(() => {
      if (!mine.signal.aborted) open.append(h("span", { className: "quiet" }, strings.no_picture));
    });
  return element;
}

// The parts of a case that are most like the question's, each once, the best first.
const PARTS = 5;
function matches(parts) {
  const once = [...new Map([...parts].reverse().map((one) => [one.id, one])).values()].reverse().slice(0, PARTS);
  return h("ul", { className: "matches", aria: { label: strings.matches } }, ...once.map(({ part, id, score }) =>
    h("li", {}, h("button", { type: "button", title: strings.match(part, id, score.toFixed(3)), aria: { label: strings.match(part, id, score.toFixed(3)) },
      onclick: () => api.row(state.index.index, id).then(look).catch(() => {}) }, thumbnail(id, 96), h("span", {}, score.toFixed(2))))));
}

// A row of the grid is as high as its pictures, each as wide as its own shape asks.
function shape(element, width, height) {
  if (!(width > 0 && height > 0)) return;
  element.style.setProperty("--shape", Math.min(2.2, Math.max(0.6, width / height)));
}

const marking = (hit, text, sign, shown) =>
  h("button", { type: "button", title: text, aria: { label: `${text}: ${hit.id}` }, onclick: () => mark(hit.id, sign) }, shown);

// Arrows go from hit to hit, as in a folder of pictures; keys do what the buttons beneath do.
$("hits").addEventListener("keydown", (event) => {
  const buttons = pictures();
  const at = buttons.indexOf(document.activeElement);
  if (at < 0 || event.altKey) return;
  if ((event.ctrlKey || event.metaKey) && event.key === "a") {
    extend(0, buttons.length - 1);
    event.preventDefault();
  }
  if (event.ctrlKey || event.metaKey) return;
  const hit = state.hits[at];
  if (event.key === "+" && !state.matched && !state.item) mark(hit.id, LIKE);
  else if (event.key === "-" && !state.matched && !state.item && hit.score !== undefined) mark(hit.id, UNLIKE);
  else if (event.key === "a") askWith("id", hit.id);
  else if (event.key === "s") toggle(at, false);
  else {
    const across = buttons.filter((one) => one.getBoundingClientRect().top === buttons[0].getBoundingClientRect().top).length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -at, End: buttons.length - 1 - at }[event.key];
    if (by === undefined) return;
    const next = Math.min(buttons.length - 1, Math.max(0, at + by));
    buttons[next].focus();
    if (event.shiftKey) extend(at, next);
  }
  event.preventDefault();
});

const COMMON = ["label", "diagnosis", "finding", "patient", "age", "sex", "laterality", "eye"];

export function showColumns() {
  const names = state.facets.map((facet) => facet.column).filter((name) => !technical(name));
  state.columns ??= names.filter((name) => COMMON.includes(name.toLowerCase())).slice(0, 4);
  $("columns").replaceChildren(...names.map((name) => h("label", { className: "check" },
    h("input", { type: "checkbox", checked: state.columns.includes(name), onchange: (event) => {
      state.columns = names.filter((other) => (other === name ? event.target.checked : state.columns.includes(other)));
      tell("columns");
    } }), name)));
}

on("columns", showHits);
on("hits-again", showHits);
on("picked", () => pictures().forEach((button) => {
  const now = picked.has(button.dataset.id);
  button.closest(".hit").classList.toggle("picked", now);
  button.closest(".hit").querySelector(".pick input").checked = now;
}));
