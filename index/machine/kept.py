"""Files of the cache that decide what runs: behind their own sha256, and only where this user or root owns them."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from retr import system
from retr.index.machine.whole_file import write_whole

if TYPE_CHECKING:
    from pathlib import Path

_DIGEST = 32


def read_kept(file: Path) -> bytes:
    """Return what `keep` wrote.

    Raises
    ------
    OSError
        There is no such file, or it cannot be read.
    ValueError
        It is not what was written, or another user's.
    """
    with file.open("rb") as stream:
        # systems without users' numbers protect the folder otherwise
        if system.others_own(os.fstat(stream.fileno())):
            raise ValueError("of another user")
        data = stream.read()
    if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
        raise ValueError("cut short or changed")
    return data[_DIGEST:]


def keep(file: Path, data: bytes) -> None:
    """Write a file whole, with its folder; where the cache cannot be written nothing is kept."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, hashlib.sha256(data).digest() + data)
