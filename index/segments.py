"""Segments: immutable runs of rows, each a Parquet table and, row for row, a ``.npy`` of vectors.

On disk a segment ``NAME`` is ``segments/NAME.parquet`` (zstd, row groups of `ROW_GROUP` rows but the last) and
``segments/NAME.npy`` (C order, ``(rows, dim)``, little-endian float32 or float16). Neither is ever written again.
Opening one maps both files and reads nothing: the cost does not depend on the rows, and because a mapped file
outlives its name, a snapshot keeps what it sees when a writer removes the files.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retr.index import schema as schemas
from retr.index.errors import IndexCorruptError, UsageError
from retr.index.files import FileRef, reference
from retr.index.manifest import SEGMENTS, SegmentInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.manifest import Dtype

# A hit's row is read with its whole row group: small groups keep that in milliseconds at ten million rows.
ROW_GROUP = 10_000
_WRITE_ROWS = 65_536


class Segment:
    """One open segment; everything but the mapping of its files is lazy.

    Raises
    ------
    FileNotFoundError
        One of its files has gone (the caller decides whether a newer version exists).
    IndexCorruptError
        A file is not what the manifest says.
    """

    def __init__(self, root: Path, info: SegmentInfo, *, dim: int, dtype: Dtype) -> None:
        self.info = info
        self.vectors: NDArray[np.float32] | NDArray[np.float16] = _map_vectors(root, info, dim, dtype)
        self._table = map_file(root, info.table)
        self._deleted = map_file(root, info.deleted) if info.deleted else None
        self._metadata: pq.FileMetaData | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.info.rows

    def deleted(self) -> NDArray[np.int64]:
        """Give the deleted row numbers, sorted int64."""
        if self._deleted is None:
            return np.empty(0, np.int64)
        data: NDArray[np.int64] = np.load(pa.BufferReader(self._deleted), allow_pickle=False)
        return data

    def table(
        self, columns: Sequence[str], schema: pa.Schema, rows: NDArray[np.int64] | None = None
    ) -> pa.Table:
        """Read metadata: all rows, or exactly ``rows`` in that order; columns it lacks are null.

        Parameters
        ----------
        columns
            Names in ``schema``.
        schema
            The index's columns, which may be more, or wider, than this segment's.
        rows
            int64 local row numbers ``(n,)``.
        """
        target = pa.schema([schema.field(name) for name in columns])
        file = self._file()
        present = [name for name in columns if name in file.schema_arrow.names]
        if not present:
            return _nulls(len(self) if rows is None else len(rows), target)
        if rows is None:
            return schemas.conform(file.read(columns=present, use_threads=True), target)
        if len(rows) == 0:
            return target.empty_table()
        groups, inverse = np.unique(rows // ROW_GROUP, return_inverse=True)
        table = file.read_row_groups(groups.tolist(), columns=present, use_threads=len(groups) > 4)
        local = rows % ROW_GROUP + inverse * ROW_GROUP
        return schemas.conform(table.take(pa.array(local)), target)

    def tables(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Read all rows in pieces of `ROW_GROUP` rows (the last may be shorter)."""
        for start in range(0, len(self), ROW_GROUP):
            rows = np.arange(start, min(start + ROW_GROUP, len(self)))
            yield self.table(schema.names, schema, rows)

    def _file(self) -> pq.ParquetFile:
        # A ParquetFile is not safe to share between threads; its footer is, and is the costly part.
        with self._lock:
            try:
                if self._metadata is None:
                    self._metadata = pq.read_metadata(pa.BufferReader(self._table))
                    if self._metadata.num_rows != self.info.rows:
                        raise IndexCorruptError(
                            f"{self.info.table.file!r} holds {self._metadata.num_rows} rows instead of {self.info.rows}",
                            hint="run `retr index check`",
                        )
                return pq.ParquetFile(pa.BufferReader(self._table), metadata=self._metadata)
            except pa.ArrowInvalid as error:
                raise IndexCorruptError(
                    f"{self.info.table.file!r} is not readable as Parquet", hint="run `retr index check`"
                ) from error


def _nulls(rows: int, target: pa.Schema) -> pa.Table:
    """Give a table of nulls."""
    return pa.Table.from_arrays([pa.nulls(rows, field.type) for field in target], schema=target)


def map_file(root: Path, ref: FileRef) -> pa.Buffer:
    """Map a committed file; the mapping outlives the file's name."""
    with pa.memory_map(str(root / ref.file)) as source:
        if source.size() != ref.bytes:
            raise IndexCorruptError(
                f"{ref.file!r} has {source.size()} bytes instead of {ref.bytes}",
                hint="run `retr index check`",
            )
        return source.read_buffer()


def _map_vectors(
    root: Path, info: SegmentInfo, dim: int, dtype: Dtype
) -> NDArray[np.float32] | NDArray[np.float16]:
    buffer = map_file(root, info.vectors)
    kind = np.dtype(dtype).newbyteorder("<")
    size = info.rows * dim * kind.itemsize
    header = _header(info.rows, dim, dtype)
    if len(buffer) != len(header) + size or buffer.slice(0, len(header)).to_pybytes() != header:
        raise IndexCorruptError(
            f"{info.vectors.file!r} does not hold {info.rows} x {dim} {dtype} vectors",
            hint="run `retr index check`",
        )
    flat: NDArray[np.float32] = np.frombuffer(buffer, kind, count=info.rows * dim, offset=len(header))
    return flat.reshape(info.rows, dim)


def _header(rows: int, dim: int, dtype: Dtype) -> bytes:
    """Give the ``.npy`` header; numpy pads it so that its length does not depend on ``rows``."""
    sink = pa.BufferOutputStream()
    kind = np.dtype(dtype).newbyteorder("<")
    described = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(sink, described)
    return sink.getvalue().to_pybytes()


class SegmentWriter:
    """Writes one segment, in as many pieces as come; nothing counts before `close` and a commit."""

    def __init__(self, root: Path, name: str, *, schema: pa.Schema, dim: int, dtype: Dtype) -> None:
        self.schema = schema
        self.rows = 0
        self._root, self._name, self._dim, self._dtype = root, name, dim, dtype
        self._max_norm = 0.0
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0
        self._vectors = (root / self._file(".npy")).open("xb")
        self._vectors.write(_header(0, dim, dtype))
        self._table = (root / self._file(".parquet")).open("xb")
        self._parquet = parquet_writer(self._table, schema)

    def _file(self, suffix: str) -> str:
        return f"{SEGMENTS}/{self._name}{suffix}"

    def append(self, table: pa.Table, vectors: NDArray[np.floating]) -> None:
        """Add rows in the schema of this segment and their vectors ``(n, dim)``, already normalised where due."""
        for start in range(0, len(vectors), _WRITE_ROWS):
            self._append_vectors(vectors[start : start + _WRITE_ROWS])
        self.rows += len(vectors)
        self._waiting.append(table)
        self._n_waiting += table.num_rows
        if self._n_waiting >= ROW_GROUP:
            self._write_groups(self._n_waiting - self._n_waiting % ROW_GROUP)

    def _append_vectors(self, vectors: NDArray[np.floating]) -> None:
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(vectors, np.dtype(self._dtype).newbyteorder("<"))
        norms = np.sqrt(np.square(stored, dtype=np.float64).sum(axis=1))
        if not np.isfinite(norms).all():
            raise UsageError(
                f"a vector holds a value that {self._dtype} cannot hold",
                hint="build the index with float32 vectors",
            )
        self._max_norm = max(self._max_norm, float(norms.max(initial=0.0)))
        self._vectors.write(stored.data)

    def _write_groups(self, rows: int) -> None:
        table = pa.concat_tables(self._waiting)
        self._parquet.write_table(table.slice(0, rows), row_group_size=ROW_GROUP)
        rest = table.slice(rows)
        self._waiting, self._n_waiting = [rest], rest.num_rows

    def abort(self) -> None:
        """Close the files as they are; whoever calls removes them."""
        # On a full disk closing fails again, and Arrow would try once more when the object is collected.
        with contextlib.suppress(OSError, pa.ArrowException):
            self._parquet.close()
        self._parquet.is_open = False
        for stream in (self._table, self._vectors):
            with contextlib.suppress(OSError):
                stream.close()

    def close(self) -> SegmentInfo:
        """Finish both files, flush them to the disk and describe them."""
        if self._n_waiting:
            self._write_groups(self._n_waiting)
        self._parquet.close()
        self._table.close()
        self._vectors.seek(0)
        self._vectors.write(_header(self.rows, self._dim, self._dtype))
        self._vectors.close()
        return SegmentInfo(
            name=self._name,
            rows=self.rows,
            max_norm=self._max_norm,
            table=reference(self._root, self._file(".parquet")),
            vectors=reference(self._root, self._file(".npy")),
        )


def parquet_writer(sink: object, schema: pa.Schema) -> pq.ParquetWriter:
    """Open the one kind of Parquet file an index has."""
    return pq.ParquetWriter(sink, schema, compression="zstd", write_statistics=True, store_schema=True)
