"""Whole columns for filters and groups: memory-mapped where a segment has a side table, else read once and cached."""

from __future__ import annotations

import bisect
import threading
from contextlib import suppress
from decimal import InvalidOperation
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.errors import UsageError
from retr.index.machine.arrow import pc
from retr.index.once import Once
from retr.index.rows import ordered
from retr.index.rows.allowed import Allowed
from retr.index.rows.ordered import OrderedColumn
from retr.index.where import evaluate
from retr.index.where.comparisons import canonical
from retr.index.where.parse import MOST_KEPT, Logic, without_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from retr.index.disk.segments import Segment
    from retr.index.rows.text_lookup import TextLookup
    from retr.index.where.parse import Node

# What was read from Parquet is kept for the next filter, up to this many bytes.
_KEEP_BYTES = 256 << 20
# For more values than this, one look-up of each row costs less than a comparison with each value.
_COMPARE = 8
# Columns of whole numbers that are kept sorted, for filters: how many, after how many filters, and of how many rows.
_KEEP_ORDERED, _ORDERED_AFTER, _MOST_ORDERED = 8, 16, 10_000_000
# Conditions that differ in more than their numbers.
_KEEP_CONDITIONS = 64
# When one in so many rows was asked for its group, all are worth knowing.
_WORTH_ALL = 64


class Groups:
    """One column over all rows of a snapshot, deleted ones too: which rows share a value.

    Zero with a sign is zero, and NaN is no value. Both questions go to the mapped columns; when many rows were asked
    for their group, one after another, the codes of all are computed once.
    """

    def __init__(
        self,
        parts: Sequence[pa.ChunkedArray[Any]],
        kind: pa.DataType,
        canonical: Callable[[pa.Array[Any]], pa.Array[Any]] | None = None,
    ) -> None:
        self._kind = kind
        self._canonical = canonical
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])
        self._asked = 0
        self._codes: NDArray[np.int32] | None = None

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return int64 codes, the same where two of these ``rows`` ``(n,)`` share a value, -1 where it is null."""
        if self._codes is None:
            self._asked += len(rows)
            if self._asked * _WORTH_ALL < self._starts[-1]:
                return self._looked_up(rows)
        return self.every()[rows].astype(np.int64)

    def every(self) -> NDArray[np.int32]:
        """Return the codes of all rows."""
        if self._codes is None:
            self._codes = self._all()
        return self._codes

    def _all(self) -> NDArray[np.int32]:
        """Return the codes of all rows, for which each word of a dictionary is looked at once."""
        words, indices, first = [pa.array([], self._kind)], [], 0
        for part in self._parts:
            coded = part if pa.types.is_dictionary(part.type) else part.dictionary_encode()
            chunks = coded.unify_dictionaries().chunks
            if chunks:
                words.append(canonical(chunks[0].dictionary.cast(self._kind)))
            for chunk in chunks:
                found = _numbers(chunk.indices).astype(np.int64)
                indices.append(np.where(found < 0, -1, found + first))
            first += len(words[-1]) if chunks else 0
        every = pa.concat_arrays(words)
        if self._canonical is not None:
            every = self._canonical(every)
        # one place more than there are words: null, which is -1, finds the last
        codes = np.append(_numbers(every.dictionary_encode().indices), -1).astype(np.int32)
        every_row: NDArray[np.int32] = codes[np.concatenate([np.empty(0, np.int64), *indices])]
        return every_row

    def _looked_up(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(owner, kind="stable")
        numbers, first = np.unique(owner[order], return_index=True)
        values = [pa.array([], self._kind)]
        for number, at in zip(numbers.tolist(), np.split(order, first[1:]), strict=len(rows) > 0):
            local = (rows[at] - self._starts[number]).tolist()
            part = self._parts[number]
            if part.num_chunks == 1:
                found = part.chunk(0).take(pa.array(local, pa.int64()))
            else:
                # putting slices together touches only these rows, whatever the number of chunks
                found = pa.concat_arrays([part.slice(row, 1).chunk(0) for row in local])
            values.append(canonical(_plain(found).cast(self._kind)))
        codes = np.empty(len(rows), np.int64)
        found = pa.concat_arrays(values)
        if self._canonical is not None:
            found = self._canonical(found)
        codes[order] = _numbers(found.dictionary_encode().indices)
        return codes

    def rows(self, values: pa.Array[Any]) -> list[NDArray[np.int64]]:
        """Return the rows of each value, sorted int64.

        Parameters
        ----------
        values
            Of the column's type, distinct, without nulls.
        """
        found: list[list[NDArray[np.int64]]] = [[np.empty(0, np.int64)] for _ in range(len(values))]
        start = 0
        plain = canonical(values)
        for part in self._parts:
            # a dictionary has texts as they were written: whoever asks gives each spelling
            coded = pa.types.is_dictionary(part.type) and part.num_chunks > 0
            keys = _codes_of(values, part.chunk(0).dictionary, ordered=part.type.ordered) if coded else plain
            for chunk in part.chunks:
                matches = _coded_matches(chunk, keys) if coded else _matches(canonical(chunk), plain)
                for mine, at in zip(found, matches, strict=True):
                    if len(at):
                        mine.append(at + start)
                start += len(chunk)
        return [np.concatenate(mine) for mine in found]


def _plain(array: pa.Array[Any]) -> pa.Array[Any]:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _numbers(codes: pa.Array[Any]) -> NDArray[Any]:
    """Return codes as numpy, -1 for null; without nulls they stay where they are."""
    if codes.null_count:
        codes = codes.fill_null(-1)
    return np.asarray(codes.to_numpy(zero_copy_only=False))


def _codes_of(values: pa.Array[Any], words: pa.Array[Any], *, ordered: bool) -> NDArray[np.int64]:
    """Find each value in a dictionary; -1 where it is not."""
    if not ordered or len(values) > len(words):
        return _numbers(pc.index_in(values, value_set=words)).astype(np.int64)
    codes = np.full(len(values), -1, np.int64)
    for place, value in enumerate(values.to_pylist()):
        at = bisect.bisect_left(range(len(words)), value, key=lambda number: words[number].as_py())
        if at < len(words) and words[at].as_py() == value:
            codes[place] = at
    return codes


def _coded_matches(chunk: pa.Array[Any], keys: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    codes = _numbers(chunk.indices)
    if len(keys) <= _COMPARE:
        return [np.flatnonzero(codes == key) if key >= 0 else np.empty(0, np.int64) for key in keys]
    # One place more than there are words: null, which is -1, finds the last.
    asked = np.full(len(chunk.dictionary) + 1, -1)
    asked[keys[keys >= 0]] = np.flatnonzero(keys >= 0)
    return _split(asked[codes], len(keys))


def _matches(chunk: pa.Array[Any], values: pa.Array[Any]) -> list[NDArray[np.int64]]:
    if len(values) <= _COMPARE:
        return [np.flatnonzero(evaluate.truths(pc.equal(chunk, value))) for value in values]
    return _split(_numbers(pc.index_in(chunk, value_set=values)), len(values))


def _split(which: NDArray[Any], count: int) -> list[NDArray[np.int64]]:
    """Return the places of 0, 1 ... ``count - 1`` in ``which``."""
    at = np.flatnonzero(which >= 0)
    at = at[np.argsort(which[at], kind="stable")]
    return np.split(at, np.searchsorted(which[at], np.arange(1, count)))


class Columns:
    """Reads columns over all rows of a snapshot, deleted ones too."""

    def __init__(self, segments: Sequence[Segment], schema: pa.Schema) -> None:
        self._segments = segments
        self._schema = schema
        self._types = {field.name: field.type for field in schema}
        self._kept: dict[tuple[int, str], pa.ChunkedArray[Any]] = {}
        self._kept_bytes = 0
        self._starts = np.cumsum([0, *map(len, segments)]).tolist()
        self._ordered, self._compared = Once(most=_KEEP_ORDERED), dict[str, int]()
        self._conditions = Once(most=_KEEP_CONDITIONS)
        self._lock = threading.Lock()

    def require(self, name: str) -> pa.DataType:
        """Return a column's type.

        Raises
        ------
        UsageError
            There is no such column; the hint names the nearest.
        """
        if not isinstance(name, str):
            raise UsageError(f"a column is known by its name, which is a text, got: {name!r}")
        if name not in self._types:
            near = evaluate.nearest(name, self._schema.names)
            hint = f"did you mean {near!r}?" if near else f"the columns are {', '.join(self._schema.names)}"
            raise UsageError(f"there is no column {name!r}", hint=hint)
        return self._types[name]

    def _part(self, number: int, name: str) -> pa.ChunkedArray[Any]:
        """Return one column of one segment."""
        mapped = self._segments[number].mapped(name, self._schema)
        if mapped is not None:
            return mapped
        with self._lock:
            if (number, name) not in self._kept:
                column = self._segments[number].table([name], self._schema).column(0)
                self._kept[number, name] = column
                self._kept_bytes += column.nbytes
                while self._kept_bytes > _KEEP_BYTES and len(self._kept) > 1:
                    self._kept_bytes -= self._kept.pop(next(iter(self._kept))).nbytes
            return self._kept[number, name]

    def has_text(self, name: str) -> bool:
        """Return whether there is a column of texts of this name."""
        return name in self._types and pa.types.is_string(self._types[name])

    def has(self, name: str) -> bool:
        """Return whether there is a column of this name."""
        return name in self._types

    def distinct(self, name: str) -> pa.Array[Any]:
        """Return the distinct values of a column, those of deleted rows too, in no order."""
        kind = self.require(name)
        values = [pa.array([], kind)]
        for number in range(len(self._segments)):
            part = self._part(number, name)
            coded = pa.types.is_dictionary(part.type) and part.num_chunks > 0
            values.append((part.chunk(0).dictionary if coded else _plain(part.unique())).cast(kind))
        return pa.concat_arrays(values).unique()

    def where(self, expression: str, meaning: Callable[[Node, str], Node] | None = None, *, few: int = 0) -> Allowed:
        """Find the rows, of all, for which an expression is true.

        Parameters
        ----------
        meaning
            Rewrites the expression's tree before it is checked.
        few
            Up to so many rows are numbered.

        Raises
        ------
        FilterError
            The expression cannot be read or applied.
        """
        condition, n_total = self._condition(expression, meaning), self._starts[-1]
        rows = self._by_order(condition.tree, few)
        if rows is not None:
            return Allowed(n_total, few=rows)
        mask = np.empty(n_total, bool)
        for number, segment in enumerate(self._segments):
            start = self._starts[number]
            mask[start : start + len(segment)] = condition.mask(len(segment), partial(self._part, number))
        return Allowed(n_total, mask=mask, few=np.flatnonzero(mask) if np.count_nonzero(mask) <= few else None)

    def _condition(self, expression: str, meaning: Callable[[Node, str], Node] | None) -> evaluate.Condition:
        """Read an expression; of those that differ in their numbers alone the first is read, and the rest know it."""
        if len(expression) > MOST_KEPT:
            return evaluate.Condition(expression, self._types, meaning)
        form, numbers = without_numbers(expression)
        key = form, meaning is None
        known: evaluate.Condition | None = self._conditions.get(key)
        if known is not None:
            # what cannot be read is refused with its place below
            with suppress(InvalidOperation):
                return known.with_numbers(numbers)
        condition = evaluate.Condition(expression, self._types, meaning)
        if numbers:
            self._conditions.put(key, condition)
        return condition

    def _by_order(self, tree: Node, few: int) -> NDArray[np.int64] | None:
        """Return the rows of a test that the order of a column answers, once it was asked for often; else ``None``."""
        if isinstance(tree, Logic) or not ordered.answers(tree) or tree.left.name is None:
            return None
        columns = self._in_order(tree.left.name)
        found: list[NDArray[np.int64]] = []
        for column, start in zip(columns or (), self._starts, strict=False):
            rows = column.rows(tree, few - sum(map(len, found)))
            if rows is None:
                return None
            found.append(rows + start if start else rows)
        if not found:
            return None
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _in_order(self, name: str) -> Sequence[OrderedColumn] | None:
        """Return a column of whole numbers sorted, segment by segment; ``None`` before that is worth it."""
        known: Sequence[OrderedColumn] | None = self._ordered.get(name)
        if known is None and pa.types.is_integer(self._types[name]):
            asked = self._compared[name] = self._compared.get(name, 0) + 1
            if asked > _ORDERED_AFTER and self._starts[-1] <= _MOST_ORDERED:
                parts = [self._part(number, name) for number in range(len(self._segments))]
                known = self._ordered(name, lambda: list(map(OrderedColumn, parts)))
        return known

    def groups(self, name: str, canonical: Callable[[pa.Array[Any]], pa.Array[Any]] | None = None) -> Groups:
        """Return one column as groups of rows; ``canonical`` brings values that mean the same to one spelling."""
        kind = self.require(name)
        return Groups([self._part(number, name) for number in range(len(self._segments))], kind, canonical)

    def text_lookup(self, name: str) -> TextLookup:
        """Return the look-up of a column of texts, to be kept with the snapshot."""
        from retr.index.rows.text_lookup import TextLookup

        return TextLookup(self.groups(name), [self._part(number, name) for number in range(len(self._segments))])
