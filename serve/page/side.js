// One picture of the viewer: what is shown of it can be varied where its file holds more, by window and by frame.

import * as api from "./api.js";
import { h, named } from "./dom.js";
import { state } from "./state.js";
import { strings } from "./strings.js";

// `source` is {upload} or {id}; the figure has the functions `scroll(steps)` and `level(right, down)`, in pixels dragged.
export function side(title, source) {
  const image = h("img", { alt: title, draggable: false });
  const said = h("span", { className: "quiet", aria: { live: "polite" } });
  const figure = h("figure", {}, h("div", { className: "frame" }, image), h("figcaption", {}, named(title), said));
  let now = { frame: 1, frames: 1, window: null };
  let asked = {};
  let loading = null;

  async function load() {
    loading?.abort();
    const mine = (loading = new AbortController());
    try {
      const found = await api.view(state.index.index, source, asked, mine.signal);
      if (mine !== loading) return URL.revokeObjectURL(found.url);
      now = found;
      image.addEventListener("load", () => URL.revokeObjectURL(found.url), { once: true });
      image.src = found.url;
      said.textContent = [now.frames > 1 ? strings.frame(now.frame, now.frames) : "", now.window ? strings.window(...now.window.map(Math.round)) : ""].filter(Boolean).join(", ");
    } catch (error) {
      if (!mine.signal.aborted) said.textContent = error instanceof api.Refused ? error.message : strings.no_picture;
    }
    return undefined;
  }

  figure.scroll = (steps) => {
    const frame = Math.min(now.frames, Math.max(1, (asked.frame ?? now.frame) + steps));
    if (frame === (asked.frame ?? now.frame)) return;
    asked = { ...asked, frame };
    load();
  };
  // to the right widens the window, downwards raises its centre: the picture darkens
  figure.level = (right, down) => {
    if (!now.window) return false;
    const [center, width] = asked.width ? [asked.center, asked.width] : now.window;
    const step = Math.max(now.window[1], 1) / 300;
    asked = { ...asked, center: center + down * step, width: Math.max(step, width + right * step) };
    load();
    return true;
  };
  figure.reset = () => {
    asked = {};
    load();
  };
  load();
  return figure;
}
