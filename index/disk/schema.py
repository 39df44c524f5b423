"""The types of metadata columns, and merging the columns of two tables.

A few Arrow types, each with a name in the manifest, are enough for what CSV, Parquet and image headers hold. Every
column is converted to one of them by `retr.index.disk.incoming`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from retr.index.disk.incoming import stored_column
from retr.index.errors import UsageError
from retr.index.json_fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ID = "id"

TYPES: Mapping[str, pa.DataType] = {
    str(kind): kind
    for kind in (
        pa.null(),
        pa.bool_(),
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.binary(),
        pa.date32(),
        pa.timestamp("us"),
        pa.timestamp("us", tz="UTC"),
        pa.list_(pa.string()),
        pa.list_(pa.int64()),
        pa.list_(pa.float64()),
    )
}


def stored_table(table: pa.Table) -> pa.Table:
    """Bring every column to a stored type; the first column is the string ``id``.

    Raises
    ------
    UsageError
        There is no text column ``id``, an id is null or repeated, or a type cannot be held.
    """
    if ID not in table.column_names:
        raise UsageError(f"a table of rows needs the column {ID!r}, got {table.column_names!r}")
    if len(set(table.column_names)) != table.num_columns:
        raise UsageError(f"a column name occurs twice: {table.column_names!r}", hint="rename one of them")
    names = [ID, *(name for name in table.column_names if name != ID)]
    columns = {name: stored_column(table.column(name), name) for name in names}
    if pa.types.is_null(columns[ID].type):
        columns[ID] = columns[ID].cast(pa.string())
    if not pa.types.is_string(columns[ID].type):
        raise UsageError(f"the column {ID!r} must be text, got {str(columns[ID].type)!r}")
    result = pa.table(columns)
    if result.column(ID).null_count:
        raise UsageError(f"the column {ID!r} has an empty entry; every row needs an id")
    return result


def widen(old: pa.Schema, new: pa.Schema) -> pa.Schema:
    """Return the schema that holds both, with the columns of ``old`` first.

    Raises
    ------
    UsageError
        One column has two types that no stored type covers.
    """
    fields = {field.name: field for field in old}
    for field in new:
        if field.name not in fields:
            fields[field.name] = field
            continue
        fields[field.name] = pa.field(field.name, _common(fields[field.name].type, field.type, field.name))
    return pa.schema(list(fields.values()))


def _common(old: pa.DataType, new: pa.DataType, column: str) -> pa.DataType:
    if old == new or pa.types.is_null(new):
        return old
    if pa.types.is_null(old):
        return new
    if {str(old), str(new)} == {"int64", "double"}:
        return pa.float64()
    raise UsageError(
        f"column {column!r} holds {str(old)!r} in this index and {str(new)!r} in the new rows",
        hint="convert one of them, or give the new column another name",
    )


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring a table to ``schema``: missing columns become null, narrower types are cast."""
    if table.schema.equals(schema):
        return table
    there = dict(zip(table.column_names, table.columns, strict=True))
    columns: list[Any] = [
        as_stored(there[field.name], field.type) if field.name in there else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def as_stored(column: pa.ChunkedArray[Any], kind: pa.DataType) -> pa.ChunkedArray[Any]:
    """Bring a stored column to the wider type that the index has; `require_exact` let only exact integers become so."""
    if pa.types.is_dictionary(column.type) and column.type.value_type == kind:
        # a fifth of what a cast takes
        return pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], kind)
    # indexes from before it was asked hold others, which must not end the reading
    return column if column.type == kind else column.cast(kind, safe=not pa.types.is_integer(column.type))


def require_exact(old: pa.Schema, wide: pa.Schema, new: pa.Table, stored: Callable[[list[str]], pa.Table]) -> None:
    """Refuse what becomes a column of floats in ``wide`` where that would round an integer, of new rows or of stored.

    Parameters
    ----------
    stored
        Reads columns of the rows that there are; only asked where one of them changes.
    """
    floats = {field.name for field in wide if pa.types.is_float64(field.type)}
    tables = [new.select([name for name in new.column_names if name in floats])]
    changed = [field.name for field in old if field.name in floats and pa.types.is_integer(field.type)]
    if changed:
        tables.append(stored(changed))
    for table in tables:
        for name, column in zip(table.column_names, table.columns, strict=True):
            try:
                column.cast(pa.float64())
            except pa.ArrowInvalid:
                raise UsageError(
                    f"column {name!r} would hold fractions beside integers beyond 2^53, which no type of number can",
                    hint=f"have it read as text: --type {name}=text",
                ) from None


def records(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows as objects of Python; a day that its calendar does not reach, such as 12024-01-01, as text."""
    columns = [_values(column) for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray[Any]) -> list[Any]:
    try:
        return cast("list[Any]", column.to_pylist())
    except (OverflowError, ValueError):
        return _as_text(column)


def _as_text(column: pa.ChunkedArray[Any]) -> list[str | None]:
    date = pa.types.is_date(column.type)
    numbers = column.cast(pa.int32() if date else pa.int64())
    moments = np.asarray(numbers.fill_null(0).to_numpy(), np.int64).astype(
        "datetime64[D]" if date else "datetime64[us]"
    )
    zone = "" if date or column.type.tz is None else "+00:00"
    texts = [f"{moment}{zone}" for moment in moments]
    return [text if known else None for text, known in zip(texts, numbers.is_valid().to_pylist(), strict=True)]


def texts(column: pa.ChunkedArray[Any]) -> list[str]:
    """Return the entries of a text column without nulls, such as ``id``."""
    return cast("list[str]", column.to_pylist())


def to_json(schema: pa.Schema) -> list[dict[str, str]]:
    """Return the manifest's form of a schema."""
    return [{"name": field.name, "type": str(field.type)} for field in schema]


def from_json(columns: list[Any]) -> pa.Schema:
    """Read what `to_json` wrote; ``ValueError`` or ``KeyError`` for anything else."""
    fields = [Fields(column) for column in columns]
    schema = pa.schema([pa.field(column.text("name"), TYPES[column.text("type")]) for column in fields])
    if len(set(schema.names)) < len(schema) or schema.names[:1] != [ID] or schema.field(ID).type != pa.string():
        raise ValueError("the columns do not begin with the text 'id', or two have one name")
    return schema
