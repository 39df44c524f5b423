"""The journal: entries that are durable at once, beside a writer at work, and that the next commit takes in.

An index has one writer, and a build may hold its lock for hours. What people save meanwhile (sets, labels, questions)
goes into ``journal.jsonl``, under a lock of its own that is held for one entry: a line with a checksum, flushed to the
disk before anybody is told that it is saved. A commit appends the entries to a side file (`fold`), and only then are
they cut off the journal; their numbers say which are in both. What an entry means is not known here.

    3f0c2a91b7d4e586 {"author":"anna","data":{...},"do":"label","number":17,"time":"2026-11-28T07:31:05.123+00:00"}

A process killed while it writes leaves a line without its end, which was never confirmed: readers pass over it, and the
next entry takes its place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from retr import system
from retr.index.disk.current import read_current
from retr.index.disk.files import disk_errors, regular, replace_bytes
from retr.index.disk.lock import short_lock
from retr.index.disk.manifest import SHARDS
from retr.index.disk.shards import require_whole
from retr.index.errors import IndexCorruptError, RetrError, UsageError
from retr.index.json_fields import Fields, parse_json, stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from retr.index.disk.manifest import Manifest

_LOGGER = logging.getLogger("retr")
JOURNAL, JOURNAL_LOCK = "journal.jsonl", "journal.lock"
#: The kind of side data that folded entries are, their side file, and the note of the last one's number.
KIND, SIDE_FILE, NOTE = "journal", "journal.jsonl", "journal"
#: One entry may be so long, and an open journal.
MOST_BYTES, _MOST_OPEN = 16 << 20, 1 << 30
_CHECK = 16
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Entry:
    """One entry: its number, from 1 on; the moment, in UTC; who wrote it; what it does, and with what."""

    number: int
    time: str
    author: str
    do: str
    data: Mapping[str, Any]

    def to_line(self) -> bytes:
        """Return the line, its end included."""
        body = json.dumps(vars(self), sort_keys=True, separators=(",", ":")).encode()
        return _checksum(body) + b" " + body + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Entry:
        """Read a line without its end; ``ValueError`` where it is not as it was written."""
        check, _, body = line.partition(b" ")
        if check != _checksum(body):
            raise ValueError("another checksum")
        fields = Fields(parse_json(body))
        number, data = fields.whole("number", least=1), parse_json(body)["data"]
        if not isinstance(data, dict):
            raise ValueError("no object")  # noqa: TRY004 - as everything that is not as it was written
        return cls(number, fields.text("time"), fields.text("author"), fields.text("do"), data)


@dataclass(frozen=True)
class Lines:
    """What a journal holds.

    Attributes
    ----------
    entries
        In their order.
    damaged
        Whole lines that are not as they were written, by their numbers from 1 on.
    """

    entries: tuple[Entry, ...]
    damaged: Mapping[int, bytes]

    @classmethod
    def of(cls, data: bytes) -> Lines:
        """Read lines, but for a last one without an end."""
        entries, damaged = [], {}
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            try:
                entries.append(Entry.from_line(line))
            except ValueError:
                damaged[number] = line
        return cls(tuple(entries), damaged)


class LockedJournal:
    """The journal of an index, under its lock; see `held`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def append(self, author: str, do: str, data: Mapping[str, Any]) -> Entry:
        """Write an entry, and return it once it is on the disk.

        Raises
        ------
        UsageError
            It is too long.
        RetrError
            The disk refuses; nothing is written then.
        """
        with disk_errors("saving an entry"), self._file() as file:
            last = max(_drop_torn_end(file), folded(read_current(self._root)))
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            entry = Entry(last + 1, now, author, do, data)
            line = entry.to_line()
            if len(line) > MOST_BYTES:
                raise UsageError(f"an entry may have {MOST_BYTES} bytes", hint="save fewer rows at once")
            size = os.fstat(file).st_size
            try:
                left = memoryview(line)
                while left:
                    left = left[os.write(file, left) :]
                os.fsync(file)
            except OSError:
                os.ftruncate(file, size)
                raise
            if size == 0:
                system.sync_folder(self._root)
        return entry

    def cut(self, upto: int, *, damaged: bool = False) -> None:
        """Cut off the entries that are folded, up to a number, and with ``damaged`` what cannot be read, too."""
        data = read_bytes(self._root)
        lines = Lines.of(data)
        rest = [entry.to_line() for entry in lines.entries if entry.number > upto]
        kept = [] if damaged else [line + b"\n" for line in lines.damaged.values()]
        if data != b"".join([*kept, *rest]):
            replace_bytes(self._root / JOURNAL, b"".join([*kept, *rest]))

    @contextlib.contextmanager
    def _file(self) -> Iterator[int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | system.OWN
        with contextlib.suppress(FileNotFoundError):
            regular(self._root, JOURNAL)
        file = os.open(self._root / JOURNAL, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise IndexCorruptError(f"{JOURNAL!r} is not a file any more", hint="restore the index from a copy")
            yield file
        finally:
            os.close(file)


@contextlib.contextmanager
def held(root: Path) -> Iterator[LockedJournal]:
    """Hold the journal's lock; whoever else wants it waits a while.

    Raises
    ------
    IndexLockedError
        Another process holds it for longer: a purge.
    UsageError
        The index is a shard of another.
    RetrError
        The index's folder cannot be written.
    """
    if root.absolute().parent.name == SHARDS:
        require_whole(read_current(root))
    with short_lock(root, JOURNAL_LOCK):
        yield LockedJournal(root)


def read_bytes(root: Path) -> bytes:
    """Read the open journal; empty where there is none."""
    try:
        size = regular(root, JOURNAL).st_size
        if size > _MOST_OPEN:
            raise IndexCorruptError(f"{JOURNAL!r} is longer than {_MOST_OPEN} bytes", hint="run `retr index check`")
        file = os.open(root / JOURNAL, os.O_RDONLY | system.OWN)
    except FileNotFoundError:
        return b""
    with os.fdopen(file, "rb") as stream:
        return stream.read()


def tail(root: Path, after: int) -> list[Entry]:
    """Return the entries of the open journal behind a number, in order."""
    return [entry for entry in Lines.of(read_bytes(root)).entries if entry.number > after]


def folded(manifest: Manifest) -> int:
    """Return the number of the last entry that a committed state holds; 0 for none."""
    if NOTE not in manifest.extra:
        return 0
    with stored(f"the note {NOTE!r}"):
        number: int = Fields(manifest.extra[NOTE]).whole("number")
        return number


def note_of(number: int) -> dict[str, int]:
    """Return the note of the last folded entry's number."""
    return {"number": number}


def cut(root: Path, upto: int, *, damaged: bool = False) -> None:
    """Cut off what a commit has taken in, as `LockedJournal.cut`; where that fails, the next commit does it."""
    try:
        lines = Lines.of(read_bytes(root))
        if any(entry.number <= upto for entry in lines.entries) or (damaged and lines.damaged):
            with held(root) as journal:
                journal.cut(upto, damaged=damaged)
    except (OSError, RetrError) as error:
        _LOGGER.warning("the journal keeps entries that are committed already: %s", error)


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:_CHECK].encode()


def _drop_torn_end(file: int) -> int:
    """Cut off a last line without an end, and return the number of the last entry; 0 for none."""
    size, length = os.fstat(file).st_size, _CHUNK
    while True:
        data = system.read_at(file, min(size, length), max(0, size - length))
        end = data.rfind(b"\n") + 1
        whole = length >= size
        if end or whole:
            if end < len(data):
                size += end - len(data)
                os.ftruncate(file, size)
            for line in reversed(data[:end].split(b"\n")[:-1][0 if whole else 1 :]):
                with contextlib.suppress(ValueError):
                    return Entry.from_line(line).number
            if whole:
                return 0
        length *= 8
