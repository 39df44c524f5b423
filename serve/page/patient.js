// The other pictures of a hit's patient, both eyes together where a column says which eye it is.

import * as api from "./api.js";
import { h, shown } from "./dom.js";
import { equals, sideColumn, state } from "./state.js";
import { strings } from "./strings.js";
import { thumbnail } from "./thumbnail.js";

const MOST = 24;

// A strip of thumbnails that fills itself; `open` is called with the row that is clicked.
export function strip(hit, open) {
  const group = state.index.group;
  const patient = group && hit[group];
  const box = h("div", { className: "strip", hidden: true, role: "group", aria: { label: strings.patient(group) } });
  if (patient === null || patient === undefined || patient === "") return box;
  api.rows(state.index.index, equals(group, patient), 0, MOST).then(({ rows }) => {
    if (rows.length < 2) return;
    const side = sideColumn();
    if (side) rows.sort((one, other) => String(one[side]).localeCompare(String(other[side])));
    box.append(h("span", { className: "quiet" }, strings.patient(group)), ...rows.map((row) => choice(row, row.id === hit.id ? hit : null, side, open)));
    box.hidden = false;
  }).catch(() => {});
  return box;
}

function choice(row, current, side, open) {
  const text = (side && shown(row[side])) || row.id.slice(-14);
  return h("button", { type: "button", title: row.id, aria: { label: `${text}: ${row.id}`, current: String(Boolean(current)) },
    onclick: () => open(current || row) }, thumbnail(row.id, 160), text);
}
