// The page: which index is asked, when a question is sent, and what is said while it is on its way.

import * as api from "./api.js";
import { $, h } from "./dom.js";
import { showFacets } from "./facets.js";
import { showHits } from "./hits.js";
import { startQuestion } from "./question.js";
import { condition, on, request, state, tell } from "./state.js";
import { fill, strings } from "./strings.js";

let onItsWay = null;

async function ask() {
  onItsWay?.abort();
  const mine = (onItsWay = new AbortController());
  const body = request();
  $("status").textContent = strings.searching;
  try {
    if (body) {
      const { answers } = await api.search(state.index.index, body, mine.signal);
      Object.assign(state, { hits: answers[0].hits, note: answers[0].note, exact: answers[0].exact });
    } else {
      const found = await api.rows(state.index.index, condition(), 0, state.k, mine.signal);
      Object.assign(state, { hits: found.rows, note: null, exact: true });
    }
    state.cursor = 0;
    showHits();
  } catch (error) {
    if (mine.signal.aborted) return;
    failed(error);
  }
}

function failed(error) {
  if (error instanceof api.Refused) {
    $("status").textContent = strings.failed(error.message);
    return;
  }
  // the server was stopped or is starting again
  $("status").textContent = strings.gone;
  setTimeout(ask, 2000);
}

async function open(name, all) {
  state.index = all.find((one) => one.index === name);
  Object.assign(state, { parts: [], filters: {}, where: "", k: 24 });
  $("about").textContent = strings.held(state.index.rows, state.index.encoder, state.index.version);
  tell("index");
  await showFacets();
  await ask();
}

function login() {
  const dialog = $("login");
  return async (wrong) => {
    const field = h("input", { type: "password", autocomplete: "off", id: "token", required: true });
    const form = h("form", { method: "dialog" },
      h("h2", { id: "login-title" }, strings.token),
      wrong ? h("p", { role: "alert" }, strings.token_wrong) : null,
      h("label", { htmlFor: "token" }, strings.token_label), field,
      h("button", {}, strings.enter));
    dialog.replaceChildren(form);
    if (!dialog.open) dialog.showModal();
    await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
    return field.value;
  };
}

async function start() {
  fill();
  api.onToken(login());
  startQuestion();
  on("asked", ask);
  on("conditions", async () => {
    await showFacets();
    await ask();
  });
  $("more").addEventListener("click", () => {
    state.k += 24;
    ask();
  });
  try {
    const all = await api.indexes();
    $("index").replaceChildren(...all.map((one) => h("option", { value: one.index }, one.index)));
    $("index").addEventListener("change", () => open($("index").value, all));
    await open(all[0].index, all);
  } catch (error) {
    $("status").textContent = error instanceof api.Refused ? strings.failed(error.message) : strings.gone;
    if (!(error instanceof api.Refused)) setTimeout(() => location.reload(), 3000);
  }
}

start();
