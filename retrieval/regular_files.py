"""Open files named by others: regular files only, without ever blocking.

Opening a named pipe waits for whoever writes to it, opening a device may do anything, and what the kernel makes up
(``/proc``, ``/sys``) is no file of an archive even where it says that it is regular: a link there may be endless or
hold another program's memory.
"""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from retr import system

if TYPE_CHECKING:
    from io import BufferedReader

# what the kernel makes up is mounted here
_MADE_UP = ("/proc", "/sys", "/dev")


class NotRegularError(OSError):
    """What was to be opened is a folder, a pipe, a socket, a device, or made up by the kernel."""


def is_regular(info: os.stat_result) -> bool:
    """Return whether a file that ``stat`` looked at is a regular one on a disk.

    >>> is_regular(Path(os.__file__).stat()), is_regular(Path("/dev/null").stat())
    (True, False)
    """
    return stat.S_ISREG(info.st_mode) and not is_made_up(info)


def is_made_up(info: os.stat_result) -> bool:
    """Return whether a file or folder lies where the kernel makes them up."""
    return info.st_dev in _devices()


def open_regular(path: Path | str) -> BufferedReader:
    """Open a regular file for reading; links are followed.

    Raises
    ------
    NotRegularError
        It is none.
    OSError, ValueError
        As `open` raises them.
    """
    # looked at before it is opened, since opening alone can do something; and after, since it may be another by then
    if not is_regular(Path(path).stat()):
        raise NotRegularError
    descriptor = os.open(path, os.O_RDONLY | system.NAMED)
    stream = os.fdopen(descriptor, "rb")
    if not is_regular(os.fstat(descriptor)):
        stream.close()
        raise NotRegularError
    return stream


@cache
def _devices() -> frozenset[int]:
    found = {Path(place).stat().st_dev for place in _MADE_UP if Path(place).is_dir()}
    # where they are plain folders, as in some containers, nothing is made up
    return frozenset(found - {Path("/").stat().st_dev})
