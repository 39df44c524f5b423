// The conditions in force, each taken away by one click.

import { $, h, refill, shown } from "./dom.js";
import { asking, on, state, tell, unfilter } from "./state.js";
import { strings } from "./strings.js";

function chips() {
  const found = [];
  for (const [name, chosen] of Object.entries(state.filters)) {
    if (chosen instanceof Set) {
      for (const value of chosen) found.push([strings.chip(name, value === null ? strings.missing : shown(value)), () => unfilter(name, value)]);
    } else {
      if (chosen.low !== undefined) found.push([strings.at_least(name, shown(chosen.low)), () => unfilter(name, "low")]);
      if (chosen.high !== undefined) found.push([strings.at_most(name, shown(chosen.high)), () => unfilter(name, "high")]);
    }
  }
  if (state.where) found.push([state.where, () => { state.where = ""; }]);
  const group = state.index?.group;
  if (group && asking() && !state.set) {
    if (state.excludeSame) found.push([strings.exclude_patient(group), () => { state.excludeSame = false; }]);
    if (state.onePer && !state.item) found.push([strings.one_per(group), () => { state.onePer = false; }]);
  }
  return found;
}

export function showChips() {
  const found = chips();
  const count = found.length;
  if (state.set) found.unshift([strings.chip_set(state.set.name), () => { state.set = null; }]);
  $("chips").hidden = !found.length;
  $("conditions-count").textContent = count ? strings.in_force(count) : "";
  const changed = (take) => () => {
    take();
    tell("conditions");
    ($("chips").querySelector("button") || $("answer")).focus();
  };
  const all = () => found.forEach(([, take]) => take());
  refill($("chips"), [
    ...found.map(([text, take]) =>
      h("li", {}, h("button", { type: "button", className: "chip", aria: { label: strings.remove(text) }, onclick: changed(take) },
        h("span", {}, text), h("span", { aria: { hidden: true } }, "×")))),
    ...(found.length > 1 ? [h("li", {}, h("button", { type: "button", onclick: changed(all) }, strings.clear_all))] : [])]);
}

on("conditions", showChips);
on("asked", showChips);
on("index", showChips);
