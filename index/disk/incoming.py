"""Converting any Arrow column to one of the stored types without making different values equal.

Numbers stay numbers where every value is kept: integers as ``int64``, decimals as ``double`` where 15 digits hold each
of them; an unsigned integer or a decimal beyond that is stored as text, digit for digit. NaN is a missing value and
becomes null; a zero has no sign. Moments are cut to microseconds. Dictionaries, run-ends, views and extensions give
their plain values. What has no stored form (structs, maps, durations, unions) is refused by name.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import pyarrow as pa

from retr.index.errors import UsageError
from retr.index.machine.arrow import pc

Column: TypeAlias = "pa.ChunkedArray[Any]"

# The digits of a decimal that every float64 gives back.
_DIGITS = 15


def stored_column(column: Column, name: str) -> Column:
    """Bring one column to a stored type.

    Parameters
    ----------
    column
        Of any type.
    name
        The column's, for the error.

    Raises
    ------
    UsageError
        The index has no such type, or a moment lies beyond what microseconds can hold.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _extension(column, name)
    if pa.types.is_dictionary(kind):
        return stored_column(decoded(column), name)
    if pa.types.is_run_end_encoded(kind):
        plain = [pc.run_end_decode(chunk) for chunk in column.chunks]
        return stored_column(pa.chunked_array(plain, kind.value_type), name)
    try:
        result = _scalars(column) if not pa.types.is_nested(kind) else _lists(column, name)
    except pa.ArrowInvalid:
        raise UsageError(
            f"column {name!r} of the type {str(kind)!r} holds a value that an index cannot hold",
            hint="convert the column to text",
        ) from None
    if result is None:
        raise UsageError(
            f"column {name!r} has the type {str(kind)!r}, which an index cannot hold",
            hint="convert it to text, a number, true or false, a date, a timestamp, or a list of texts or numbers",
        )
    return result


def decoded(column: Column) -> Column:
    """Return the values of a dictionary; Arrow takes none out of views."""
    value = column.type.value_type
    if not (pa.types.is_string_view(value) or pa.types.is_binary_view(value)):
        return column.cast(value)
    plain = pa.string() if pa.types.is_string_view(value) else pa.binary()
    chunks = [chunk.dictionary.cast(plain).take(chunk.indices) for chunk in column.chunks]
    return pa.chunked_array(chunks, plain)


def _scalars(column: Column) -> Column | None:
    kind = column.type
    if pa.types.is_integer(kind):
        return _integers(column)
    if pa.types.is_floating(kind):
        wide = pc.add(column.cast(pa.float64()), 0.0)
        return pc.if_else(pc.is_nan(wide), pa.scalar(None, pa.float64()), wide)
    if pa.types.is_decimal(kind):
        return _decimals(column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_date(kind):
        return column.cast(pa.date32())
    if pa.types.is_timestamp(kind):
        # whatever is finer than a microsecond is cut; whatever is coarser has to fit
        return column.cast(pa.timestamp("us", tz="UTC" if kind.tz is not None else None), safe=kind.unit != "ns")
    if pa.types.is_time(kind):
        return pc.replace_substring_regex(column.cast(pa.string()), r"(\.[0-9]*?[1-9])0+$|\.0+$", r"\1")
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return column
    return column.cast(pa.binary()) if _is_binary(kind) else None


def _is_binary(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)


def _integers(column: Column) -> Column:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:  # more than 63 bits
        return column.cast(pa.string())


def _decimals(column: Column) -> Column:
    text = column.cast(pa.string())
    if column.type.scale <= 0:
        try:
            return text.cast(pa.int64())
        except pa.ArrowInvalid:
            return text
    digits = pc.replace_substring_regex(pc.replace_substring_regex(text, "[-.]", ""), "^0+", "")
    if pc.all(pc.less_equal(pc.utf8_length(digits), _DIGITS)).as_py() is False:
        return text
    return pc.add(column.cast(pa.float64()), 0.0)


def _lists(column: Column, name: str) -> Column | None:
    """Bring lists of texts or numbers; None for whatever else is nested."""
    kind = column.type
    views = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    if not (views or pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return None
    inner = kind.value_type
    if pa.types.is_nested(inner):
        return None
    value = stored_column(pa.chunked_array([], inner), name).type
    if not (pa.types.is_string(value) or pa.types.is_integer(value) or pa.types.is_floating(value)):
        return None
    if pa.types.is_dictionary(inner) or views:
        # Arrow casts neither; the cast of a view would even lose its values
        return pa.chunked_array([pa.array(column.to_pylist(), pa.list_(value))])
    return column.cast(pa.list_(value))


def _extension(column: Column, name: str) -> Column:
    """Bring the values that an extension stores; a UUID as its usual text."""
    kind = column.type
    if kind == pa.uuid():
        texts = [None if value is None else str(value) for value in column.to_pylist()]
        return pa.chunked_array([texts], pa.string())
    return stored_column(pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type), name)
