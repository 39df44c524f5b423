"""Files that are written whole or not at all: under another name in the same folder, and then renamed.

A reader sees the old bytes or the new ones. What fails half-way leaves nothing behind; what is killed leaves a draft,
which an index sweeps away (`retr.index.disk.sweep`) and whose name elsewhere begins with a dot.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from retr import system

if TYPE_CHECKING:
    from pathlib import Path

# of a file that may be written though its folder may not be, or that is mounted by itself
_NOT_REPLACED = {errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS}


def draft_of(path: Path) -> Path:
    """Return a name beside a path that no other process and no other thread takes."""
    return path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")


def write_whole(
    path: Path, data: bytes, *, draft: Path | None = None, durable: bool = False, permissions: int | None = None
) -> None:
    """Replace a file.

    Parameters
    ----------
    path
        The file; a link is replaced, not followed.
    data
        All of it.
    draft
        What it is called until it is whole; what lies there is a killed writer's, and goes.
    durable
        Flush it to the disk, and its name: it is there also after a power cut.
    permissions
        Those of the file; by default what the process gives a new one.

    Raises
    ------
    OSError
        It cannot be written; it is as it was then.
    """
    draft = draft or draft_of(path)
    try:
        _write(draft, data, durable=durable)
        if permissions is not None:
            draft.chmod(permissions)
        system.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    if durable:
        system.sync_folder(path.parent)


def write_first(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file that is not there yet: of several who do so at once, one wins for all; ``OSError`` as above."""
    draft = draft_of(path)
    try:
        _write(draft, data, durable=True, mode=mode)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_if_possible(path: Path, data: bytes) -> bool:
    """Write a file that a program does without, and its folder; return False where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError:
        return False
    return True


def write_output(path: Path, data: bytes) -> None:
    """Write a file that a user named: a link, a pipe or a device is written into, not replaced.

    Raises
    ------
    OSError
        It cannot be written; it names the file.
    """
    try:
        found = path.lstat() if os.path.lexists(path) else None
        if found is not None and not stat.S_ISREG(found.st_mode):
            path.write_bytes(data)
            return
        try:
            write_whole(path, data, permissions=None if found is None else stat.S_IMODE(found.st_mode))
        except OSError as error:
            if found is None or error.errno not in _NOT_REPLACED:
                raise
            path.write_bytes(data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _write(draft: Path, data: bytes, *, durable: bool, mode: int = 0o666) -> None:
    draft.unlink(missing_ok=True)
    # never through a link that somebody laid there
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.NAMED, mode), "wb") as stream:
        stream.write(data)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())
