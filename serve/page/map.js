// The map: every picture of the archive a point, coloured by a column; looked at one by one, and taken by a line.

import * as api from "./api.js";
import { labels } from "./classify.js";
import { $, h, named } from "./dom.js";
import { coloured } from "./map_colours.js";
import { Points } from "./map_points.js";
import { MapView } from "./map_view.js";
import { askWith } from "./question.js";
import { equalsAny, on, state, technical, tell } from "./state.js";
import { strings } from "./strings.js";
import { thumbnail } from "./thumbnail.js";

const LONGEST = 9_000; // characters of a condition that names rows

const few = (count) => Math.max(5, Math.min(50, Math.round(count / 50))); // so many are pointed out

let held = null; // {index, version, ids, view}
const part = (name) => $("map").querySelector(`.${name}`);

async function open() {
  const name = state.index.index;
  $("map").replaceChildren(bar(strings.map), h("p", { role: "status", className: "said" }, strings.searching));
  if (!$("map").open) $("map").showModal();
  try {
    const [places, ids] = await Promise.all([api.mapPlaces(name), api.mapColumn(name, "id")]);
    layOut(name, ids, new Points(places.xy));
    held.version = places.version;
    await colour("");
  } catch (error) {
    if (!(error instanceof api.Refused || error instanceof TypeError)) throw error;
    part("said").textContent = error instanceof api.Refused ? strings.map_none(error.message) : strings.gone_once;
  }
}

const bar = (title) => h("div", { className: "bar" }, h("h2", { id: "map-title" }, title),
  h("button", { type: "button", onclick: () => $("map").close() }, strings.close));

function layOut(name, ids, points) {
  const columns = state.facets.map((facet) => facet.column).filter((one) => !technical(one));
  const canvas = h("canvas", { tabIndex: 0, role: "img", aria: { label: strings.map_canvas } });
  const lasso = h("button", { type: "button", className: "lasso", aria: { pressed: "false" }, onclick: () => held.view.setLasso(!held.view.lasso) }, strings.map_lasso);
  $("map").replaceChildren(
    bar(strings.map_title(points.count)),
    h("div", { className: "bar tools" },
      h("label", {}, `${strings.map_by} `, h("select", { onchange: (event) => colour(event.target.value) },
        h("option", { value: "" }, strings.map_clusters), ...columns.map((one) => h("option", { value: one }, one)))),
      h("label", {}, `${strings.map_mark} `, h("select", { className: "marking", onchange: (event) => mark(event.target.value) },
        h("option", { value: "" }, strings.map_mark_none), h("option", { value: "outliers" }, strings.map_outliers),
        ...labels().map((one) => h("option", { value: `suspects ${one}` }, strings.map_suspects(one))))),
      lasso,
      h("button", { type: "button", onclick: () => held.view.takeView() }, strings.map_in_view),
      h("button", { type: "button", onclick: () => held.view.fit() }, strings.map_fit),
      h("p", { className: "said", role: "status" })),
    h("div", { className: "field" }, canvas, h("div", { className: "near", hidden: true })),
    h("ul", { className: "legend" }),
    h("p", { className: "quiet long" }, strings.map_help));
  const view = new MapView(canvas, points, { look, take, enter: () => part("near").hidden || ask(part("near").dataset.id),
    lassoed: (now) => lasso.setAttribute("aria-pressed", String(now)) });
  held = { index: name, ids: ids.values, view, why: new Map() };
  canvas.focus();
}

async function colour(name) {
  const column = await api.mapColumn(held.index, name);
  if (column.version !== held.version) return open(); // a writer came between
  const { colours, legend } = coloured(column, held.ids.length);
  held.view.paint(colours);
  part("legend").replaceChildren(...legend.map(([paint, text]) => {
    const spot = h("span", { className: "spot", aria: { hidden: true } });
    spot.style.background = paint;
    return h("li", {}, spot, text);
  }));
  return undefined;
}

// Rows that are unlike the archive, or whose label looks wrong, ringed; each says why where it is pointed at.
async function mark(asked) {
  const mine = held;
  const [kind, ...rest] = asked.split(" ");
  held.why = new Map();
  held.view.mark([]);
  part("said").textContent = asked ? strings.map_looking : "";
  if (!asked) return;
  try {
    const { rows, version } = await api.findings(held.index, { kind, n: few(held.ids.length), ...(rest.length ? { label: rest.join(" ") } : {}) });
    if (mine !== held || part("marking").value !== asked) return;
    if (version !== held.version) return void open();
    held.why = new Map(rows.map((row) => [row.id, row.likely === undefined ? strings.map_unlike(row.rank) : strings.map_wrong(row.given, row.likely)]));
    const places = held.ids.flatMap((id, at) => (held.why.has(id) ? [at] : []));
    held.view.mark(places);
    part("said").replaceChildren(`${strings.map_marked(places.length)} `, h("button", { type: "button", onclick: () => take(places) }, strings.map_take_marked));
  } catch (error) {
    if (!(error instanceof api.Refused || error instanceof TypeError)) throw error;
    if (mine === held) part("said").textContent = strings.failed(error instanceof api.Refused ? error.message : strings.gone_once);
  }
}

// What was taken is told to whoever collects pictures, and can be shown as the answer.
function take(points) {
  held.view.ring(points);
  const ids = points.map((at) => held.ids[at]);
  document.dispatchEvent(new CustomEvent("retr:selected", { detail: { index: held.index, ids } }));
  const where = equalsAny("id", ids);
  const few = where.length <= LONGEST;
  const keep = h("button", { type: "button", onclick: () => {
    $("map").close();
    $($("keep-fields").hidden ? "answer" : "keep-name").focus();
  } }, strings.map_keep);
  const show = h("button", { type: "button", className: "first", onclick: () => {
    $("map").close();
    Object.assign(state, { where, filters: {} });
    tell("conditions");
    $("answer").focus();
  } }, strings.map_show);
  part("said").replaceChildren(`${strings.map_taken(ids.length)} `, ...(ids.length ? [few ? show : strings.map_too_many, keep] : []));
}

function look(at) {
  const box = part("near");
  const id = held.ids[at];
  if (id !== undefined && box.dataset.id === id && !box.hidden) return;
  box.hidden = id === undefined;
  box.dataset.id = id;
  if (!box.hidden) box.replaceChildren(thumbnail(id, 256), named(id), ...(held.why.has(id) ? [h("p", { className: "warn" }, held.why.get(id))] : []), h("button", { type: "button", onclick: () => ask(id) }, strings.ask_with));
}

function ask(id) {
  $("map").close();
  askWith("id", id);
  $("answer").focus();
}

export function startMap() {
  $("map-open").addEventListener("click", open);
  on("index", () => $("map").close());
}
