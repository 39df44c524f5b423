"""What operating systems do differently, in one place: Linux, macOS and Windows.

Everything that one of them lacks is asked for here, and nowhere else in the package by its own name.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Windows lets nobody read the bytes that another has locked: what is locked lies behind every text.
_LOCKED_BYTE = 1 << 30
_SEEKING = threading.Lock()


def _flags(*names: str) -> int:
    found = 0
    for name in names:
        found |= getattr(os, name, 0)
    return found


#: Flags of `os.open`: bytes as they are, not left to children, no pipe waited for.
NAMED = _flags("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY")
#: Also no link followed; where a system has no such flag, a file is looked at before it is opened.
OWN = NAMED | _flags("O_NOFOLLOW")
#: What replacing or removing a file raises that others have open, on systems where that keeps them from it.
IN_USE: tuple[type[OSError], ...] = (PermissionError,) if os.name == "nt" else ()


def processors() -> int:
    """Return how many processors this process may use; where the system does not say, how many there are.

    >>> processors() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Read up to ``size`` bytes of an open file from a place in it; several threads may.

    >>> with open(__file__, "rb") as file:
    ...     read_at(file.fileno(), 4, 3)
    b'What'
    """
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    with _SEEKING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


def write_at(descriptor: int, data: bytes, offset: int) -> int:
    """Write bytes at a place of an open file, and return how many."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    with _SEEKING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)


def lock(descriptor: int) -> bool:
    """Take the lock of an open file, which ends with its process; return whether it was free.

    Raises
    ------
    OSError
        The file system has no locks.
    """
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        import msvcrt

        with _SEEKING:
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except (BlockingIOError, PermissionError):
        return False
    return True


def misread(text: str) -> bool:
    """Return whether a file's name or an argument is UTF-8 that the locale of this process read as something else.

    Where it reads them as Latin-1, say, the same file would have another id, and a condition would match nothing.

    >>> misread("healthy/01_h.jpg")
    False
    """
    if text.isascii() or sys.getfilesystemencoding().lower() in {"utf-8", "utf8"}:
        return False
    try:
        os.fsencode(text).decode()
    except UnicodeError:
        return False
    return True


def terminal_pixels(descriptor: int) -> int | None:
    """Return how many pixels wide a terminal says it is; ``None`` where a system or a terminal does not say.

    Raises
    ------
    OSError
        It is no terminal.
    """
    if fcntl is None:
        return None
    import struct
    import termios

    answer = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8))
    return struct.unpack("HHHH", answer)[2] or None


def after_fork(function: Callable[[], object]) -> None:
    """Have a function called in every process that is forked off, where processes are."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def sync_folder(path: Path) -> None:
    """Flush a folder's list of names to the disk, where the system lets a folder be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def others_own(status: os.stat_result) -> bool:
    """Return whether a file belongs to somebody else than this user and root; False where files have no numbers."""
    return hasattr(os, "geteuid") and status.st_uid not in {0, os.geteuid()}


def others_write(status: os.stat_result) -> bool:
    """Return whether others may write to a file by its mode; False where modes say nothing of others."""
    return os.name == "posix" and bool(status.st_mode & 0o022)


def replace(draft: Path, path: Path) -> None:
    """Rename a file to one that may be there; where its readers are in the way, for as long as they are for moments.

    Raises
    ------
    OSError
        It cannot be; Windows refuses as long as somebody has it open.
    """
    import time

    for pause in (0.01, 0.03, 0.1, 0.3, 1.0):
        with suppress(*IN_USE):
            draft.replace(path)
            return
        time.sleep(pause)
    draft.replace(path)
