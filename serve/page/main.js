// The page: which index is asked, when a question is sent, and what is said while it is on its way.

import * as api from "./api.js";
import { showChips } from "./chips.js";
import { startNaming } from "./classify.js";
import { $, h } from "./dom.js";
import { openFacets, showFacets } from "./facets.js";
import { showColumns, showHits } from "./hits.js";
import { startKeys } from "./keys.js";
import { startKeeping } from "./keep.js";
import { startMap } from "./map.js";
import { heldAgain, startQuestion } from "./question.js";
import { ofSet, startSets } from "./sets.js";
import { answered, condition, on, PAGE, request, state, tell, unseen } from "./state.js";
import { fill, strings } from "./strings.js";
import { openWays } from "./ways.js";

let onItsWay = null;

async function ask() {
  onItsWay?.abort();
  const mine = (onItsWay = new AbortController());
  const body = request();
  document.body.dataset.asked = body || state.set ? "yes" : "no";
  $("answer").setAttribute("aria-busy", "true");
  $("status").textContent = strings.searching;
  try {
    if (state.set) Object.assign(state, await ofSet(mine.signal));
    else if (body) {
      const { answers } = await heldAgain(() => api.search(state.index.index, { ...request(), k: state.k + state.seen.size }, mine.signal));
      Object.assign(state, state.seen.size ? unseen(answers[0]) : answered(answers[0]));
    } else {
      const found = await api.rows(state.index.index, condition(), 0, state.k, mine.signal);
      Object.assign(state, answered({ hits: found.rows }), { total: found.total });
    }
    showHits();
  } catch (error) {
    if (mine.signal.aborted) return;
    failed(error, ask);
  }
  if (mine === onItsWay) $("answer").setAttribute("aria-busy", "false");
}

// What went wrong, in words, in place of an answer; a server that is away is asked again.
function failed(error, again) {
  const refused = error instanceof api.Refused;
  Object.assign(state, answered({ hits: [] }));
  if (refused) showHits();
  $("status").textContent = "";
  $("trust").hidden = true;
  $("problem").textContent = refused ? strings.failed(error.message) : strings.gone;
  $("problem").hidden = false;
  if (!refused) setTimeout(again, 2000);
}

async function conditioned() {
  // a question that was kept has its own conditions
  if (state.set?.asked) state.set = null;
  showChips();
  try {
    await Promise.all([showFacets(), ask()]);
  } catch (error) {
    // a condition that is none: the answer says the same
    if (!(error instanceof api.Refused)) failed(error, conditioned);
  }
}

async function open(name, all) {
  state.index = all.find((one) => one.index === name);
  state.marks.clear();
  state.seen.clear();
  Object.assign(state, { parts: [], filters: {}, where: "", columns: null, k: PAGE, set: null });
  $("about").textContent = strings.held(state.index.rows, state.index.encoder, state.index.version);
  await openFacets();
  openWays();
  tell("index");
  showColumns();
  await conditioned();
}

function login() {
  const dialog = $("login");
  return async (wrong) => {
    const field = h("input", { type: "password", autocomplete: "off", id: "token", required: true });
    const form = h("form", { method: "dialog" },
      h("h2", { id: "login-title" }, strings.token),
      h("p", { className: "quiet" }, strings.token_help),
      wrong ? h("p", { role: "alert", className: "alert" }, strings.token_wrong) : null,
      h("label", { htmlFor: "token" }, strings.token_label), field,
      h("button", { className: "first" }, strings.enter));
    dialog.replaceChildren(form);
    if (!dialog.open) dialog.showModal();
    await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
    return field.value;
  };
}

// The archive's pictures can be looked at before the model is there; questions wait for it.
async function untilReady() {
  const ready = await api.ready().catch(() => true);
  $("loading").textContent = strings.loading;
  $("loading").hidden = ready;
  if (!ready) setTimeout(untilReady, 1000);
}

async function start() {
  try {
    const all = await api.indexes();
    $("index").replaceChildren(...all.map((one) => h("option", { value: one.index }, one.index)));
    $("index").closest("label").hidden = all.length < 2;
    $("index").onchange = () => open($("index").value, all);
    await open(all[0].index, all);
  } catch (error) {
    failed(error, start);
  }
}

fill();
api.onToken(login());
startQuestion();
startNaming();
startKeys();
startMap();
startKeeping();
startSets();
on("asked", () => {
  state.set = null;
  showChips();
  ask();
});
on("set", () => {
  showChips();
  ask();
});
on("conditions", conditioned);
$("more").addEventListener("click", () => {
  state.k += PAGE;
  ask();
});
untilReady();
start();
