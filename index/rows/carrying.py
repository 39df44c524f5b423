"""Side data where rows get other numbers: as segments are merged, or rows are copied into another index."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.disk import journal
from retr.index.disk.side_data import Move, SideData, find_kind, held, known_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.disk.manifest import Manifest, SegmentInfo
    from retr.index.rows.draft import Draft
    from retr.index.rows.snapshot import Snapshot

_LOGGER = logging.getLogger("retr")


def unknown_numbered(manifest: Manifest) -> str | None:
    """Return a kind of side data that names rows by number and is not known here: then every row keeps its number."""
    return next((name for name, data in held(manifest).items() if data.numbered and find_kind(name) is None), None)


def renumbered(
    segments: Sequence[SegmentInfo], kept: Sequence[int], runs: Sequence[range], live: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the new number of each row, -1 where it goes: int64 ``(n,)``.

    Parameters
    ----------
    segments
        All, in order.
    kept
        Which of them stay.
    runs
        Which of those are merged, by their places in ``kept``.
    live
        bool ``(n,)``: the rows that are not deleted; merging drops the others.
    """
    starts = np.cumsum([0, *(info.rows for info in segments)])
    numbers = np.full(len(live), -1, np.int64)
    merged = {place for run in runs for place in run}
    at = 0
    for place, number in enumerate(kept):
        part = slice(int(starts[number]), int(starts[number + 1]))
        stays = live[part] if place in merged else np.ones(segments[number].rows, bool)
        numbers[part][stays] = at + np.arange(int(stays.sum()))
        at += int(stays.sum())
    return numbers


def carry(draft: Draft[Any], snapshot: Snapshot, numbers: NDArray[np.int64]) -> None:
    """Write anew the side data in which numbers of rows stand; the others stay as they are.

    Raises
    ------
    RetrError
        A kind is not known, or refuses.
    """
    for name, data in held(draft.draft).items():
        if data.numbered:
            kind = known_kind(name, "rows cannot get other numbers")
            draft.apply(kind.carry(snapshot, Move(numbers)))


def copy(snapshot: Snapshot, draft: Draft[Any], move: Move) -> None:
    """Take the side data of an index along into another, to which its rows were copied.

    Row arrays are not copied: their lines are appended with the rows. A kind that is not known here is left out, which
    is said.
    """
    there = held(snapshot.manifest)
    if journal.tail(snapshot.path, journal.folded(snapshot.manifest)):
        there.setdefault(journal.KIND, SideData())
    for name, data in there.items():
        kind = find_kind(name)
        if kind is None:
            _LOGGER.warning("side data of the kind %r are not copied: this retr does not know it", name)
            continue
        change = kind.carry(snapshot, move)
        files = {file: snapshot.file(file) for file in data.files if file not in change.files} | dict(change.files)
        for file, content in files.items():
            if content is not None:
                draft.add_file(file, content, kind=kind)
        notes = {key: snapshot.manifest.extra[key] for key in data.notes} | dict(change.notes)
        for key, value in notes.items():
            if value is not None:
                draft.note(key, value, kind=kind)
