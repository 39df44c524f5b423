"""Embed one part of an archive, for machines that share nothing but a disk: array jobs of Slurm, or one after another.

Every job lists the archive, embeds the files of its part, and keeps them beside the index (`part_folder`); `merging`
makes one index of all parts. What was embedded stays: a part that is built again goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retr.index.disk.files import disk_errors
from retr.index.disk.lock import writer_lock
from retr.index.errors import IndexCorruptError, IndexLockedError, UsageError
from retr.index.machine.hash_key import agreed_key, fingerprint
from retr.index.machine.home import home, index_folder
from retr.index.machine.whole_file import write_whole
from retr.index.options import part as part_of
from retr.index.options import taken
from retr.retrieval.archive.opening import is_place
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.archive.sources import Item
from retr.retrieval.archive.table_like import is_file
from retr.retrieval.ingest.away import AwayEmbedder, How
from retr.retrieval.ingest.build import agreed_transform, prepared
from retr.retrieval.ingest.options import BuildOptions
from retr.retrieval.ingest.part_folder import (
    RECORD,
    Listing,
    Part,
    PartRecord,
    parts_folder,
    read_unit,
    unit_name,
    unit_names,
)
from retr.retrieval.ingest.reading import require_scoring
from retr.retrieval.ingest.seen_files import SeenFiles
from retr.retrieval.ingest.staged import Unit, digest, mark_of, settings_of, to_bytes
from retr.retrieval.progress import make_progress
from retr.retrieval.read_options import ReadOptions
from retr.retrieval.regions.declaring import require_here
from retr.retrieval.transforms.transform import without_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from retr.index.store import Store
    from retr.retrieval.archive.opening import ArchiveLike
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.ingest.away import Asked

# A unit is what a killed job loses, twice at most: so many files, or so many bytes of them.
UNIT_FILES, UNIT_BYTES = 256, 1 << 28
# As many units at once leave the network no pause between one and the next.
_AT_ONCE = 2
_ARCHIVE = "archive"
# options that are of a machine, and no matter of what comes out
_OF_A_MACHINE = {"workers", "commit_rows"}


@dataclass(frozen=True)
class PartReport:
    """What the build of a part did.

    Attributes
    ----------
    part
        Which: ``"3/8"``.
    files, embedded, kept
        How many files it has; how many of them this run read and embedded; how many an earlier run had.
    skipped
        How many of all could not be read.
    seconds
        How long it took.

    Examples
    --------
    >>> PartReport("3/8", files=120, embedded=20, kept=100, skipped=0, seconds=1.5).part
    '3/8'
    """

    part: str
    files: int
    embedded: int
    kept: int
    skipped: int
    seconds: float


def how_of(before: Store | None, asked: BuildOptions) -> How:
    """Return how files are read for an index, which may be still to be made; `UsageError` as `BuildNotes.agree`."""
    if before is None:
        return How(part_of(ReadOptions, asked), tuple(asked.scores or ()))
    notes = BuildNotes.of(before)
    notes.agree(before, "", asked, asked.scores)
    return How(notes.reading, notes.scores)


def units_of(asked: Iterator[Asked]) -> Iterator[list[Asked]]:
    """Yield files in units, in their order."""
    unit: list[Asked] = []
    size = 0
    for one in asked:
        unit.append(one)
        size += max(one[0].size, len(one[0].data or b""))
        if len(unit) >= UNIT_FILES or size >= UNIT_BYTES:
            yield unit
            unit, size = [], 0
    if unit:
        yield unit


class UserKey:
    """The user's key of hashed identifiers, read when the first file asks for it; safe to ask from several threads.

    Parameters
    ----------
    recorded
        The fingerprint of the one that is meant, where that is known.
    """

    def __init__(self, recorded: str | None) -> None:
        self._recorded, self._key = recorded, b""
        self._lock = threading.Lock()

    def __call__(self) -> bytes:
        """Return the key; `UsageError` where it is another one, or not here."""
        with self._lock:
            self._key = self._key or agreed_key(self._recorded, make=True)
            return self._key

    @property
    def fingerprint(self) -> str:
        """Of the key, empty where no file asked for it."""
        return fingerprint(self._key) if self._key else self._recorded or ""


def build_part(
    archive: ArchiveLike,
    index: Path | str,
    encoder: Callable[[], BaseEncoder],
    part: Part | str,
    *,
    progress: bool = False,
    **options: Any,
) -> PartReport:
    """Embed one part of an archive, to be merged with the others into an index; see `Index.build_part`."""
    start = time.monotonic()
    part = part if isinstance(part, Part) else Part.spelled(part)
    asked, path = taken(BuildOptions, options, "build_part"), index_folder(index)
    recorded = _recordable(archive, asked)
    ready = prepared(archive, [path], asked, [parts_folder(path)])
    require_here(asked.regions, ready.befores, "parts")
    before, order = ready.befores[0], ready.orders[0]
    loaded = without_transform(encoder())
    agreed_transform(before, loaded, asked)
    if loaded.files:
        raise UsageError(
            f"the encoder {loaded.info.name!r} was fitted on an index, and builds none in parts",
            hint="build in one process",
        )
    how = how_of(before, ready.asked)
    require_scoring(loaded, how.scores)
    settings = settings_of(loaded, how, ready.asked.image_column, before)
    folder = part.folder(path)
    with disk_errors("making the folder of the part"):
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(writer_lock(folder))
        except IndexLockedError as error:
            said = error.message.replace("writing to this index", f"building part {part}")
            raise IndexLockedError(said, hint=error.hint) from None
        units = _Units(folder, digest(settings))
        key = UserKey(units.key if before is None else before.identity.fingerprint or units.key)
        embedder = AwayEmbedder(order.source, loaded, how, key, asked.workers)
        stack.callback(embedder.close)
        listing, seen = Listing(), None if before is None else SeenFiles(before, "", BuildNotes.of(before).sources)

        def missing() -> Iterator[Asked]:
            for entry in order.entries:
                if not isinstance(entry, Item) or not part.holds(entry.path):
                    continue
                mark = listing.add(entry)
                if mark in units.marks or (asked.rehash is False and seen and seen.unchanged(entry.path, entry)[0]):
                    shown.step()
                else:
                    yield entry, _held(seen, entry.path)

        shown = stack.enter_context(make_progress(show=progress))
        count = order.source.count()
        shown.say(f"part {part}: embedding with {loaded.info.name} ({loaded.info.precision}) on {loaded.info.device}")
        shown.total(None if count is None else count // part.of)
        pool = stack.enter_context(ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="unit"))
        running: deque[tuple[list[Asked], Future[Any]]] = deque()
        embedded = 0

        def take() -> int:
            asked_of, future = running.popleft()
            items = [item for item, _ in asked_of]
            units.write(to_bytes(items, future.result(), units.settings, key.fingerprint))
            shown.step(len(items))
            return len(items)

        try:
            for unit in units_of(missing()):
                running.append((unit, pool.submit(embedder.embed, unit)))
                embedded += take() if len(running) > _AT_ONCE else 0
            while running:
                embedded += take()
        finally:
            for _, future in running:
                future.cancel()
        place = recorded.pop(_ARCHIVE)
        facts = part, place, loaded.info, loaded.batch_size, settings, recorded
        record = PartRecord(*facts, listing=listing, key=units.key or "", units=units.names)
        with disk_errors("finishing the part"):
            record.write(folder)
    kept = listing.files - embedded
    return PartReport(str(part), listing.files, embedded, kept, units.skipped(), time.monotonic() - start)


class _Units:
    """The units of a part: those that an earlier run left, if they are of these settings, and new ones.

    Attributes
    ----------
    settings
        The digest of the settings.
    names
        The sha256 of each, by the file's name; in the order in which they were written.
    marks
        Of the files that are in them, but for those that were out of reach.
    key
        The fingerprint of the key of hashed identifiers, if any is hashed.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self.settings, self.names = settings, dict[str, str]()
        self.key: str | None = None
        self.marks: set[int] = set()
        self._folder, self._skipped = folder, set[int]()
        for name in unit_names(folder):
            data = (folder / name).read_bytes()
            try:
                unit = read_unit(folder, name)
                if unit.settings == settings:
                    self._take(name, data)
                    continue
            except IndexCorruptError:
                pass
            with suppress(FileNotFoundError), disk_errors("removing what an earlier run left"):
                (folder / RECORD).unlink(missing_ok=True)
                (folder / name).unlink()

    def _take(self, name: str, data: bytes) -> None:
        unit = Unit.of(data)
        self.names[name] = hashlib.sha256(data).hexdigest()
        self.key = self.key or unit.key or None
        for at in range(len(unit)):
            mark = mark_of(unit.listed(at))
            if unit.lasting(at):
                self.marks.add(mark)
            (self._skipped.add if unit.skipped(at) else self._skipped.discard)(mark)

    def write(self, data: bytes) -> None:
        """Keep a new unit, durably."""
        name = unit_name(len(self.names))
        with disk_errors("keeping what was embedded"):
            write_whole(self._folder / name, data, durable=True)
        self._take(name, data)

    def skipped(self) -> int:
        """Return how many files could not be read."""
        return len(self._skipped)


def _held(seen: SeenFiles | None, path: str) -> Callable[[str], bool]:
    """Return whether an index needs no vector of a file, by its sha256."""
    if seen is None:
        return lambda _: False
    return lambda sha256: seen.holds(path, sha256) or bool(seen.same_bytes(sha256))


def _recordable(archive: ArchiveLike, asked: BuildOptions) -> dict[str, Any]:
    """Return the archive's place and the options as a part's record holds them, for the merge to build with.

    Raises
    ------
    UsageError
        One is of this process or of this machine alone.
    """
    if not is_place(archive):
        raise UsageError("a part is of an archive that has a place, got a list", hint="write the paths into a file")
    if asked.keep_identifiers:
        raise UsageError("identifiers are kept by a build in one process", hint="leave out --keep-identifiers")
    options = {name: value for name, value in asked.asked().items() if name not in _OF_A_MACHINE}
    if asked.metadata is not None:
        if not is_file(asked.metadata):
            raise UsageError(
                "the table of a build in parts is a file", hint="write it as CSV or Parquet, and name that"
            )
        options["metadata"] = str(home(os.fspath(asked.metadata)).absolute())
    options |= {name: list(options[name]) for name in ("scores",) if options.get(name) is not None}
    options |= {name: dict(options[name]) for name in ("types",) if options.get(name) is not None}
    return {**options, _ARCHIVE: place_of(archive)}


def place_of(archive: str | os.PathLike[str]) -> str:
    """Return where an archive is, for other processes: an address, or a whole path; `UsageError` for a login in it."""
    place = os.fspath(archive)
    if "://" not in place:
        return str(home(place).absolute())
    if "@" in place.partition("://")[2].partition("/")[0]:
        raise UsageError(
            "the archive's address holds a user's name", hint="give credentials as the store's own tools do"
        )
    return place
