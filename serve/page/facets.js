// Conditions: what each column holds, to be ticked; and the condition itself, to be read and written.

import * as api from "./api.js";
import { $, h, shown, soon } from "./dom.js";
import { condition, state, tell } from "./state.js";
import { strings } from "./strings.js";

let latest = 0;

export async function showFacets() {
  const mine = ++latest;
  const whole = condition();
  let found;
  try {
    found = await api.facets(state.index.index, whole);
  } catch (error) {
    $("status").textContent = strings.failed(error.message);
    return;
  }
  if (mine !== latest) return;
  if (!state.columns.length) chooseColumns(found.facets.map((facet) => facet.column));
  const open = new Set([...$("facets").querySelectorAll("details[open]")].map((one) => one.dataset.column));
  $("facets").replaceChildren(...found.facets.map((facet) =>
    h("details", { open: open.has(facet.column) || facet.column in state.filters, data: { column: facet.column } },
      h("summary", {}, facet.column), facet.kind === "range" ? range(facet) : values(facet))));
  if (!$("where").matches(":focus")) $("where").value = state.where;
}

function values(facet) {
  const chosen = state.filters[facet.column] instanceof Set ? state.filters[facet.column] : new Set();
  const all = [...facet.values, ...(facet.missing ? [[null, facet.missing]] : [])];
  return h("div", { className: "values" },
    ...all.map(([value, count]) =>
      h("label", { className: "check" },
        h("input", { type: "checkbox", checked: chosen.has(value), onchange: (event) => {
          if (event.target.checked) chosen.add(value);
          else chosen.delete(value);
          state.filters[facet.column] = chosen;
          if (!chosen.size) delete state.filters[facet.column];
          tell("conditions");
        } }),
        h("span", { className: "name" }, value === null ? strings.missing : shown(value)), h("span", { className: "quiet" }, String(count)))),
    facet.more ? h("p", { className: "quiet" }, strings.further(facet.more)) : null);
}

function range(facet) {
  const chosen = state.filters[facet.column] || {};
  const number = typeof facet.low === "number";
  const field = (end, text) =>
    h("label", {}, text, h("input", { type: number ? "number" : "text", step: "any", value: chosen[end] ?? "", placeholder: shown(facet[end]),
      oninput: soon((event) => {
        const given = event.target.value.trim();
        const next = { ...(state.filters[facet.column] || {}) };
        if (given === "") delete next[end];
        else next[end] = number ? Number(given) : given;
        state.filters[facet.column] = next;
        if (!Object.keys(next).length) delete state.filters[facet.column];
        tell("conditions");
      }, 600) }));
  return h("div", { className: "range" }, field("low", strings.from), field("high", strings.to));
}

function chooseColumns(names) {
  const common = ["label", "diagnosis", "finding", "patient", "age", "sex", "laterality", "eye"];
  state.columns = names.filter((name) => common.includes(name.toLowerCase())).slice(0, 4);
  $("columns").replaceChildren(...names.map((name) => h("option", { value: name, selected: state.columns.includes(name) }, name)));
  $("columns").onchange = () => {
    state.columns = [...$("columns").selectedOptions].map((one) => one.value);
    tell("columns");
  };
}

$("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  state.where = $("where").value.trim();
  tell("conditions");
});
