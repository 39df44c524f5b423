// The part of a hit's picture that is most like the question, where parts are compared: a box over it.

import { state } from "./state.js";

// Left, top, width and height in pixels of the picture; null where whole pictures answered.
export function regionOf(hit) {
  if (!state.index?.regions) return null;
  let name = "region";
  while (state.index.columns.includes(name)) name += "_";
  return Array.isArray(hit[name]) ? hit[name] : null;
}

function svg(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// The box of a hit, to lie over its picture wherever that lies in its frame; null where there is none.
export function outline(hit) {
  const region = regionOf(hit);
  if (!region || !(hit.width > 0 && hit.height > 0)) return null;
  const [x, y, width, height] = region;
  const layer = svg("svg", { class: "region", viewBox: `0 0 ${hit.width} ${hit.height}`, "aria-hidden": "true" });
  layer.append(...["under", "over"].map((name) => svg("rect", { class: name, x, y, width, height })));
  return layer;
}
