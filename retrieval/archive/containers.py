"""Containers of pictures: zip, tar (webdataset shards too), and Parquet or Arrow tables with an image column.

A container is opened where it lies and never unpacked to the disk, so a hostile name or link inside it has nothing to
write to; it cannot name anything outside either, because members are looked up among the container's own. Links,
encrypted members and names that leave the container are recorded as skipped. A member's bytes are read up to
`MAX_MEMBER_BYTES`, whatever its header promises.

Members of the same stem are one sample, as in webdataset: beside ``0001.jpg`` the texts of ``0001.txt`` and
``0001.cls`` become columns ``txt`` and ``cls``, and the keys of ``0001.json`` become columns of their own names.

Every member's mtime is the container's: when the container was written again, its members are hashed again.
"""

from __future__ import annotations

import json
import lzma
import os
import stat as st
import tarfile
import threading
import weakref
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

import pyarrow as pa

from retr.index.errors import ImageReadError
from retr.retrieval.archive.sources import (
    SNIFF_BYTES,
    Bytes,
    Entry,
    Item,
    Other,
    Skipped,
    is_image_name,
    looks_like_image,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MAX_MEMBER_BYTES = 1 << 28
SIBLINGS = frozenset({".txt", ".json", ".cls"})
# A sibling holds a caption or a few labels; more than this is something else.
_MAX_SIBLING_BYTES = 1 << 20
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    OverflowError,
    lzma.LZMAError,
    MemoryError,
    pa.ArrowException,
    SystemError,  # pyarrow, for a column name that is not text
)


class Container(Protocol):
    """Pictures in one file."""

    def entries(self) -> Iterator[Entry]:
        """List the members, in the same order every time."""

    def read(self, member: str) -> Bytes:
        """Give one member's bytes, their number and the container's mtime.

        Raises
        ------
        FileNotFoundError
            There is no such member.
        ImageReadError
            The member cannot be read.
        """


def is_container_name(name: str) -> bool:
    """Say whether a file name promises a container.

    >>> is_container_name("shard-0001.tar"), is_container_name("a.tar.gz"), is_container_name("labels.csv")
    (True, True, False)
    """
    return _opener(name) is not None


def open_container(file: Path) -> Container | None:
    """Open a container; None for a table without an image column.

    Raises
    ------
    ImageReadError
        It is damaged.
    """
    opener = _opener(file.name)
    if opener is None:
        return None
    try:
        return opener(file)
    except DAMAGED:
        raise _error("damaged") from None


def _opener(name: str) -> Callable[[Path], Container | None] | None:
    lower = name.lower()
    if lower.endswith(".zip"):
        return ZipContainer
    if lower.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
        return TarContainer
    if lower.endswith((".parquet", ".arrow", ".feather")):
        from retr.retrieval.archive.tables import open_table

        return open_table
    return None


class ZipContainer:
    """A zip file; members are read at random, from several threads."""

    def __init__(self, file: Path) -> None:
        self._mtime = file.stat().st_mtime
        self._zip = zipfile.ZipFile(file)
        # of two members of one name the last counts, as for every unpacker; one without a name cannot be asked for
        self._members = {info.filename: info for info in self._zip.infolist() if info.filename}

    def entries(self) -> Iterator[Entry]:
        """List the members in the order of their names."""
        names = sorted(name for name, info in self._members.items() if name and not info.is_dir())
        yield from _samples(names, self._classify, lambda name: self.read(name)[0])

    def read(self, member: str) -> Bytes:
        """Read one member."""
        if member not in self._members:
            raise FileNotFoundError(member)
        try:
            with self._zip.open(self._members[member]) as stream:
                return _limited(stream, self._mtime)
        except RuntimeError:
            raise _error("unsupported") from None  # encrypted
        except DAMAGED:
            raise _error("damaged") from None

    def _classify(self, name: str) -> Entry | None:
        info = self._members[name]
        if st.S_ISLNK(info.external_attr >> 16):
            return Skipped(name, "link in a container")
        if info.flag_bits & 1:
            return Skipped(name, "encrypted")
        return _classify(name, info.file_size, self._mtime, lambda: self._prefix(info))

    def _prefix(self, info: zipfile.ZipInfo) -> bytes:
        try:
            with self._zip.open(info) as stream:
                return stream.read(SNIFF_BYTES)
        except (*DAMAGED, RuntimeError):
            return b""


class TarContainer:
    """A tar file: members of a plain one are read at random, those of a compressed one in their order.

    A compressed tar has no table of contents, and each look at a member would begin at the first; so listing it gives
    each item with its bytes.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._mtime = file.stat().st_mtime
        self._compressed = not file.name.lower().endswith(".tar")
        self._descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._places: dict[str, tuple[int, int]] | None = None
        self._lock = threading.Lock()

    def entries(self) -> Iterator[Entry]:
        """List the members in their order."""
        if self._compressed:
            yield from self._stream()
            return
        members = {member.name: member for member in self._list()}

        def classify(name: str) -> Entry | None:
            return _tar_member(members[name], self._mtime) or _classify(
                name, members[name].size, self._mtime, lambda: self.read(name)[0][:SNIFF_BYTES]
            )

        names = [name for name, member in members.items() if not member.isdir()]
        yield from _samples(names, classify, lambda name: self.read(name)[0])

    def read(self, member: str) -> Bytes:
        """Read one member."""
        if self._compressed:
            for entry in self._stream():
                if isinstance(entry, Item) and entry.path == member and entry.data is not None:
                    return entry.data, entry.size, entry.mtime
            raise FileNotFoundError(member)
        with self._lock:
            if self._places is None:
                self._places = {info.name: (info.offset_data, info.size) for info in self._list()}
        if member not in self._places:
            raise FileNotFoundError(member)
        offset, size = self._places[member]
        if size > MAX_MEMBER_BYTES:
            raise _error("too large")
        data = os.pread(self._descriptor, size, offset)
        if len(data) < size:
            raise _error("truncated")
        return data, size, self._mtime

    def _list(self) -> list[tarfile.TarInfo]:
        with self._file.open("rb") as stream, _Careful(stream).open() as tar:
            return list(tar)

    def _stream(self) -> Iterator[Entry]:
        """List a compressed tar; members of one stem stand together in it."""
        try:
            with _decompressed(self._file) as stream, _Careful(stream).open() as tar:
                group: list[tuple[tarfile.TarInfo, bytes]] = []
                for member in tar:
                    if group and _stem(member.name) != _stem(group[0][0].name):
                        yield from self._sample(group)
                        group = []
                    content = tar.extractfile(member) if member.isreg() and not member.issparse() else None
                    group.append((member, b"" if content is None else content.read(MAX_MEMBER_BYTES + 1)))
                    # tarfile remembers every member it has seen
                    tar.members = []  # type: ignore[attr-defined]
                yield from self._sample(group)
        except DAMAGED:
            yield Skipped("", "damaged")

    def _sample(self, group: list[tuple[tarfile.TarInfo, bytes]]) -> Iterator[Entry]:
        data = {member.name: content for member, content in group}
        members = {member.name: member for member, _ in group}

        def classify(name: str) -> Entry | None:
            entry = _tar_member(members[name], self._mtime) or _classify(
                name, len(data[name]), self._mtime, lambda: data[name][:SNIFF_BYTES]
            )
            return entry.with_data(data[name]) if isinstance(entry, Item) else entry

        names = [name for name, member in members.items() if not member.isdir()]
        yield from _samples(names, classify, data.__getitem__)


class _Careful:
    """A stream that refuses to read a huge piece at once, such as a header that says it is gigabytes long."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_MEMBER_BYTES + 1:
            raise tarfile.ReadError("too large")
        return self._stream.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def open(self) -> tarfile.TarFile:
        """Open the stream as a tar."""
        return tarfile.open(fileobj=cast("BinaryIO", self), mode="r:")


def _decompressed(file: Path) -> Any:
    import bz2
    import gzip

    name = file.name.lower()
    opener: Any = bz2 if name.endswith(".bz2") else lzma if name.endswith(".xz") else gzip
    return opener.open(file, "rb")


def _tar_member(member: tarfile.TarInfo, mtime: float) -> Entry | None:
    """Give what a member that is not a plain file is; None for a plain one."""
    if member.issym() or member.islnk():
        return Skipped(member.name, "link in a container", 0, mtime)
    if member.issparse():
        return Skipped(member.name, "unsupported", 0, mtime)
    return None if member.isreg() else Other(member.name)


def _classify(name: str, size: int, mtime: float, prefix: Callable[[], bytes]) -> Entry | None:
    """Give what a member is by its name, or by its first bytes where the name does not tell; None for a hidden one."""
    parts = PurePosixPath(name).parts
    if ".." in parts or name.startswith("/") or "\\" in name or "\0" in name:
        return Skipped(name.replace("\0", "\\0"), "name leads out of the container", size, mtime)
    try:
        name.encode()
    except UnicodeEncodeError:
        return Skipped(name.encode("utf-8", "backslashreplace").decode(), "name is not UTF-8", size, mtime)
    if any(part.startswith(".") for part in parts) or "__MACOSX" in parts:
        return None
    promised = is_image_name(name)
    if promised is None:
        promised = looks_like_image(prefix())
    if promised and size > MAX_MEMBER_BYTES:
        return Skipped(name, "too large", size, mtime)
    return Item(name, size, mtime) if promised else Other(name)


def _samples(
    names: Sequence[str], classify: Callable[[str], Entry | None], read: Callable[[str], bytes]
) -> Iterator[Entry]:
    """Give the entries of some members; siblings of a picture become its columns instead of entries of their own."""
    siblings: dict[str, list[str]] = {}
    for name in names:
        if PurePosixPath(name).suffix.lower() in SIBLINGS:
            siblings.setdefault(_stem(name), []).append(name)
    used: set[str] = set()
    others: list[str] = []
    for name in names:
        if PurePosixPath(name).suffix.lower() in SIBLINGS:
            others.append(name)
            continue
        entry = classify(name)
        if isinstance(entry, Item):
            beside = siblings.get(_stem(name), [])
            used.update(beside)
            columns = {key: value for sibling in beside for key, value in _sibling(sibling, read).items()}
            entry = entry.with_columns(columns)
        if entry is not None:
            yield entry
    for name in others:
        entry = None if name in used else classify(name)
        if entry is not None:
            yield entry


def _sibling(name: str, read: Callable[[str], bytes]) -> Mapping[str, Any]:
    """Read what stands beside a picture; what cannot be read gives no column."""
    suffix = PurePosixPath(name).suffix.lower()
    try:
        data = read(name)
        if len(data) > _MAX_SIBLING_BYTES:
            return {}
        text = data.decode("utf-8").strip()
        if suffix == ".json":
            content = json.loads(text)
            return {str(key): plain(value) for key, value in content.items()} if isinstance(content, dict) else {}
        is_number = suffix == ".cls" and text.isascii() and text.isdecimal()
        return {suffix[1:]: int(text) if is_number else text}
    except (UnicodeDecodeError, ValueError, RecursionError, OSError, ImageReadError):
        return {}


def plain(value: Any) -> Any:
    """Give what a column can hold: numbers, texts and truth values as they are, anything deeper as JSON text.

    >>> plain(3), plain(["a"]), plain(None)
    (3, '["a"]', None)
    """
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _stem(name: str) -> str:
    """Give a member's key: its folder and its name up to the first dot, as webdataset reads it."""
    folder, _, base = name.rpartition("/")
    return f"{folder}/{base.partition('.')[0]}"


def _limited(stream: Any, mtime: float) -> Bytes:
    data = stream.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        raise _error("too large")
    return data, len(data), mtime


def _error(reason: str) -> ImageReadError:
    return ImageReadError("a member of a container cannot be read", reason=reason)
