"""Segments: immutable runs of rows, each a Parquet table and, row for row, a ``.npy`` of vectors.

On disk a segment ``NAME`` is ``segments/NAME.parquet`` (zstd, row groups of `ROW_GROUP` rows but the last),
``segments/NAME.npy`` (C order, ``(rows, dim)``, little-endian float32 or float16) and ``segments/NAME.ids.npy``
(uint64 ``(2, rows)``: the sorted 64-bit hashes of the ids, and the row of each). None is ever written again.
Opening one maps the files and reads nothing: the cost does not depend on the rows, and because a mapped file
outlives its name, a snapshot keeps what it sees when a writer removes the files.
"""

from __future__ import annotations

import hashlib
import io
import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.disk import schema as schemas
from retr.index.disk.faiss_file import require_whole
from retr.index.disk.files import regular
from retr.index.disk.parquet_file import moderate_batches
from retr.index.disk.sidetable import SideTable
from retr.index.errors import IndexCorruptError
from retr.index.json_fields import stored
from retr.index.machine.arrow import pq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.disk.files import FileRef
    from retr.index.disk.manifest import SegmentInfo
    from retr.index.disk.row_arrays import RowLayout
    from retr.index.types import Accelerator

# Where there is no side table, a hit's row is read with its whole row group.
ROW_GROUP = 10_000
_IDS = pa.schema([pa.field(schemas.ID, pa.string())])


class Segment:
    """One open segment; everything but the mapping of its files is lazy.

    Parameters
    ----------
    before
        The segment of that name in an older snapshot: what was read of files that are still its own is used again.

    Raises
    ------
    FileNotFoundError
        One of its files has gone (the caller decides whether a newer version exists).
    IndexCorruptError
        A file is not what the manifest says.
    """

    def __init__(self, root: Path, info: SegmentInfo, layout: RowLayout, before: Segment | None = None) -> None:
        self.info = info
        self.vectors: NDArray[np.float32] | NDArray[np.float16] = _map_array(
            root, info.vectors, layout.stored, (info.rows, layout.dim)
        )
        # The row arrays, each (rows, its length).
        self.arrays: dict[str, NDArray[Any]] = {
            name: _map_array(root, info.arrays[name], array.stored, (info.rows, array.dim))
            for name, array in layout.arrays.items()
        }
        self._table = map_file(root, info.table)
        self._deleted = _map_deleted(root, info)
        self._accelerator = _map_if_whole(root, info.accelerator) if info.accelerator else None
        self._loaded: Accelerator | None = None
        self._columns = map_file(root, info.columns) if info.columns else None
        self._side: SideTable | None = None
        # The hashes of the ids in order, and the row of each.
        self.hashes, self.hashed_rows = _map_array(root, info.ids, np.dtype("<u8"), (2, info.rows))
        self._metadata: pq.FileMetaData | None = None
        self._lock = threading.Lock()
        if before is not None:
            self._take_over(before)

    def _take_over(self, before: Segment) -> None:
        mine, its = self.info, before.info
        if (mine.vectors, mine.accelerator) == (its.vectors, its.accelerator):
            self.vectors, self._accelerator, self._loaded = before.vectors, before._accelerator, before._loaded
        if mine.table == its.table:
            self._table, self._metadata = before._table, before._metadata
        if mine.columns == its.columns:
            self._columns, self._side = before._columns, before._side

    def __len__(self) -> int:
        return self.info.rows

    def deleted(self) -> NDArray[np.int64]:
        """Return the deleted row numbers, sorted int64."""
        gone = self._deleted
        if len(gone) and (gone[0] < 0 or gone[-1] >= self.info.rows or not (gone[1:] > gone[:-1]).all()):
            raise IndexCorruptError("the deletions do not fit the segment", hint="run `retr index check`")
        return gone

    def look_up(
        self,
        hashes: NDArray[np.uint64],
        names: Callable[[NDArray[np.int64]], Sequence[str]],
        among: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Look ids up.

        Parameters
        ----------
        hashes
            uint64 ``(n,)``: their `id_hashes`.
        names
            Gives the ids at some positions of ``hashes``; only asked for those whose hash is here.
        among
            bool ``(rows,)``: only these rows.

        Returns
        -------
        Positions in ``hashes`` and the row of each, int64 both; an id that several rows have comes several times.
        """
        first, last = (np.searchsorted(self.hashes, hashes, side=side) for side in ("left", "right"))
        counts = last - first
        at = np.repeat(np.arange(len(hashes)), counts)
        offsets = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = self.hashed_rows[first[at] + offsets].astype(np.int64)
        if among is not None:
            at, rows = at[among[rows]], rows[among[rows]]
        same = np.fromiter((a == b for a, b in zip(names(at), self.ids(rows), strict=True)), bool, len(at))
        return at[same], rows[same]

    def hashed_ids(self, at: NDArray[np.int64]) -> list[str]:
        """Read the ids that lie at some positions of ``hashes``."""
        return self.ids(self.hashed_rows[at].astype(np.int64))

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Read the ids of some rows."""
        side = self._side_table()
        if side is not None and side.holds_texts(schemas.ID):
            return side.texts(schemas.ID, rows)
        return schemas.texts(self.table([schemas.ID], _IDS, rows).column(0))

    def accelerator(self, load: Callable[[memoryview, NDArray[Any]], Accelerator]) -> Accelerator | None:
        """Load the accelerator at the first call; ``None`` where there is none.

        Parameters
        ----------
        load
            Makes one of the bytes of its file and the segment's vectors.

        Raises
        ------
        IndexCorruptError
            It is missing or damaged.
        MissingExtraError
            faiss is not installed.
        """
        if self.info.accelerator is None:
            return None
        with self._lock:
            if self._loaded is None:
                if self._accelerator is None:
                    raise IndexCorruptError(
                        f"the accelerator {self.info.accelerator.file!r} is missing, cut short or changed",
                        hint="run `retr index tune` again",
                    )
                self._loaded = load(memoryview(self._accelerator), self.vectors)
            return self._loaded

    def usable_accelerator(self) -> bool:
        """Return whether the accelerator, if any, is one of this segment's vectors."""
        try:
            self.require_accelerator()
        except IndexCorruptError:
            return False
        return True

    def distrust_accelerator(self) -> None:
        """Do without the accelerator: it is not what was written."""
        self._accelerator = None

    def table(self, columns: Sequence[str], schema: pa.Schema, rows: NDArray[np.int64] | None = None) -> pa.Table:
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
        target = schema if columns == schema.names else pa.schema([schema.field(name) for name in columns])
        if rows is not None and len(rows) == 0:
            return target.empty_table()
        side = self._side_table()
        mapped = [name for name in columns if side is not None and name in side.names]
        if side is None or not mapped:
            return self._from_parquet(target, rows)
        table = side.columns(mapped) if rows is None else side.take(mapped, rows)
        if len(mapped) < len(target):
            rest = pa.schema([field for field in target if field.name not in mapped])
            for name, column in zip(rest.names, self._from_parquet(rest, rows).columns, strict=True):
                table = table.append_column(name, column)
        return schemas.conform(table, target)

    def mapped(self, name: str, schema: pa.Schema) -> pa.ChunkedArray[Any] | None:
        """Return one column of all rows, mapped, repeated texts as dictionary codes; ``None`` without a side table."""
        side = self._side_table()
        if side is None or name not in side.names:
            return None
        column = side.columns([name]).column(0)
        return column if pa.types.is_dictionary(column.type) else schemas.as_stored(column, schema.field(name).type)

    def _side_table(self) -> SideTable | None:
        if self._columns is None:
            return None
        with self._lock:
            if self._side is None:
                self._side = self._opened_side_table(self._columns)
            return self._side

    def _opened_side_table(self, columns: pa.Buffer) -> SideTable:
        try:
            side = SideTable(columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise IndexCorruptError(
                f"the side table of {self.info.name!r} is not readable", hint="run `retr index check`"
            ) from error
        if len(side) != self.info.rows:
            raise IndexCorruptError(
                f"the side table of {self.info.name!r} holds {len(side)} rows instead of {self.info.rows}",
                hint="run `retr index check`",
            )
        return side

    def require_table(self, schema: pa.Schema) -> None:
        """Raise `IndexCorruptError` where the Parquet file cannot be read as ``schema``, or an id is missing."""
        said = self.info.table.file
        try:
            schemas.conform(self._file().schema_arrow.empty_table(), schema)
            batches = moderate_batches(self._table, beside=self.info.vectors.bytes)
            whole = all(batch.column(schemas.ID).null_count == 0 for batch in batches)
        except (pa.ArrowException, OSError, LookupError, ValueError) as error:
            raise IndexCorruptError(
                f"{said!r} holds other columns than the index, or more than it may", hint="run `retr index check`"
            ) from error
        if not whole:
            raise IndexCorruptError(f"{said!r} lacks an id", hint="run `retr index check`")

    def require_side_table(self, schema: pa.Schema) -> None:
        """Raise `IndexCorruptError` where the side table could not be read safely, or is of other columns."""
        side = self._side_table()
        try:
            if side is not None:
                side.require_whole(schema)
        except (pa.ArrowException, ValueError) as error:
            raise IndexCorruptError(
                f"the side table of {self.info.name!r} is not readable", hint="run `retr index check`"
            ) from error

    def require_same_columns(self) -> None:
        """Raise `IndexCorruptError` where the side table says something else than the Parquet file."""
        side = self._side_table()
        if side is None:
            return
        start = 0
        schema = self._file().schema_arrow
        target = pa.schema([field for field in schema if field.name in side.names])
        for piece in self.tables(target):
            same = side.plain(target.names, start, piece.num_rows)
            # Values that are no numbers are not equal, and are spelled alike.
            if not same.equals(piece) and repr(same.to_pydict()) != repr(piece.to_pydict()):
                raise IndexCorruptError(
                    f"the side table of {self.info.name!r} differs from its table", hint="run `retr index check`"
                )
            start += piece.num_rows

    def require_accelerator(self) -> None:
        """Raise `IndexCorruptError` where the accelerator is not of this segment's vectors, or not usable."""
        if self._accelerator is not None:
            with stored("an accelerator", "run `retr index tune` again"):
                require_whole(memoryview(self._accelerator), *self.vectors.shape)

    def _from_parquet(self, target: pa.Schema, rows: NDArray[np.int64] | None) -> pa.Table:
        try:
            return schemas.conform(self._read(target.names, rows), target)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable() from error

    def _read(self, columns: Sequence[str], rows: NDArray[np.int64] | None) -> pa.Table:
        file = self._file()
        present = [name for name in columns if name in file.schema_arrow.names]
        if not present:
            nothing = pa.nulls(len(self) if rows is None else len(rows))
            return pa.table({columns[0]: nothing} if columns else {})
        if rows is None:
            return file.read(columns=present, use_threads=True)
        groups, inverse = np.unique(rows // ROW_GROUP, return_inverse=True)
        table = file.read_row_groups(groups.tolist(), columns=present, use_threads=len(groups) > 4)
        return table.take(pa.array(rows % ROW_GROUP + inverse * ROW_GROUP))

    def tables(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Read all rows from Parquet in pieces of `ROW_GROUP` rows (the last may be shorter)."""
        for start in range(0, len(self), ROW_GROUP):
            yield self._from_parquet(schema, np.arange(start, min(start + ROW_GROUP, len(self))))

    def _file(self) -> pq.ParquetFile:
        # A ParquetFile is not safe to share between threads; its footer is, and is the costly part.
        with self._lock:
            if self._metadata is None:
                metadata = self._footer()
                if metadata.num_rows != self.info.rows:
                    rows = f"{metadata.num_rows} rows instead of {self.info.rows}"
                    raise IndexCorruptError(f"{self.info.table.file!r} holds {rows}", hint="run `retr index check`")
                groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
                whole, rest = divmod(self.info.rows, ROW_GROUP)
                # A row is looked for in the group that its number says.
                if groups != [ROW_GROUP] * whole + [rest] * (rest > 0):
                    raise IndexCorruptError(
                        f"{self.info.table.file!r} has row groups of another size than {ROW_GROUP}",
                        hint="run `retr index check`",
                    )
                self._metadata = metadata
        return pq.ParquetFile(pa.BufferReader(self._table), metadata=self._metadata)

    def _footer(self) -> pq.FileMetaData:
        try:
            return pq.read_metadata(pa.BufferReader(self._table))
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable() from error

    def _unreadable(self) -> IndexCorruptError:
        return IndexCorruptError(f"{self.info.table.file!r} is not readable as Parquet", hint="run `retr index check`")


def map_file(root: Path, ref: FileRef) -> pa.Buffer:
    """Map a committed file; the mapping outlives the file's name."""
    regular(root, ref.file)
    with pa.memory_map(str(root / ref.file)) as source:
        if source.size() != ref.bytes:
            raise IndexCorruptError(
                f"{ref.file!r} has {source.size()} bytes instead of {ref.bytes}",
                hint="run `retr index check`",
            )
        return source.read_buffer()


def _map_deleted(root: Path, info: SegmentInfo) -> NDArray[np.int64]:
    if info.deleted is None:
        if info.n_deleted:
            raise IndexCorruptError("the deletions do not fit the segment", hint="run `retr index check`")
        return np.empty(0, np.int64)
    return _map_array(root, info.deleted, np.dtype("<i8"), (info.n_deleted,))


def _map_if_whole(root: Path, ref: FileRef) -> pa.Buffer | None:
    try:
        return map_file(root, ref)
    except (OSError, IndexCorruptError):
        return None


def _map_array(root: Path, ref: FileRef, kind: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    buffer = map_file(root, ref)
    header = npy_header(kind, shape)
    size = math.prod(shape) * kind.itemsize
    if len(buffer) != len(header) + size or buffer.slice(0, len(header)).to_pybytes() != header:
        raise IndexCorruptError(
            f"{ref.file!r} does not hold {' x '.join(map(str, shape))} {kind.name} numbers",
            hint="run `retr index check`",
        )
    flat: NDArray[Any] = np.frombuffer(memoryview(buffer), kind, offset=len(header))
    return flat.reshape(shape)


def npy_header(kind: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the ``.npy`` header; numpy pads it so that its length does not depend on the number of rows."""
    sink = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(sink, described)
    return sink.getvalue()


def id_hashes(ids: Iterable[str]) -> NDArray[np.uint64]:
    """Return the first 64 bits of each id's BLAKE2b, little-endian."""
    digests = b"".join(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in ids)
    return np.frombuffer(digests, "<u8")


class HashSet:
    """Hashes that were seen, 8 bytes each: sorted runs, of which each is at least twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[NDArray[np.uint64]] = []

    def add(self, hashes: NDArray[np.uint64]) -> None:
        """Take in hashes ``(n,)``."""
        run = np.sort(hashes)
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        self._runs.append(run)

    def meets(self, hashes: NDArray[np.uint64]) -> bool:
        """Return whether any of these was seen."""
        return any(
            bool(np.any(run[np.minimum(np.searchsorted(run, hashes), len(run) - 1)] == hashes)) for run in self._runs
        )
