"""Files that are written once, completely or not at all, and checked before they are opened.

Every file of an index goes through here: written, flushed to the disk and only then named by a manifest. A file
that failed half-way is removed again, and a full disk becomes one clear error.

An index may come from anybody. What is read is a regular file inside it: a link would lead elsewhere, a FIFO would be
waited for, a device does something when it is opened. Nothing of the kind is ever opened, and no link is written
through. (The index itself may be reached through a link.)
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retr import system
from retr.index.errors import IndexCorruptError, RetrError
from retr.index.json_fields import Fields
from retr.index.machine.whole_file import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SHA256 = re.compile("[0-9a-f]{64}")
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_NOT_OURS = "an index holds regular files only: restore it from a copy, or build it again"


@dataclass(frozen=True)
class FileRef:
    """One committed file: its path relative to the index (posix), its sha256 and its size."""

    file: str
    sha256: str
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form of this reference."""
        return {"bytes": self.bytes, "file": self.file, "sha256": self.sha256}

    @classmethod
    def from_json(cls, data: object, form: re.Pattern[str]) -> FileRef:
        """Read what `to_json` wrote; ``ValueError`` where it names a file that does not have the ``form`` of its role.

        So no manifest names a file outside the index, or a file of another role.
        """
        fields = Fields(data)
        found = cls(file=fields.text("file"), sha256=fields.text("sha256"), bytes=fields.whole("bytes"))
        if form.fullmatch(found.file) is None or _SHA256.fullmatch(found.sha256) is None:
            raise ValueError("a reference to no file of an index")
        return found


def regular(root: Path, name: str) -> os.stat_result:
    """Look at the file ``root / name`` without opening it.

    Raises
    ------
    FileNotFoundError
        There is none.
    IndexCorruptError
        It is a link, a folder, a pipe, a socket or a device.
    """
    found = (root / name).lstat()
    if not stat.S_ISREG(found.st_mode):
        raise IndexCorruptError(f"{name!r} is {_KINDS.get(stat.S_IFMT(found.st_mode), 'no file')}", hint=_NOT_OURS)
    return found


def require_folders(root: Path, *names: str) -> None:
    """Raise `IndexCorruptError` for a folder of the index that leads elsewhere; one that is missing may be.

    Everything inside would be read, replaced and removed there.
    """
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found = (root / name).lstat()
            if not stat.S_ISDIR(found.st_mode):
                kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a file")
                raise IndexCorruptError(
                    f"{name!r} in the index is {kind} instead of a folder",
                    hint="move what it should hold to its place, or restore the index from a copy",
                )


def read_small(root: Path, name: str, most: int) -> bytes:
    """Read a regular file of at most ``most`` bytes; errors as `regular`."""
    regular(root, name)
    descriptor = os.open(root / name, os.O_RDONLY | system.OWN)
    with os.fdopen(descriptor, "rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise IndexCorruptError(f"{name!r} is longer than {most} bytes", hint="restore the index from a copy")
    return data


@contextlib.contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn an ``OSError`` of the disk into a `RetrError` that says what was being done."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RetrError(
                f"no space left on the disk while {doing}",
                hint="the index is as it was at the last commit: free some space and run the command again",
            ) from error
        reason = error.strerror or type(error).__name__
        raise RetrError(
            f"the disk failed while {doing}: {reason}",
            hint="the index is as it was at the last commit: check its folder's permissions and the disk",
        ) from error


def reference(root: Path, name: str) -> FileRef:
    """Flush the finished file ``root / name`` to the disk and describe it."""
    path = root / name
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
        return FileRef(name, digest, os.fstat(stream.fileno()).st_size)


def write_bytes(root: Path, name: str, data: bytes) -> FileRef:
    """Write a new file ``root / name`` and flush it to the disk."""
    path = root / name
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return FileRef(name, hashlib.sha256(data).hexdigest(), len(data))


def replace_bytes(path: Path, data: bytes) -> None:
    """Replace a file of an index, durably, under the draft's name that `retr.index.disk.sweep` knows."""
    write_whole(path, data, draft=path.with_name(path.name + ".tmp"), durable=True)
