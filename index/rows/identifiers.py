"""Identifiers as text: the canonical spelling under which a patient, a study or an eye is stored and compared.

A table may hold an identifier as a number where another holds it as text: 17 in Parquet, ``17.0`` where pandas met an
empty cell, ``"17"`` in a CSV or a DICOM header. All are stored as the text ``17``. Text stays as it is, to the last
character: ``00123``, ``1.10`` and ``1E3`` are three identifiers of their own.

A whole number is written without a fraction, another number with the fewest digits that give it back, a decimal with
the digits of its scale, a date in ISO 8601. NaN is no identifier and becomes null.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.disk.incoming import decoded
from retr.index.errors import UsageError
from retr.index.machine.arrow import pc

if TYPE_CHECKING:
    from collections.abc import Sequence

# Last words of a name that say "this is an identifier", and whole names (without blanks, in small letters) that do.
_MARKS = frozenset({"id", "ids", "uid", "guid", "uuid", "mrn", "accession", "identifier"})
_ROLE = re.compile(
    "(patient|subject|participant|person|case|study|series|accession|eye)s?(id|uid|no|nr|num|number|key|code|name)?|pid"
)

# Beyond these, neighbouring integers are one float64.
EXACT = 2**53


def identifier_text(value: Any) -> str | None:
    """Return one identifier's text; None for a missing one (None, NaN).

    Raises
    ------
    UsageError
        The value is nothing that identifies, such as a list.

    >>> [identifier_text(value) for value in (17, 17.0, "17", "017", 1.5, Decimal("1.10"), float("nan"))]
    ['17', '17', '17', '017', '1.5', '1.10', None]
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return f"{int(value)}" if value.is_integer() else repr(value)
    if isinstance(value, Decimal):
        if value.is_nan():
            return None
        return f"{int(value)}" if value.is_finite() and value == value.to_integral_value() else f"{value:f}"
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    raise UsageError(
        f"a {type(value).__name__} cannot identify a patient or a group, got: {value!r}",
        hint="give a text or a number",
    )


def identifier_texts(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return a column of identifiers as text, each as `identifier_text` writes it.

    Parameters
    ----------
    column
        Of any type whose values can identify.
    name
        The column's, for the error.

    Raises
    ------
    UsageError
        The column holds lists, structs or the like.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return identifier_texts(decoded(column), name)
    if pa.types.is_string(kind):
        return column
    if _is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_floating(kind):
        # by way of its text, a float32 of 1.1 is 1.1 and not 1.10000002384
        exact = column if kind == pa.float64() else column.cast(pa.string()).cast(pa.float64())
        wide = pc.if_else(pc.is_nan(exact), None, exact)
        if pc.all(pc.and_(pc.equal(pc.trunc(wide), wide), pc.less(pc.abs(wide), float(EXACT)))).as_py() is not False:
            return wide.cast(pa.int64()).cast(pa.string())
        column = wide
    elif pa.types.is_nested(kind) or pa.types.is_duration(kind) or pa.types.is_interval(kind):
        raise UsageError(
            f"column {name!r} has the type {str(kind)!r}, which cannot tell patients or groups apart",
            hint="name a column of texts or numbers",
        )
    return pa.chunked_array([_texts(chunk.to_pylist()) for chunk in column.chunks], pa.string())


def lossy(column: pa.ChunkedArray) -> bool:
    """Return whether a column of floats holds whole numbers beyond 2^53, among which identifiers may be one."""
    if not pa.types.is_floating(column.type):
        return False
    most = EXACT if column.type == pa.float64() else 2**24 if column.type == pa.float32() else 2**11
    large = pc.greater_equal(pc.abs(column.cast(pa.float64())), float(most))
    return bool(pc.any(pc.and_(large, pc.is_finite(column))).as_py())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _texts(values: Sequence[Any]) -> pa.Array:
    return pa.array([identifier_text(value) for value in values], pa.string())


def identifies(column: str) -> bool:
    """Return whether a column's name says that it tells patients, studies, eyes or the like apart.

    Numbers at its end tell nothing, nor does ``_meta``, which a column gets whose name an index needs itself.

    >>> [name for name in ("Patient", "StudyInstanceUID", "eye", "Patient Age", "valid") if identifies(name)]
    ['Patient', 'StudyInstanceUID', 'eye']
    """
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", column)]
    while len(words) > 1 and (words[-1].isdecimal() or words[-1] == "meta"):
        words.pop()
    return bool(words) and (words[-1] in _MARKS or _ROLE.fullmatch("".join(words)) is not None)
