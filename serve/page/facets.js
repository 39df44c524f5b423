// Conditions: what each column holds, to be ticked; and the condition itself, to be read and written.

import * as api from "./api.js";
import { $, h, refill, shown, soon } from "./dom.js";
import { condition, label, on, state, technical, tell, unfilter } from "./state.js";
import { strings } from "./strings.js";

let latest = 0;

// The facets of the whole index tell which values there are; those under the conditions how many rows each would give.
export async function openFacets() {
  const { facets, texts } = await api.facets(state.index.index);
  Object.assign(state, { facets, texts });
}

export async function showFacets() {
  const mine = ++latest;
  const name = state.index.index;
  const whole = condition();
  if (!$("where").matches(":focus")) $("where").value = whole;
  const filtered = Object.keys(state.filters);
  // a column's own ticks do not count for it: a second value can be ticked beside the first
  const [all, ...own] = await Promise.all([whole, ...filtered.map(condition)].map((where) => api.facets(name, where)));
  if (mine !== latest) return;
  const now = new Map(all.facets.map((facet) => [facet.column, facet]));
  filtered.forEach((column, at) => now.set(column, own[at].facets.find((facet) => facet.column === column)));
  const open = new Set([...$("facets").querySelectorAll("details[open]")].map((one) => one.dataset.column));
  const shownOf = (facet) => one(facet, now.get(facet.column), open);
  const useful = state.facets.filter((facet) => tells(facet) || facet.column in state.filters).sort((one, other) => order(one) - order(other));
  const rest = state.facets.filter((facet) => !useful.includes(facet));
  refill($("facets"), [...useful.map(shownOf), ...(rest.length
    ? [h("details", { open: open.has(""), data: { column: "" } }, h("summary", { className: "quiet" }, strings.further_columns(rest.length)), ...rest.map(shownOf))]
    : [])]);
}

// Whether a column can tell pictures apart, by something a person would ask for.
function tells(facet) {
  if (technical(facet.column)) return false;
  if (facet.kind === "range") return facet.low !== facet.high;
  return facet.values.length + (facet.missing ? 1 : 0) > 1;
}

// What a picture shows comes first, the folder that it lies in and columns of many values last.
const order = (facet) => (facet.more || facet.column === "folder" ? 99 : label(facet.column));

function one(facet, now, open) {
  const chosen = state.filters[facet.column];
  const first = !open.size && label(facet.column) < 90;
  return h("details", { open: first || open.has(facet.column) || chosen !== undefined, data: { column: facet.column } },
    h("summary", {}, facet.column), facet.kind === "range" ? range(facet) : values(facet, now, chosen || new Set()));
}

function values(facet, now, chosen) {
  const counts = new Map(now?.kind === "values" ? now.values : []);
  const all = [...facet.values.map(([value]) => [value, counts.get(value) ?? 0]), ...(facet.missing ? [[null, now?.missing ?? 0]] : [])];
  return h("div", { className: "values", role: "group", aria: { label: facet.column } },
    ...all.map(([value, count]) =>
      h("label", { className: count ? "check" : "check none" },
        h("input", { type: "checkbox", checked: chosen.has(value), data: { value: JSON.stringify([facet.column, value]) }, onchange: (event) => {
          if (event.target.checked) state.filters[facet.column] = chosen.add(value);
          else unfilter(facet.column, value);
          tell("conditions");
        } }),
        h("span", { className: "name" }, value === null ? strings.missing : shown(value)), h("span", { className: "quiet" }, count.toLocaleString("en")))),
    facet.more ? h("p", { className: "quiet" }, strings.further(facet.more)) : null);
}

function range(facet) {
  const chosen = state.filters[facet.column] || {};
  const number = typeof facet.low === "number";
  const field = (end, text) =>
    h("label", {}, text, h("input", { type: number ? "number" : "text", step: "any", value: chosen[end] ?? "", placeholder: shown(facet[end]),
      data: { value: JSON.stringify([facet.column, end]) },
      oninput: soon((event) => {
        const given = event.target.value.trim();
        state.filters[facet.column] = { ...(state.filters[facet.column] || {}), [end]: number ? Number(given) : given };
        if (given === "") unfilter(facet.column, end);
        tell("conditions");
      }, 600) }));
  return h("div", { className: "range" }, field("low", strings.from), field("high", strings.to));
}

$("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  const written = $("where").value.trim();
  if (written === condition()) return;
  Object.assign(state, { where: written, filters: {} });
  tell("conditions");
});

// beside the answer there is room for them; on a phone they would push it away
const wide = matchMedia("(min-width: 48.01rem)");
const fold = () => { $("conditions").open = wide.matches; };
wide.addEventListener("change", fold);
fold();

on("index", () => $("facets").replaceChildren());
