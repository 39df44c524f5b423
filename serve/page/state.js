// What is asked and what came back; whoever shows a part of it listens for its change.

export const state = {
  index: null, // what the server says of the index that is asked
  parts: [], // {kind: "upload" | "text" | "id", value, weight, crop}
  where: "",
  filters: {}, // column -> Set of values, or {low, high}
  excludeSame: false,
  onePer: false,
  columns: [],
  hits: [],
  note: null,
  k: 24,
  cursor: 0,
};

const listeners = new Map();

export function on(event, listener) {
  listeners.set(event, [...(listeners.get(event) || []), listener]);
}

export function tell(event, detail) {
  for (const listener of listeners.get(event) || []) listener(detail);
}

// A name or value in a where-expression.
const quoted = (text) => `'${String(text).replaceAll("'", "''")}'`;
const column = (name) => (/^[A-Za-z_][A-Za-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`);
const literal = (value) => (typeof value === "number" ? String(value) : typeof value === "boolean" ? String(value) : quoted(value));

// The condition that the facets make, with the one that was written.
export function condition() {
  const terms = [];
  for (const [name, chosen] of Object.entries(state.filters)) {
    if (chosen instanceof Set) {
      if (!chosen.size) continue;
      const known = [...chosen].filter((value) => value !== null);
      const either = [];
      if (known.length) either.push(`${column(name)} in (${known.map(literal).join(", ")})`);
      if (chosen.has(null)) either.push(`${column(name)} is null`);
      terms.push(either.length > 1 ? `(${either.join(" or ")})` : either[0]);
    } else {
      if (chosen.low !== undefined) terms.push(`${column(name)} >= ${literal(chosen.low)}`);
      if (chosen.high !== undefined) terms.push(`${column(name)} <= ${literal(chosen.high)}`);
    }
  }
  if (state.where) terms.push(terms.length ? `(${state.where})` : state.where);
  return terms.join(" and ");
}

// The question as the API takes it; null where nothing is asked.
export function request() {
  if (!state.parts.length) return null;
  const parts = state.parts.map(({ kind, value, weight, crop }) => ({ [kind]: value, weight, ...(crop ? { crop } : {}) }));
  const group = state.index.group;
  return {
    questions: [{ parts }],
    k: state.k,
    where: condition() || null,
    exclude_same: state.excludeSame && group ? { [group]: null } : null,
    one_per: state.onePer && group ? group : null,
  };
}
