"""Containers of pictures: zip, tar (webdataset shards too), and Parquet or Arrow tables with an image column.

A container is opened where it lies and never unpacked to the disk, so a hostile name or link inside it has nothing to
write to; it cannot name anything outside either, because members are looked up among the container's own. Links,
encrypted members and names that leave the container are recorded as skipped. A member's bytes are read up to
`MAX_MEMBER_BYTES`, whatever its header promises.

What stands beside a picture labels it (`retr.retrieval.archive.siblings`).

Every member's mtime is the container's: when the container was written again, its members are hashed again.
"""

from __future__ import annotations

import lzma
import stat as st
import tarfile
import zipfile
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

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
from retr.retrieval.archive.sources import SNIFF_BYTES, Bytes, Container, Entry, Item, Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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


def is_container_name(name: str) -> bool:
    """Return whether a file name promises a container.

    >>> is_container_name("shard-0001.tar"), is_container_name("a.tar.gz"), is_container_name("labels.csv")
    (True, True, False)
    """
    return _opener(name) is not None


def open_container(file: Path, image_column: str | None = None) -> Container | None:
    """Open a container; None for a table without an image column.

    Parameters
    ----------
    image_column
        The column that holds the pictures of a table with several.

    Raises
    ------
    ImageReadError
        It is damaged, or a table with several image columns of which none is chosen.
    """
    opener = _opener(file.name)
    if opener is None:
        return None
    try:
        return opener(file, image_column)
    except DAMAGED:
        raise unreadable("damaged") from None


def _opener(name: str) -> Callable[[Path, str | None], Container | None] | None:
    lower = name.lower()
    if lower.endswith(".zip"):
        return lambda file, _: ZipContainer(file)
    if lower.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
        from retr.retrieval.archive.tars import TarContainer

        return lambda file, _: TarContainer(file)
    if lower.endswith((".parquet", ".arrow", ".feather")):
        from retr.retrieval.archive.tables import open_table

        return open_table
    return None


class ZipContainer:
    """A zip file; members are read at random, from several threads."""

    def __init__(self, file: Path) -> None:
        self._mtime = file.stat().st_mtime
        self._zip = zipfile.ZipFile(file)
        infos = self._zip.infolist()
        places, self._clashes = last_of_each(map(_name, infos))
        # one without a name cannot be asked for
        self._members = {name: infos[place] for name, place in places.items() if name}

    def entries(self) -> Iterator[Entry]:
        """List the members in the order of their names."""
        yield from (Skipped(name, TWICE, 0, self._mtime) for name in self._clashes)
        names = sorted(name for name, info in self._members.items() if not _is_folder(info))
        samples = Samples(names, self._label)
        for name in names:
            entry = None if is_sibling(name) else self._classify(name)
            if isinstance(entry, Item):
                yield from samples.picture(entry)
            elif entry is not None:
                yield entry
        yield from samples.rest(self._classify)

    def read(self, member: str) -> Bytes:
        """Read one member."""
        name = member_name(member)
        if name not in self._members:
            raise FileNotFoundError(member)
        return self._read(name, MAX_MEMBER_BYTES)

    def _read(self, name: str, most: int) -> Bytes:
        try:
            with self._zip.open(self._members[name]) as stream:
                data = stream.read(most + 1)
        except RuntimeError:
            raise unreadable("unsupported") from None  # encrypted
        except DAMAGED:
            raise unreadable("damaged") from None
        if len(data) > most:
            raise unreadable("too large")
        return data, len(data), self._mtime

    def _label(self, name: str) -> bytes:
        return self._read(name, MAX_BYTES)[0]

    def _classify(self, name: str) -> Entry | None:
        info = self._members[name]
        if st.S_ISLNK(info.external_attr >> 16):
            return Skipped(name, "link in a container")
        if info.flag_bits & 1:
            return Skipped(name, "encrypted")
        entry = classify_member(name, info.file_size, self._mtime, lambda: self._prefix(info))
        return replace(entry, stamp=f"{info.CRC:08x}") if isinstance(entry, Item) else entry

    def _prefix(self, info: zipfile.ZipInfo) -> bytes:
        try:
            with self._zip.open(info) as stream:
                return stream.read(SNIFF_BYTES)
        except (*DAMAGED, RuntimeError):
            return b""


def _name(info: zipfile.ZipInfo) -> str:
    """Return a member's name; many programs write UTF-8 without saying so, which is then read as something else."""
    if info.flag_bits & 0x800 or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode()
    except UnicodeError:
        return info.filename


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith(("/", "\\"))
