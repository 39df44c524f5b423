"""The build pipeline: new and changed files go through decoding threads and the network into the index.

Entries are listed in one fixed order and compared with what the index holds; what is new or changed is read, hashed
and decoded in threads (`reading`), embedded in batches in one thread more (`network`), and committed every few thousand
rows by the calling thread. At any moment a bounded number of pictures is in memory.

Invariants:

* A row and its vector are written together, and all rows of a file in one commit: a killed build is a shorter build,
  and the next one continues after the last commit.
* A vector depends on its picture alone. Batches are always full (the last one is filled up by repeating a
  picture), because the bits of a matrix product may depend on the number of rows, unless the encoder says with
  ``batch_invariant`` that its own do not. So an index is the same however often its build was interrupted.
* Whatever cannot be read becomes a record with a reason; nothing stops the build and nothing shifts a row.
"""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retr.index.disk.manifest import IDENTIFIERS
from retr.index.errors import UsageError
from retr.index.rows.grouping import type_to_rewrite
from retr.retrieval.archive import locations
from retr.retrieval.archive.kept_identifiers import Keeping
from retr.retrieval.archive.members import TWICE
from retr.retrieval.archive.provenance import BUILDS_NOTE, BuildNotes
from retr.retrieval.archive.sources import Item, Other, Skipped
from retr.retrieval.ingest.build_key import BuildKey
from retr.retrieval.ingest.decode import Decoder, Read, Unchanged
from retr.retrieval.ingest.file_states import FileStates, content_key
from retr.retrieval.ingest.labels import Labels
from retr.retrieval.ingest.network import EmbeddingThread
from retr.retrieval.ingest.report import BuildReport
from retr.retrieval.ingest.rows import as_text, make_rows, skipped_table
from retr.retrieval.ingest.seen_files import SeenFiles
from retr.retrieval.ingest.series_slices import series_notes, series_of
from retr.retrieval.novelty_renewal import renew
from retr.retrieval.regions.kind import append_lines
from retr.retrieval.regions.layout import Layout
from retr.retrieval.transforms.fitting import append_arrays, finish

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from numpy.typing import NDArray

    from retr.index.rows.writer import Writer
    from retr.index.store import Store
    from retr.retrieval.archive.sources import Entry
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.ingest.decode import Frame
    from retr.retrieval.ingest.options import Order
    from retr.retrieval.progress import Progress

# A slow encoder commits by the clock: this many seconds of work are what a crash can cost.
COMMIT_SECONDS = 120.0
EXAMPLES = 5
# Every commit makes a segment; a search visits them all, so a build that made many ends by merging them.
MANY_SEGMENTS = 64


# How members that a tar calls ./a.png were listed once.
_OLD_SPELLING = re.compile(r"(^|/|::)\./")


class Run:
    """One index's part of a build, under its writer's lock.

    Parameters
    ----------
    order, encoder, writer
        What is asked, by whom, into what.
    shown
        Told of progress.
    thread
        Where networks run.

    Raises
    ------
    UsageError
        What is asked contradicts the index; nothing is written yet.
    """

    def __init__(
        self, order: Order, encoder: BaseEncoder, writer: Writer[Store], shown: Progress, thread: ThreadPoolExecutor
    ) -> None:
        self.order = order
        self.encoder = encoder
        self.writer = writer
        self.shown = shown
        self.build_notes = BuildNotes.of(writer.store)
        self.build_notes.agree(writer.store, order.name, order.asked, order.asked.scores)
        self.build_notes.types |= order.asked.types or {}
        if order.asked.image_column is not None:
            self.build_notes.image_columns[order.name] = order.asked.image_column
        self.known = SeenFiles(writer.store, order.name, list(self.build_notes.sources))
        self.labels = Labels(
            order.table, order.name, writer, self.build_notes, has_rows=len(self.known) > 0, group=order.asked.group
        )
        self._refuse_another_archive()
        self.identifiers = Keeping(writer.store.uuid, order.asked.keep_identifiers)
        self.remembered = FileStates(writer.store.uuid, order.name)
        self.key = BuildKey(writer.store, self._read_row)
        self.decoder = Decoder(
            order.source,
            encoder,
            self.key,
            lambda item, sha256: self.known.holds(self.row_path(item.path), sha256),
            self.known.same_bytes,
            self.build_notes.reading,
            keep=self.identifiers.on,
            layout=Layout.of(writer.store),
        )
        info = encoder.info
        self.notes = [
            f"embedding with {info.name} ({info.precision}) on {info.device}",
            *_licence(encoder),
            *self.key.notes,
        ]
        if len(self.known) and not self.remembered.any and order.asked.rehash is None:
            self.notes.append(
                "this machine has not read this archive for the index yet: all files are read and compared once, "
                "and what is the same is not embedded again (--no-rehash trusts size and time)"
            )
        # files whose pictures are not all embedded, in the order of the listing, and those that can be committed
        self.files: deque[Read] = deque()
        self.ready: list[Read] = []
        self.ready_rows = 0
        self.network = EmbeddingThread(encoder, self.build_notes.scores, thread)
        # paths whose old rows go, each with the word under which it is counted
        self.delete: list[tuple[str, str]] = []
        self.skipped: list[Skipped] = []
        self.reasons: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.said: list[str] = []
        self.series: set[str] = set()
        self.fence: str | None = None
        self.committed_at = time.monotonic()

    def _read_row(self, path: str) -> bytes:
        """Return the bytes of a row's file; raises where it is out of reach."""
        name, inside = locations.source_of(path, self.build_notes.sources)
        if name == self.order.name:
            return self.order.source.read(inside)[0]
        return locations.Archive(self.writer.store).read(path)

    def _refuse_another_archive(self) -> None:
        """Refuse a place that shares nothing with the one this source had, as long as that one is still there."""
        before = locations.recall_sources(self.writer.store.uuid).get(self.order.name)
        here = self.order.source.location
        if (
            before in {None, here}
            or not len(self.known)
            or len(self.known.rows([self.row_path(self.order.first.path)])[0])
        ):
            return
        if Path(str(before)).exists():
            raise UsageError(
                "the index was built from another archive, which is still there",
                hint="add this one with `retr index add`, or build it into an index of its own",
            )

    def begin(self) -> None:
        """Bring what the index has in line with what is asked, and say what is to be known."""
        for line in self.notes:
            self.shown.say(line)
        # known from the beginning: a build that is stopped leaves an index whose pictures can be found
        locations.remember_source(self.writer.store.uuid, self.order.name, self.order.source.location)
        self.labels.join_anew()
        self._move_group()

    def look(self, entry: Entry) -> tuple[Item, int] | None:
        """Look at what the archive lists; return an item that is new or changed, or may be, then with its rows."""
        if isinstance(entry, Other):
            self.done["other"] += 1
            return None
        if isinstance(entry, Skipped):
            self._skip(entry)
            return None
        path = self.row_path(entry.path)
        elsewhere = locations.source_of(path, self.build_notes.sources)[0] != self.order.name
        if elsewhere or self.known.seen(path):
            # named like what lies in another source, or like the member of a container that was listed before
            self._skip(Skipped(entry.path, TWICE, max(entry.size, 0), entry.mtime))
            return None
        self.labels.see(entry.path)
        rows, content = self.known.unchanged(path, entry)
        if self.labels.disturbed(entry):
            rows = 0
        if rows and not self._must_read(path, entry, content):
            self.done["unchanged"] += rows
            self.identifiers.add(path, entry.identifiers)
            self.shown.step()
            return None
        return self.labels.own(entry), rows

    def finish(self) -> None:
        """Embed what waits for a full batch, and commit everything."""
        for _ in self.network.embed([], everything=True):
            self._commit_some()

    def close(self) -> None:
        """Settle what only the end of the archive tells, and commit."""
        self._drop_vanished()
        self._commit(last=True)
        self.labels.settle()
        complete = self.build_notes.reading.frames == 1 and self.build_notes.reading.slices == "all"
        self.said += series_notes(self.writer.store, self.series, complete=complete)
        if not self.remembered.settle():
            self.said.append("the state folder cannot be written: the next build reads unchanged files again")

    def _must_read(self, path: str, item: Item, content: int) -> bool:
        """Return whether a file that looks unchanged is read to make sure; else keep what is remembered of it."""
        known = item.stamp is None or self.remembered.knows(path, item.stamp, content)
        if self.order.asked.rehash is False and not known and item.stamp is not None:
            self.remembered.note(path, item.stamp, content)
        return not known if self.order.asked.rehash is None else self.order.asked.rehash

    def take(self, result: Read | Unchanged | Skipped) -> None:
        """Take one file from the decoding threads, in the order of the listing."""
        self.shown.step()
        if isinstance(result, Skipped):
            self._skip(result)
            return
        if isinstance(result, Unchanged):
            self.done["unchanged"] += result.rows
            self.done["rehashed"] += 1
            self.identifiers.add(self.row_path(result.item.path), result.identifiers)
            self._remember(result)
            return
        self._drop(self.row_path(result.item.path), "changed")
        self.done["reused" if result.same else "embedded"] += result.rows
        self.files.append(result)
        # a picture that waits for a full batch must not hold up ever more files of known bytes behind it
        stuck = len(self.files) > self.order.asked.commit_rows + self.network.pictures
        # what was read elsewhere has its vectors
        waiting = [frame for frame in result.frames if frame.vector is None]
        for _ in self.network.embed(waiting, everything=stuck):
            self._commit_some()
        self._commit_some()

    def _remember(self, file: Read | Unchanged) -> None:
        if file.item.stamp is not None:
            self.remembered.note(self.row_path(file.item.path), file.item.stamp, content_key(file.sha256))

    def _skip(self, entry: Skipped) -> None:
        path = self.row_path(entry.path)
        self.skipped.append(replace(entry, path=path))
        self.reasons[entry.reason] += 1
        if entry.was_read:
            # the picture that the index has under this path is no longer there
            self._drop(path, "removed")

    def _drop(self, path: str, why: str) -> None:
        if self.known.may_hold(path):
            self.delete.append((path, why))

    def _commit_some(self) -> None:
        """Commit if enough is embedded, or enough time has passed."""
        self._finish()
        if self.ready_rows >= self.order.asked.commit_rows or time.monotonic() - self.committed_at > COMMIT_SECONDS:
            self._commit()

    def _finish(self) -> None:
        """Make the files ready whose pictures are all embedded; a vector with infinities makes its file a record."""
        while self.files and all(frame.vector is not None for frame in self.files[0].frames):
            file = self.files.popleft()
            if all(map(_is_finite, file.frames)):
                self.ready.append(file)
                self.ready_rows += file.rows
            else:
                self.done["embedded"] -= file.rows
                self._skip(Skipped(file.item.path, "no finite embedding", file.size, file.mtime, was_read=True))

    def _commit(self, *, last: bool = False) -> None:
        """Commit the files whose pictures are all embedded."""
        ready, self.ready, self.ready_rows = self.ready, [], 0
        # a changed file's old rows go in the commit that brings its new ones
        waiting = {self.row_path(file.item.path) for file in self.files}
        gone = [(path, why) for path, why in self.delete if path not in waiting]
        self.delete = [(path, why) for path, why in self.delete if path in waiting]
        found = self.known.rows([path for path, _ in gone])
        self.done.update(why for (_, why), rows in zip(gone, found, strict=True) if len(rows))
        self._delete(found)
        ready = self._without_clashes(ready)
        if ready:
            rows = make_rows(
                ready,
                self.known,
                self.build_notes,
                name=self.order.name,
                metadata=self.order.table,
                now=self.writer.store,
                group=self.order.asked.group or self.writer.store.manifest.group,
            )
            if rows.retyped:
                self.writer.replace_columns(as_text(self.writer.store, rows.retyped))
                self.said += [f"column {column!r} holds text and numbers: it is text now" for column in rows.retyped]
            vectors, arrays = append_arrays(self.writer.store, rows.vectors, rows.same >= 0)
            behind = bool(arrays)
            if self.decoder.layout is not None:
                arrays |= append_lines(self.writer.store, rows.regions, self.known.store, rows.same)
            self.writer.append(rows.table, vectors, as_stored=behind, arrays=arrays)
        hashed = self.key.note(
            {column for file in ready for frame in file.frames for column in frame.columns},
            self.writer.store.manifest.extra.get(IDENTIFIERS),
        )
        for key, note in ((BUILDS_NOTE, self.build_notes.to_json()), (IDENTIFIERS, hashed)):
            if note is not None and self.writer.store.manifest.extra.get(key) != note:
                self.writer.note(key, note)
        if (ready or last) and self.order.asked.group not in {None, self.writer.store.manifest.group}:
            self.writer.set_group(self.order.asked.group)
        if last:
            if self.order.asked.item not in {None, self.writer.draft.item}:
                self.writer.set_item(self.order.asked.item)
            skipped = skipped_table(self.skipped, self.writer.store, self.build_notes, self.order.name)
            if not skipped.equals(self.writer.store.skipped()) and (
                skipped.num_rows or self.writer.store.manifest.n_skipped
            ):
                self.writer.record_skipped(skipped)
        self.writer.commit()
        self.series |= series_of(ready)
        for file in ready:
            self._remember(file)
            self.identifiers.add(self.row_path(file.item.path), file.identifiers)
        self.identifiers.write()
        self.remembered.append()
        if last and len(self.writer.store.manifest.segments) > MANY_SEGMENTS:
            self.writer.compact()
        if last:
            self.said += finish(self.writer)
            self.writer.commit()
            self.fence = renew(self.writer, first=True)
            self.writer.commit()
        self.committed_at = time.monotonic()

    def _without_clashes(self, files: list[Read]) -> list[Read]:
        """Leave out files whose ids another file has: one may be named like the page of another. Each is a record."""
        ids = [[self.row_path(file.item.path) + suffix for suffix in self._suffixes(file)] for file in files]
        taken = self.writer.taken([one for some in ids for one in some])
        kept = []
        for file, some in zip(files, ids, strict=True):
            if taken.isdisjoint(some):
                taken.update(some)
                kept.append(file)
            else:
                self.done["reused" if file.same else "embedded"] -= file.rows
                self._skip(Skipped(file.item.path, TWICE, file.size, file.mtime))
        return kept

    def _suffixes(self, file: Read) -> list[str]:
        """Return what the ids of a file's rows have behind its path."""
        if not file.same:
            return [frame.suffix for frame in file.frames]
        table = self.known.store.table(["id", "path"], np.array(file.same, np.int64))
        pairs = zip(table["id"].to_pylist(), table["path"].to_pylist(), strict=True)
        return [one.removeprefix(path) for one, path in pairs]

    def _delete(self, files: list[NDArray[np.int64]]) -> None:
        """Delete files, each by its rows in the snapshot that was compared; the newest may number them otherwise."""
        ids = self.known.ids(files)
        if ids:
            self.writer.delete(self.writer.store.rows_of(ids))

    def _drop_vanished(self) -> None:
        if not getattr(self.order.source, "whole", True):
            return
        unreadable = {entry.path for entry in self.skipped if not entry.was_read}
        respelled = 0
        for files in self.known.vanished(unreadable):
            self.done["removed" if self.order.asked.prune else "vanished"] += len(files)
            if self.order.asked.prune:
                self._delete(files)
            else:
                respelled += sum(_OLD_SPELLING.search(one) is not None for one in self.known.ids(files))
        if respelled:
            why = f"{respelled} rows have ids with ./, as members of containers were called by an older version"
            self.said.append(f"{why}: their pictures are there twice until --prune removes these rows")

    def _move_group(self) -> None:
        """Write the column that tells patients apart as text where an older version wrote numbers; one commit."""
        group = self.order.asked.group or self.writer.store.manifest.group
        kind = type_to_rewrite(self.writer.store.manifest, group)
        if kind is not None:
            self.writer.set_group(group)
            self.writer.commit()
            moved = f"the column {group!r} was {kind} and is text now, as identifiers are"
            if self.order.table is None and not pa.types.is_integer(kind):
                moved += "; build again with its --metadata for the spelling there"
            self.key.notes.append(f"{moved}; probes and calibrations are to be made again")
            self.shown.say(moved)

    def row_path(self, path: str) -> str:
        """Return the path of a row, of the path inside its source."""
        return f"{self.order.name}/{path}" if self.order.name else path

    def report(self, rows: int, seconds: float) -> BuildReport:
        """Return what was done."""
        unmatched, said = self.labels.unmatched(), [*self.said, *self.labels.notes()]
        done = self.done
        return BuildReport(
            rows=rows,
            embedded=done["embedded"],
            reused=done["reused"],
            unchanged=done["unchanged"],
            rehashed=done["rehashed"],
            changed=done["changed"],
            vanished=done["vanished"],
            removed=done["removed"],
            skipped=dict(self.reasons),
            skipped_examples=tuple((entry.path, entry.reason) for entry in self.skipped[:EXAMPLES]),
            other_files=done["other"],
            without_metadata=self.labels.without,
            unmatched_metadata=len(unmatched),
            unmatched_examples=tuple(unmatched[:EXAMPLES].to_pylist()),
            seconds=seconds,
            images_per_second=done["embedded"] / seconds if seconds else 0.0,
            device=self.encoder.info.device,
            notes=(*_licence(self.encoder), *said, *self.key.notes),
            fence=self.fence,
        )


def _is_finite(frame: Frame) -> bool:
    vectors = [vector for vector in (frame.vector, frame.regions) if vector is not None]
    return all(bool(np.isfinite(vector).all()) for vector in vectors)


def _licence(encoder: BaseEncoder) -> list[str]:
    notes = list(getattr(encoder, "notes", ()))
    if encoder.info.noncommercial and not any("commercial" in note for note in notes):
        notes.append(f"the weights of {encoder.info.name!r} are not for commercial use ({encoder.info.licence})")
    return notes
