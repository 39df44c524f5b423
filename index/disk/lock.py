"""One writer at a time: an advisory lock that ends with its process.

The lock is the system's (`retr.system`) on the file ``lock`` in the index, which ends with the process that holds it,
however that ends.
The file's text (process, host, since when) only serves the message a second writer gets. A link is not followed: what
it leads to would be emptied.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from retr import system
from retr.index.disk.files import disk_errors, regular
from retr.index.errors import IndexCorruptError, IndexLockedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_FILE = "lock"
# How long a lock that is held for moments is waited for.
_PATIENCE = 60.0
_held: set[int] = set()


def _forget_in_child() -> None:
    # A forked worker inherits the open file and with it the lock; it must not keep it when the writer dies.
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


system.after_fork(_forget_in_child)


@contextlib.contextmanager
def writer_lock(root: Path) -> Iterator[None]:
    """Hold the one-writer lock of the index at ``root``.

    Raises
    ------
    IndexLockedError
        Another writer is at work; the message names its process, host and start.
    IndexCorruptError
        The lock is a link, or something else than a file.
    """
    descriptor = _opened(root, LOCK_FILE, "opening the lock file")
    found = os.fstat(descriptor)
    # A file with a second name may be somebody's: it is locked, and stays as it is.
    ours = found.st_nlink == 1
    if not system.lock(descriptor):
        holder = _holder(descriptor)
        os.close(descriptor)
        raise IndexLockedError(
            f"another process is writing to this index ({holder})",
            hint="wait until it has ended; a process that died does not hold the lock",
        )
    _held.add(descriptor)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}, sort_keys=True)
    # A full disk must not keep anybody from deleting rows: the text is a courtesy.
    with contextlib.suppress(OSError):
        if ours:
            os.ftruncate(descriptor, 0)
            system.write_at(descriptor, text.encode(), 0)
    try:
        yield
    finally:
        # A forked child has closed its copy already.
        if descriptor in _held:
            _held.discard(descriptor)
            with contextlib.suppress(OSError):
                if ours:
                    os.ftruncate(descriptor, 0)
            os.close(descriptor)


@contextlib.contextmanager
def short_lock(root: Path, name: str) -> Iterator[None]:
    """Hold a lock that everybody holds for moments, waiting for it.

    Raises
    ------
    IndexLockedError
        Somebody holds it for a minute.
    IndexCorruptError
        The lock is a link, or something else than a file.
    """
    descriptor = _opened(root, name, f"opening {name!r}")
    _held.add(descriptor)
    try:
        end, pause = time.monotonic() + _PATIENCE, 0.001
        while not system.lock(descriptor):
            if time.monotonic() > end:
                raise IndexLockedError(
                    "another process keeps this index from being saved to", hint="wait until its purge has ended"
                )
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        yield
    finally:
        # A forked child has closed its copy already.
        if descriptor in _held:
            _held.discard(descriptor)
            os.close(descriptor)


def _opened(root: Path, name: str, doing: str) -> int:
    """Open a lock's file, which is made where there is none."""
    with contextlib.suppress(FileNotFoundError):
        regular(root, name)
    with disk_errors(doing):
        flags = os.O_RDWR | os.O_CREAT | system.OWN
        descriptor = os.open(root / name, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IndexCorruptError(f"{name!r} is not a file any more", hint="restore the index from a copy")
    return descriptor


def _holder(descriptor: int) -> str:
    try:
        text = json.loads(system.read_at(descriptor, 1000, 0).decode())
        return f"pid {text['pid']} on {text['host']} since {text['since']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "its name is not known"
