// A small picture of a row; nothing in its place where the archive is not at hand.

import * as api from "./api.js";
import { h } from "./dom.js";
import { state } from "./state.js";

export function thumbnail(id, size) {
  const image = h("img", { alt: "" });
  api.rowPicture(state.index.index, id, size).then((url) => {
    image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
    image.src = url;
  }).catch(() => image.remove());
  return image;
}
