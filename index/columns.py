"""Whole columns, as filters and groups need them: mapped where a segment has them so, else read once and kept."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index import filters
from retr.index.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.segments import Segment

# What was read from Parquet is kept for the next filter, up to this many bytes.
_KEEP_BYTES = 256 << 20
# Sorting all rows by group pays from about so many groups asked for.
_SORT_AFTER = 64


class Groups:
    """The values of one column as codes.

    Attributes
    ----------
    codes
        int64 ``(n_total,)``: the number of each row's value, -1 for null.
    values
        The values the codes stand for.
    """

    def __init__(self, chunks: Sequence[pa.Array[Any]], kind: pa.DataType) -> None:
        encoded = [chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode() for chunk in chunks]
        column = pa.chunked_array(encoded, pa.dictionary(pa.int32(), kind)).unify_dictionaries()
        self.values: pa.Array[Any] = column.chunk(0).dictionary if column.num_chunks else pa.array([], kind)
        parts = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in column.chunks]
        self.codes: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *parts])
        self._asked = 0
        self._order: NDArray[np.int64] | None = None
        self._starts: NDArray[np.int64] | None = None

    def rows(self, code: int) -> NDArray[np.int64]:
        """Give the rows of one group, sorted int64."""
        self._asked += 1
        if self._asked < _SORT_AFTER:
            return np.flatnonzero(self.codes == code)
        if self._order is None or self._starts is None:
            order = np.argsort(self.codes, kind="stable")
            self._starts = np.searchsorted(self.codes[order], np.arange(len(self.values) + 1))
            self._order = order
        return self._order[self._starts[code] : self._starts[code + 1]]


class Columns:
    """Reads columns over all rows of a snapshot, deleted ones too."""

    def __init__(self, segments: Sequence[Segment], schema: pa.Schema) -> None:
        self._segments = segments
        self._schema = schema
        self._kept: dict[tuple[int, str], pa.Array[Any]] = {}
        self._groups: dict[str, Groups] = {}
        self._lock = threading.RLock()

    def require(self, name: str) -> pa.DataType:
        """Give a column's type.

        Raises
        ------
        UsageError
            There is no such column; the hint names the nearest.
        """
        if name not in self._schema.names:
            near = filters.nearest(name, self._schema.names)
            hint = f"did you mean {near!r}?" if near else f"the columns are {', '.join(self._schema.names)}"
            raise UsageError(f"there is no column {name!r}", hint=hint)
        return self._schema.field(name).type

    def _chunk(self, number: int, name: str) -> pa.Array[Any]:
        with self._lock:
            if (number, name) not in self._kept:
                array = self._segments[number].column(name, self._schema)
                self._kept[number, name] = array
                # Mapped columns cost nothing to keep, but counting them too keeps this simple.
                while sum(kept.nbytes for kept in self._kept.values()) > _KEEP_BYTES and len(self._kept) > 1:
                    del self._kept[next(iter(self._kept))]
                return array
            return self._kept[number, name]

    def where(self, expression: str) -> NDArray[np.bool_]:
        """Give the mask of all rows for which an expression is true: bool ``(n_total,)``.

        Raises
        ------
        FilterError
            The expression cannot be read or applied.
        """
        condition = filters.Condition(expression, self._schema)
        masks = [np.empty(0, bool)]
        for number, segment in enumerate(self._segments):
            masks.append(condition.mask(len(segment), partial(self._chunk, number)))
        return np.concatenate(masks)

    def groups(self, name: str) -> Groups:
        """Read one column as codes."""
        kind = self.require(name)
        with self._lock:
            if name not in self._groups:
                self._groups[name] = Groups([self._chunk(i, name) for i in range(len(self._segments))], kind)
            return self._groups[name]
