// What the picture of the question may show, by the labels of the index, with its set, its promise, or why not.

import * as api from "./api.js";
import { $, h } from "./dom.js";
import { label, on, sideColumn, state, technical } from "./state.js";
import { strings } from "./strings.js";

let latest = 0;
let chosen = null;

// Columns whose values may be what a picture shows: some words, each of several rows.
export function labels() {
  const found = state.facets.filter((facet) => {
    if (technical(facet.column) || facet.column === state.index.group || facet.column === sideColumn()) return false;
    const words = facet.values.every(([value]) => typeof value === "string");
    return facet.kind === "values" && words && !facet.more && facet.values.length > 1 && facet.values[0][1] > 1;
  }).map((facet) => facet.column);
  return found.sort((one, other) => label(one) - label(other));
}

function offer() {
  const picture = state.parts.find((part) => part.kind === "upload");
  const names = picture && state.index ? labels() : [];
  $("named").hidden = !names.length;
  latest += 1;
  if (!names.includes(chosen)) chosen = names[0];
  if (names.length && $("named").open) name(picture, names);
}

async function name(picture, names) {
  const mine = ++latest;
  const box = $("named").querySelector("div");
  const select = h("select", { onchange: (event) => {
    chosen = event.target.value;
    name(picture, names);
  } }, ...names.map((one) => h("option", { value: one, selected: one === chosen }, one)));
  const head = h("label", { className: "quiet" }, strings.named_by, " ", select);
  const said = h("div", { aria: { live: "polite" } }, strings.searching);
  box.replaceChildren(head, said);
  try {
    const part = { upload: picture.value, ...(picture.crop ? { crop: picture.crop } : {}) };
    const found = await api.classify(state.index.index, { pictures: [part], by: chosen });
    if (mine === latest) said.replaceChildren(...answer(found.answers[0], found.notes));
  } catch (error) {
    if (mine === latest) said.replaceChildren(strings.failed(error instanceof api.Refused ? error.message : strings.gone));
  }
}

function answer(found, notes) {
  const percent = (share) => `${Math.round(100 * share)} %`;
  const bars = found.classes.map(({ label: what, probability }) =>
    h("li", {}, h("span", { className: "name" }, what), h("meter", { min: 0, max: 1, value: probability, aria: { label: what } }), h("span", {}, percent(probability))));
  return [
    found.abstain
      ? h("p", { className: "warn" }, h("strong", {}, strings.abstains), ` ${found.abstain}`)
      : h("p", {}, h("strong", {}, found.label)),
    h("ul", { className: "classes" }, ...bars),
    found.set ? h("p", {}, found.set.length ? strings.set(percent(1 - found.alpha), found.set.join(", ")) : strings.no_set) : null,
    found.promise ? h("p", { className: "quiet" }, found.promise) : null,
    found.calibrated ? null : h("p", { className: "warn" }, strings.uncalibrated),
    ...[found.note, ...notes].filter(Boolean).map((note) => h("p", { className: "quiet" }, note)),
    h("p", { className: "quiet" }, strings.no_diagnosis),
  ].filter(Boolean);
}

export function startNaming() {
  on("asked", offer);
  on("index", offer);
  $("named").addEventListener("toggle", offer);
}
