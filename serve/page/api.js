// The server's API: one function a question; errors carry the server's own words.

const KEY = "retr token";
let token = sessionStorage.getItem(KEY) || "";
let askForToken = async () => "";

export class Refused extends Error {
  constructor(status, error) {
    super(error.hint ? `${error.message}; ${error.hint}` : error.message);
    this.status = status;
  }
}

// `ask` is called when the server wants a token, and returns one; true means that the last one was wrong.
export function onToken(ask) {
  askForToken = ask;
}

async function call(path, options = {}) {
  for (;;) {
    const headers = { ...(options.headers || {}) };
    if (token) headers.authorization = `Bearer ${token}`;
    const answer = await fetch(path, { ...options, headers, credentials: "omit" });
    if (answer.status !== 401) return answer;
    token = await askForToken(Boolean(token));
    sessionStorage.setItem(KEY, token);
  }
}

async function refuse(answer) {
  let error = { message: answer.statusText };
  try {
    error = (await answer.json()).error;
  } catch { /* a proxy's own page */ }
  throw new Refused(answer.status, error);
}

async function json(path, options) {
  const answer = await call(path, options);
  if (!answer.ok) await refuse(answer);
  return answer.json();
}

const post = (path, body, signal) =>
  json(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });

export const indexes = () => json("v1/indexes");
export const facets = (index, where, signal) =>
  json(`v1/indexes/${encodeURIComponent(index)}/facets${where ? `?where=${encodeURIComponent(where)}` : ""}`, { signal });
export const rows = (index, where, offset, limit, signal) => {
  const asked = new URLSearchParams({ offset, limit, ...(where ? { where } : {}) });
  return json(`v1/indexes/${encodeURIComponent(index)}/rows?${asked}`, { signal });
};
export const row = (index, id) => json(`v1/indexes/${encodeURIComponent(index)}/row?${new URLSearchParams({ id })}`);
export const search = (index, body, signal) => post(`v1/indexes/${encodeURIComponent(index)}/search`, body, signal);
export const mapColumn = (index, name) =>
  json(`v1/indexes/${encodeURIComponent(index)}/map/column${name ? `?${new URLSearchParams({ name })}` : ""}`);
export async function mapPlaces(index) {
  const answer = await call(`v1/indexes/${encodeURIComponent(index)}/map`);
  if (!answer.ok) await refuse(answer);
  return { xy: new Float32Array(await answer.arrayBuffer()), version: Number(answer.headers.get("x-retr-version")) };
}
const sets_ = (index, name = "", rest = "") => `v1/indexes/${encodeURIComponent(index)}/sets${name && `/${encodeURIComponent(name)}`}${rest}`;
const send = (path, method, body) =>
  json(path, { method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

export async function heat(index, body, signal) {
  const answer = await call(`v1/indexes/${encodeURIComponent(index)}/explain`,
    { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });
  if (!answer.ok) await refuse(answer);
  return { url: url(await answer.blob()), way: answer.headers.get("x-retr-way"), peak: Number(answer.headers.get("x-retr-peak")) };
}
// What is looked for in the archive, as a job that is asked for until it is done.
export async function findings(index, body) {
  let job = await post(`v1/indexes/${encodeURIComponent(index)}/findings`, body);
  while (job.status === "waiting" || job.status === "running") {
    await new Promise((done) => setTimeout(done, 400));
    job = await json(`v1/jobs/${encodeURIComponent(job.job)}`);
  }
  if (job.status === "failed") throw new Refused(422, { message: job.error });
  return job.result;
}
export const sets = (index) => json(sets_(index));
export const set = (index, name, signal) => json(sets_(index, name), { signal });
export const setRows = (index, name, where, offset, limit, signal) =>
  json(sets_(index, name, `/rows?${new URLSearchParams({ offset, limit, ...(where ? { where } : {}) })}`), { signal });
export async function askedAgain(index, name, signal) {
  const { new: fresh, ...found } = await json(sets_(index, name, "/answer"), { signal });
  return { ...found, fresh };
}
export const saveSet = (index, name, body) => send(sets_(index, name), "PUT", body);
export const label = (index, name, body) => send(sets_(index, name, "/labels"), "POST", body);
export const removeFromSet = (index, name, body) => send(sets_(index, name, "/remove"), "POST", body);
export async function dropSet(index, name) {
  const answer = await call(sets_(index, name), { method: "DELETE" });
  if (!answer.ok) await refuse(answer);
}
export async function setFile(index, name, form) {
  const answer = await call(sets_(index, name, `/file?form=${form}`));
  if (!answer.ok) await refuse(answer);
  return answer.blob();
}
export const holder = () => json("v1/token");
export async function anotherToken() {
  const given = await askForToken(false);
  if (!given) return;
  token = given;
  sessionStorage.setItem(KEY, token);
}
export const classify = (index, body) => post(`v1/indexes/${encodeURIComponent(index)}/classify`, body);
export const ready = async () => (await fetch("readyz", { credentials: "omit" })).status !== 503;
export const holds = async (name) => (await call(`v1/uploads/${encodeURIComponent(name)}?size=16`)).ok;
export const upload = (file) => json("v1/uploads", { method: "POST", body: file });

// Pictures need the token too, which an <img> cannot send: they are fetched, a few at a time, and shown as blobs.
const waiting = [];
let running = 0;

function next() {
  while (running < 6 && waiting.length) {
    const { path, signal, done, failed } = waiting.shift();
    if (signal?.aborted) continue;
    running += 1;
    call(path, { signal })
      .then(async (answer) => (answer.ok ? done({ blob: await answer.blob(), headers: answer.headers }) : await refuse(answer)))
      .catch(failed)
      .finally(() => {
        running -= 1;
        next();
      });
  }
}

function picture(path, signal) {
  return new Promise((done, failed) => {
    waiting.push({ path, signal, done, failed });
    next();
  });
}

const SCREEN = Math.min(2048, Math.ceil(Math.max(screen.width, screen.height) * Math.min(2, devicePixelRatio)));
const url = (blob) => URL.createObjectURL(blob);

export const rowPicture = (index, id, size, signal) =>
  picture(`v1/indexes/${encodeURIComponent(index)}/picture?${new URLSearchParams({ id, size })}`, signal).then(({ blob }) => url(blob));
export const uploadBlob = (name, size) => picture(`v1/uploads/${encodeURIComponent(name)}?size=${size}`).then(({ blob }) => blob);

// A picture to look into: its address as a blob, its frame of how many, its window (centre, width) or null, and its whole
// size; reduced by the server to what the screen has room for.
export async function view(index, { upload, id }, asked, signal) {
  const query = new URLSearchParams({ size: SCREEN, ...(id === undefined ? {} : { id }), ...asked });
  const path = upload ? `v1/uploads/${encodeURIComponent(upload)}` : `v1/indexes/${encodeURIComponent(index)}/picture`;
  const { blob, headers } = await picture(`${path}?${query}`, signal);
  const numbers = (name) => headers.get(name)?.split(" ").map(Number) ?? null;
  const [frame, frames] = numbers("x-retr-frame") || [1, 1];
  return { url: url(blob), frame, frames, window: numbers("x-retr-window"), whole: numbers("x-retr-size") };
}
