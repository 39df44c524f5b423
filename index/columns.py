"""Whole columns, as filters and groups need them: read once per snapshot and kept."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.errors import UsageError
from retr.index.filters import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.segments import Segment


class Groups:
    """The values of one column as codes.

    Attributes
    ----------
    codes
        int64 ``(n_total,)``: the number of each row's value, -1 for null.
    values
        The values the codes stand for.
    """

    def __init__(self, column: pa.ChunkedArray[Any]) -> None:
        encoded = pa.chunked_array(column).combine_chunks().dictionary_encode()
        self.values: pa.Array[Any] = encoded.dictionary
        self.codes: NDArray[np.int64] = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        # Sorted once, so that the rows of one group are a slice.
        self._order = np.argsort(self.codes, kind="stable")
        self._starts = np.searchsorted(self.codes[self._order], np.arange(len(self.values) + 1))

    def rows(self, code: int) -> NDArray[np.int64]:
        """Give the rows of one group, sorted int64."""
        return self._order[self._starts[code] : self._starts[code + 1]]


class Columns:
    """Reads columns over all rows of a snapshot, deleted ones too."""

    def __init__(self, segments: Sequence[Segment], schema: pa.Schema) -> None:
        self._segments = segments
        self._schema = schema
        self._columns: dict[str, pa.ChunkedArray[Any]] = {}
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
            near = nearest(name, self._schema.names)
            hint = f"did you mean {near!r}?" if near else f"the columns are {', '.join(self._schema.names)}"
            raise UsageError(f"there is no column {name!r}", hint=hint)
        return self._schema.field(name).type

    def column(self, name: str) -> pa.ChunkedArray[Any]:
        """Read one column of all rows."""
        kind = self.require(name)
        with self._lock:
            if name not in self._columns:
                parts = [segment.table([name], self._schema).column(name) for segment in self._segments]
                self._columns[name] = pa.chunked_array([chunk for part in parts for chunk in part.chunks], kind)
            return self._columns[name]

    def groups(self, name: str) -> Groups:
        """Read one column as codes."""
        values = self.column(name)
        with self._lock:
            if name not in self._groups:
                self._groups[name] = Groups(values)
            return self._groups[name]
