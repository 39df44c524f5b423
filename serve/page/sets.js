// Sets that people made: listed, looked at, asked again on today's archive, and handed on.

import * as api from "./api.js";
import { $, h, refill, shown } from "./dom.js";
import { learned, mayLabel } from "./keep.js";
import { answered, condition, on, PAGE, state, tell } from "./state.js";
import { strings } from "./strings.js";

const EVERY = 4000; // how often a set that is looked at is compared with the server's, in ms
const date = (text) => new Date(text).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
const words = (error) => {
  if (!(error instanceof api.Refused || error instanceof TypeError)) throw error;
  return error instanceof api.Refused ? error.message : strings.gone_once;
};

// What is shown of a set in place of an answer: its pictures, or what its question finds today.
export async function ofSet(signal) {
  const { index: { index }, set, k } = state;
  const contents = await api.set(index, set.name, signal);
  Object.assign(set, { contents, fresh: new Set(), seen: mark(contents) });
  tell("contents", contents);
  if (set.asked) {
    const { answer, fresh, version } = await api.askedAgain(index, set.name, signal);
    Object.assign(set, { fresh: new Set(fresh), version });
    return { ...answered(answer), total: answer.hits.length };
  }
  const found = await api.setRows(index, set.name, condition(), 0, k, signal);
  return { ...answered({ hits: found.rows }), total: found.total };
}

// Labels of a row of the set that is shown, each taken away by a click.
export function labelsOf(id) {
  const given = state.set?.contents?.labels.filter((label) => label.id === id) || [];
  if (!given.length) return null;
  return h("p", { className: "facts labels" }, ...given.map(({ label, author, time }) => {
    const title = strings.label_by(author, date(time));
    if (!mayLabel()) return h("span", { className: "chip", title }, label);
    return h("button", { type: "button", className: "chip", title, aria: { label: strings.unlabel(label, id) }, onclick: () => change(() =>
      api.label(state.index.index, state.set.name, { ids: [id], label, remove: true })) }, label, h("span", { aria: { hidden: true } }, "×"));
  }));
}

async function change(doing) {
  try {
    await doing();
    tell("set");
  } catch (error) {
    $("set-said").textContent = words(error);
  }
}

export function show(name, asked = false) {
  $("sets").close();
  state.set = { name, asked };
  state.k = PAGE;
  tell("set");
  $("answer").focus();
}

export function leave() {
  state.set = null;
  tell("set");
}

// Who made the set, what found it, and what can be done with it; above its pictures.
function head() {
  const { set } = state;
  // who was in it goes on at what is shown in its place
  if (!set?.contents && $("set").contains(document.activeElement)) $("answer").focus();
  $("set").hidden = !set?.contents;
  if (!set) delete $("set").dataset.of;
  if (!set?.contents) return;
  const { contents, asked, fresh, version } = set;
  const { name, question } = contents;
  const button = (text, onclick, more = {}) => h("button", { type: "button", onclick, ...more }, text);
  const lost = [contents.missing.length ? strings.set_missing(contents.missing.length) : "", contents.changed.length ? strings.set_changed(contents.changed.length) : ""];
  // what was just said of this set, or is asked, stays when others change it
  const said = $("set").dataset.of === name ? $("set-said") : h("p", { id: "set-said", role: "status", className: "said" });
  $("set").dataset.of = name;
  refill($("set"), [
    ...[contents.note ? h("p", {}, contents.note) : null,
      h("p", { className: "quiet" }, strings.set_of(contents.author, date(contents.updated)), question ? ` ${strings.set_asked(question.asked)}` : ""),
      lost.some(Boolean) ? h("p", { className: "warn" }, lost.filter(Boolean).join(" ")) : null,
      asked ? h("p", { className: "calm" }, strings.fresh(fresh.size, question.version, version)) : null].filter(Boolean),
    h("div", { className: "line" },
      asked ? button(strings.set_rows, () => show(name)) : question ? button(strings.set_ask, () => show(name, true), { className: "first" }) : "",
      h("span", { className: "quiet" }, strings.hand_on),
      ...["csv", "parquet", "zip"].map((form) => button(strings.export[form], () => hand(name, form), { title: strings.export_title[form] })),
      mayLabel() ? button(strings.set_drop, () => drop(name, contents.ids.length)) : "",
      button(strings.set_leave, leave)),
    said], () => $("answer"));
}

async function hand(name, form) {
  $("set-said").textContent = strings.exporting;
  try {
    const blob = await api.setFile(state.index.index, name, form);
    const link = h("a", { href: URL.createObjectURL(blob), download: `${name}.${form}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    $("set-said").textContent = strings.exported(`${name}.${form}`);
  } catch (error) {
    $("set-said").textContent = strings.failed(words(error));
  }
}

// A second click, so that no set goes by a slip.
function drop(name, count) {
  const sure = h("button", { type: "button", className: "alert", onclick: () => change(async () => {
    await api.dropSet(state.index.index, name);
    state.set = null;
  }) }, strings.set_drop_sure(name, count));
  $("set-said").replaceChildren(sure);
  sure.focus();
}

const mark = ({ rows, labelled, updated, note }) => JSON.stringify([rows, labelled, updated, note]);

// What others do to the set that is looked at comes by itself.
async function watch() {
  const { set, index } = state;
  if (set?.contents && !document.hidden && !document.querySelector("dialog[open]") && $("answer").getAttribute("aria-busy") === "false") {
    const all = await api.sets(index.index).catch(() => null);
    const now = all?.find((one) => one.name === set.name);
    if (all && set === state.set && (!now || mark(now) !== set.seen)) {
      if (!now) state.set = null;
      tell("set");
      if (!now) $("keep-done").textContent = strings.set_gone(set.name);
    }
  }
  setTimeout(watch, EVERY);
}

async function list() {
  const dialog = $("sets");
  const body = h("div", { role: "status" }, strings.searching);
  dialog.replaceChildren(
    h("div", { className: "bar" }, h("h2", { id: "sets-title" }, strings.sets),
      h("button", { type: "button", onclick: () => dialog.close() }, strings.close)),
    body, h("p", { className: "quiet" }, strings.sets_help));
  if (!dialog.open) dialog.showModal();
  try {
    const [all] = await Promise.all([api.sets(state.index.index), learned()]);
    all.sort((one, other) => other.updated.localeCompare(one.updated));
    body.replaceChildren(all.length ? h("ul", { className: "named-sets" }, ...all.map(summary)) : h("p", {}, strings.sets_none));
    body.querySelector("button")?.focus();
  } catch (error) {
    body.replaceChildren(strings.failed(words(error)));
  }
}

function summary({ name, rows, labelled, author, updated, note, asked }) {
  return h("li", {},
    h("button", { type: "button", onclick: () => show(name) }, name),
    h("span", {}, strings.set_rows_of(rows, labelled)),
    h("span", { className: "quiet" }, strings.set_of(author, date(updated))),
    note ? h("p", {}, note) : null,
    asked ? h("p", { className: "quiet" }, strings.set_asked(shown(asked)), " ",
      h("button", { type: "button", aria: { label: `${strings.set_ask}: ${name}` }, onclick: () => show(name, true) }, strings.set_ask)) : null);
}

export function startSets() {
  $("sets-open").addEventListener("click", list);
  on("hits", head);
  on("holder", () => {
    if (state.set) tell("hits-again");
  });
  on("saved", () => {
    if (state.set) tell("set");
  });
  watch();
}
