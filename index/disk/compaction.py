"""Which segments are merged, and merging them in bounded memory.

Merging keeps the order of the live rows, so segments are only ever merged with their neighbours.

Every commit merges what it adds with the segments before it that are small beside that (`last_run`), as a binary
counter carries: sizes fall by half or more from one segment to the next, so there are a logarithmic number of them, and
every row is rewritten a logarithmic number of times. No commit rewrites more than `MOST_ROWS` rows, or four times
what it adds, and none a segment with an accelerator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retr.index.disk.segment_writer import SegmentWriter
from retr.index.disk.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retr.index.disk.manifest import SegmentInfo
    from retr.index.disk.row_arrays import RowLayout

# A segment is the unit of rewriting and of spreading over machines; merging makes none larger than this.
SEGMENT_ROWS = 1 << 20
# A commit makes no larger segment than this of smaller ones, or than so many times the rows that it adds.
MOST_ROWS = 1 << 17
_MOST_TIMES = 4
# Rewriting so few rows costs less than the flushes of a commit.
FEW_ROWS = 2048
# A segment is merged with all after it while it has less than so many times their rows.
_STEP = 2


@dataclass(frozen=True)
class Compaction:
    """What `Writer.compact` did: rows dropped for good, segments before and after."""

    rows: int
    segments_before: int
    segments_after: int


def last_run(segments: Sequence[SegmentInfo], added: int) -> list[range]:
    """Return which of the last segments a commit merges: one run, or none.

    Parameters
    ----------
    segments
        All, with the deletions of the commit.
    added
        How many of them are new.
    """
    if not added:
        return []
    fresh = sum(info.rows for info in segments[-added:])
    most = min(SEGMENT_ROWS, max(MOST_ROWS, _MOST_TIMES * fresh))
    start, rows = len(segments), 0
    for info in reversed(segments):
        live = info.rows - info.n_deleted
        # an accelerator was made for its segment alone, at a cost that no few rows are worth
        fits = info.accelerator is None and rows + live <= most
        if not fits or (rows and live >= max(_STEP * rows, FEW_ROWS)):
            break
        start, rows = start - 1, rows + live
    return [range(start, len(segments))] if len(segments) - start > 1 else []


def compact_runs(segments: Sequence[SegmentInfo], added: int = 0) -> list[range]:  # noqa: ARG001
    """Return the runs that leave few segments and no deleted row: everything but large segments without deletions."""
    runs = []
    start = 0
    for at in range(len(segments) + 1):
        done = at < len(segments) and segments[at].n_deleted == 0 and segments[at].rows >= SEGMENT_ROWS // 2
        if at == len(segments) or done:
            runs.extend(_capped(segments, range(start, at)))
            start = at + 1
    return [run for run in runs if len(run) > 1 or segments[run.start].n_deleted]


def _capped(segments: Sequence[SegmentInfo], run: range) -> list[range]:
    """Cut a run so that no merged segment is larger than `SEGMENT_ROWS`."""
    runs = []
    start, rows = run.start, 0
    for at in run:
        live = segments[at].rows - segments[at].n_deleted
        if rows and rows + live > SEGMENT_ROWS:
            runs.append(range(start, at))
            start, rows = at, 0
        rows += live
    return [*runs, range(start, run.stop)] if run else []


def merge(
    root: Path, segments: Sequence[SegmentInfo], name: str, *, schema: pa.Schema, layout: RowLayout
) -> SegmentInfo | None:
    """Write the live rows of adjacent segments of one folder as one, a row group at a time; ``None`` without any."""
    writer = SegmentWriter(root, name, schema=schema, layout=layout, folder=segments[0].folder)
    try:
        for info in segments:
            segment = Segment(root, info, layout)
            keep = np.ones(info.rows, bool)
            keep[segment.deleted()] = False
            start = 0
            for table in segment.tables(schema):
                stop = start + table.num_rows
                chosen = np.flatnonzero(keep[start:stop])
                vectors = segment.vectors[start:stop]
                arrays = {name: values[start:stop] for name, values in segment.arrays.items()}
                if len(chosen) == len(vectors):
                    writer.append(table, vectors, arrays=arrays)
                else:
                    left = {name: values[chosen] for name, values in arrays.items()}
                    writer.append(table.take(pa.array(chosen)), vectors[chosen], arrays=left)
                start = stop
    except BaseException:
        writer.abort()
        raise
    if writer.rows == 0:
        writer.abort()
        return None
    return writer.close()
