"""A read-only snapshot of one committed version of an index.

Opening reads the manifest and maps the files it names; nothing else is read until it is needed, so the cost does
not grow with the rows. Because mapped files outlive their names, a snapshot stays valid while a writer commits,
compacts or purges. Rows are numbered 0 .. n_total-1 over the segments in order; a deleted row keeps its number
until the segments are compacted.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from retr.index.disk.current import exists, read_current
from retr.index.disk.schema import ID
from retr.index.disk.segments import Segment, id_hashes, map_file
from retr.index.disk.verified import verify_new
from retr.index.errors import IndexCorruptError, UsageError
from retr.index.json_fields import stored
from retr.index.machine.arrow import pc
from retr.index.machine.home import index_folder
from retr.index.once import Once
from retr.index.rows.columns import Columns
from retr.index.rows.identity import Identity
from retr.index.rows.purge import say_unfinished
from retr.index.rows.row_ids import require_ids, rows_by_normalized_id
from retr.index.types import Block

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.disk.manifest import Manifest
    from retr.index.rows.allowed import Allowed
    from retr.index.rows.text_lookup import TextLookup

# Of masks of conditions, which take a byte a row; where at most one row in so many is allowed, their numbers are kept
# beside, which take no more than another.
_FEW_MASKS, _MOST_MASKS, _MASK_BYTES, _FEW_ROWS = 2, 64, 64 << 20, 8


class Snapshot:
    """One committed state of an index, read but not searched; make one with `open`.

    Attributes
    ----------
    path
        The index's directory.
    manifest
        The committed state this is a snapshot of.
    once
        What was worked out of this state, by whatever names it, for all who ask again: a snapshot does not change.
    """

    def __init__(self, path: Path, manifest: Manifest, *, before: Snapshot | None = None) -> None:
        self.path = path
        self.manifest = manifest
        known = {} if before is None else {segment.info.name: segment for segment in before.segments}
        self.segments: list[Segment] = [
            Segment(path, info, manifest.layout, known.get(info.name)) for info in manifest.segments
        ]
        self._files = {name: map_file(path, ref) for name, ref in manifest.files.items()}
        self._skipped = map_file(path, manifest.skipped) if manifest.skipped else None
        self._starts = np.cumsum([0, *(len(segment) for segment in self.segments)])
        self._n_total = int(self._starts[-1])
        self._n_live = self._n_total - sum(info.n_deleted for info in manifest.segments)
        self.once = Once()
        self._masks = Once(most=max(_FEW_MASKS, min(_MOST_MASKS, _MASK_BYTES // max(self.n_total, 1))))
        self.columns = Columns(self.segments, self.schema)
        # a note that cannot be read is said at once
        _ = self.identity

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open the newest committed version.

        Raises
        ------
        IndexNotFoundError
            There is no index at ``path``.
        FormatVersionError
            It was written by a newer retr.
        IndexCorruptError
            A file is missing or has another size than the manifest says.
        """
        root = index_folder(path)
        # what was opened by a relative path is still there when the process has gone to another folder
        return cls._opened(root.absolute(), read_current(root))

    def newest(self) -> Self:
        """Return the newest committed version, reusing what was read of unchanged segments; itself, if it is that.

        Raises
        ------
        RetrError
            As `open`.
        """
        manifest = read_current(self.path)
        if (manifest.uuid, manifest.version, manifest.committed) == (self.uuid, self.version, self.manifest.committed):
            return self
        return self._opened(self.path, manifest, before=self if manifest.uuid == self.uuid else None)

    @classmethod
    def _opened(cls, root: Path, manifest: Manifest, *, before: Snapshot | None = None) -> Self:
        say_unfinished(manifest.extra)
        while True:
            try:
                snapshot = cls(root, manifest, before=before)
                verify_new(root, manifest, snapshot.segments)
            except FileNotFoundError as error:
                # A writer may have committed, and removed what it replaced, since the manifest was read.
                newer = read_current(root)
                if newer.version == manifest.version:
                    raise IndexCorruptError(
                        "a file is missing from the index", hint="run `retr index check`"
                    ) from error
                manifest = newer
            else:
                return snapshot

    def at(self, manifest: Manifest) -> Self:
        """Return another state of the same index; its files are not verified."""
        return type(self)(self.path, manifest)

    @staticmethod
    def exists(path: Path | str) -> bool:
        """Return whether there is an index at ``path``, readable or not."""
        return exists(index_folder(path))

    def __len__(self) -> int:
        return self._n_live

    def __repr__(self) -> str:
        info = self.manifest.encoder
        return (
            f"{type(self).__name__}({str(self.path)!r}, version {self.version}, {len(self)} rows x {info.dim} "
            f"{self.manifest.dtype}, {info.similarity}, {info.name})"
        )

    @property
    def uuid(self) -> str:
        """What identifies the index wherever it is copied or moved."""
        return self.manifest.uuid

    @property
    def version(self) -> int:
        """Number of the commit; grows by one with each."""
        return self.manifest.version

    @property
    def identity(self) -> Identity:
        """Which rows belong to one patient, whatever spelling they have."""
        return Identity(self)

    @property
    def n_total(self) -> int:
        """How many rows there are, deleted ones included."""
        return self._n_total

    @property
    def schema(self) -> pa.Schema:
        """The metadata columns; the first is the string ``id``."""
        return self.manifest.schema

    @cached_property
    def _alive(self) -> NDArray[np.bool_]:
        mask = np.ones(self.n_total, bool)
        for start, segment in zip(self._starts, self.segments, strict=False):
            mask[start + segment.deleted()] = False
        mask.flags.writeable = False
        return mask

    def alive(self) -> NDArray[np.bool_]:
        """Which rows are not deleted: bool ``(n_total,)``, read-only."""
        return self._alive

    def live_rows(self) -> NDArray[np.int64]:
        """Return the numbers of the rows that are not deleted, in order: int64."""
        return np.flatnonzero(self._alive)

    def in_id_order(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Return some rows, or all live ones, in the order of their ids: int64.

        What rows are fitted on, drawn from or numbered in this order does not depend on how they lie in segments.
        """
        rows = self.live_rows() if rows is None else rows
        order: NDArray[np.uint64] = pc.sort_indices(self.table([ID], rows).column(0).combine_chunks()).to_numpy()
        return rows[order]

    def _split(self, rows: NDArray[np.int64]) -> list[tuple[Segment, NDArray[np.int64], NDArray[np.int64]]]:
        """Return (segment, local row numbers, positions in ``rows``) for every segment concerned."""
        if len(rows) and (rows.min() < 0 or rows.max() >= self.n_total):
            raise IndexError(f"row numbers go from 0 to {self.n_total - 1}")
        if len(rows) and len(self.segments) == 1:
            return [(self.segments[0], rows, np.arange(len(rows)))]
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        parts = []
        for number in np.unique(owner):
            at = np.flatnonzero(owner == number)
            parts.append((self.segments[number], rows[at] - self._starts[number], at))
        return parts

    def table(self, columns: Sequence[str] | None = None, rows: NDArray[np.int64] | None = None) -> pa.Table:
        """Read metadata.

        Parameters
        ----------
        columns
            Names, in the order wanted; ``None`` for all.
        rows
            int64 ``(n,)`` row numbers, read exactly and in that order (deleted ones too); ``None`` for all live
            rows in row order.

        Raises
        ------
        UsageError
            A column is unknown.
        """
        names = self.schema.names if columns is None else list(columns)
        if columns is not None:
            for name in names:
                self.columns.require(name)
        target = self.schema if columns is None else pa.schema([self.schema.field(name) for name in names])
        if rows is None:
            parts = []
            for segment in self.segments:
                part = segment.table(names, self.schema)
                gone = segment.deleted()
                if len(gone):
                    keep = np.ones(len(segment), bool)
                    keep[gone] = False
                    part = part.take(pa.array(np.flatnonzero(keep)))
                parts.append(part)
            return pa.concat_tables(parts) if parts else target.empty_table()
        rows = np.asarray(rows, np.int64)
        pieces = self._split(rows)
        if not pieces:
            return target.empty_table()
        parts = [segment.table(names, self.schema, local) for segment, local, _ in pieces]
        if len(pieces) == 1:
            return parts[0]
        places = np.empty(len(rows), np.int64)
        places[np.concatenate([at for _, _, at in pieces])] = np.arange(len(rows))
        return pa.concat_tables(parts).combine_chunks().take(places)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Read the ids of rows, int64 ``(n,)``, in their order."""
        if len(self.segments) == 1:
            return self.segments[0].ids(rows)
        found = [""] * len(rows)
        for segment, local, at in self._split(np.asarray(rows, np.int64)):
            for place, name in zip(at.tolist(), segment.ids(local), strict=True):
                found[place] = name
        return found

    def vectors(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32] | NDArray[np.float16]:
        """Return vectors ``(n, d)`` as stored: unit vectors where the similarity is cosine.

        ``rows=None`` gives all rows, deleted ones too; with a single segment that is a memory map, not a copy.
        """
        if rows is None:
            if len(self.segments) == 1:
                return self.segments[0].vectors
            empty = np.empty((0, self.manifest.encoder.dim), self.manifest.dtype)
            return np.concatenate([empty, *(segment.vectors for segment in self.segments)])
        rows = np.asarray(rows, np.int64)
        result = np.empty((len(rows), self.manifest.encoder.dim), self.manifest.dtype)
        for segment, local, at in self._split(rows):
            result[at] = segment.vectors[local]
        return result

    def array(self, name: str, rows: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Return lines ``(n, dim)`` of a row array, of all rows (deleted ones too) where ``rows`` is ``None``.

        Raises
        ------
        KeyError
            There is no such array; ``manifest.row_arrays`` holds the names.
        """
        about = self.manifest.row_arrays[name]
        rows = np.arange(self.n_total) if rows is None else np.asarray(rows, np.int64)
        result = np.empty((len(rows), about.dim), about.stored)
        for segment, local, at in self._split(rows):
            result[at] = segment.arrays[name][local]
        return result

    def rows_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Find live rows by id: int64 ``(len(ids),)``, -1 where there is none.

        An id that no row has to the letter is found by how it reads: accents may be composed (NFC) in one and
        decomposed (NFD) in the other, as long as one row alone reads so.
        """
        if not len(ids):
            return np.empty(0, np.int64)
        require_ids(ids)
        result = np.full(len(ids), -1, np.int64)
        hashes = id_hashes(ids)
        for start, segment in zip(self._starts, self.segments, strict=False):
            live = self._alive[start : start + len(segment)]
            at, local = segment.look_up(hashes, lambda at: [ids[i] for i in at], live)
            result[at] = start + local
        accented = [at for at in np.flatnonzero(result < 0).tolist() if not ids[at].isascii()]
        if accented:
            result[accented] = rows_by_normalized_id(self, [ids[at] for at in accented])
        return result

    def rows_with(self, column: str, values: pa.Array[Any]) -> list[NDArray[np.int64]]:
        """Find the live rows that hold each value: sorted int64 row numbers.

        Parameters
        ----------
        values
            Of the column's type, distinct, without nulls.

        Raises
        ------
        UsageError
            The column is unknown.
        """
        return [rows[self._alive[rows]] for rows in self.columns.groups(column).rows(values)]

    def text(self, column: str, row: int) -> str | None:
        """Return what one row, deleted or not, holds in a column of texts."""
        return self._lookup(column).text(row)

    def rows_with_text(self, column: str, text: str) -> NDArray[np.int64]:
        """Find the live rows that hold a text, as `rows_with`: for texts that are asked for one after another."""
        rows = self._lookup(column).rows(text)
        return rows[self._alive[rows]]

    def _lookup(self, column: str) -> TextLookup:
        found: TextLookup = self.once(("lookup", column), lambda: self.columns.text_lookup(column))
        return found

    def blocks(self, array: str | None = None) -> list[Block]:
        """Return the vectors of all rows, or a row array of floats, segment by segment, without copying them."""
        return [
            Block(segment.vectors if array is None else segment.arrays[array], int(start))
            for start, segment in zip(self._starts, self.segments, strict=False)
        ]

    def where(self, expression: str) -> NDArray[np.bool_]:
        """Return the mask of the live rows for which a where-expression is true: bool ``(n_total,)``, read-only.

        The masks asked for last are kept, up to some megabytes.

        Raises
        ------
        FilterError
            The expression cannot be read or applied.
        UsageError
            It is no text.
        """
        return self.allowed(expression).mask

    def allowed(self, expression: str) -> Allowed:
        """Return the rows of `where`, by their numbers where they are few; raises as it does."""
        if not isinstance(expression, str):
            raise UsageError(f"a condition is a text, got: {expression!r}")

        def make() -> Allowed:
            few = self.n_total // _FEW_ROWS
            found = self.columns.where(expression, self.identity.meaning, few=few)
            return found if len(self) == self.n_total else found.among(self._alive, few)

        found: Allowed = self._masks(expression, make)
        return found

    def file(self, name: str) -> bytes:
        """Read a sidecar file that was committed with `Writer.add_file`.

        Raises
        ------
        KeyError
            There is no such file; ``manifest.files`` holds the names.
        """
        data: bytes = self._files[name].to_pybytes()
        return data

    def skipped(self) -> pa.Table:
        """Read the record of what was not indexed: path, reason and whatever else was recorded."""
        import pyarrow.parquet as pq

        if self._skipped is None:
            return pa.table({"path": pa.array([], pa.string()), "reason": pa.array([], pa.string())})
        with stored("the record of skipped files"):
            table = pq.read_table(pa.BufferReader(self._skipped))
            if any(table.schema.field(name).type != pa.string() for name in ("path", "reason")):
                raise ValueError("no texts")
        return table
