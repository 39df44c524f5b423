// The question: a picture that is dropped, pasted or chosen, a box on it, words, and rows of the archive.

import * as api from "./api.js";
import { $, h, named, refill } from "./dom.js";
import { cases, on, PAGE, state, tell } from "./state.js";
import { strings } from "./strings.js";
import { thumbnail } from "./thumbnail.js";

const MOST = 64; // pictures of one question
const brought = new Map(); // by the name of an upload: {file, bitmap}, the file for a server that has forgotten it
const uploads = () => state.parts.filter((part) => part.kind === "upload");
// boxes are drawn on the first: [left, top, width, height] as shares, or none for the whole picture
const picture = () => uploads()[0];
const bitmap = () => brought.get(picture()?.value)?.bitmap;

export function startQuestion() {
  const drop = $("drop");
  for (const event of ["dragover", "drop"]) document.addEventListener(event, (e) => e.preventDefault());
  document.addEventListener("drop", (event) => bring(event.dataTransfer.files));
  document.addEventListener("paste", (event) => bring(event.clipboardData.files));
  drop.addEventListener("dragenter", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  $("file").addEventListener("change", () => bring($("file").files));
  $("another-file").addEventListener("change", () => bring($("another-file").files, uploads()));
  $("clear").addEventListener("click", () => {
    state.parts = state.parts.filter((part) => part !== picture());
    asked();
    (picture() ? $("clear") : $("file")).focus();
  });
  $("words").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("text").value.trim();
    if (!text) return;
    state.parts.push({ kind: "text", value: text, weight: 1 });
    $("text").value = "";
    asked();
  });
  drawBoxes();
  on("parts", showParts);
  on("index", showParts);
  on("conditions", showParts);
}

// A question of its own: what was asked and marked before is gone.
export function askWith(kind, value) {
  said([]);
  askAll([{ kind, value, weight: 1 }]);
}

function askAll(parts) {
  state.parts = parts;
  state.marks.clear();
  state.seen.clear();
  state.k = PAGE;
  asked();
}

// Several pictures are one case where the index knows what a case is; `before` are those that are asked with already.
async function bring(files, before = []) {
  $("drop").classList.remove("over");
  const given = [...(files || [])];
  if (!given.length) return;
  $("status").textContent = strings.reading;
  $("drop").setAttribute("aria-busy", "true");
  const parts = [...before];
  const notes = [];
  for (const file of given.slice(0, MOST - before.length)) {
    try {
      const held = await api.upload(file);
      brought.set(held.upload, { file, bitmap: await createImageBitmap(await api.uploadBlob(held.upload, 800)) });
      parts.push({ kind: "upload", value: held.upload, weight: 1 });
      if (held.frames > 1) notes.push(strings.one_frame(file.name, held.frame, held.frames));
    } catch (error) {
      const why = error instanceof api.Refused ? strings.unread(error.message) : strings.gone_once;
      notes.push(given.length > 1 ? `${file.name}: ${why}` : why);
    }
  }
  if (given.length > MOST - before.length) notes.push(strings.too_many(MOST));
  $("drop").setAttribute("aria-busy", "false");
  $("file").value = $("another-file").value = "";
  $("status").textContent = "";
  said(notes);
  if (parts.length === before.length) return;
  if (parts.length > 1 && !state.item) state.item = cases()[0] ?? null;
  askAll(parts);
}

// What a person should know of the pictures that they brought.
function said(notes) {
  $("brought").hidden = !notes.length;
  $("brought").replaceChildren(...notes.map((note) => h("span", {}, note)));
}

// Upload the pictures of the question again where the server does not hold them any more; false where it holds all.
async function bringAgain() {
  let again = false;
  for (const part of uploads()) {
    const { value } = part;
    if (!brought.has(value) || (await api.holds(value))) continue;
    part.value = (await api.upload(brought.get(value).file)).upload;
    brought.set(part.value, brought.get(value));
    brought.delete(value);
    again = true;
  }
  return again;
}

// Send a question; where the server was started again, and holds no uploads, after its picture was brought again.
export async function heldAgain(send) {
  try {
    return await send();
  } catch (error) {
    if (!(error instanceof api.Refused) || !(await bringAgain())) throw error;
    return send();
  }
}

function asked() {
  tell("parts");
  tell("asked");
}

function showParts() {
  const first = picture();
  const held = new Set(uploads().map((part) => part.value));
  for (const name of [...brought.keys()]) if (!held.has(name)) brought.delete(name);
  if (!first) said([]);
  const count = uploads().length;
  $("ask-title").textContent = count < 2 ? strings.ask : state.item ? strings.ask_case(count) : strings.ask_several(count);
  $("asked").hidden = $("clear").hidden = $("crop-text").hidden = !first;
  $("drop-text").hidden = Boolean(first);
  $("another").hidden = !first || !cases().length;
  $("drop").classList.toggle("full", Boolean(first));
  paint();
  const group = state.index?.group;
  refill($("patients"), group
      ? [["excludeSame", strings.exclude_patient(group)], ["onePer", strings.one_per(group)]].map(([name, text]) =>
          h("label", { className: "check" },
            h("input", { type: "checkbox", checked: state[name], onchange: (event) => {
              state[name] = event.target.checked;
              tell("conditions");
            } }), text))
      : []);
  const others = state.parts.filter((part) => part !== first);
  refill($("parts"), others.map(shownPart), () => $("parts").querySelector("button") || $("text"));
  $("parts").hidden = !others.length;
}

function shownPart(part) {
  const file = brought.get(part.value);
  const image = part.kind === "id" ? thumbnail(part.value, 96) : file ? small(file.bitmap) : null;
  const sign = state.parts.length > 1 ? strings.and : "";
  const name = file ? file.file.name || strings.part_image_short : part.value;
  return h("li", { className: "part" }, image, h("span", { className: "sign" }, sign), named(name),
    h("button", { type: "button", aria: { label: strings.remove(name) }, onclick: () => {
      state.parts = state.parts.filter((other) => other !== part);
      asked();
    } }, "×"));
}

function drawn(canvas, image, most) {
  const scale = Math.min(1, most / Math.max(image.width, image.height));
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

const small = (image) => drawn(h("canvas", { aria: { hidden: true } }), image, 96);

function paint() {
  const image = bitmap();
  if (!image) return;
  const canvas = drawn($("asked"), image, 400);
  const context = canvas.getContext("2d");
  const box = picture().crop;
  canvas.setAttribute("aria-label", box ? strings.part_crop : strings.part_image);
  canvas.setAttribute("role", "img");
  if (!box) return;
  const [left, top, width, height] = [box[0] * canvas.width, box[1] * canvas.height, box[2] * canvas.width, box[3] * canvas.height];
  context.fillStyle = "rgb(0 0 0 / 55%)";
  context.beginPath();
  context.rect(0, 0, canvas.width, canvas.height);
  context.rect(left, top, width, height);
  context.fill("evenodd");
  context.strokeStyle = "#fff";
  context.lineWidth = 2;
  context.strokeRect(left, top, width, height);
}

function setBox(next, ask) {
  const first = picture();
  if (first) first.crop = next || undefined;
  paint();
  if (ask) tell("asked");
}

const within = (value, low, high) => Math.min(high, Math.max(low, value));

function drawBoxes() {
  const canvas = $("asked");
  let from = null;
  const at = (event) => {
    const frame = canvas.getBoundingClientRect();
    return [within((event.clientX - frame.left) / frame.width, 0, 1), within((event.clientY - frame.top) / frame.height, 0, 1)];
  };
  canvas.addEventListener("pointerdown", (event) => {
    from = at(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = at(event);
    const next = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.abs(from[0] - to[0]), Math.abs(from[1] - to[1])];
    setBox(next[2] > 0.02 && next[3] > 0.02 ? next : null, false);
  });
  canvas.addEventListener("pointerup", () => {
    if (from) setBox(picture()?.crop, true);
    from = null;
  });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") return setBox(null, true);
    const step = steps[event.key];
    if (!step) return undefined;
    event.preventDefault();
    const [left, top, width, height] = picture()?.crop || [0.25, 0.25, 0.5, 0.5];
    const by = 0.05;
    const next = event.shiftKey
      ? [left, top, within(width + step[0] * by, 0.05, 1 - left), within(height + step[1] * by, 0.05, 1 - top)]
      : [within(left + step[0] * by, 0, 1 - width), within(top + step[1] * by, 0, 1 - height), width, height];
    return setBox(next, true);
  });
}
