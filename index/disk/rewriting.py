"""Rewriting segments: their tables with other columns, or their vectors by others; all else stays unchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retr.index.disk import sidetable
from retr.index.disk.files import reference
from retr.index.disk.manifest import SEGMENTS
from retr.index.disk.schema import ID
from retr.index.disk.segment_writer import parquet_writer
from retr.index.disk.segments import npy_header
from retr.index.errors import UsageError
from retr.index.machine.arrow import pc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.disk.manifest import Manifest, SegmentInfo
    from retr.index.disk.row_arrays import RowLayout
    from retr.index.disk.segments import Segment


def rewritten(
    root: Path,
    segment: Segment,
    stem: str,
    old: pa.Schema,
    new: pa.Schema,
    change: Callable[[pa.Table], pa.Table],
) -> SegmentInfo:
    """Write a segment's table again, changed; its vectors stay where they are.

    Parameters
    ----------
    stem
        Of the names of the new files.
    old, new
        What is read, and what is written.
    change
        Turns what was read into what is written, in any order of columns.
    """
    folder = f"{segment.info.folder}{SEGMENTS}"
    name = f"{folder}/{stem}.parquet"
    with (root / name).open("xb") as sink, parquet_writer(sink, new) as writer:
        for part in segment.tables(old):
            writer.write_table(change(part).select(new.names))
    columns = sidetable.write(root, name, f"{folder}/{stem}.arrow")
    return replace(segment.info, table=reference(root, name), columns=columns)


def replaced(
    root: Path,
    draft: Manifest,
    segments: Sequence[Segment],
    stem: Callable[[], str],
    table: pa.Table,
) -> Manifest:
    """Write the tables of all segments again with the columns of ``table``, and return the draft that names them.

    Parameters
    ----------
    segments
        Those of the draft.
    stem
        Gives the names of new files, as `rewritten` takes them.
    table
        ``id`` and the columns to add or replace, matched on the id; null for rows that it lacks.
    """
    fields = {field.name: field for field in draft.schema}
    fields.update({field.name: field for field in table.schema})
    schema = pa.schema(list(fields.values()))
    keys = table.column(ID).combine_chunks()
    names = [name for name in table.column_names if name != ID]
    kept = pa.schema([field for field in draft.schema if field.name not in names])

    def change(part: pa.Table) -> pa.Table:
        found = pc.index_in(part.column(ID), value_set=keys)
        for column in names:
            part = part.append_column(schema.field(column), table.column(column).take(found))
        return part

    written = tuple(rewritten(root, segment, stem(), kept, schema, change) for segment in segments)
    return replace(draft, schema=schema, segments=written)


def revectored(
    root: Path, info: SegmentInfo, stem: str, layout: RowLayout, pieces: Iterator[NDArray[np.floating]]
) -> SegmentInfo:
    """Write a segment's vectors anew; an accelerator, which is of the old ones, goes.

    Parameters
    ----------
    stem
        Of the name of the new file.
    layout
        What the new vectors are.
    pieces
        Floats ``(n, dim)``, normalised where due, all rows in order.

    Raises
    ------
    UsageError
        There are fewer or more, of another length, or one cannot be held.
    """
    name, rows, max_norm = f"{info.folder}{SEGMENTS}/{stem}.npy", 0, 0.0
    with (root / name).open("xb") as sink:
        sink.write(npy_header(layout.stored, (info.rows, layout.dim)))
        for piece in pieces:
            with np.errstate(over="ignore"):
                kept = np.ascontiguousarray(piece, layout.stored)
            norms = np.sqrt(np.square(kept, dtype=np.float64).sum(axis=1))
            if kept.shape[1:] != (layout.dim,) or not np.isfinite(norms).all():
                raise UsageError(f"a new vector is of another length than {layout.dim}, or cannot be held")
            rows, max_norm = rows + len(kept), max(max_norm, float(norms.max(initial=0.0)))
            sink.write(kept.data)
    if rows != info.rows:
        raise UsageError(f"there are {rows} new vectors for {info.rows} rows")
    return replace(info, vectors=reference(root, name), max_norm=max_norm, accelerator=None)
