// Which parts of a hit match the question, laid over its picture, with what the colours mean.

import * as api from "./api.js";
import { $, h } from "./dom.js";
import { heldAgain } from "./question.js";
import { asking, request, state } from "./state.js";
import { strings } from "./strings.js";

const TRIES = 30;
let on = false;
let loading = null;

// words of columns are compared with texts, and match no part of a picture; a case is scored by all of its parts
export const offered = () => !state.highlights && !state.matched && (state.set ? state.set.asked : asking());

// What the colours mean, and a button; `figure` is the hit's.
export function button(hit, figure) {
  if (!offered()) return null;
  const element = h("button", { type: "button", className: "heat-toggle", aria: { pressed: String(on), keyshortcuts: "h" }, onclick: () => {
    on = !on;
    element.setAttribute("aria-pressed", String(on));
    lay(hit, figure());
  } }, strings.heat);
  if (on) queueMicrotask(() => lay(hit, figure()));
  return element;
}

export const legend = () => h("p", { className: "heat-key quiet", role: "status", hidden: true });

async function lay(hit, figure) {
  loading?.abort();
  const mine = (loading = new AbortController());
  const key = $("viewer").querySelector(".heat-key");
  key.hidden = !on;
  figure.cover(null);
  if (!on) return;
  key.replaceChildren(strings.heat_searching);
  try {
    const found = await once(hit.id, mine.signal);
    if (mine.signal.aborted) return URL.revokeObjectURL(found.url);
    figure.cover(found.url);
    const scale = [strings.heat_low, h("span", { className: "scale", aria: { hidden: true } }), strings.heat_high, h("span", { className: "ring", aria: { hidden: true } }), strings.heat_ring];
    key.replaceChildren(h("strong", {}, strings.heat_way[found.way]), " ", ...(found.peak < 1 ? [strings.heat_weak(Math.round(100 * found.peak)), " "] : []),
      h("span", { className: "heat-scale" }, ...scale), ` ${strings.heat_limit[found.way]}`);
  } catch (error) {
    if (!mine.signal.aborted) key.replaceChildren(strings.failed(error instanceof api.Refused ? error.message : strings.gone_once));
  }
}

// The server looks at one at a time: whoever comes while it does waits.
async function once(id, signal) {
  const asked = state.set ? { set: state.set.name } : { question: request().questions[0] };
  for (let left = TRIES; ; left -= 1) {
    try {
      return await heldAgain(() => api.heat(state.index.index, { ...asked, id, size: 896, layer: true }, signal));
    } catch (error) {
      if (error.status !== 503 || !left || signal.aborted) throw error;
      await new Promise((done) => setTimeout(done, 500));
    }
  }
}
