"""Files that are written once, completely, or not at all.

Every file of an index goes through here: written, flushed to the disk and only then named by a manifest. A file
that failed half-way is removed again, and a full disk becomes one clear error.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retr.index.errors import RetrError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class FileRef:
    """One committed file: its path relative to the index (posix), its sha256 and its size."""

    file: str
    sha256: str
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Give the manifest's form of this reference."""
        return {"bytes": self.bytes, "file": self.file, "sha256": self.sha256}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FileRef:
        """Read what `to_json` wrote."""
        return cls(file=str(data["file"]), sha256=str(data["sha256"]), bytes=int(data["bytes"]))


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
    """Replace ``path`` atomically: a reader sees the old bytes or the new ones, also after a power cut."""
    draft = path.with_name(path.name + ".tmp")
    with draft.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Flush a folder's list of names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
