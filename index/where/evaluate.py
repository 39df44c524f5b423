"""Where-expressions, evaluated to an exact mask of rows; `retr.index.where.parse` has the grammar.

Nulls follow SQL: a comparison with null is unknown, unknown propagates through and/or/not, and only rows for which
the whole is true are kept. NaN is null. In LIKE, ``%`` stands for any text, ``_`` for one character, and everything
else for itself: there is no escape character. Every mistake is a `FilterError` that points at its column of the
expression.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from retr.index.machine.arrow import pc
from retr.index.where import comparisons
from retr.index.where.comparisons import Number, compare, family, present
from retr.index.where.parse import Logic, Node, Operand, Predicate, fail, parse, with_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.where.comparisons import Literal

    Column: TypeAlias = Any
    Value: TypeAlias = Any


_FEW_WORDS = 4
_ENDS = ("greater_equal", "less_equal")


class Condition:
    """An expression that was read and checked, to be evaluated over one run of rows after another.

    Parameters
    ----------
    expression
        The text.
    types
        The columns.
    meaning
        Rewrites the expression's tree, which is `tree`, before it is checked.

    Raises
    ------
    FilterError
        The expression cannot be read, names an unknown column, or compares what cannot be compared.
    """

    def __init__(
        self,
        expression: str,
        types: Mapping[str, pa.DataType],
        meaning: Callable[[Node, str], Node] | None = None,
    ) -> None:
        tree = parse(expression)
        self.tree = tree if meaning is None else meaning(tree, expression)
        _Binder(expression, types).check(self.tree)

    def with_numbers(self, numbers: Sequence[str]) -> Condition:
        """Return the same condition with other numbers, as `retr.index.where.parse.without_numbers` gives them.

        Nothing is checked again: that an expression can be applied does not depend on its numbers.

        Raises
        ------
        decimal.InvalidOperation
            A number cannot be read.
        """
        other = object.__new__(Condition)
        other.tree = with_numbers(self.tree, iter(numbers))
        return other

    def mask(self, n_rows: int, column: Callable[[str], Column]) -> NDArray[np.bool_]:
        """Evaluate it.

        Parameters
        ----------
        n_rows
            How many rows there are.
        column
            Returns a column of these rows as a chunked array; texts may be dictionary-encoded.

        Returns
        -------
        bool ``(n_rows,)``, true where the expression is true (not where it is unknown)
        """
        result = _Evaluator(column).node(self.tree)
        if isinstance(result, np.ndarray):
            return result
        if isinstance(result, pa.Scalar):
            return np.full(n_rows, result.as_py() is True)
        mask = np.empty(n_rows, bool)
        start = 0
        for chunk in result.chunks if isinstance(result, pa.ChunkedArray) else [result]:
            mask[start : start + len(chunk)] = truths(chunk)
            start += len(chunk)
        return mask


def truths(array: Column) -> NDArray[np.bool_]:
    """Return the bool ``(n,)`` of an Arrow array of booleans, false where it is null."""
    valid, bits = (None if buffer is None else np.frombuffer(buffer, np.uint8) for buffer in array.buffers())
    if bits is None or not len(array):
        return np.zeros(len(array), bool)
    stop = array.offset + len(array)
    if valid is not None:
        size = -(-stop // 8)
        bits = bits[:size] & valid[:size]
    return np.unpackbits(bits, count=stop, bitorder="little")[array.offset :].view(bool)


def nearest(name: str, names: Sequence[str]) -> str | None:
    """Return the name that was probably meant."""
    import difflib

    same = [other for other in names if other.lower() == name.lower()]
    near = same or difflib.get_close_matches(name, names, 1, 0.5)
    return near[0] if near else None


class _Binder:
    """Looks columns up and refuses what cannot be compared, before any row is read."""

    def __init__(self, expression: str, types: Mapping[str, pa.DataType]) -> None:
        self._text = expression
        self._types = types

    def check(self, node: Node) -> None:
        if isinstance(node, Logic):
            for part in node.parts:
                self.check(part)
            return
        left = self.family(node.left)
        if node.kind == "is":
            if left not in {"true or false", "null"}:
                hint = "write for example: age >= 60"
                fail(self._text, "expected a comparison after this", node.at, hint)
        elif node.kind == "like":
            self._check_like(node)
        else:
            for operand in node.right:
                if node.kind == "in" and operand.name is not None:
                    message = f"expected a value in the list, got the name {operand.name!r}"
                    fail(self._text, message, operand.at, "texts are written in single quotes: 'F'")
                self._comparable(node.left, operand)

    def _check_like(self, node: Predicate) -> None:
        pattern = node.right[0]
        for operand in (node.left, pattern):
            if self.family(operand) not in {"text", "null"}:
                message = f"'like' needs text, but {_describe(operand)} is {_WORDS[self.family(operand)]}"
                fail(self._text, message, operand.at, _read_as(operand.name, "text"))
        if not isinstance(pattern.value, str):
            fail(self._text, "expected a pattern in quotes after 'like'", pattern.at)
        try:
            comparisons.like(pa.array([""]), pattern.value)
        except ValueError:
            fail(self._text, "the pattern is too long", pattern.at)

    def family(self, operand: Operand) -> str:
        """Return what an operand can be compared with."""
        if operand.name is None:
            if isinstance(operand.value, bool):
                return "true or false"
            return {str: "text", Number: "number"}.get(type(operand.value), "null")
        if operand.name not in self._types:
            near = nearest(operand.name, list(self._types))
            hint = (
                f"did you mean {near!r}? (a text is written in single quotes)"
                if near
                else f"the columns are {', '.join(self._types)} (a text is written in single quotes)"
            )
            fail(self._text, f"there is no column {operand.name!r}", operand.at, hint)
        return family(self._types[operand.name])

    def _comparable(self, left: Operand, right: Operand) -> None:
        first, second = self.family(left), self.family(right)
        for operand, what in ((left, first), (right, second)):
            if what in {"list", "binary"}:
                message = f"{_describe(operand)} is {_WORDS[what]}: it can only be tested for null"
                fail(self._text, message, operand.at)
        families = {first, second} - {"null"}
        if families == {"date", "text"}:
            self._read_date(*((left, right) if first == "text" else (right, left)), at=right.at)
        elif len(families) > 1:
            mismatch = f"{_describe(left)} is {_WORDS[first]}, {_describe(right)} is {_WORDS[second]}"
            column = left.name if left.name is not None else right.name
            other = second if left.name is not None else first
            hint = "texts are written in single quotes, numbers without" if "text" in families else None
            if families == {"text", "number"} and column is not None and None in {left.name, right.name}:
                hint = f"{hint}; {_read_as(column, other)}"
            if "true or false" in families:
                hint = "write true or false, without quotes"
            fail(self._text, f"cannot compare: {mismatch}", right.at, hint)

    def _read_date(self, text: Operand, other: Operand, *, at: int) -> None:
        if not isinstance(text.value, str):
            fail(self._text, f"cannot compare: {_describe(text)} is text, {_describe(other)} is a date", at)
        try:
            comparisons.moment(text.value)
        except ValueError:
            hint = "write dates as '2024-05-31', '2024-05-31 14:30' or '2024-05-31 14:30:00+02:00'"
            fail(self._text, f"{text.value!r} is not a date", text.at, hint)


_WORDS = {
    "number": "a number",
    "text": "text",
    "date": "a date",
    "true or false": "true or false",
    "null": "null",
    "list": "a list",
    "binary": "binary data",
}


def _read_as(column: str | None, what: str) -> str | None:
    return None if column is None else f"`retr index build ... --type {column}={what}` has the column read as {what}"


def _describe(operand: Operand) -> str:
    return f"the column {operand.name!r}" if operand.name is not None else operand.text


class _Evaluator:
    """Computes the truth of a checked tree; literals stay scalars until something needs a row.

    A truth is an Arrow array, or a bool array of numpy where none is unknown.
    """

    def __init__(self, column: Callable[[str], Column]) -> None:
        self._column = column

    def node(self, node: Node) -> Value:
        if isinstance(node, Predicate):
            return self._test(node)
        parts = [self.node(part) for part in node.parts]
        if all(isinstance(part, np.ndarray) for part in parts):
            known = {"and": np.logical_and, "or": np.logical_or}
            return reduce(known[node.kind], parts) if node.kind in known else ~parts[0]
        parts = [pa.array(part) if isinstance(part, np.ndarray) else part for part in parts]
        if node.kind == "not":
            return pc.invert(parts[0])
        combine = pc.and_kleene if node.kind == "and" else pc.or_kleene
        return reduce(combine, parts)

    def _test(self, test: Predicate) -> Value:
        if test.left.name is not None and all(operand.name is None for operand in test.right):
            values = self._column(test.left.name)
            known = comparisons.whole_numbers(test.kind, values, test.right[0].value) if test.right else None
            if known is not None:
                return ~known if test.negated else known
            if pa.types.is_dictionary(values.type) and test.kind != "null":
                chunks = _of_one_dictionary(values)
                if chunks:
                    return _by_code(self._judge(test, chunks[0].dictionary), chunks)
        return self._judge(test, self._value(test.left))

    def _judge(self, test: Predicate, left: Value) -> Value:
        right = [self._value(operand) for operand in test.right]
        if test.kind == "null":
            result = pa.scalar(left is None) if _is_literal(left) else pc.is_null(present(left))
        elif test.kind == "is":
            result = pa.scalar(left, pa.bool_()) if _is_literal(left) else left.cast(pa.bool_())
        elif test.kind == "like":
            result = self._like(left, right[0])
        elif test.kind == "in":
            result = self._in(left, right)
        elif test.kind == "between":
            low, high = (compare(sign, left, end) for sign, end in zip(_ENDS, right, strict=True))
            result = pc.and_kleene(low, high)
        else:
            result = compare(test.kind, left, right[0])
        return pc.invert(result) if test.negated else result

    def _like(self, left: Value, pattern: str) -> Value:
        if left is None:
            return pa.scalar(None, pa.bool_())
        # A text on the left is a column of one row, and its answer a scalar.
        return (
            comparisons.like(pa.array([left]), pattern)[0] if isinstance(left, str) else comparisons.like(left, pattern)
        )

    def _in(self, left: Value, values: list[Literal]) -> Value:
        known = [value for value in values if value is not None]
        if _is_literal(left):
            return reduce(pc.or_kleene, [compare("equal", left, value) for value in values])
        found = comparisons.among(left, known)
        # SQL: "not among these, but one of these is null" is unknown.
        return found if len(known) == len(values) else pc.or_kleene(found, pa.scalar(None, pa.bool_()))

    def _value(self, operand: Operand) -> Value:
        if operand.name is None:
            return operand.value
        values = self._column(operand.name)
        return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def _of_one_dictionary(values: Column) -> Sequence[Any]:
    """Return the chunks of a dictionary-encoded column, whose codes mean the same in all of them."""
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    # a stored column has one dictionary, which comparing finds at once; making one of many takes long
    if all(chunk.dictionary.equals(chunks[0].dictionary) for chunk in chunks[1:]):
        return chunks
    unified: Sequence[Any] = values.unify_dictionaries().chunks
    return unified


def _is_literal(value: object) -> bool:
    return value is None or isinstance(value, str | bool | Number)


def _by_code(truth: Value, chunks: Sequence[Any]) -> Value:
    """Spread what was found for each word of a dictionary over the rows.

    Where few words are found, or few are not, as with ``=`` and ``in``, comparing codes is far faster than looking
    each row's word up.
    """
    codes = pa.chunked_array([chunk.indices for chunk in chunks])
    if isinstance(truth, pa.Scalar):
        return pc.if_else(pc.is_valid(codes), truth, pa.scalar(None, pa.bool_()))
    if truth.null_count == 0:
        flags = truths(truth)
        for odd, invert in ((flags, False), (~flags, True)):
            # No word has the number -1: what is compared with it is false, or null where the row is.
            at = np.flatnonzero(odd).tolist() or [-1]
            if len(at) <= _FEW_WORDS:
                found = reduce(pc.or_kleene, [pc.equal(codes, pa.scalar(code, codes.type)) for code in at])
                return pc.invert(found) if invert else found
    return pa.chunked_array([truth.take(chunk) for chunk in codes.chunks])
