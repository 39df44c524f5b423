// What is asked and what came back; whoever shows a part of it listens for its change.

// what a hit is marked as
export const LIKE = 1;
export const UNLIKE = -1;

// so many hits at a time
export const PAGE = 24;

export const state = {
  index: null, // what the server says of the index that is asked
  facets: [], // of the whole index, whatever the conditions
  texts: [], // columns in which words may be looked for
  wordsIn: [], // those in which they are; none: they are compared with pictures
  fuse: 0.5, // the share of pictures beside words of columns
  item: null, // what a case is, where cases answer
  regions: false, // whether parts of pictures are compared, where the index has them
  parts: [], // {kind: "upload" | "text" | "id", value, weight, crop}
  marks: new Map(), // id -> LIKE or UNLIKE, of hits, in the order of the clicks
  seen: new Set(), // ids that were shown when one of them was marked: others come first then
  before: null, // of an answer, what was seen before: {hits, highlights}, shown where it is asked for
  where: "",
  filters: {}, // column -> Set of values, or {low, high}
  excludeSame: false,
  onePer: false,
  columns: null,
  hits: [],
  total: 0,
  note: null,
  set: null, // {name, asked} of a set that is shown in place of an answer: its pictures, or its question asked again
  exact: true,
  highlights: null, // of an answer by words: for each hit, by column, where they stand
  weights: null, // the shares of words and vectors
  matched: null, // of an answer by cases: for each its pairs of parts
  k: PAGE,
};

const listeners = new Map();

export function on(event, listener) {
  listeners.set(event, [...(listeners.get(event) || []), listener]);
}

export function tell(event, detail) {
  for (const listener of listeners.get(event) || []) listener(detail);
}

// Columns of how a file is stored, of which a picture's reader wants to know last.
const TECHNICAL = new Set(["width", "height", "mode", "size", "mtime", "sha256", "error", "path", "header_notes"]);
export const technical = (name) => TECHNICAL.has(name);

// Where a column stands among those that usually name what a picture shows; 98 for others.
const LABELS = ["label", "diagnosis", "finding", "disease", "class", "grade"];
export const label = (name) => (LABELS.indexOf(name.toLowerCase()) + 99) % 99;

const SIDES = ["laterality", "eye", "side", "image_laterality", "eye_laterality"];
export const sideColumn = () => state.facets.map((facet) => facet.column).find((name) => SIDES.includes(name.toLowerCase()));

// A name or value in a where-expression.
const quoted = (text) => `'${String(text).replaceAll("'", "''")}'`;
const column = (name) => (/^[A-Za-z_][A-Za-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`);
const literal = (value) => (typeof value === "number" || typeof value === "boolean" ? String(value) : quoted(value));
export const equals = (name, value) => `${column(name)} = ${literal(value)}`;

export const equalsAny = (name, values) => `${column(name)} in (${values.map(literal).join(", ")})`;

function term(name, chosen) {
  if (!(chosen instanceof Set)) {
    const ends = [];
    if (chosen.low !== undefined) ends.push(`${column(name)} >= ${literal(chosen.low)}`);
    if (chosen.high !== undefined) ends.push(`${column(name)} <= ${literal(chosen.high)}`);
    return ends.join(" and ");
  }
  const known = [...chosen].filter((value) => value !== null);
  const either = [];
  if (known.length === 1) either.push(equals(name, known[0]));
  else if (known.length) either.push(equalsAny(name, known));
  if (chosen.has(null)) either.push(`${column(name)} is null`);
  return either.length > 1 ? `(${either.join(" or ")})` : either[0];
}

// The condition that was ticked and written, but for the ticks of one column.
export function condition(without = null) {
  const terms = Object.entries(state.filters).filter(([name]) => name !== without).map(([name, chosen]) => term(name, chosen));
  if (state.where) terms.push(terms.length ? `(${state.where})` : state.where);
  return terms.join(" and ");
}

export function unfilter(name, value) {
  const chosen = state.filters[name];
  if (chosen instanceof Set) chosen.delete(value);
  else delete chosen[value];
  if (chosen instanceof Set ? !chosen.size : !Object.keys(chosen).length) delete state.filters[name];
}

export const marked = (sign) => [...state.marks].filter(([, given]) => given === sign).map(([id]) => id);
export const asking = () => state.parts.length > 0 || marked(LIKE).length > 0;

const spoken = (part) => part.kind === "text";
// Whether words are looked for in columns, and whether something else is asked with beside them.
export const worded = () => !state.item && state.wordsIn.length > 0 && state.parts.some(spoken);
export const mixed = () => state.parts.some((part) => !spoken(part)) || state.marks.size > 0;

// Whether parts of pictures answer: there are none of cases, and words of columns are looked for in texts.
export const inParts = () => Boolean(state.regions && state.index.regions && !state.item && !worded());

// What may be a case in this index, what it records first.
export function cases() {
  const { columns, group, item } = state.index;
  const has = (name) => columns.includes(name);
  const patient = Boolean(group) || has("patient");
  const known = { study: has("study"), series: has("series"), volume: has("series"), patient, "eye-pair": patient && ["laterality", "side", "eye"].some(has) };
  return [...new Set([...(item ? [item] : []), ...Object.keys(known).filter((name) => known[name])])];
}

// What is shown of an answer; of rows that nobody asked for, their list.
export const answered = ({ hits, note = null, exact = true, highlights = null, weights = null, parts = null }) =>
  ({ hits, note, exact, highlights, weights, matched: parts, before: null });

// Of an answer that is as much longer as was seen: what was not seen, then what was; apart what has no room beside it.
export function unseen(answer) {
  const some = (places) => ({ hits: places.map((at) => answer.hits[at]), highlights: answer.highlights && places.map((at) => answer.highlights[at]) });
  const known = (at) => state.seen.has(answer.hits[at].id);
  const all = [...answer.hits.keys()];
  const first = all.filter((at) => !known(at)).slice(0, state.k);
  const again = all.filter(known);
  const room = state.k - first.length;
  const before = again.length > room ? some(again.slice(room)) : null;
  return { ...answered({ ...answer, ...some([...first, ...again.slice(0, room)]) }), before };
}

// The question as the API takes it; null where nothing is asked.
export function request() {
  if (!asking()) return null;
  const parts = state.parts.map(({ kind, value, weight, crop }) => ({ [kind]: value, weight, ...(crop ? { crop } : {}) }));
  const group = state.index.group;
  return {
    questions: [{ parts, like: marked(LIKE), unlike: marked(UNLIKE) }],
    k: state.k,
    where: condition() || null,
    exclude_same: state.excludeSame && group ? { [group]: null } : null,
    one_per: state.onePer && group && !state.item ? group : null,
    ...(worded() ? { in: state.wordsIn, fuse: mixed() ? state.fuse : null } : {}),
    ...(state.item ? { item: state.item } : {}),
    ...(inParts() ? { in_regions: true } : {}),
  };
}
