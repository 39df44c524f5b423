"""Checking the contents of a segment's files: row numbers in range, norms as recorded, texts valid.

A file can be as its hash says and still hold anything. These are the checks that read every row, so they run once a
machine (`retr.index.disk.verified`) and in ``retr index check``; what costs nothing is checked wherever a file is
opened.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import IndexCorruptError
from retr.index.json_fields import stored

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from retr.index.disk.files import FileRef
    from retr.index.disk.segments import Segment

_CHUNK_BYTES = 32 << 20
# Of a norm: what float16 and the order of a sum can change.
_SLACK = 1e-3


def of_segment(segment: Segment, schema: pa.Schema, *, cosine: bool) -> dict[FileRef, Callable[[], None]]:
    """Return the check of each file of a segment, to be called once the file is known to be as it was written.

    Each raises `IndexCorruptError`. Accelerators are checked whenever they are loaded.
    """
    info = segment.info
    checks: dict[FileRef, Callable[[], None]] = {
        info.table: lambda: segment.require_table(schema),
        info.vectors: lambda: _vectors(segment, cosine=cosine),
        info.ids: lambda: _ids(segment),
    }
    if info.deleted is not None:
        checks[info.deleted] = lambda: _nothing(segment.deleted())
    for name, ref in info.arrays.items():
        checks[ref] = partial(_finite, segment, name)
    if info.columns is not None:
        checks[info.columns] = lambda: segment.require_side_table(schema)
    return checks


def of_skipped(data: pa.Buffer, rows: int) -> None:
    """Raise `IndexCorruptError` where a record of skipped files is not of ``rows`` files, or fills the memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from retr.index.disk.parquet_file import moderate_batches

    with stored("the record of skipped files"):
        try:
            names, found = set(pq.read_schema(pa.BufferReader(data)).names), 0
            for batch in moderate_batches(data):
                found += batch.num_rows
        except pa.ArrowException as error:
            raise ValueError("no Parquet") from error
        if found != rows or not {"path", "reason"} <= names:
            raise ValueError("of other files")


def _nothing(_: Any) -> None:
    """Take what was only read to see that it can be."""


def _ids(segment: Segment) -> None:
    """Every row has one place among the hashes, which ascend."""
    rows = segment.hashed_rows
    seen = np.zeros(len(segment), bool)
    if (rows < len(segment)).all():
        seen[rows.astype(np.int64)] = True
    if not seen.all() or not (segment.hashes[1:] >= segment.hashes[:-1]).all():
        raise IndexCorruptError(
            f"{segment.info.ids.file!r} does not find the ids of its segment", hint="run `retr index check`"
        )


def _finite(segment: Segment, name: str) -> None:
    """Every number of a row array is one."""
    values = segment.arrays[name]
    step = max(1, _CHUNK_BYTES // (8 * values.shape[1]))
    if values.dtype.kind == "f" and not all(
        np.isfinite(values[start : start + step]).all() for start in range(0, len(values), step)
    ):
        raise IndexCorruptError(
            f"{segment.info.arrays[name].file!r} holds a value that no writer stores", hint="run `retr index check`"
        )


def _vectors(segment: Segment, *, cosine: bool) -> None:
    """Every vector is finite, none is longer than the manifest says; of a cosine index all have length 1, or 0."""
    vectors, most = segment.vectors, segment.info.max_norm
    step = max(1, _CHUNK_BYTES // (8 * vectors.shape[1]))
    longest = 0.0
    for start in range(0, len(vectors), step):
        with np.errstate(invalid="ignore", over="ignore"):
            norms = np.sqrt(np.square(vectors[start : start + step], dtype=np.float64).sum(axis=1))
        longest = max(longest, float(norms.max()))
        # not a number compares as false
        fits = norms <= most * (1 + _SLACK)
        if cosine:
            fits &= (norms == 0) | (np.abs(norms - 1) <= 10 * _SLACK)
        if not fits.all():
            raise IndexCorruptError(
                f"{segment.info.vectors.file!r} holds a vector that no writer stores (row {int(np.argmin(fits))} of "
                f"rows {start} on)",
                hint="run `retr index check`",
            )
    if longest < most * (1 - _SLACK):
        raise IndexCorruptError(
            f"{segment.info.vectors.file!r} holds no vector as long as the manifest says", hint="run `retr index check`"
        )
