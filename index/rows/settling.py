"""What a commit makes of the segments: deletions written, rows brought to their shards, small segments merged."""

from __future__ import annotations

import dataclasses
import io
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.disk.compaction import merge
from retr.index.disk.files import write_bytes
from retr.index.disk.manifest import SEGMENTS
from retr.index.disk.side_data import known_kind
from retr.index.rows.carrying import carry, renumbered, unknown_numbered
from retr.index.rows.placing import place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from retr.index.disk.manifest import SegmentInfo
    from retr.index.rows.draft import Draft


def settled(
    writer: Draft[Any],
    gone: NDArray[np.bool_],
    choose: Callable[[Sequence[SegmentInfo], int], list[range]],
    name: Callable[[], str],
) -> list[SegmentInfo]:
    """Return the segments to commit: those of one shard together, without the rows deleted, the chosen ones merged.

    Side data in which numbers of rows stand follow; where they cannot, since their kind is not known here, every row
    keeps its number.

    Parameters
    ----------
    gone
        bool: which rows of the last commit are deleted since.
    choose
        Returns which segments of one folder are merged, and is told how many of the last of them are new.
    name
        Gives the names of new files.

    Raises
    ------
    RetrError
        Rows have to go to another shard, and side data of a kind that is not known here name them by number.
    """
    draft, fixed = writer.draft, unknown_numbered(writer.draft)
    live = np.ones(sum(info.rows for info in draft.segments), bool)
    live[: len(gone)] = writer.store.alive() & ~gone
    placed = place(writer.store.manifest, draft, writer.preview, live, name)
    if placed.segments and fixed is not None:
        known_kind(fixed, "rows cannot be brought to their shards")
    live[placed.rows] = False
    drawn = [*_without(writer, live, name, drop=fixed is None), *placed.segments]
    kept = [number for number, info in enumerate(drawn) if fixed is not None or info.n_deleted < info.rows]
    if fixed is None:
        kept.sort(key=lambda number: drawn[number].folder)
    segments = [drawn[number] for number in kept]
    runs = [] if fixed is not None else _runs(segments, choose, {info.name for info in writer.store.manifest.segments})
    if any(data.numbered for data in draft.side_data.values()) and (runs or kept != list(range(len(draft.segments)))):
        known = np.concatenate([live, np.ones(len(placed.rows), bool)])
        numbers = renumbered(drawn, kept, runs, known)
        numbers[placed.rows] = numbers[len(live) :]
        if not np.array_equal(numbers[: len(live)], np.arange(len(live))):
            carry(writer, writer.preview(), numbers[: len(live)])
    for run in reversed(runs):
        some = segments[run.start : run.stop]
        info = merge(writer.store.path, some, name(), schema=writer.draft.schema, layout=writer.draft.layout)
        segments[run.start : run.stop] = [info] if info is not None else []
    return segments


def _runs(
    segments: Sequence[SegmentInfo], choose: Callable[[Sequence[SegmentInfo], int], list[range]], old: set[str]
) -> list[range]:
    """Return which segments are merged, by their places among all: none of different folders."""
    runs, start = [], 0
    for _, group in groupby(segments, key=lambda info: info.folder):
        some = list(group)
        added = sum(info.name not in old for info in some)
        runs += [range(start + run.start, start + run.stop) for run in choose(some, added)]
        start += len(some)
    return runs


def _without(
    writer: Draft[Any], live: NDArray[np.bool_], name: Callable[[], str], *, drop: bool
) -> Iterator[SegmentInfo]:
    """Yield the segments of the draft, with the rows deleted that are not live; ``drop``: those without rows go."""
    start = 0
    for info in writer.draft.segments:
        gone = np.flatnonzero(~live[start : start + info.rows])
        start += info.rows
        if len(gone) == info.n_deleted:
            yield info
        elif len(gone) == info.rows and drop:
            yield dataclasses.replace(info, n_deleted=info.rows)
        else:
            sink = io.BytesIO()
            np.save(sink, gone.astype("<i8"), allow_pickle=False)
            file = f"{info.folder}{SEGMENTS}/{name()}.deleted.npy"
            ref = write_bytes(writer.store.path, file, sink.getvalue())
            yield dataclasses.replace(info, deleted=ref, n_deleted=len(gone))
