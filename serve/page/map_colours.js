// Colours of a map's points: of values, distinct also for most who see colours otherwise; of numbers, dark to light.

import { shown } from "./dom.js";
import { strings } from "./strings.js";

const VALUES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8a8a00", "#a6611a", "#b2182b"];
const NUMBERS = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"];
const REST = "#8c9499";

// A colour as a pixel of a canvas holds it: red in the lowest byte.
export function pixel(text) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

// What each point is painted, uint32, and the legend: [colour, text].
export function coloured(column, count) {
  const colours = new Uint32Array(count).fill(pixel(REST));
  return column.kind === "numbers" ? ofNumbers(column.numbers, colours) : ofValues(column, colours);
}

function ofNumbers(numbers, colours) {
  const known = numbers.filter((number) => number !== null);
  const low = known.reduce((one, other) => Math.min(one, other), Infinity);
  const step = (known.reduce((one, other) => Math.max(one, other), -Infinity) - low || 1) / NUMBERS.length;
  const steps = NUMBERS.map(pixel);
  numbers.forEach((number, at) => {
    if (number !== null) colours[at] = steps[Math.min(NUMBERS.length - 1, Math.floor((number - low) / step))];
  });
  const legend = NUMBERS.map((colour, at) => [colour, `${shown(low + at * step)} – ${shown(low + (at + 1) * step)}`]);
  return { colours, legend: known.length < numbers.length ? [...legend, [REST, strings.missing]] : legend };
}

function ofValues({ values, codes }, colours) {
  const each = VALUES.slice(0, values.length).map(pixel);
  let rest = false;
  codes.forEach((code, at) => {
    if (code >= 0 && code < each.length) colours[at] = each[code];
    else rest = true;
  });
  const legend = each.map((_, at) => [VALUES[at], shown(values[at])]);
  return { colours, legend: rest ? [...legend, [REST, strings.map_other]] : legend };
}
