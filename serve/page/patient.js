// The other pictures of a hit's patient, both eyes together where a column says which eye it is.

import * as api from "./api.js";
import { h, shown } from "./dom.js";
import { equals, sideColumn, state } from "./state.js";
import { strings } from "./strings.js";
import { thumbnail } from "./thumbnail.js";

const MOST = 24;
const known = (value) => value !== null && value !== undefined && value !== "";

// Of a patient looked at from the front the right eye lies on the left.
const RIGHT = /^(r|od|right|re|rechts|dexter)/i;
export const isRight = (row) => RIGHT.test(String(row[sideColumn()]).trim());

// The rows of a hit's patient, by eye; none where it is not known whose the hit is.
export async function ofPatient(hit) {
  const group = state.index.group;
  if (!group || !known(hit[group])) return [];
  const { rows } = await api.rows(state.index.index, equals(group, hit[group]), 0, MOST);
  const side = sideColumn();
  return side ? rows.sort((one, other) => Number(isRight(other)) - Number(isRight(one)) || String(one[side]).localeCompare(String(other[side]))) : rows;
}

// The picture of the other eye, if a column says so: of several the one with most values in common (the visit, the camera).
export function fellow(hit, rows) {
  const side = sideColumn();
  if (!side || !known(hit[side])) return null;
  const alike = (row) => state.facets.filter(({ column }) => known(row[column]) && shown(row[column]) === shown(hit[column])).length;
  const others = rows.filter((row) => known(row[side]) && isRight(row) !== isRight(hit));
  return others.reduce((best, row) => (best && alike(best) >= alike(row) ? best : row), null);
}

// A strip of thumbnails; `open` is called with the row that is clicked.
export function strip(hit, rows, open) {
  const group = state.index.group;
  const side = sideColumn();
  const box = h("div", { className: "strip", hidden: rows.length < 2, role: "group", aria: { label: strings.patient(group) } });
  if (rows.length > 1) box.append(h("span", { className: "quiet" }, strings.patient(group)), ...rows.map((row) => choice(row, row.id === hit.id ? hit : null, side, open)));
  return box;
}

function choice(row, current, side, open) {
  const text = (side && shown(row[side])) || row.id.split("/").pop().slice(-20);
  return h("button", { type: "button", title: row.id, aria: { label: `${text}: ${row.id}`, current: String(Boolean(current)) },
    onclick: () => open(current || row) }, thumbnail(row.id, 160), text);
}
