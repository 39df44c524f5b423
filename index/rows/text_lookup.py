"""Rows by a text of one column, asked for one after another: scanned a few times, then looked up.

The lookup is a number for each row, made of the last bytes of its text and sorted: 16 bytes a row. Rows whose number is
that of the text are compared with it, so what is found is what a scan finds.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.once import Once
from retr.index.where.comparisons import canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.rows.columns import Groups

# The numbers are sorted once that costs no more than the scans so far: at once where there are few rows.
_SCANS = 8
_FEW_ROWS = 10_000
_LAST_BYTES = 16
_MIXED = np.uint64(0x9E3779B97F4A7C15)


class TextLookup:
    """One column of texts over all rows of a snapshot, deleted ones too; threads may share it.

    Parameters
    ----------
    groups
        The column, for the first scans, and for texts that may be spelled in several ways.
    parts
        The column, segment after segment: texts, or codes of a dictionary of texts.
    """

    def __init__(self, groups: Groups, parts: Sequence[pa.ChunkedArray[Any]]) -> None:
        self._groups = groups
        self._chunks = [chunk for part in parts for chunk in part.chunks]
        self._starts = np.cumsum([0, *map(len, self._chunks)])
        self._asked = itertools.count()
        self._once = Once()

    def text(self, row: int) -> str | None:
        """Return the text of one row, ``None`` where it is null."""
        return _text(self._chunks, self._starts, row)

    def rows(self, text: str) -> NDArray[np.int64]:
        """Return the rows that hold a text, sorted int64."""
        scans = _SCANS if self._starts[-1] > _FEW_ROWS else 0
        # accents may be composed or not, which scans know
        if next(self._asked) < scans or not text.isascii():
            return self._groups.rows(pa.array([text], pa.string()))[0]
        chunks, keys, order = self._once("sorted", self._sorted)
        key = _keys(pa.array([text], pa.string()))[0]
        first, last = (int(np.searchsorted(keys, key, side=side)) for side in ("left", "right"))
        alike = order[first:last].tolist()
        return np.array([row for row in alike if _text(chunks, self._starts, row) == text], np.int64)

    def _sorted(self) -> tuple[list[pa.Array[Any]], NDArray[np.uint64], NDArray[np.int64]]:
        chunks = [chunk if pa.types.is_dictionary(chunk.type) else canonical(chunk) for chunk in self._chunks]
        keys = np.concatenate([np.empty(0, np.uint64), *map(_keys, chunks)])
        order = np.argsort(keys, kind="stable")
        return chunks, keys[order], order


def _text(chunks: Sequence[pa.Array[Any]], starts: NDArray[np.int64], row: int) -> str | None:
    number = int(np.searchsorted(starts, row, side="right")) - 1
    text: str | None = chunks[number][row - int(starts[number])].as_py()
    return text


def _keys(texts: pa.Array[Any]) -> NDArray[np.uint64]:
    """Return uint64 ``(n,)``, the same for equal texts: a mixture of their last bytes."""
    if pa.types.is_dictionary(texts.type):
        codes = texts.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        keys: NDArray[np.uint64] = np.append(_keys(texts.dictionary), np.uint64(0))[codes]
        return keys
    _, offsets, data = texts.buffers()
    if data is None or not data.size or not len(texts):
        return np.zeros(len(texts), np.uint64)
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    places = bounds[1:, None] + np.arange(-_LAST_BYTES, 0)
    last = np.frombuffer(data, np.uint8)[np.maximum(places, 0)]
    last[places < bounds[:-1, None]] = 0
    halves = last.view(np.uint64)
    mixed: NDArray[np.uint64] = halves[:, 0] * _MIXED ^ halves[:, 1]
    return mixed
