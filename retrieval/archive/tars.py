"""Tar files: members of a plain one are read at random, those of a compressed one in their order.

A compressed tar has no table of contents, and each look at a member would begin at the first. So it is read twice: once
for the names and for what may stand beside pictures, once for the pictures, each listed with its bytes.

Tars that were put one behind the other are read to the end. What comes behind the end and is no tar, or stands where a
header should be, is recorded as damage; the members before it are listed all the same. Reading is bounded: a header,
a label and a picture have a largest size, what compressed tars may keep of labels and unfold to as well.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import threading
import weakref
import zlib
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from retr import system
from retr.retrieval.archive.members import (
    MAX_MEMBER_BYTES,
    TWICE,
    Samples,
    classify_member,
    last_of_each,
    member_name,
    unreadable,
)
from retr.retrieval.archive.siblings import MAX_BYTES, is_sibling
from retr.retrieval.archive.sources import SNIFF_BYTES, Entry, Item, Other, Skipped, is_image_name, looks_like_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from retr.retrieval.archive.sources import Bytes

_CHUNK = 1 << 20
# The names of a header, and what a compressed tar may keep in memory of labels.
_MAX_HEADER = 1 << 20
_MAX_LABELS = 1 << 28
# A compressed tar unfolds to so many times its size, and a gigabyte, at most: pictures are compressed already.
_MAX_UNFOLDED = 200
_MAX_UNFOLDED_BYTES = 1 << 30


DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, zlib.error, lzma.LZMAError, MemoryError)


class Member(NamedTuple):
    """One member: its name as it is written, what it is (None for a plain file), where it lies."""

    raw: str
    entry: Entry | None
    folder: bool
    offset: int
    size: int


class TarContainer:
    """A tar file, plain or compressed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._mtime = file.stat().st_mtime
        self._compressed = not file.name.lower().endswith(".tar")
        self._descriptor = os.open(file, os.O_RDONLY | system.NAMED)
        weakref.finalize(self, os.close, self._descriptor)
        self._members: dict[str, Member] | None = None
        self._clashes: list[str] = []
        self._labels: dict[str, bytes] = {}
        self._reason: str | None = None
        self._lock = threading.Lock()

    def entries(self) -> Iterator[Entry]:
        """List the members in their order."""
        members = self._list()
        yield from (Skipped(name, TWICE, 0, self._mtime) for name in self._clashes)
        files = {name: member for name, member in members.items() if not member.folder}
        samples = Samples(files, self._label)
        for name, entry in self._stream(files) if self._compressed else self._listed(files):
            if isinstance(entry, Item):
                yield from samples.picture(entry)
            elif entry is not None and not is_sibling(name):
                yield entry
        yield from samples.rest(lambda name: files[name].entry or self._classify(name, files[name], b""))
        if self._reason is not None:
            yield Skipped("", self._reason)

    def read(self, member: str) -> Bytes:
        """Read one member."""
        try:
            place = self._list().get(member_name(member))
        except DAMAGE:
            raise unreadable("damaged") from None
        if place is None or place.folder or place.entry is not None:
            raise FileNotFoundError(member)
        if place.size > MAX_MEMBER_BYTES:
            raise unreadable("too large")
        try:
            data = self._content(place)
        except DAMAGE:
            raise unreadable("damaged") from None
        if len(data) < place.size:
            raise unreadable("truncated")
        return data, place.size, self._mtime

    def _content(self, member: Member) -> bytes:
        if not self._compressed:
            return system.read_at(self._descriptor, member.size, member.offset)
        with self._open() as stream:
            stream.seek(member.offset)
            return stream.content(member.size)

    def _list(self) -> dict[str, Member]:
        """Return the members by name; of a compressed tar keep the labels."""
        with self._lock:
            if self._members is None:
                members: list[Member] = []
                labels: dict[int, bytes] = {}
                left = _MAX_LABELS
                with self._open() as stream:
                    for member in _walk(stream):
                        if self._compressed and is_sibling(member.raw) and member.size <= min(MAX_BYTES, left):
                            stream.seek(member.offset)
                            labels[len(members)] = stream.content(member.size)
                            left -= member.size
                        members.append(member)
                    self._reason = stream.reason
                places, self._clashes = last_of_each(member.raw for member in members)
                self._members = {name: members[place] for name, place in places.items() if name}
                self._labels = {name: labels[place] for name, place in places.items() if place in labels}
            return self._members

    def _label(self, name: str) -> bytes:
        if self._compressed:
            if name not in self._labels:
                raise unreadable("too large")
            return self._labels[name]
        member = self._list()[name]
        if member.size > MAX_BYTES:
            raise unreadable("too large")
        return system.read_at(self._descriptor, member.size, member.offset)

    def _listed(self, files: dict[str, Member]) -> Iterator[tuple[str, Entry | None]]:
        for name, member in files.items():
            prefix = partial(self._prefix, member)
            yield name, member.entry or classify_member(name, member.size, self._mtime, prefix)

    def _prefix(self, member: Member) -> bytes:
        return system.read_at(self._descriptor, min(member.size, SNIFF_BYTES), member.offset)

    def _stream(self, files: dict[str, Member]) -> Iterator[tuple[str, Entry | None]]:
        """Go through a compressed tar once more; pictures come with their bytes."""
        with self._open() as stream:
            for name, member in sorted(files.items(), key=lambda pair: pair[1].offset):
                if member.entry is not None or is_sibling(name) or is_image_name(name) is False:
                    yield name, member.entry or self._classify(name, member, b"")
                    continue
                try:
                    entry = self._take(stream, name, member)
                except DAMAGE:
                    yield name, Skipped(name, "damaged", member.size, self._mtime)
                    return
                yield name, entry

    def _take(self, stream: _Careful, name: str, member: Member) -> Entry | None:
        stream.seek(member.offset)
        prefix = stream.content(min(member.size, SNIFF_BYTES))
        entry = self._classify(name, member, prefix)
        if not isinstance(entry, Item):
            return entry
        # what is as large as few pictures are must at least begin like one
        if member.size > MAX_MEMBER_BYTES // 16 and not looks_like_image(prefix):
            return Skipped(name, "not an image", member.size, self._mtime)
        return entry.with_data(prefix + stream.content(member.size - len(prefix)))

    def _classify(self, name: str, member: Member, prefix: bytes) -> Entry | None:
        return classify_member(name, member.size, self._mtime, lambda: prefix)

    @contextmanager
    def _open(self) -> Iterator[_Careful]:
        """Open the tar; damage ends the reading, and is remembered."""
        most = _MAX_UNFOLDED * self._file.stat().st_size + _MAX_UNFOLDED_BYTES if self._compressed else None
        with _opened(self._file, compressed=self._compressed) as plain:
            yield _Careful(plain, most)


class _Careful:
    """A stream that goes forward, of which no header is gigabytes long, and which unfolds to ``most`` bytes."""

    def __init__(self, stream: BinaryIO, most: int | None) -> None:
        # why the members end early, if they do
        self.reason: str | None = None
        self._stream, self._most = stream, most
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError("too large")
        return self._take(size)

    def content(self, size: int) -> bytes:
        """Read a member's bytes; fewer where the stream ends."""
        pieces = []
        while size > 0 and (piece := self._take(min(size, _CHUNK))):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def seek(self, position: int, whence: int = 0) -> int:
        if whence or position < self._at:
            raise tarfile.ReadError("not forward")
        self._bound(position)
        self._stream.seek(position - self._at, os.SEEK_CUR)
        self._at = position
        return position

    def tell(self) -> int:
        return self._at

    def _take(self, size: int) -> bytes:
        self._bound(self._at + size)
        data = self._stream.read(size)
        self._at += len(data)
        return data

    def _bound(self, position: int) -> None:
        if self._most is not None and position > self._most:
            self.reason = "too large"
            raise tarfile.ReadError("unfolds to too much")


def _walk(stream: _Careful) -> Iterator[Member]:
    """Return the members of all tars in a stream; why they end early is noted at the stream."""
    # of no tar at all this raises
    tar: Any = tarfile.open(fileobj=cast("BinaryIO", stream), mode="r:")  # noqa: SIM115 - whoever opened it closes it
    info = tar.next()
    if info is None:
        tar.offset = stream.tell()
    try:
        while True:
            if info is not None:
                yield Member(info.name, _other(info), info.isdir(), info.offset_data, info.size)
                info = None
            stream.seek(tar.offset)
            try:
                info = tarfile.TarInfo.fromtarfile(tar)
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                # zeros end a tar; another one may come behind them
                tar.offset = stream.tell()
            except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
                return
    except DAMAGE:
        stream.reason = stream.reason or "damaged"


def _other(info: tarfile.TarInfo) -> Entry | None:
    """Return what a member that is no plain file is listed as; None for a plain one."""
    if info.issym() or info.islnk():
        return Skipped(member_name(info.name), "link in a container")
    if info.issparse():
        return Skipped(member_name(info.name), "unsupported")
    return None if info.isreg() else Other(member_name(info.name))


def _opened(file: Path, *, compressed: bool) -> Any:
    name = file.name.lower()
    opener: Any = bz2 if name.endswith(".bz2") else lzma if name.endswith(".xz") else gzip
    return opener.open(file, "rb") if compressed else file.open("rb")
