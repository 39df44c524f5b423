"""Regions as a kind of side data: a note that says which they are, and their vectors as row arrays.

Vectors of regions are of the encoder that embeds the pictures, quantised to int8 by the largest number of each. They go
through the index's transform as whole pictures do, which is fitted on whole pictures alone: on what is quantised, so
that a row has the same bits whether its regions were put behind a transform when they were added or later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.disk.side_data import Change, Kind, Lines, dropped
from retr.index.errors import IndexCorruptError
from retr.retrieval.regions.layout import NOTE, OWN_REGIONS, REGIONS, Layout
from retr.retrieval.transforms.transform import find_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from retr.index.disk.side_data import Move, NewVectors
    from retr.index.rows.snapshot import Snapshot

_AGAIN = "`retr index regions` reads the pictures again"
_DROPPED = f"the regions of pictures, whose vectors cannot be put behind another transform ({_AGAIN})"


def quantised(vectors: NDArray[Any]) -> NDArray[np.int8]:
    """Return the directions of vectors ``(..., d)`` as int8: the largest number of each becomes 127 or -127.

    >>> quantised(np.array([[0.5, -0.25], [0, 0]])).tolist()
    [[127, -64], [0, 0]]
    """
    exactly = np.asarray(vectors, np.float64)
    largest = np.abs(exactly).max(axis=-1, keepdims=True)
    return np.rint(exactly / np.where(largest > 0, largest, 1) * 127).astype(np.int8)


def searched_array(snapshot: Snapshot) -> str:
    """Return the row array that questions are compared with."""
    return REGIONS if REGIONS in snapshot.manifest.row_arrays else OWN_REGIONS


def append_lines(
    snapshot: Snapshot, own: NDArray[Any], known: Snapshot, same: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Return the row arrays of new rows.

    Parameters
    ----------
    snapshot
        The index as of the last commit.
    own
        The encoder's own vectors of the regions of the new pictures: floats ``(n, regions, d)``.
    known, same
        For each new row the row of an older snapshot, in which its bytes are known, or -1, of a new picture.
    """
    found = {}
    transform = find_transform(snapshot)
    new = quantised(own) if len(own) else own
    for name, array in snapshot.manifest.row_arrays.items():
        if array.kind != Regions.name:
            continue
        lines = np.empty((len(same), array.dim), np.int8)
        again = same >= 0
        if again.any():
            lines[again] = known.array(name, same[again])
        if len(new):
            led = new if name == OWN_REGIONS or transform is None else placed(new, transform)
            lines[~again] = led.reshape(len(new), -1)
        found[name] = lines
    return found


def placed(regions: NDArray[np.int8], place: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[np.int8]:
    """Put quantised vectors of regions ``(n, regions, d)`` where an index's rows lie: int8 ``(n, regions, m)``."""
    flat = regions.reshape(-1, regions.shape[-1]).astype(np.float32)
    return quantised(place(flat)).reshape(*regions.shape[:2], -1)


class Regions(Kind):
    """The regions of an index's pictures."""

    name = "regions"

    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        """Return what reads the note, and whether the arrays are as wide as it says."""
        return {NOTE: lambda: _require_fitting(snapshot)}

    def stale(self, snapshot: Snapshot) -> tuple[str, ...]:  # noqa: ARG002
        """Return nothing: they follow their rows."""
        return ()

    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:  # noqa: ARG002
        """Keep it, since lines go with their rows; drop it where it cannot follow a transform that is fitted again."""
        kept = OWN_REGIONS in snapshot.manifest.row_arrays or snapshot.manifest.encoder.transform is None
        return Change() if kept else dropped(snapshot.manifest, self.name, _DROPPED)

    def carry(self, snapshot: Snapshot, move: Move) -> Change:
        """Keep it where rows are merged; drop it where they get other vectors, as those of an adapted index."""
        return Change() if move.same_vectors else dropped(snapshot.manifest, self.name)

    def placed_anew(self, snapshot: Snapshot, new: NewVectors) -> Change:
        """Put the regions where the rows go, too; drop them where that cannot be known."""
        layout = Layout.of(snapshot)
        if layout is None or new.place is None or OWN_REGIONS not in snapshot.manifest.row_arrays:
            return dropped(snapshot.manifest, self.name, _DROPPED)
        place, count = new.place, len(layout.boxes)
        if new.encoder.transform is None:
            return Change(arrays=(REGIONS,))

        def fill(rows: NDArray[np.int64]) -> NDArray[np.int8]:
            own = snapshot.array(OWN_REGIONS, rows).reshape(len(rows), count, -1)
            return placed(own, place).reshape(len(rows), -1)

        lines = {REGIONS: Lines("int8", count * new.encoder.dim, fill)}
        return Change(lines=lines, arrays=() if layout.kept else (OWN_REGIONS,))


def _require_fitting(snapshot: Snapshot) -> None:
    """Raise `IndexCorruptError` where there are other regions than the note says."""
    layout, arrays, encoder = Layout.of(snapshot), snapshot.manifest.row_arrays, snapshot.manifest.encoder
    if layout is None:
        return
    wide = {REGIONS: encoder.dim, OWN_REGIONS: encoder.own.dim}
    here = {name: wide[name] for name in wide if name in arrays}
    fits = all(arrays[name].dim == len(layout.boxes) * dim for name, dim in here.items())
    if not fits or (OWN_REGIONS if encoder.transform is None else REGIONS) not in here:
        raise IndexCorruptError("the regions are not those that the index notes", hint=_AGAIN)
