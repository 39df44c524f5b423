"""What the columns of an index hold, under a condition: values with counts, ranges of numbers and dates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from retr.answers import to_plain
from retr.serve.schemas import Facet, Facets, Rows

if TYPE_CHECKING:
    from retr import Index

# a column with more different values than this tells rows apart rather than grouping them
_MOST_VALUES = 1000
_SHOWN = 30
# columns of the index's own that say nothing of what a picture shows
_OF_FILES = {"folder", "mode", "etag", "header_notes"}
_OWN = {"id", "path", "sha256", "size", "mtime", "error"}


def facets(index: Index, where: str | None) -> Facets:
    """Return the facets of all columns, in the columns' order."""
    table = index.table(where=where)
    found = [
        facet for name in table.column_names if name not in _OWN and (facet := _facet(name, table[name])) is not None
    ]
    hidden = _OWN | _OF_FILES | set(index.info()["hashed"])
    texts = [one.name for one in table.schema if pa.types.is_string(one.type) and one.name not in hidden]
    return Facets(index="", version=index.version, total=table.num_rows, facets=found, texts=texts)


def page(index: Index, where: str | None, offset: int, limit: int) -> Rows:
    """Return some of the rows that a condition allows."""
    table = index.table(where=where)
    return Rows(
        index="",
        version=index.version,
        total=table.num_rows,
        rows=[to_plain(row) for row in table.slice(offset, limit).to_pylist()],
    )


def one(index: Index, row_id: str) -> dict[str, Any]:
    """Return one row."""
    record: dict[str, Any] = to_plain(index[row_id])
    return record


def _facet(name: str, column: pa.ChunkedArray) -> Facet | None:
    missing = column.null_count
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_temporal(kind):
        ends = pc.min_max(column)
        if pa.types.is_floating(kind) or pc.count_distinct(column).as_py() > 12:
            low, high = (to_plain(end) for end in (ends["min"].as_py(), ends["max"].as_py()))
            return Facet(column=name, kind="range", low=low, high=high, missing=missing, more=0)
    if pa.types.is_list(kind):
        column = pc.list_flatten(column)
    counts = pc.value_counts(column.drop_null())
    if len(counts) > _MOST_VALUES and len(counts) > 0.5 * len(column):
        return None
    table = pa.table({"values": counts.field("values"), "counts": counts.field("counts")})
    # in C: a column of a million rows may have hundreds of thousands of values, such as patients
    first = pc.select_k_unstable(table, _SHOWN, sort_keys=[("counts", "descending"), ("values", "ascending")])
    values = [(to_plain(entry["values"]), entry["counts"]) for entry in table.take(first).to_pylist()]
    return Facet(column=name, kind="values", values=values, more=max(0, len(counts) - _SHOWN), missing=missing)
