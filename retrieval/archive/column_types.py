"""Infer numeric columns: a column of texts becomes numbers only where no spelling would be lost.

A column of texts becomes numbers where every cell that is not missing is a plain number (a sign, digits, a fraction;
an exponent only as computers write it: ``1e-05``), and no two different cells are the same number. So ``1.50``,
``0.75``, ``-0.00`` are numbers (a zero may have a sign), while ``1.1`` beside ``1.10``, ``0012``, ``1E3`` and integers
of more than 63 bits stay text. `NUMBER` and `TEXT` of a column decide otherwise.

A column that identifies (the group column, ``patient``, ``StudyID`` ...) is always text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from retr.index.disk.schema import ID
from retr.index.errors import UsageError
from retr.index.machine.arrow import pc
from retr.index.rows.identifiers import identifier_texts

NUMBER, TEXT = "number", "text"

# What a cell says when there is no number; in a text column it is text, but for the empty one.
_MISSING = ("", "NA", "N/A", "n/a", "na", "NaN", "nan", "NULL", "null", "None")
# What no identifier is: an empty cell, and what pandas writes for one.
_NO_IDENTIFIER = ("", "nan", "NaN")
_INTEGER = r"^-?(0|[1-9][0-9]{0,18})$"
_DECIMAL = r"^(-?(0|[1-9][0-9]*)\.?|[-+]?(0|[1-9][0-9]*)?\.[0-9]+)$"
_SIGNED_ZERO = r"^[-+](0?\.?0*)$"
_ANY_NUMBER = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"
_WHOLE = r"^(0|[1-9][0-9]*)\.0$"
# So many digits of a decimal come back from a float64.
_DIGITS = 15


def narrow(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn a text column into integers, decimals or booleans where that loses nothing; empty cells become nulls.

    >>> narrow(pa.chunked_array([["7", "12", ""]])).type, narrow(pa.chunked_array([["7", "0012"]])).type
    (DataType(int64), DataType(string))
    """
    cells = _without(column, _MISSING)
    if cells.null_count < len(cells):
        if _all(pc.match_substring_regex(cells, _INTEGER)):
            try:
                return cells.cast(pa.int64())
            except pa.ArrowInvalid:  # more than 63 bits
                return _without(column, ("",))
        if _is_faithful(cells):
            return _float(cells)
        lower = pc.utf8_lower(cells)
        if _all(pc.or_(pc.equal(lower, "true"), pc.equal(lower, "false"))):
            return pc.equal(lower, "true")
    return _without(column, ("",))


def looks_numeric(column: pa.ChunkedArray) -> bool:
    """Return whether a text column holds nothing but numbers, however they are spelled."""
    cells = _without(column, _MISSING)
    return cells.null_count < len(cells) and _all(pc.match_substring_regex(cells, _ANY_NUMBER))


def identifying(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return a column of identifiers as text; missing ones are null.

    Where cells are missing and all others are whole numbers with ``.0``, pandas has written integers as floats: the
    identifiers are the integers.
    """
    if not pa.types.is_string(column.type):
        return identifier_texts(column, name)
    cells = _without(column, _NO_IDENTIFIER)
    if 0 < cells.null_count < len(cells) and _all(pc.match_substring_regex(cells, _WHOLE)):
        return pc.utf8_slice_codeunits(cells, 0, -2)
    return cells


def doubts(column: pa.ChunkedArray, name: str) -> list[str]:
    """Return what to say of identifiers that may not be meant as they are written, without showing one."""
    said = []
    empty = _count(column, _NO_IDENTIFIER[1:])
    if empty:
        said.append(f"column {name!r}: nan counts as missing ({empty} cells); --type {name}={TEXT} keeps it as a text")
    words = _count(column, tuple(word for word in _MISSING if word not in _NO_IDENTIFIER))
    if words:
        said.append(
            f"column {name!r}: NA, null and the like are identifiers here ({words} cells); empty cells are missing"
        )
    distinct = _without(column, _NO_IDENTIFIER).unique().drop_null()
    read = pc.utf8_lower(pc.utf8_trim_whitespace(pc.utf8_normalize(distinct, form="NFKC")))
    alike = len(distinct) - pc.count_distinct(read).as_py()
    if alike:
        said.append(f"column {name!r}: {alike} of its values differ from another in blanks, capitals or width alone")
    return said


def as_declared(column: pa.ChunkedArray, name: str, declared: str) -> pa.ChunkedArray:
    """Return a column as the type that was declared for it, `NUMBER` or `TEXT`.

    Raises
    ------
    UsageError
        A cell is no number; the message names its row.
    """
    text = pa.types.is_string(column.type)
    if declared == TEXT:
        return _without(column, ("",)) if text else identifier_texts(column, name)
    if not text:
        return column
    cells = _without(pc.utf8_trim_whitespace(column), _MISSING)
    numbers = pc.match_substring_regex(cells, _ANY_NUMBER)
    if not _all(numbers):
        row = pc.index(numbers.combine_chunks(), value=False).as_py()
        raise UsageError(
            f"column {name!r} is declared a number, but row {row + 1} of the table holds another text",
            hint=f"leave --type {name}={NUMBER} out, or mend the cell",
        )
    if _all(pc.match_substring_regex(cells, _INTEGER)):
        try:
            return cells.cast(pa.int64())
        except pa.ArrowInvalid:
            pass
    return _float(cells)


def read_types(given: Mapping[str, str]) -> dict[str, str]:
    """Check the declared types of columns.

    Raises
    ------
    UsageError
        A type is neither `NUMBER` nor `TEXT`, or they are no mapping.
    """
    if not isinstance(given, Mapping):
        raise UsageError(f"types are columns with their types, got: {given!r}", hint="write types={'age': 'number'}")
    for name, kind in given.items():
        if kind not in {NUMBER, TEXT}:
            raise UsageError(f"the type of column {name!r} must be number or text, got: {kind!r}")
    return dict(given)


def require_group(group: str | None, types: Mapping[str, str]) -> None:
    """Refuse a column that cannot tell patients apart: the rows' own ids, or one declared a number; `UsageError`."""
    if group == ID:
        raise UsageError(
            f"the column {ID!r} is another one for each picture and tells no patients apart",
            hint=f"of a table or a JSON that has a column {ID!r}, it is stored as '{ID}_meta'",
        )
    if group is not None and types.get(group) == NUMBER:
        raise UsageError(
            f"the column {group!r} tells patients apart and stays text: as numbers, 0123 and 123 would be one",
            hint=f"build with --type {group}={TEXT}",
        )


def _is_faithful(cells: pa.ChunkedArray) -> bool:
    """Return whether each cell is a plain number of its own."""
    if not _all(pc.match_substring_regex(cells, _ANY_NUMBER)):
        return False
    digits = pc.replace_substring_regex(pc.replace_substring_regex(cells, r"[-+.]", ""), "^0+", "")
    plain = pc.and_(pc.match_substring_regex(cells, _DECIMAL), pc.less_equal(pc.utf8_length(digits), _DIGITS))
    rest = cells.filter(pc.invert(plain))
    if any(text is not None and text != repr(float(text)) for text in rest.to_pylist()):
        return False
    unsigned = pc.replace_substring_regex(cells, _SIGNED_ZERO, r"\1")
    return bool(pc.count_distinct(unsigned).as_py() == pc.count_distinct(_float(cells)).as_py())


def _float(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read decimals; Arrow takes no leading plus, and a zero loses its sign."""
    return pc.add(pc.replace_substring_regex(cells, r"^\+", "").cast(pa.float64()), 0.0)


def _count(column: pa.ChunkedArray, words: tuple[str, ...]) -> int:
    return int(pc.sum(pc.is_in(column, value_set=pa.array(words))).as_py() or 0)


def _without(column: pa.ChunkedArray, words: tuple[str, ...]) -> pa.ChunkedArray:
    return pc.if_else(pc.is_in(column, value_set=pa.array(words)), pa.scalar(None, pa.string()), column)


def _all(flags: Any) -> bool:
    return bool(pc.all(flags).as_py())
