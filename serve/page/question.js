// The question: a picture that is dropped, pasted or chosen, a box on it, words, and rows of the archive.

import * as api from "./api.js";
import { $, h, named, refill } from "./dom.js";
import { on, PAGE, state, tell } from "./state.js";
import { strings } from "./strings.js";
import { thumbnail } from "./thumbnail.js";

let bitmap = null;
let brought = null; // the file itself, for a server that has forgotten it
let box = null; // [left, top, width, height] as shares, or null for the whole picture

export function startQuestion() {
  const drop = $("drop");
  for (const event of ["dragover", "drop"]) document.addEventListener(event, (e) => e.preventDefault());
  document.addEventListener("drop", (event) => bring(event.dataTransfer.files[0]));
  document.addEventListener("paste", (event) => bring(event.clipboardData.files[0]));
  drop.addEventListener("dragenter", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  $("file").addEventListener("change", () => bring($("file").files[0]));
  $("clear").addEventListener("click", () => {
    state.parts = state.parts.filter((part) => part.kind !== "upload");
    asked();
    $("file").focus();
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
  state.parts = [{ kind, value, weight: 1 }];
  state.marks.clear();
  state.seen.clear();
  state.k = PAGE;
  asked();
}

async function bring(file) {
  $("drop").classList.remove("over");
  if (!file) return;
  $("status").textContent = strings.reading;
  $("drop").setAttribute("aria-busy", "true");
  try {
    const held = await api.upload(file);
    bitmap = await createImageBitmap(await api.uploadBlob(held.upload, 800));
    brought = file;
    box = null;
    askWith("upload", held.upload);
  } catch (error) {
    $("status").textContent = "";
    $("problem").hidden = false;
    $("problem").textContent = error instanceof api.Refused ? strings.unread(error.message) : strings.gone_once;
  }
  $("drop").setAttribute("aria-busy", "false");
  $("file").value = "";
}

// Upload the picture of the question again where the server does not hold it any more; false where it does.
async function bringAgain() {
  const picture = state.parts.find((part) => part.kind === "upload");
  if (!picture || !brought || (await api.holds(picture.value))) return false;
  picture.value = (await api.upload(brought)).upload;
  return true;
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
  const picture = state.parts.find((part) => part.kind === "upload");
  if (!picture) bitmap = brought = null;
  $("asked").hidden = $("clear").hidden = $("crop-text").hidden = !picture;
  $("drop-text").hidden = Boolean(picture);
  $("drop").classList.toggle("full", Boolean(picture));
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
  const others = state.parts.filter((part) => part.kind !== "upload");
  refill($("parts"), others.map(shownPart), () => $("parts").querySelector("button") || $("text"));
  $("parts").hidden = !others.length;
}

function shownPart(part) {
  const image = part.kind === "id" ? thumbnail(part.value, 96) : null;
  const sign = state.parts.length > 1 ? strings.and : "";
  return h("li", { className: "part" }, image, h("span", { className: "sign" }, sign), named(part.value),
    h("button", { type: "button", aria: { label: strings.remove(part.value) }, onclick: () => {
      state.parts = state.parts.filter((other) => other !== part);
      asked();
    } }, "×"));
}

function paint() {
  if (!bitmap) return;
  const canvas = $("asked");
  const scale = Math.min(1, 400 / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
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
  box = next;
  const picture = state.parts.find((part) => part.kind === "upload");
  if (picture) picture.crop = box || undefined;
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
    if (from) setBox(box, true);
    from = null;
  });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") return setBox(null, true);
    const step = steps[event.key];
    if (!step) return undefined;
    event.preventDefault();
    const [left, top, width, height] = box || [0.25, 0.25, 0.5, 0.5];
    const by = 0.05;
    const next = event.shiftKey
      ? [left, top, within(width + step[0] * by, 0.05, 1 - left), within(height + step[1] * by, 0.05, 1 - top)]
      : [within(left + step[0] * by, 0, 1 - width), within(top + step[1] * by, 0, 1 - height), width, height];
    return setBox(next, true);
  });
}
