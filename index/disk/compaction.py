"""Which segments are merged, and merging them in bounded memory.

Merging keeps the order of the live rows, so segments are only ever merged with their neighbours. Small segments,
as a build leaves them, are merged by tiers (a run of `FAN` of about the same size becomes one): every row is
rewritten a logarithmic number of times, and the number of files stays small while an index grows.
"""

from __future__ import annotations

import math
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
    from retr.index.disk.row_arrays import Layout

# A segment is the unit of rewriting and of spreading over machines; merging makes none larger than this.
SEGMENT_ROWS = 1 << 20
FAN = 32


@dataclass(frozen=True)
class Compaction:
    """What `Writer.compact` did: rows dropped for good, segments before and after."""

    rows: int
    segments_before: int
    segments_after: int


def small_runs(segments: Sequence[SegmentInfo]) -> list[range]:
    """Return the runs of adjacent segments of one tier that are long enough to be merged."""
    tiers = [int(math.log(max(info.rows, 1), FAN)) for info in segments]
    runs = []
    start = 0
    for at in range(1, len(segments) + 1):
        if at == len(segments) or tiers[at] != tiers[start]:
            if at - start >= FAN and segments[start].rows < SEGMENT_ROWS // 2:
                runs.extend(_capped(segments, range(start, at)))
            start = at
    return runs


def compact_runs(segments: Sequence[SegmentInfo]) -> list[range]:
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
    root: Path, segments: Sequence[SegmentInfo], name: str, *, schema: pa.Schema, layout: Layout
) -> SegmentInfo | None:
    """Write the live rows of adjacent segments as one new segment, a row group at a time; ``None`` without any."""
    writer = SegmentWriter(root, name, schema=schema, layout=layout)
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
