"""Where-expressions, evaluated to an exact mask of rows; `retr.index.expressions` has the grammar.

Nulls follow SQL: a comparison with null is unknown, unknown propagates through and/or/not, and only rows for which
the whole is true are kept. In LIKE, ``%`` stands for any text and ``_`` for one character. Every mistake is a
`FilterError` that points at its column of the expression.
"""

from __future__ import annotations

import difflib
from datetime import UTC, datetime, time
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retr.index.expressions import Logic, Node, Operand, Predicate, fail, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Column: TypeAlias = Any
    Value: TypeAlias = Any


_FEW_WORDS = 4


class Condition:
    """An expression that was read and checked, to be evaluated over one run of rows after another.

    Raises
    ------
    FilterError
        The expression cannot be read, names an unknown column, or compares what cannot be compared.
    """

    def __init__(self, expression: str, schema: pa.Schema) -> None:
        self._tree = parse(expression)
        self._binder = _Binder(expression, schema)
        self._binder.check(self._tree)

    def mask(self, n_rows: int, column: Callable[[str], Column]) -> NDArray[np.bool_]:
        """Evaluate it.

        Parameters
        ----------
        n_rows
            How many rows there are.
        column
            Gives a column of these rows as a chunked array; texts may be dictionary-encoded, with one dictionary.

        Returns
        -------
        bool ``(n_rows,)``, true where the expression is true (not where it is unknown)
        """
        result = _Evaluator(self._binder, column).node(self._tree)
        if isinstance(result, pa.Scalar):
            return np.full(n_rows, result.as_py() is True)
        mask = np.empty(n_rows, bool)
        start = 0
        for chunk in result.chunks if isinstance(result, pa.ChunkedArray) else [result]:
            mask[start : start + len(chunk)] = truths(chunk)
            start += len(chunk)
        return mask


def truths(array: Column) -> NDArray[np.bool_]:
    """Give the bool ``(n,)`` of an Arrow array of booleans, false where it is null."""
    valid, bits = (None if buffer is None else np.frombuffer(buffer, np.uint8) for buffer in array.buffers())
    if bits is None or not len(array):
        return np.zeros(len(array), bool)
    stop = array.offset + len(array)
    if valid is not None:
        size = -(-stop // 8)
        bits = bits[:size] & valid[:size]
    return np.unpackbits(bits, count=stop, bitorder="little")[array.offset :].view(bool)


def nearest(name: str, names: Sequence[str]) -> str | None:
    """Give the name that was probably meant."""
    same = [other for other in names if other.lower() == name.lower()]
    near = same or difflib.get_close_matches(name, names, 1, 0.5)
    return near[0] if near else None


class _Binder:
    """Looks columns up and refuses what cannot be compared, before any row is read."""

    def __init__(self, expression: str, schema: pa.Schema) -> None:
        self._text = expression
        self._schema = schema

    def check(self, node: Node) -> None:
        if isinstance(node, Logic):
            for part in node.parts:
                self.check(part)
            return
        left = self.type(node.left)
        if node.kind == "is":
            if not (pa.types.is_boolean(left) or pa.types.is_null(left)):
                hint = "write for example: age >= 60"
                fail(self._text, "expected a comparison after this", node.at, hint)
        elif node.kind == "like":
            for operand in (node.left, *node.right):
                self._need_text(operand)
            if node.right[0].name is not None or node.right[0].value is None:
                fail(self._text, "expected a pattern in quotes after 'like'", node.right[0].at)
        elif node.kind == "in":
            for operand in node.right:
                if operand.name is not None:
                    hint = "texts are written in single quotes: 'F'"
                    fail(
                        self._text,
                        f"expected a value in the list, got the name {operand.name!r}",
                        operand.at,
                        hint,
                    )
                self._comparable(node.left, operand)
        else:
            for operand in node.right:
                self._comparable(node.left, operand)

    def type(self, operand: Operand) -> pa.DataType:
        """Give an operand's type."""
        if operand.name is None:
            return pa.scalar(operand.value).type
        if operand.name not in self._schema.names:
            near = nearest(operand.name, self._schema.names)
            hint = (
                f"did you mean {near!r}? (a text is written in single quotes)"
                if near
                else f"the columns are {', '.join(self._schema.names)} (a text is written in single quotes)"
            )
            fail(self._text, f"there is no column {operand.name!r}", operand.at, hint)
        kind: pa.DataType = self._schema.field(operand.name).type
        return kind

    def _need_text(self, operand: Operand) -> None:
        kind = self.type(operand)
        if not (pa.types.is_string(kind) or pa.types.is_null(kind)):
            fail(self._text, f"'like' needs text, but {_describe(operand)} is {_word(kind)}", operand.at)

    def _comparable(self, left: Operand, right: Operand) -> None:
        kinds = self.type(left), self.type(right)
        families = {_family(kind) for kind in kinds} - {"null"}
        if families & {"list", "binary"}:
            bad = left if _family(kinds[0]) in {"list", "binary"} else right
            fail(
                self._text,
                f"{_describe(bad)} is {_word(self.type(bad))}: it can only be tested for null",
                bad.at,
            )
        if families == {"date", "text"}:
            self._read_date(left, right)
        elif len(families) > 1:
            mismatch = f"{_describe(left)} is {_word(kinds[0])}, {_describe(right)} is {_word(kinds[1])}"
            hint = "texts are written in single quotes, numbers without" if "text" in families else None
            fail(self._text, f"cannot compare: {mismatch}", right.at, hint)

    def _read_date(self, left: Operand, right: Operand) -> None:
        literal, other = (left, right) if isinstance(left.value, str) else (right, left)
        if literal.name is not None:
            fail(
                self._text,
                f"cannot compare: {_describe(literal)} is text, {_describe(other)} is a date",
                right.at,
            )
        try:
            datetime.fromisoformat(str(literal.value))
        except ValueError:
            hint = "write dates as '2024-05-31' or '2024-05-31 14:30'"
            fail(self._text, f"{literal.value!r} is not a date", literal.at, hint)


def _family(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return "date"
    if pa.types.is_list(kind):
        return "list"
    return {"string": "text", "bool": "true or false", "null": "null"}.get(str(kind), "binary")


def _word(kind: pa.DataType) -> str:
    family = _family(kind)
    return {"number": "a number", "date": "a date", "list": "a list", "binary": "binary data"}.get(family, family)


def _describe(operand: Operand) -> str:
    return f"the column {operand.name!r}" if operand.name is not None else repr(operand.value)


class _Evaluator:
    """Computes the truth of a checked tree; literals stay scalars until something needs a row."""

    def __init__(self, binder: _Binder, column: Callable[[str], Column]) -> None:
        self._binder = binder
        self._column = column

    def node(self, node: Node) -> Value:
        if isinstance(node, Predicate):
            return self._test(node)
        parts = [self.node(part) for part in node.parts]
        if node.kind == "not":
            return pc.invert(parts[0])
        combine = pc.and_kleene if node.kind == "and" else pc.or_kleene
        return reduce(combine, parts)

    def _test(self, test: Predicate) -> Value:
        if test.left.name is not None and all(operand.name is None for operand in test.right):
            values = self._column(test.left.name)
            if pa.types.is_dictionary(values.type) and test.kind != "null" and values.num_chunks:
                return _by_code(self._judge(test, values.chunk(0).dictionary), values)
        return self._judge(test, self._value(test.left, *test.right))

    def _judge(self, test: Predicate, left: Value) -> Value:
        if test.kind == "null":
            result = pc.is_null(left)
        elif test.kind == "is":
            result = left.cast(pa.bool_())
        elif test.kind == "like":
            result = pc.match_like(left.cast(pa.string()), str(test.right[0].value))
        elif test.kind == "in":
            result = self._in(test, left)
        elif test.kind == "between":
            low, high = (self._value(operand, test.left) for operand in test.right)
            result = pc.and_kleene(_compare("greater_equal", left, low), _compare("less_equal", left, high))
        else:
            result = _compare(test.kind, left, self._value(test.right[0], test.left))
        return pc.invert(result) if test.negated else result

    def _in(self, test: Predicate, left: Value) -> Value:
        literals = [self._value(operand, test.left) for operand in test.right]
        values = [literal.as_py() for literal in literals if literal.is_valid]
        if not values or pa.types.is_null(left.type):
            return pc.if_else(pc.is_valid(left), pa.scalar(None, pa.bool_()), pa.scalar(None, pa.bool_()))
        if any(isinstance(value, float) for value in values):
            left = left.cast(pa.float64())
        elif pa.types.is_timestamp(left.type) or any(isinstance(value, datetime) for value in values):
            left = left.cast(pa.timestamp("us"))
            values = [value if isinstance(value, datetime) else datetime.combine(value, time()) for value in values]
        found = pc.is_in(left, value_set=pa.array(values, left.type))
        # SQL: "not among these, but one of these is null" is unknown, and so is anything about a null.
        absent = pa.scalar(None if len(values) < len(literals) else False, pa.bool_())
        sure = pc.if_else(found, pa.scalar(value=True), absent)
        return pc.if_else(pc.is_valid(left), sure, pa.scalar(None, pa.bool_()))

    def _value(self, operand: Operand, *partners: Operand) -> Value:
        """Give a column or a scalar; moments come in UTC without zone, whichever way they are stored."""
        if operand.name is None:
            dates = any(_family(self._binder.type(partner)) == "date" for partner in partners)
            if dates and isinstance(operand.value, str):
                moment = datetime.fromisoformat(operand.value)
                moment = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
                # Days are compared as days where that is the same: Arrow need not widen the column.
                return pa.scalar(moment.date() if moment.time() == time() else moment)
            return pa.scalar(operand.value)
        values = self._column(operand.name)
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        return values.cast(pa.timestamp("us")) if pa.types.is_timestamp(values.type) else values


def _by_code(truth: Value, column: Value) -> Value:
    """Spread what was found for each word of a dictionary over the rows.

    Where few words are found, or few are not, as with ``=`` and ``in``, comparing codes is far faster than looking
    each row's word up.
    """
    codes = pa.chunked_array([chunk.indices for chunk in column.chunks])
    if truth.null_count == 0:
        flags = truths(truth)
        for odd, invert in ((flags, False), (~flags, True)):
            # No word has the number -1: what is compared with it is false, or null where the row is.
            at = np.flatnonzero(odd).tolist() or [-1]
            if len(at) <= _FEW_WORDS:
                found = reduce(pc.or_kleene, [pc.equal(codes, pa.scalar(code, codes.type)) for code in at])
                return pc.invert(found) if invert else found
    return pa.chunked_array([truth.take(chunk) for chunk in codes.chunks])


def _compare(function: str, left: Value, right: Value) -> Value:
    if pa.types.is_null(left.type):
        left = left.cast(right.type)
    if pa.types.is_null(right.type):
        right = right.cast(left.type)
    if pa.types.is_null(left.type):
        return left.cast(pa.bool_())
    return pc.call_function(function, [left, right])
