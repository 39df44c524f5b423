"""Which shard a row belongs to, and bringing rows there.

The rows of one patient, where a column tells patients apart, lie in one shard; those of nobody lie with their study,
series or file, and a row of none of these lies by its id. So groups can be searched, split and purged shard by shard.
No answer rests on it: where a patient is spelled in two ways and the key that says so is not here, two shards have a
part each, until the rows are placed again.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.disk.compaction import SEGMENT_ROWS
from retr.index.disk.segment_writer import SegmentWriter
from retr.index.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from retr.index.disk.manifest import Manifest, SegmentInfo
    from retr.index.rows.snapshot import Snapshot

# What a row without a group goes by, and then by its id.
KEYS = ("study", "series", "path")
_AT_ONCE = 100_000


def shard_of(text: str, shards: int) -> int:
    """Return the number of the shard that a text belongs to, the same whatever its accents are composed like."""
    data = unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little") % shards


def shards_of(snapshot: Snapshot, rows: NDArray[np.int64], shards: int) -> NDArray[np.int64]:
    """Return the number of the shard that each of some rows ``(n,)`` belongs to: int64 ``(n,)``."""
    numbers = np.full(len(rows), -1, np.int64)
    columns = [name for name in (snapshot.manifest.group, *KEYS) if name in snapshot.schema.names]
    known: dict[str, int] = {}
    for start in range(0, len(rows), _AT_ONCE):
        some, found = rows[start : start + _AT_ONCE], numbers[start : start + _AT_ONCE]
        for column in dict.fromkeys([*columns, None]):
            rest = np.flatnonzero(found < 0)
            if not len(rest):
                break
            texts = snapshot.ids(some[rest]) if column is None else _named(snapshot, column, some[rest])
            for at, text in zip(rest.tolist(), texts, strict=True):
                if text is not None:
                    if text not in known:
                        known[text] = shard_of(text, shards)
                    found[at] = known[text]
        known = known if len(known) < _AT_ONCE else {}
    return numbers


def _named(snapshot: Snapshot, column: str, rows: NDArray[np.int64]) -> list[str | None]:
    try:
        return snapshot.identity.of(column, rows)
    except UsageError:
        # the key of its hashes is not here, or it is no column that tells rows apart
        if not pa.types.is_string(snapshot.schema.field(column).type):
            return [None] * len(rows)
        texts: list[str | None] = snapshot.table([column], rows).column(0).to_pylist()
        return [text if text is not None and text.strip() else None for text in texts]


@dataclass(frozen=True)
class Placed:
    """Copies of rows in the folders where they belong.

    Attributes
    ----------
    segments
        What holds the copies, by folder.
    rows
        int64: the rows that were copied, by their numbers in the draft, in the order of the segments.
    """

    segments: list[SegmentInfo] = field(default_factory=list)
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


def place(
    before: Manifest,
    draft: Manifest,
    preview: Callable[[], Snapshot],
    live: NDArray[np.bool_],
    name: Callable[[], str],
) -> Placed:
    """Copy the rows of a draft that are not in their shard to where they belong.

    Looked at are the rows of new tables; all, where other shards or another column that tells patients apart are
    declared.

    Parameters
    ----------
    before, draft
        The last commit, and what the next makes of it.
    preview
        Opens the draft.
    live
        bool: which rows of the draft stay.
    name
        Gives the names of new segments.
    """
    if not (draft.shards or before.shards):
        return Placed()
    anew = (draft.shards, draft.group) != (before.shards, before.group)
    settled = set() if anew else {info.table for info in before.segments}
    if all(info.table in settled for info in draft.segments):
        return Placed()
    snapshot, start = preview(), 0
    copies = {folder: _Copies(snapshot, folder, name) for folder in draft.folders}
    try:
        for number, info in enumerate(draft.segments):
            rows = start + np.flatnonzero(live[start : start + info.rows])
            start += info.rows
            if info.table in settled or not len(rows):
                continue
            wanted = np.zeros(len(rows), np.int64)
            if draft.shards:
                wanted = shards_of(snapshot, rows, draft.shards)
            here = draft.folders.index(info.folder) if info.folder in draft.folders else -1
            target = np.full(info.rows, -1, np.int64)
            target[rows - (start - info.rows)] = np.where(wanted == here, -1, wanted)
            for folder, where, table in _pieces(snapshot, number, target):
                copies[draft.folders[folder]].add(number, start - info.rows, where, table)
        made = [copy for copy in copies.values() if copy.close()]
    except BaseException:
        for copy in copies.values():
            copy.abort()
        raise
    segments = [info for copy in made for info in copy.segments]
    return Placed(segments, np.concatenate([*(rows for copy in made for rows in copy.rows), np.empty(0, np.int64)]))


def _pieces(
    snapshot: Snapshot, number: int, target: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.int64], pa.Table]]:
    """Yield, for a piece of a segment after the other, a target, the rows that go there, and their metadata."""
    at = 0
    for table in snapshot.segments[number].tables(snapshot.schema):
        piece = target[at : at + table.num_rows]
        for folder in np.unique(piece[piece >= 0]).tolist():
            chosen = np.flatnonzero(piece == folder)
            yield folder, at + chosen, table.take(pa.array(chosen))
        at += table.num_rows


class _Copies:
    """Segments that are written into one folder, from copies of rows."""

    def __init__(self, snapshot: Snapshot, folder: str, name: Callable[[], str]) -> None:
        self._snapshot, self._folder, self._name = snapshot, folder, name
        self._open: SegmentWriter | None = None
        self.segments: list[SegmentInfo] = []
        self.rows: list[NDArray[np.int64]] = []

    def add(self, number: int, start: int, where: NDArray[np.int64], table: pa.Table) -> None:
        """Copy the rows ``where`` of the segment ``number``, whose first row is ``start``."""
        if self._open is not None and self._open.rows >= SEGMENT_ROWS:
            self.close()
        manifest, segment = self._snapshot.manifest, self._snapshot.segments[number]
        if self._open is None:
            how: Any = {"schema": manifest.schema, "layout": manifest.layout, "folder": self._folder}
            self._open = SegmentWriter(self._snapshot.path, self._name(), **how)
        arrays = {name: values[where] for name, values in segment.arrays.items()}
        self._open.append(table, segment.vectors[where], arrays=arrays)
        self.rows.append(start + where)

    def close(self) -> bool:
        """Finish the open segment; say whether there is any."""
        if self._open is not None:
            self.segments.append(self._open.close())
            self._open = None
        return bool(self.segments)

    def abort(self) -> None:
        """Close the files as they are; whoever calls removes them."""
        if self._open is not None:
            self._open.abort()
