"""What the next commit makes of all that hangs on the rows: side files, notes, row arrays, what was not indexed."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import secrets
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from retr.index.disk import row_arrays, side_data
from retr.index.disk.files import FileRef, disk_errors, reference, write_bytes
from retr.index.disk.manifest import FILES, SEGMENTS
from retr.index.disk.rewriting import revectored
from retr.index.disk.row_arrays import RowArray
from retr.index.disk.segment_writer import parquet_writer
from retr.index.disk.segments import npy_header
from retr.index.disk.side_data import SideData, held, known_kind, told_by_name
from retr.index.errors import UsageError
from retr.index.rows.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from retr.index.disk.manifest import Manifest, SegmentInfo
    from retr.index.disk.side_data import Change, Kind, NewVectors

S_co = TypeVar("S_co", bound=Snapshot, covariant=True)
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_BLOCK = 10_000


class Draft(ABC, Generic[S_co]):
    """The state that the next commit makes, but for the rows; `retr.index.rows.writer.Writer` adds those.

    Attributes
    ----------
    store
        The snapshot as of the last commit.
    draft
        The manifest that the next commit makes, but for the rows that were added or deleted since the last.
    """

    store: S_co
    draft: Manifest
    _dirty: bool

    @abstractmethod
    def discard(self) -> None:
        """Drop everything since the last commit and remove its files."""

    @abstractmethod
    def preview(self) -> S_co:
        """Open the draft, with all rows added, as if it were committed."""

    @contextlib.contextmanager
    def _changing(self, doing: str) -> Iterator[None]:
        self._dirty = True
        try:
            with disk_errors(doing):
                yield
        except BaseException:
            self.discard()
            raise

    def _change(self, **fields: Any) -> None:
        self.draft = dataclasses.replace(self.draft, **fields)
        self._dirty = True

    @property
    def _next(self) -> int:
        """The version that the next commit makes."""
        return self.store.version + 1

    def _name(self) -> str:
        return f"{self._next:08d}-{secrets.token_hex(4)}"

    def record_skipped(self, table: pa.Table) -> None:
        """Replace the record of what was not indexed: at least the columns ``path`` and ``reason``."""
        if not {"path", "reason"} <= set(table.column_names):
            raise UsageError(f"a record of skipped files needs 'path' and 'reason', got {table.column_names!r}")
        if table.num_rows == 0:
            self._change(skipped=None, n_skipped=0)
            return
        sink = io.BytesIO()
        with parquet_writer(sink, table.schema) as writer:
            writer.write_table(table)
        with self._changing("recording what was skipped"):
            ref = write_bytes(self.store.path, f"{FILES}/{self._name()}-skipped.parquet", sink.getvalue())
            self._change(skipped=ref, n_skipped=table.num_rows)

    def note(self, key: str, value: Any, *, kind: Kind | None = None) -> None:
        """Keep a JSON value under ``manifest.extra[key]``; ``None`` removes it.

        Parameters
        ----------
        kind
            The kind of side data it is of, where format version 1 knew none of its name.

        Raises
        ------
        UsageError
            The name is another kind's, or the kind is not known.
        """
        extra = {name: one for name, one in self.draft.extra.items() if name != key}
        if value is None:
            self._change(extra=extra, side_data=self._without("notes", key))
            return
        kinds = self._with("notes", key, kind)
        self._change(extra={**extra, key: value}, side_data=kinds)

    def add_file(self, name: str, data: bytes, *, kind: Kind | None = None) -> None:
        """Commit a side file with the manifest, in place of an older one of that name.

        Parameters
        ----------
        kind
            The kind of side data it is of, where format version 1 knew none of its name.

        Raises
        ------
        UsageError
            ``name`` is not a plain file name, or another kind's, or the kind is not known.
        """
        if _FILE_NAME.fullmatch(name) is None:
            raise UsageError(f"a sidecar needs a plain file name, got {name!r}")
        kinds = self._with("files", name, kind)
        with self._changing(f"writing {name!r}"):
            ref = write_bytes(self.store.path, f"{FILES}/{self._name()}-{name}", data)
            self._change(files={**self.draft.files, name: ref}, side_data=kinds)

    def remove_file(self, name: str) -> None:
        """Drop a side file; nothing happens where there is none."""
        files = {other: ref for other, ref in self.draft.files.items() if other != name}
        self._change(files=files, side_data=self._without("files", name))

    def _with(self, what: str, name: str, kind: Kind | None) -> dict[str, SideData]:
        """Return what is of which kind once a file or note is written: of ``kind``, or of whose it was."""
        kinds = dict(self.draft.side_data)
        by_name = told_by_name(name)
        owner = by_name or next((one for one, data in kinds.items() if name in getattr(data, what)), None)
        if kind is not None:
            _require_known(kind)
            if owner not in {None, kind.name}:
                raise UsageError(f"{name!r} is the name of side data of the kind {owner!r}, not {kind.name!r}")
            owner = kind.name
        if owner is not None and by_name is None:
            data = kinds.get(owner, SideData())
            names: dict[str, Any] = {what: tuple(dict.fromkeys((*getattr(data, what), name)))}
            numbered = data.numbered if kind is None else kind.numbered
            kinds[owner] = dataclasses.replace(data, **names, numbered=numbered, version=self._next)
        return kinds

    def _without(self, what: str, name: str) -> dict[str, SideData]:
        left = {}
        for kind, data in self.draft.side_data.items():
            names: dict[str, Any] = {what: tuple(one for one in getattr(data, what) if one != name)}
            rest = dataclasses.replace(data, **names)
            if rest.files or rest.notes:
                left[kind] = rest
        return left

    def add_array(
        self,
        name: str,
        kind: Kind,
        *,
        dtype: str,
        dim: int,
        fill: Callable[[NDArray[np.int64]], Any] | None = None,
    ) -> None:
        """Store a line of numbers for every row (`retr.index.disk.row_arrays`), in place of an older one of that name.

        Parameters
        ----------
        kind
            The kind of side data it is of.
        dtype, dim
            The type, one of `row_arrays.DTYPES`, and the number of each row's values.
        fill
            Returns the lines ``(n, dim)`` of some rows by their numbers in `preview`; not needed without rows.

        Raises
        ------
        UsageError
            The name is none or another kind's, or ``fill`` does not give what can be stored.
        """
        _require_known(kind)
        before = self.draft.row_arrays.get(name)
        if row_arrays.NAME.fullmatch(name) is None or (before is not None and before.kind != kind.name):
            raise UsageError(f"a row array of the kind {kind.name!r} cannot be called {name!r}")
        if dtype not in row_arrays.DTYPES or dim < 1:
            raise UsageError(f"a row array holds one or more {' or '.join(row_arrays.DTYPES)} a row, got {dim} {dtype}")
        array = RowArray(kind.name, dtype, dim)
        with self._changing(f"writing {name!r}"):
            self.preview()  # which closes the segment that rows are added to
            segments, start = [], 0
            if self.draft.segments and fill is None:
                raise UsageError(f"the row array {name!r} needs the lines of the rows that are there")
            for info in self.draft.segments:
                ref = self._written(name, array, start, info, fill)
                segments.append(dataclasses.replace(info, arrays={**info.arrays, name: ref}))
                start += info.rows
            self._change(segments=tuple(segments), row_arrays={**self.draft.row_arrays, name: array})

    def _written(
        self,
        name: str,
        array: RowArray,
        start: int,
        info: SegmentInfo,
        fill: Callable[[NDArray[np.int64]], Any] | None,
    ) -> FileRef:
        file, rows = f"{info.folder}{SEGMENTS}/{self._name()}.rows-{name}.npy", info.rows
        with (self.store.path / file).open("xb") as stream:
            stream.write(npy_header(array.stored, (rows, array.dim)))
            for at in range(start, start + rows, _BLOCK):
                numbers = np.arange(at, min(at + _BLOCK, start + rows))
                assert fill is not None
                stream.write(array.lines(name, fill(numbers), len(numbers)).data)
        return reference(self.store.path, file)

    def remove_array(self, name: str) -> None:
        """Drop a row array; nothing happens where there is none."""
        if name in self.draft.row_arrays:
            self.preview()
            segments = tuple(
                dataclasses.replace(info, arrays={other: ref for other, ref in info.arrays.items() if other != name})
                for info in self.draft.segments
            )
            arrays = {other: array for other, array in self.draft.row_arrays.items() if other != name}
            self._change(segments=segments, row_arrays=arrays)

    def replace_vectors(self, new: NewVectors, kind: Kind | None = None) -> list[str]:
        """Replace the vector of every row, of deleted ones too; accelerators go.

        Parameters
        ----------
        new
            The vectors, and whose they are.
        kind
            The side data that asks for it, and sees to itself; of the others each says what becomes of it.

        Returns
        -------
        list
            The kinds of which something was dropped.

        Raises
        ------
        RetrError
            A kind is not known here.
        """
        with self._changing("writing other vectors"):
            before, lost = self.preview(), []
            for name in held(self.draft):
                if kind is None or name != kind.name:
                    one = known_kind(name, "the vectors of the index are not replaced")
                    change = one.placed_anew(before, new)
                    self.apply(change, one)
                    lost += [name] if change.drops else []
            layout = dataclasses.replace(self.draft.layout, dim=new.encoder.dim)
            segments, start = [], 0
            for info in self.draft.segments:
                stop = start + info.rows
                numbers = (np.arange(at, min(at + _BLOCK, stop)) for at in range(start, stop, _BLOCK))
                segments.append(revectored(self.store.path, info, self._name(), layout, map(new.fill, numbers)))
                start = stop
            self._change(segments=tuple(segments), encoder=new.encoder)
        return lost

    def accelerate(self, position: int, build: Callable[[Path], None] | None) -> None:
        """Equip the segment at ``position`` with an accelerator, or take its away.

        Parameters
        ----------
        build
            Writes the file whose path it is given; ``None`` leaves the segment without one.

        Raises
        ------
        RetrError
            The disk refused; everything since the last commit is given up.
        """
        with self._changing("writing an accelerator"):
            ref = None
            if build is not None:
                name = f"{self.draft.segments[position].folder}{SEGMENTS}/{self._name()}.faiss"
                build(self.store.path / name)
                ref = reference(self.store.path, name)
            segments = list(self.draft.segments)
            segments[position] = dataclasses.replace(segments[position], accelerator=ref)
            self.draft = dataclasses.replace(self.draft, segments=tuple(segments))

    def apply(self, change: Change, kind: Kind | None = None) -> None:
        """Make a change of the side data of one kind, which is named where it brings new names or changes vectors."""
        if change.vectors is not None:
            self.replace_vectors(change.vectors, kind)
        for name, data in change.files.items():
            if data is None:
                self.remove_file(name)
            else:
                self.add_file(name, data, kind=kind)
        for key, value in change.notes.items():
            self.note(key, value, kind=kind)
        for name in change.arrays:
            self.remove_array(name)
        for name, lines in change.lines.items():
            assert kind is not None
            self.add_array(name, kind, dtype=lines.dtype, dim=lines.dim, fill=lines.fill)


def _require_known(kind: Kind) -> None:
    if side_data.find_kind(kind.name) is None:
        raise UsageError(
            f"side data of the kind {kind.name!r} would be known to no purge",
            hint="make the kind known first, with `retr.index.disk.side_data.register`",
        )
