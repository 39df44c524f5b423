// What is picked goes into a set, with a label and the question that found it.

import * as api from "./api.js";
import { $, h } from "./dom.js";
import { heldAgain } from "./question.js";
import { clear, pick, picked } from "./select.js";
import { asking, on, request, state, tell } from "./state.js";
import { strings } from "./strings.js";

const MOST = 10_000; // rows of one request
let sets = []; // as the server lists them
const labels = new Set(); // those that were given or seen
let holder = null; // whose token it is, and what it may do
let fetched = null; // the index of which the names of sets were asked for

export const mayLabel = () => Boolean(holder?.may.includes("label"));

function show() {
  const bar = $("keep");
  const were = bar.hidden;
  if (!picked.size && bar.contains(document.activeElement)) $("answer").focus();
  bar.hidden = !picked.size;
  if (bar.hidden) return;
  const here = new Set(state.hits.map((hit) => hit.id));
  $("keep-count").textContent = strings.picked(picked.size, [...picked].filter((id) => !here.has(id)).length);
  if (were) {
    said("");
    if (state.set) $("keep-name").value = state.set.name;
    learn();
  }
  offer();
}

// Who may not save is told so before there is any work to be lost.
async function learn() {
  const index = state.index.index;
  try {
    [holder, sets] = await Promise.all([api.holder(), api.sets(index)]);
  } catch (error) {
    return said(refused(error), true);
  }
  fetched = index;
  $("set-names").replaceChildren(...sets.map((one) => h("option", { value: one.name })));
  offer();
  tell("holder");
  return undefined;
}

function offer() {
  const may = !holder || mayLabel();
  $("keep-fields").hidden = !may;
  $("keep-not").hidden = may;
  if (!may) $("keep-why").textContent = holder.read_only ? strings.keep_read_only : strings.keep_no_scope(holder.name);
  $("keep-token").hidden = Boolean(holder?.read_only);
  $("label-names").replaceChildren(...[...labels].map((label) => h("option", { value: label })));
  $("keep-out").hidden = !(state.set && !state.set.asked);
  // the question of a set that has one is not replaced unasked
  const box = $("keep-question");
  box.closest("label").hidden = !asking();
  const known = sets.find((one) => one.name === $("keep-name").value.trim());
  if (!box.dataset.touched) box.checked = !known?.asked;
}

function said(text, bad = false) {
  $("keep-said").textContent = text;
  $("keep-said").classList.toggle("alert", bad);
}

const refused = (error) => {
  if (!(error instanceof api.Refused || error instanceof TypeError)) throw error;
  return error instanceof api.Refused ? error.message : strings.gone_once;
};

// Send ids in requests that are not too large, one after another; the last answer is the set.
async function each(ids, send) {
  let found;
  for (let from = 0; from < ids.length; from += MOST) found = await send(ids.slice(from, from + MOST));
  return found;
}

async function work(doing, done) {
  $("keep").setAttribute("aria-busy", "true");
  said(strings.saving);
  try {
    await doing();
    clear();
    said("");
    $("keep-done").textContent = done;
    learn();
    tell("saved");
  } catch (error) {
    said(strings.not_saved(refused(error)), true);
    if (error.status === 403) learn();
  }
  $("keep").setAttribute("aria-busy", "false");
}

function save(event) {
  event.preventDefault();
  const index = state.index.index;
  const [name, label, ids] = [$("keep-name").value.trim(), $("keep-label").value.trim(), [...picked]];
  const asked = asking() && $("keep-question").checked;
  work(async () => {
    if (asked) await heldAgain(() => api.saveSet(index, name, { ids: ids.slice(0, MOST), question: request() }));
    // rows that are labelled join the set
    if (label) await each(ids, (some) => api.label(index, name, { ids: some, label }));
    else await each(asked ? ids.slice(MOST) : ids, (some) => api.saveSet(index, name, { ids: some }));
    if (label) labels.add(label);
    delete $("keep-question").dataset.touched;
  }, label ? strings.labelled(ids.length, label, name) : strings.saved(ids.length, name));
}

export function startKeeping() {
  $("keep").addEventListener("submit", save);
  $("keep-name").addEventListener("input", offer);
  $("keep-question").addEventListener("change", () => { $("keep-question").dataset.touched = "yes"; });
  $("keep-clear").addEventListener("click", clear);
  $("keep-all").addEventListener("click", () => pick(state.hits.map((hit) => hit.id)));
  $("keep-out").addEventListener("click", () => {
    const [name, ids] = [state.set.name, [...picked]];
    work(() => each(ids, (some) => api.removeFromSet(state.index.index, name, { ids: some })), strings.taken_out(ids.length, name));
  });
  $("keep-token").addEventListener("click", async () => {
    await api.anotherToken();
    learn();
  });
  $("keep").addEventListener("keydown", (event) => {
    if (event.key === "Escape") $("hits").querySelector(".picture")?.focus();
  });
  on("picked", () => {
    $("keep-done").textContent = "";
    show();
  });
  on("hits", show);
  on("contents", (contents) => {
    for (const { label } of contents.labels) labels.add(label);
    if (contents.labels.length) offer();
  });
  on("index", () => {
    if (fetched !== null) learn();
  });
}

// What may be done with sets is known once somebody looks at one.
export const learned = async () => {
  if (!holder) await learn();
};
