"""The writer: several commits under one lock.

Protocol: new files are written under names no committed manifest uses, flushed, and only then named by a new
manifest (`retr.index.disk.manifest`). After that commit, and whenever a writer opens or gives up, every file of ours
that the live manifest does not name is removed. Nothing that was committed is ever written again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from retr import system
from retr.index.disk import journal, verified
from retr.index.disk import schema as schemas
from retr.index.disk.compaction import SEGMENT_ROWS, Compaction, compact_runs, last_run
from retr.index.disk.creation import number_of_shards, timestamp
from retr.index.disk.current import publish, read_current
from retr.index.disk.files import disk_errors
from retr.index.disk.lock import writer_lock
from retr.index.disk.manifest import UNFINISHED_PURGE
from retr.index.disk.rewriting import replaced
from retr.index.disk.schema import ID
from retr.index.disk.segment_writer import SegmentWriter
from retr.index.disk.segments import HashSet, Segment, id_hashes
from retr.index.disk.shards import make_folders, point, require_whole
from retr.index.disk.side_data import known_kind
from retr.index.disk.sweep import sweep, sweep_for_good
from retr.index.errors import RetrError, UsageError
from retr.index.machine.arrow import pc
from retr.index.rows.carrying import unknown_numbered
from retr.index.rows.draft import Draft, S_co
from retr.index.rows.folding import fold
from retr.index.rows.grouping import group_as_text, type_to_rewrite, with_text_identifiers
from retr.index.rows.items import columns_of
from retr.index.rows.purge import Purged, take_out
from retr.index.rows.settling import settled
from retr.index.vectors import unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from retr.index.disk.manifest import Manifest, SegmentInfo

LOGGER = logging.getLogger(__name__)


@contextlib.contextmanager
def open_writer(kind: type[S_co], root: Path) -> Iterator[Writer[S_co]]:
    """Take the lock, clear away what a killed writer left, and give up whatever was not committed.

    Parameters
    ----------
    kind
        What the writer opens the index as, and returns from `Writer.commit`.
    """
    with writer_lock(root):
        store = kind.open(root)
        require_whole(store.manifest)
        with disk_errors("clearing away what an interrupted run left"):
            # a copy may have lost those that were empty
            make_folders(root, store.manifest)
            system.sync_folder(root)
            point(root, store.manifest)
            sweep(root, store.manifest)
        writer = Writer(store)
        try:
            if UNFINISHED_PURGE in store.manifest.extra:
                # What the sweep removed was what had not been finished.
                writer.note(UNFINISHED_PURGE, None)
                writer.commit()
            yield writer
        finally:
            writer.discard()


class Writer(Draft[S_co]):
    """Changes an index; made by ``Store.writer()``, which holds the lock for as long as the writer lives.

    Nothing is visible to readers before `commit`. After an error of the disk everything since the last commit is
    given up and the writer can go on.

    Attributes
    ----------
    store
        The snapshot as of the last commit; row numbers given to `delete` are its.
    draft
        The manifest that the next commit makes, but for the rows that were added or deleted since the last.
    """

    def __init__(self, store: S_co) -> None:
        self.store = store
        # What readers see, where that is another state; and whether what was to be one commit was given up.
        self._seen: Manifest | None = None
        self._given_up = False
        self._reset()

    @property
    def _next(self) -> int:
        return (self._seen or self.store.manifest).version + 1

    def _reset(self) -> None:
        self.draft = self.store.manifest
        self._open: SegmentWriter | None = None
        self._gone = np.zeros(self.store.n_total, bool)
        # Where the ids added since the last commit are: in the open segment by their hashes, or in closed ones.
        self._new = HashSet()
        self._closed: list[Segment] = []
        self._dirty = False

    def discard(self) -> None:
        """Drop everything since the last commit that readers see and remove its files."""
        if self._open is not None:
            self._open.abort()
        known, self._given_up = self._seen or self.store.manifest, True
        if self._seen is not None:
            self.store = self.store.at(known)
        with contextlib.suppress(OSError, RetrError):
            live = read_current(self.store.path)
            if live.version != known.version:
                # The disk failed after the new state was named: that commit stands, but may not survive a power
                # cut, so the files of both are kept until the next writer.
                self.store = self.store.at(live)
            sweep(self.store.path, known, live)
        self._reset()

    def append(
        self,
        table: pa.Table,
        vectors: NDArray[np.floating],
        *,
        as_stored: bool = False,
        arrays: Mapping[str, Any] | None = None,
    ) -> None:
        """Add rows.

        Parameters
        ----------
        table
            Metadata with a text column ``id``, unique among live rows; new columns widen the schema.
        vectors
            Floats ``(table.num_rows, dim)``, finite; normalised here where the similarity is cosine.
        as_stored
            The vectors come out of an index: they are normalised already, and once more would change their last bits.
        arrays
            For each row array of the index, its lines ``(table.num_rows, dim)``.

        Raises
        ------
        UsageError
            Lengths, shapes, types or ids do not fit; nothing was added then.
        RetrError
            The disk refused; the index is as it was at the last commit.
        """
        if type_to_rewrite(self.draft, self.draft.group) is not None:
            self.set_group(self.draft.group)
        table = schemas.stored_table(with_text_identifiers(table, self.draft))
        vectors = np.asarray(vectors)
        shape = (table.num_rows, self.draft.encoder.dim)
        if vectors.shape != shape:
            raise UsageError(f"vectors for {shape[0]} rows must have the shape {shape}, got {vectors.shape}")
        if not np.isfinite(vectors).all():
            bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise UsageError(f"the vector of {table.column(ID)[bad].as_py()!r} is not finite")
        lines = self._lines(arrays or {}, table.num_rows)
        ids = schemas.texts(table.column(ID))
        hashes = id_hashes(ids)
        self._refuse_repeated(ids, hashes)
        wide = schemas.widen(self.draft.schema, table.schema)
        if self.draft.encoder.similarity == "cosine" and not as_stored:
            vectors = unit(vectors)
        if not len(ids):
            return
        schemas.require_exact(self.draft.schema, wide, table, lambda names: self.preview().table(names))
        with self._changing("adding rows"):
            if self._open is not None and (self._open.schema != wide or self._open.rows >= SEGMENT_ROWS):
                self._close_segment()
            self.draft = dataclasses.replace(self.draft, schema=wide)
            if self._open is None:
                self._open = SegmentWriter(self.store.path, self._name(), schema=wide, layout=self.draft.layout)
            self._open.append(schemas.conform(table, wide), vectors, hashes, lines)
            self._new.add(hashes)

    def _lines(self, arrays: Mapping[str, Any], rows: int) -> dict[str, NDArray[Any]]:
        known = self.draft.row_arrays
        for name in [*(known.keys() - arrays.keys()), *(arrays.keys() - known.keys())]:
            if name in known:
                what = f"every row of this index has a line of {name!r} (side data of the kind {known[name].kind!r})"
                raise UsageError(what, hint="give the lines of the new rows, too")
            raise UsageError(f"there is no row array {name!r}", hint="declare it first, with `Writer.add_array`")
        return {name: array.lines(name, arrays[name], rows) for name, array in known.items()}

    def _refuse_repeated(self, ids: list[str], hashes: NDArray[np.uint64]) -> None:
        """Refuse ids that stand twice, here or among those added since the last commit."""
        twice = [name for name, count in Counter(ids).most_common(1) if count > 1]
        if self._new.meets(hashes):
            # Only a closed segment can say whether the ids are the same, too.
            with self._changing("adding rows"):
                self._close_segment()
        for closed in self._closed:
            twice += [ids[i] for i in closed.look_up(hashes, lambda at: [ids[i] for i in at])[0]]
        if twice:
            raise UsageError(f"the id {twice[0]!r} is added twice", hint="ids are unique")

    def _close_segment(self) -> None:
        if self._open is not None:
            info = self._open.close()
            self._open = None
            self.draft = dataclasses.replace(self.draft, segments=(*self.draft.segments, info))
            self._closed.append(self._segment(info))
            self._new = HashSet()

    def delete(self, rows: NDArray[np.int64]) -> None:
        """Delete rows, by their numbers in ``self.store``; the files keep them until `compact`."""
        rows = np.asarray(rows, np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self._gone)):
            raise IndexError(f"row numbers go from 0 to {len(self._gone) - 1}")
        self._gone[rows] = True
        self._dirty = True

    def taken(self, ids: list[str]) -> set[str]:
        """Return those of some ids that rows of the last commit have which are not deleted since."""
        return set(self._taken(id_hashes(ids), lambda at: [ids[i] for i in at]))

    def _taken(self, hashes: NDArray[np.uint64], names: Callable[[NDArray[np.int64]], Sequence[str]]) -> Iterator[str]:
        """Yield the ids that `Segment.look_up` would look up and that rows of the last commit have which stay."""
        stays, start = self.store.alive() & ~self._gone, 0
        for segment in self.store.segments:
            yield from segment.ids(segment.look_up(hashes, names, stays[start : start + len(segment)])[1])
            start += len(segment)

    def replace_columns(self, table: pa.Table) -> None:
        """Add metadata columns, or replace them, matched on ``id``; rows that ``table`` lacks become null.

        Raises
        ------
        UsageError
            ``table`` has no ``id``, an id occurs twice, or a type cannot be held.
        """
        table = schemas.stored_table(with_text_identifiers(table, self.draft))
        if pc.count_distinct(table.column(ID)).as_py() < table.num_rows:
            raise UsageError("an id occurs twice in the table of new columns", hint="keep one row for each id")
        if table.column_names == [ID]:
            return
        with self._changing("replacing columns"):
            self._close_segment()
            self.draft = replaced(self.store.path, self.draft, self._segments(), self._name, table)

    def _segments(self) -> list[Segment]:
        return [self._segment(info) for info in self.draft.segments]

    def _segment(self, info: SegmentInfo) -> Segment:
        return Segment(self.store.path, info, self.draft.layout)

    def set_group(self, column: str | None) -> None:
        """Declare the column that says which rows belong together (patient, study); ``None`` for none.

        A column of another type becomes text; `UsageError` where that cannot tell patients apart.
        """
        if column is not None and column not in self.draft.schema.names:
            columns = ", ".join(self.draft.schema.names)
            raise UsageError(f"there is no column {column!r}", hint=f"the columns are {columns}")
        if column is not None and type_to_rewrite(self.draft, column) is not None:
            with self._changing("writing the column that tells patients apart as text"):
                self._close_segment()
                self.draft = group_as_text(self.store.path, self.draft, column, self._segments(), self._name)
        self.draft = dataclasses.replace(self.draft, group=column)
        self._dirty = True

    def set_item(self, rule: str | None) -> None:
        """Declare what a case is (`retr.index.rows.items`), by a rule that fits the rows; ``None`` for nothing.

        Raises
        ------
        UsageError
            The index lacks a column of the rule.
        """
        if rule is not None:
            columns_of(self.preview(), rule)
        self._change(item=rule)

    def shard(self, into: int) -> None:
        """Spread the rows over so many shards; 1 makes an ordinary index of them. Accelerators of rows that move go.

        Raises
        ------
        UsageError
            It is no number of shards.
        """
        shards = number_of_shards(into)
        with self._changing("spreading the rows over shards"):
            self._change(shards=shards)
            make_folders(self.store.path, self.draft)

    @contextlib.contextmanager
    def as_one(self) -> Iterator[None]:
        """Make one commit of all that are made inside, at its end: until then this writer alone sees them.

        Raises
        ------
        RetrError
            The disk refused; the index is as it was before the first of them.
        """
        self._seen, self._given_up = self.store.manifest, False
        try:
            yield
            if self._given_up:
                raise RetrError("a change was given up, and all that belong to it with it", hint="run it again")
            with self._changing("committing"):
                before, self._seen = self._seen, None
                if self.store.manifest == before:
                    return
                self.draft = self.store.manifest
                self.store = self.store.at(before)
                self._publish(list(self.draft.segments))
        finally:
            if self._seen is not None:
                self.discard()
                self._seen = None

    def preview(self) -> S_co:
        """Open the draft, with all rows added, as if it were committed (to measure accelerators), on its device."""
        self._close_segment()
        return self.store.at(self.draft)

    def commit(self) -> S_co:
        """Make all changes visible at once and durable; without changes, nothing happens.

        Raises
        ------
        UsageError
            An added id exists already among the rows that stay; everything since the last commit is given up.
        RetrError
            The disk refused; the index is as it was at the last commit.
        """
        if not self._dirty:
            return self.store
        with self._changing("committing"):
            self._close_segment()
            self._refuse_taken_ids()
            self._publish(self._settled(last_run))
        return self.store

    def _publish(self, segments: list[SegmentInfo], *, under: journal.LockedJournal | None = None) -> None:
        """Commit what the draft says with these segments, and what the journal holds; ``under`` its lock, if held."""
        if self._seen is not None:
            draft = dataclasses.replace(self.draft, version=self._next, segments=tuple(segments))
            self.store = self.store.at(draft)
            self._reset()
            sweep(self.store.path, self._seen, draft)
            return
        entries = fold(self, strict=under is not None)
        manifest = dataclasses.replace(self.draft, version=self._next, committed=timestamp(), segments=tuple(segments))
        manifest = publish(self.store.path, manifest)
        LOGGER.debug("committed version %d: %d segments", manifest.version, len(segments))
        before = self.store.manifest
        with contextlib.suppress(OSError):
            verified.remember(self.store.path, manifest)
        # From here on the commit stands, whatever happens.
        self.store = self.store.at(manifest)
        self._reset()
        with contextlib.suppress(OSError):
            point(self.store.path, manifest)
            sweep(self.store.path, manifest)
        if under is not None:
            under.cut(entries, damaged=True)
        else:
            journal.cut(self.store.path, entries, damaged=UNFINISHED_PURGE in before.extra)

    def _refuse_taken_ids(self) -> None:
        for new in self._closed:
            for name in self._taken(new.hashes, new.hashed_ids):
                raise UsageError(f"the id {name!r} is in the index already", hint="delete the old row with this commit")

    def compact(self) -> Compaction:
        """Commit, then merge segments and drop deleted rows for good, as a commit of its own.

        Raises
        ------
        RetrError
            The disk refused; the index is as it was before.
        """
        self.commit()
        segments = self.store.manifest.segments
        gone = self.store.n_total - len(self.store)
        with self._changing("compacting"):
            if name := unknown_numbered(self.draft):
                known_kind(name, "rows cannot get other numbers, so it is not compacted")
            merged = self._settled(compact_runs)
            if merged == list(segments):
                self._dirty = False
            else:
                self._publish(merged)
        return Compaction(gone, len(segments), len(merged))

    def purge(self, *, skipped: NDArray[np.bool_] | None = None) -> Purged:
        """Commit, and leave nothing of any deleted row in any file of the index.

        A process killed in it leaves the index as it was, or purged but for files that the next writer removes.

        Parameters
        ----------
        skipped
            bool ``(n,)``: also forget these records of skipped files.

        Raises
        ------
        RetrError
            A kind of side data refuses or is not known, or the disk refuses: the index is as it was. Or an old file
            could not be removed.
        """
        # whoever saves something meanwhile waits, and finds the rows gone
        with self._changing("purging"), journal.held(self.store.path) as entries:
            self._close_segment()
            self._refuse_taken_ids()
            fold(self, strict=True)
            gone = np.flatnonzero(self._gone | ~self.store.alive())
            forgotten, dropped = take_out(self, gone, skipped)
            merged = self._settled(compact_runs)
            kept = {info.accelerator for info in merged}
            if lost := sum(info.accelerator not in kept for info in self.store.manifest.segments):
                dropped.append(f"{lost} accelerators (without them search is exact; see `retr index tune`)")
            self.note(UNFINISHED_PURGE, value=True)
            self._publish(merged, under=entries)
            sweep_for_good(self.store.path, self.store.manifest)
            self.note(UNFINISHED_PURGE, None)
            self._publish(list(self.draft.segments), under=entries)
            sweep_for_good(self.store.path, self.store.manifest)
        return Purged(len(gone), forgotten, tuple(dropped))

    def _settled(self, choose: Callable[[Sequence[SegmentInfo], int], list[range]]) -> list[SegmentInfo]:
        """Return the segments to commit: with the rows deleted since, in their shards, those that are chosen merged."""
        return settled(self, self._gone, choose, self._name)
