// Small helpers: elements without markup from data, and a wait between keystrokes and questions.

export const $ = (id) => document.getElementById(id);

// h("button", {type: "button", onclick}, "text", child): properties, `data` and `aria` by their own objects.
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "data") Object.assign(element.dataset, value);
    else if (key === "aria") for (const [aria, text] of Object.entries(value)) element.setAttribute(`aria-${aria}`, text);
    else if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const reached = "button, input, select, textarea, summary, a[href]";
const known = (element) => element.dataset.value ?? element.getAttribute("aria-label") ?? element.labels?.[0]?.textContent ?? element.textContent;

// Replace what an element holds. Who was in it by keys goes on where they were: the same element, or the new one of its
// name; where that is gone, what is given, if anything.
export function refill(parent, children, otherwise = null) {
  const held = parent.contains(document.activeElement) ? document.activeElement : null;
  const name = held && known(held);
  parent.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
  if (!held) return;
  if (parent.contains(held)) held.focus();
  else ([...parent.querySelectorAll(reached)].find((one) => known(one) === name) || otherwise?.())?.focus();
}

export function soon(work, wait = 250) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), wait);
  };
}

export function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number" && !Number.isInteger(value)) return value.toPrecision(4);
  return Array.isArray(value) ? value.join(", ") : String(value);
}

// A file's name, shortened in its middle where there is no room: the end tells files of a folder apart.
export function named(id) {
  const cut = Math.max(0, id.length - 14);
  return h("span", { className: "id", title: id }, h("span", {}, id.slice(0, cut)), h("span", {}, id.slice(cut)));
}
