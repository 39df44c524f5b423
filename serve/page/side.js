// One picture of the viewer: what is shown of it can be varied where its file holds more, by window and by frame.

import * as api from "./api.js";
import { h, named, soon } from "./dom.js";
import { state } from "./state.js";
import { strings } from "./strings.js";

// A window's centre and half its width, with as many digits as its width asks for.
const short = ([center, width]) => [center, width / 2].map((one) => (width >= 20 ? Math.round(one) : Number(one.toPrecision(3))));

// `source` is {upload} or {id}; the figure has the functions `scroll(steps)`, `level(right, down)`, in pixels dragged, and
// `cover(url)`: what is laid over the picture, null to take it away.
export function side(title, source) {
  const image = h("img", { alt: title, draggable: false });
  const said = h("span", { className: "quiet", aria: { live: "polite" } });
  const figure = h("figure", {}, h("div", { className: "frame" }, image), h("figcaption", {}, named(title), said));
  let now = { frame: 1, frames: 1, window: null };
  let asked = {};
  let loading = null;
  let heat = null;
  let box = null;
  let first = null; // the frame that was shown first, to which the layer belongs
  let detail = null; // the part that is in sight, with more pixels, above the whole picture
  const undetailed = () => {
    detail?.remove();
    detail = null;
  };

  async function load() {
    loading?.abort();
    const mine = (loading = new AbortController());
    try {
      const found = await api.view(state.index.index, source, asked, mine.signal);
      if (mine !== loading) return URL.revokeObjectURL(found.url);
      now = found;
      first ??= now.frame;
      figure.frames = now.frames;
      if (heat) heat.hidden = now.frame !== first;
      box?.toggleAttribute("hidden", now.frame !== first);
      undetailed();
      image.addEventListener("load", () => URL.revokeObjectURL(found.url), { once: true });
      image.src = found.url;
      said.textContent = [now.frames > 1 ? strings.frame(now.frame, now.frames) : "", now.window ? strings.window(...short(now.window)) : ""].filter(Boolean).join(", ");
    } catch (error) {
      if (!mine.signal.aborted) said.textContent = error instanceof api.Refused ? error.message : strings.no_picture;
    }
    return undefined;
  }

  figure.cover = (address) => {
    heat?.remove();
    heat = address && h("img", { className: "heat", alt: "", draggable: false, src: address, hidden: now.frame !== (first ?? now.frame) });
    if (!heat) return;
    heat.style.transform = image.style.transform;
    heat.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
    image.parentElement.append(heat);
  };
  // a box over the frame that was shown first
  figure.outline = (layer) => {
    if (!layer) return;
    box = layer;
    image.parentElement.append(layer);
  };
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
    // of the width that was asked for last, however late its picture comes
    const step = width / 300;
    asked = { ...asked, center: center + down * step, width: Math.max(step / 10, width + right * step) };
    load();
    return true;
  };
  // Where a picture has more pixels than are shown, the part in sight is fetched as it is.
  const sharpen = soon(async ({ scale, x, y }) => {
    const frame = image.parentElement;
    const [across, down] = [frame.clientWidth, frame.clientHeight];
    const fit = Math.min(across / image.naturalWidth, down / image.naturalHeight);
    const [width, height] = [image.naturalWidth * fit, image.naturalHeight * fit];
    undetailed();
    if (!now.whole || now.whole[0] <= image.naturalWidth || scale <= 1.2 || !width) return;
    // the edges of what is seen, as shares of the picture
    const share = (edge, size, moved, room) => Math.min(1, Math.max(0, (edge - room / 2 - moved) / (scale * size) + 0.5));
    const [left, right] = [0, across].map((edge) => share(edge, width, x, across));
    const [top, bottom] = [0, down].map((edge) => share(edge, height, y, down));
    if (right - left <= 0 || bottom - top <= 0) return;
    const region = [left, top, right - left, bottom - top].map((one) => Math.floor(one * 1e6) / 1e6).join(",");
    const of = loading;
    const found = await api.view(state.index.index, source, { ...asked, region }, of.signal).catch(() => null);
    if (!found || of !== loading) return;
    undetailed();
    detail = h("img", { className: "detail", alt: "", draggable: false });
    const [from, above] = [(across - width) / 2 + left * width, (down - height) / 2 + top * height];
    Object.assign(detail.style, { left: `${from}px`, top: `${above}px`, width: `${(right - left) * width}px`, height: `${(bottom - top) * height}px`,
      transformOrigin: `${across / 2 - from}px ${down / 2 - above}px`, transform: image.style.transform, filter: image.style.filter });
    detail.addEventListener("load", () => URL.revokeObjectURL(found.url), { once: true });
    detail.src = found.url;
    frame.append(detail);
  }, 200);
  figure.sharpen = sharpen;
  figure.reset = () => {
    asked = {};
    load();
  };
  load();
  return figure;
}
