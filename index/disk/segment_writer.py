"""Writing a segment (`retr.index.disk.segments` describes its files), in as many pieces as come."""

from __future__ import annotations

import contextlib
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.disk import schema as schemas
from retr.index.disk import sidetable
from retr.index.disk.files import reference
from retr.index.disk.manifest import SEGMENTS, SegmentInfo
from retr.index.disk.segments import ROW_GROUP, id_hashes, npy_header
from retr.index.errors import UsageError
from retr.index.machine.arrow import pq

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.disk.row_arrays import RowLayout

_WRITE_ROWS = 65_536


class SegmentWriter:
    """Writes one segment, in as many pieces as come; nothing counts before `close` and a commit."""

    def __init__(self, root: Path, name: str, *, schema: pa.Schema, layout: RowLayout, folder: str = "") -> None:
        self.schema = schema
        self.rows = 0
        self._root, self._name, self._layout, self._folder = root, name, layout, folder
        self._kind = layout.stored
        self._hashes: list[NDArray[np.uint64]] = []
        self._max_norm = 0.0
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0
        self._vectors = (root / self._file(".npy")).open("xb")
        self._vectors.write(npy_header(self._kind, (0, layout.dim)))
        self._arrays = {array: (root / self._file(f".rows-{array}.npy")).open("xb") for array in layout.arrays}
        for array, stream in self._arrays.items():
            stream.write(npy_header(layout.arrays[array].stored, (0, layout.arrays[array].dim)))
        self._table = (root / self._file(".parquet")).open("xb")
        self._parquet = parquet_writer(self._table, schema)

    def _file(self, suffix: str) -> str:
        return f"{self._folder}{SEGMENTS}/{self._name}{suffix}"

    def append(
        self,
        table: pa.Table,
        vectors: NDArray[np.floating],
        hashes: NDArray[np.uint64] | None = None,
        arrays: Mapping[str, NDArray[Any]] = MappingProxyType({}),
    ) -> None:
        """Add rows in the schema of this segment.

        Parameters
        ----------
        vectors
            Floats ``(n, dim)``, already normalised where due.
        hashes
            The `id_hashes` of the rows, where they are known.
        arrays
            For each row array of the layout, its lines as stored.
        """
        for start in range(0, len(vectors), _WRITE_ROWS):
            self._append_vectors(vectors[start : start + _WRITE_ROWS])
        for name, stream in self._arrays.items():
            stream.write(np.ascontiguousarray(arrays[name]).data)
        self.rows += len(vectors)
        self._hashes.append(id_hashes(schemas.texts(table.column(schemas.ID))) if hashes is None else hashes)
        self._waiting.append(table)
        self._n_waiting += table.num_rows
        if self._n_waiting >= ROW_GROUP:
            self._write_groups(self._n_waiting - self._n_waiting % ROW_GROUP)

    def _append_vectors(self, vectors: NDArray[np.floating]) -> None:
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(vectors, self._kind)
        norms = np.sqrt(np.square(stored, dtype=np.float64).sum(axis=1))
        if not np.isfinite(norms).all():
            raise UsageError(
                f"a vector holds a value that {self._kind.name} cannot hold",
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
        for stream in (self._table, self._vectors, *self._arrays.values()):
            with contextlib.suppress(OSError):
                stream.close()

    def close(self) -> SegmentInfo:
        """Finish both files, flush them to the disk and describe them."""
        if self._n_waiting:
            self._write_groups(self._n_waiting)
        self._parquet.close()
        self._table.close()
        self._vectors.seek(0)
        self._vectors.write(npy_header(self._kind, (self.rows, self._layout.dim)))
        self._vectors.close()
        for name, stream in self._arrays.items():
            stream.seek(0)
            stream.write(npy_header(self._layout.arrays[name].stored, (self.rows, self._layout.arrays[name].dim)))
            stream.close()
        hashes = np.concatenate(self._hashes)
        order = np.argsort(hashes, kind="stable")
        with (self._root / self._file(".ids.npy")).open("xb") as stream:
            np.save(stream, np.stack([hashes[order], order.astype("<u8")]), allow_pickle=False)
        return SegmentInfo(
            name=self._name,
            rows=self.rows,
            max_norm=self._max_norm,
            table=reference(self._root, self._file(".parquet")),
            vectors=reference(self._root, self._file(".npy")),
            ids=reference(self._root, self._file(".ids.npy")),
            columns=sidetable.write(self._root, self._file(".parquet"), self._file(".arrow")),
            arrays={name: reference(self._root, self._file(f".rows-{name}.npy")) for name in self._arrays},
        )


def parquet_writer(sink: IO[bytes], schema: pa.Schema) -> pq.ParquetWriter:
    """Open the one kind of Parquet file an index has."""
    return pq.ParquetWriter(sink, schema, compression="zstd", write_statistics=True, store_schema=True)
