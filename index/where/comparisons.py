"""Values compared exactly: columns with literals and with each other.

Two numbers are compared by what they are. Where a literal falls between two values that a column can hold, the nearest
of them stands for it together with the side on which the literal lies; an integer column and a float column meet at the
float's floor. So nothing passes through a rounding to 53 bits, and no literal is too large. Only a fraction (``0.1``)
or a decimal column is rounded to the nearest double when it meets a float column, as SQL engines do.

Texts are compared with their accents composed (NFC). A literal is a ``str`` (composed), a ``bool``, a ``Number``, or
``None``. A column is an Arrow array, chunked or not.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from retr.index.machine.arrow import pc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Column: TypeAlias = Any
    Value: TypeAlias = Any

_UNKNOWN = pa.scalar(None, pa.bool_())
_FLIPPED = {"less": "greater", "less_equal": "greater_equal", "greater": "less", "greater_equal": "less_equal"}
_OPERATORS = {
    "equal": operator.eq,
    "not_equal": operator.ne,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}
# What a comparison becomes when the literal lies just below, at, or just above the value that stands for it.
_BESIDE: dict[str, tuple[str | bool, str, str | bool]] = {
    "equal": (False, "equal", False),
    "not_equal": (True, "not_equal", True),
    "less": ("less", "less", "less_equal"),
    "less_equal": ("less", "less_equal", "less_equal"),
    "greater": ("greater_equal", "greater", "greater"),
    "greater_equal": ("greater_equal", "greater_equal", "greater"),
}
_DAY = 86_400_000_000
_MOMENT = re.compile(
    r"(\d{4,6}-\d\d-\d\d)(?:[ T]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(\.\d+)?)?)?"
    r"(?: ?(Z|[+-](?:0\d|1\d|2[0-3]):?[0-5]\d))?",
    re.ASCII,
)
# Beyond every number that a column can hold, and small enough to reckon with.
_HUGE = 400


@dataclass(frozen=True)
class Number:
    """A number as it was written: its exact value, and whether that was an integer."""

    value: int | Fraction
    integer: bool

    @classmethod
    def parse(cls, text: str) -> Number:
        """Read a literal; ``decimal.InvalidOperation`` where its exponent has too many digits."""
        integer = text.lstrip("+-").isdigit()
        if integer and len(text) <= _HUGE:
            return cls(int(text), integer)
        decimal = Decimal(text)
        if decimal and abs(decimal.adjusted()) > _HUGE:
            # Only where it lies matters: above everything, or between zero and everything else.
            sign = -1 if decimal < 0 else 1
            return cls(sign * Fraction(10) ** (_HUGE if decimal.adjusted() > 0 else -_HUGE), integer)
        return cls(Fraction(decimal), integer)


Literal: TypeAlias = "str | bool | Number | None"


def family(kind: pa.DataType) -> str:
    """Return what a type can be compared with: ``number``, ``text``, ``date``, ``true or false``, ``null``.

    Anything else is ``list`` or ``binary``: it can only be tested for null.
    """
    if pa.types.is_dictionary(kind):
        return family(kind.value_type)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return "date"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_boolean(kind):
        return "true or false"
    if pa.types.is_null(kind):
        return "null"
    return "list" if pa.types.is_nested(kind) else "binary"


def composed(texts: Column) -> Column:
    """Return plain texts with their accents composed (NFC): how they were typed decides nothing."""
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    return texts if all(map(_is_ascii, chunks)) else pc.utf8_normalize(texts, form="NFC")


def _is_ascii(texts: pa.StringArray) -> bool:
    # the bytes of all texts at once: a tenth of what asking each text takes
    _, offsets, data = texts.buffers()
    if data is None or not len(texts):
        return True
    start, stop = np.frombuffer(offsets, np.int32)[[texts.offset, texts.offset + len(texts)]]
    return bool(np.frombuffer(data, np.uint8)[start:stop].max(initial=0) < 128)


def present(column: Column) -> Column:
    """Return a column as it is compared: texts plain and composed, floats double; NaN, a missing number, as null."""
    kind = column.type
    if pa.types.is_floating(kind):
        column = column if pa.types.is_float64(kind) else column.cast(pa.float64())
        nan = pc.is_nan(column)
        return pc.if_else(nan, pa.scalar(None, pa.float64()), column) if pc.any(nan).as_py() else column
    if family(kind) == "text":
        return composed(column if pa.types.is_string(kind) else column.cast(pa.string()))
    return column.cast(pa.date32()) if pa.types.is_date64(kind) else column


def canonical(column: Column) -> Column:
    """Bring a column to a form in which equal values are the same bits: as `present`, and -0.0 becomes 0.0."""
    column = present(column)
    return pc.add(column, 0.0) if pa.types.is_floating(column.type) else column


@lru_cache(maxsize=1024)
def moment(text: str) -> Fraction:
    """Read a day or a moment as microseconds since 1970 in UTC; without a zone it is in UTC.

    Raises
    ------
    ValueError
        It is not written like ``2024-05-31`` or ``2024-05-31 14:30:05.25+02:00``, or there is no such day.
    """
    match = _MOMENT.fullmatch(text)
    if match is None or (match[6] and match[2] is None):
        raise ValueError(text)
    day, hours, minutes, seconds, parts, zone = match.groups()
    days = int(np.datetime64(day, "D").astype(np.int64))
    clock = (int(hours or 0) * 60 + int(minutes or 0)) * 60 + int(seconds or 0)
    if zone and zone != "Z":
        offset = int(zone[1:3]) * 60 + int(zone[-2:])
        clock -= (-offset if zone[0] == "-" else offset) * 60
    return Fraction(days * _DAY + clock * 1_000_000) + Fraction(parts or 0) * 1_000_000


def compare(function: str, left: Value, right: Value) -> Value:
    """Compare columns and literals by the name of one of Arrow's functions; null where either side is null or NaN.

    Returns
    -------
    An Arrow array of booleans, or a scalar where both sides are literals or one is ``None``.
    """
    if left is None or right is None:
        return _UNKNOWN
    if _is_literal(left) and _is_literal(right):
        left, right = (one.value if isinstance(one, Number) else one for one in (left, right))
        return pa.scalar(bool(_OPERATORS[function](left, right)))
    if _is_literal(left):
        return compare(_FLIPPED.get(function, function), right, left)
    if pa.types.is_null(left.type):
        return _UNKNOWN
    left = present(left)
    if _is_literal(right):
        return _with_literal(function, left, right)
    return _UNKNOWN if pa.types.is_null(right.type) else _columns(function, left, present(right))


def whole_numbers(function: str, left: Column, right: Literal) -> NDArray[np.bool_] | None:
    """Compare a column of integers without nulls with a number: a bool array of numpy, in half of Arrow's time.

    ``None`` where it is something else that is compared.
    """
    if (
        function not in _BESIDE
        or not isinstance(right, Number)
        or not pa.types.is_integer(left.type)
        or left.null_count
    ):
        return None
    become, value = as_step(function, left.type, right)
    if isinstance(become, bool):
        return np.full(len(left), become)
    compare = _OPERATORS[become]
    chunks = left.chunks if isinstance(left, pa.ChunkedArray) else [left]
    truths = [compare(chunk.to_numpy(), value) for chunk in chunks]
    return truths[0] if len(truths) == 1 else np.concatenate([np.empty(0, np.bool_), *truths])


def as_step(function: str, kind: pa.DataType, literal: Number) -> tuple[str | bool, int]:
    """Return what a comparison of whole numbers with a literal comes to.

    Returns
    -------
    tuple
        The name of a comparison with one of the numbers that the type can hold, or its only result; and that number.
    """
    value, side = _step(kind, literal)
    return _BESIDE[function][side + 1], value


def among(left: Column, values: Sequence[Literal]) -> Value:
    """Return where a column equals one of ``values``, none of them ``None``; null where the column is null or NaN."""
    if pa.types.is_null(left.type):
        return _UNKNOWN
    left = canonical(left)
    points = [point for point, side in (_point(left.type, value) for value in values) if side == 0]
    found = pc.is_in(left, value_set=pa.array(points, left.type))
    return pc.if_else(pc.is_valid(left), found, _UNKNOWN)


def like(left: Column, pattern: str) -> Value:
    """Match whole texts: ``%`` stands for any text, ``_`` for one character, everything else for itself.

    Raises
    ------
    ValueError
        The pattern is too long.
    """
    if pa.types.is_null(left.type):
        return _UNKNOWN
    left = present(left)
    if "_" not in pattern:
        parts = re.split("%+", pattern)
        if len(parts) == 1:
            return pc.equal(left, pattern)
        if parts[1:] == [""]:
            return pc.starts_with(left, pattern=parts[0])
        if parts[:-1] == [""]:
            return pc.ends_with(left, pattern=parts[1])
        if len(parts) == 3 and parts[0] == parts[2] == "":
            return pc.match_substring(left, pattern=parts[1])
    inside = (".*" if sign == "%" else "." if sign == "_" else re.escape(sign) for sign in re.sub("%+", "%", pattern))
    try:
        return pc.match_substring_regex(left, pattern=rf"(?s)\A{''.join(inside)}\z")
    except pa.ArrowInvalid as error:
        raise ValueError(pattern) from error


def _is_literal(value: object) -> bool:
    return isinstance(value, str | bool | Number)


def _with_literal(function: str, left: Column, right: Literal) -> Value:
    point, side = _point(left.type, right)
    become = _BESIDE[function][side + 1]
    if isinstance(become, bool):
        return pc.if_else(pc.is_valid(left), pa.scalar(become), _UNKNOWN)
    return pc.call_function(become, [left, point])


def _point(kind: pa.DataType, literal: Literal) -> tuple[pa.Scalar[Any], int]:
    """Return the column value that stands for a literal, and whether the literal lies below (-1), at (0), above it."""
    if isinstance(literal, bool) or (isinstance(literal, str) and family(kind) == "text"):
        return pa.scalar(literal, kind), 0
    if isinstance(literal, Number) and pa.types.is_floating(kind):
        return _double(literal)
    step, side = _step(kind, literal)
    return _grid_value(kind, step), side


def _step(kind: pa.DataType, literal: Literal) -> tuple[int, int]:
    """Return what `_point` does of a type whose values are whole steps: the step's number, and the side."""
    steps, low, high = _grid(kind)
    assert literal is not None
    exact = (literal.value if isinstance(literal, Number) else moment(literal)) * steps
    whole, rest = divmod(exact.numerator, exact.denominator)
    floor = min(max(whole, low), high)
    return floor, 1 if rest and whole == floor else (whole > floor) - (whole < floor)


def _double(number: Number) -> tuple[pa.Scalar[Any], int]:
    try:
        double = float(number.value)
    except OverflowError:
        below = number.value > 0
        return pa.scalar(np.inf if below else -np.inf), -1 if below else 1
    side = (number.value > double) - (number.value < double) if number.integer else 0
    return pa.scalar(double + 0.0), side


@lru_cache(maxsize=64)
def _grid(kind: pa.DataType) -> tuple[int | Fraction, int, int]:
    """Return how many steps of a column's type there are to one (number, or microsecond), and its first and last."""
    if pa.types.is_decimal(kind):
        most = 10**kind.precision - 1
        return Fraction(10) ** kind.scale, -most, most
    if pa.types.is_date(kind):
        return Fraction(1, _DAY), -(2**31), 2**31 - 1
    if pa.types.is_timestamp(kind):
        steps = {"s": Fraction(1, 10**6), "ms": Fraction(1, 1000), "us": Fraction(1), "ns": Fraction(1000)}
        return steps[kind.unit], -(2**63), 2**63 - 1
    limits = np.iinfo(kind.to_pandas_dtype())
    return 1, int(limits.min), int(limits.max)


def _grid_value(kind: pa.DataType, step: int) -> pa.Scalar[Any]:
    if pa.types.is_decimal(kind):
        digits = tuple(int(digit) for digit in str(abs(step)))
        return pa.scalar(Decimal((int(step < 0), digits, -kind.scale)), kind)
    if pa.types.is_date(kind):
        return pa.scalar(step, pa.int32()).cast(kind)
    return pa.scalar(step, pa.int64()).cast(kind) if pa.types.is_timestamp(kind) else pa.scalar(step, kind)


def _columns(function: str, left: Column, right: Column) -> Value:
    kinds = left.type, right.type
    if kinds[0] == kinds[1]:
        return pc.call_function(function, [left, right])
    if any(map(pa.types.is_floating, kinds)):
        try:
            # Arrow refuses to cast an integer that a double does not hold.
            return pc.call_function(function, [left.cast(pa.float64()), right.cast(pa.float64())])
        except pa.ArrowInvalid:
            return _by_floor(function, left, right)
    if any(map(pa.types.is_date, kinds)):
        return _by_floor(function, left, right)
    if pa.types.is_timestamp(kinds[0]):
        # Stored timestamps count microseconds, in UTC where they have a zone.
        left, right = (column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64()) for column in (left, right))
        return pc.call_function(function, [left, right])
    return pc.call_function(function, [_decimal(left, kinds), _decimal(right, kinds)])


def _decimal(column: Column, kinds: Sequence[pa.DataType]) -> Column:
    """Bring an integer or decimal column to a type that holds all values of both kinds."""
    sizes = [(kind.precision, kind.scale) if pa.types.is_decimal(kind) else (20, 0) for kind in kinds]
    scale = max(scale for _, scale in sizes)
    precision = scale + max(digits - scale for digits, scale in sizes)
    common = pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(min(precision, 76), scale)
    return column.cast(common)


def _by_floor(function: str, left: Column, right: Column) -> Value:
    """Compare steps (integers, days) with what lies between steps too (floats, moments), by its floor."""
    if pa.types.is_floating(left.type) or pa.types.is_timestamp(left.type):
        return _by_floor(_FLIPPED.get(function, function), right, left)
    valid = pc.and_(pc.is_valid(left), pc.is_valid(right))
    if pa.types.is_timestamp(right.type):
        steps = _numpy(left.cast(pa.int32())).astype(np.int64)
        moments = _numpy(right.cast(pa.timestamp("us", right.type.tz)).cast(pa.int64()))
        floor, rest = np.divmod(moments, _DAY)
        above = below = np.zeros(len(steps), bool)
    else:
        steps, numbers = _numpy(left), _numpy(right)
        limits = np.iinfo(steps.dtype)
        above, below = numbers >= float(int(limits.max) + 1), numbers < float(limits.min)
        whole = np.floor(np.where(above | below, 0.0, numbers))
        floor, rest = whole.astype(steps.dtype), numbers != whole
    order = (steps > floor).astype(np.int8) - (steps < floor)
    order[(order == 0) & (rest != 0)] = -1
    order[above], order[below] = -1, 1
    truth = _OPERATORS[function](order, 0)
    return pa.array(truth, mask=~np.asarray(_numpy(valid)))


def _numpy(column: Column) -> Any:
    filled = column.fill_null(pa.scalar(0).cast(column.type)) if column.null_count else column
    plain = filled.combine_chunks() if isinstance(filled, pa.ChunkedArray) else filled
    return plain.to_numpy(zero_copy_only=False)
