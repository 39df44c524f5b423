"""Which files this machine has read for an index, and in which state: size and mtime alone are no identity.

Files that change places, copies that keep times and tools that put times back leave size and mtime as they were, not
the inode and the time of the inode's last change (ctime), which no program sets. Those belong to a machine, so they
are kept in its state folder and not in the index. What is kept of a file is one 64-bit hash of its path, inode, ctime
and content, 8 bytes; with the content in it, a hash says nothing of an index that was put back from a copy::

    <state folder>/files/<index uuid>[.<hash of the source's name>].u64
"""

from __future__ import annotations

from array import array
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from retr.index.machine.state import state_folder
from retr.index.machine.whole_file import write_if_possible

if TYPE_CHECKING:
    from pathlib import Path


_APPENDED = 4096


class FileStates:
    """The states of one source's files that this machine has read.

    Attributes
    ----------
    any
        Whether this machine has read the source before.
    """

    def __init__(self, uuid: str, name: str) -> None:
        key = f"{uuid}.{_hash(name):016x}" if name else uuid
        self._file: Path = state_folder() / "files" / f"{key}.u64"
        try:
            data = self._file.read_bytes()
        except OSError:
            data = b""
        self.any = bool(data)
        # an append that was cut leaves part of a number
        self._states = np.unique(np.frombuffer(data[: len(data) // 8 * 8], "<u8"))
        self._kept = np.zeros(len(self._states), np.bool_)
        self._new = array("Q")
        self._appended = 0

    def knows(self, path: str, stamp: str, content: int) -> bool:
        """Return whether the file was read in this state, and keep that.

        Parameters
        ----------
        path
            The row's.
        stamp
            The item's.
        content
            Of what the index has of the file, see `content_key`.
        """
        state = _hash(f"{path}\0{stamp}\0{content}")
        place = int(self._states.searchsorted(np.uint64(state)))
        known = place < len(self._states) and int(self._states[place]) == state
        if known:
            self._kept[place] = True
        return known

    def note(self, path: str, stamp: str, content: int) -> None:
        """Remember that the file has been read in this state."""
        self._new.append(_hash(f"{path}\0{stamp}\0{content}"))
        if len(self._new) - self._appended >= _APPENDED:
            self.append()

    def append(self) -> None:
        """Write down what is new, so that a build that is killed need not read it again."""
        fresh = np.array(self._new[self._appended :], "<u8")
        self._appended = len(self._new)
        if not len(fresh):
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as stream:
                stream.write(fresh.tobytes())
        except OSError:
            return

    def settle(self) -> bool:
        """Write down the states that a whole build has seen, and no others; False where nothing can be written."""
        states = np.concatenate([self._states[self._kept], np.array(self._new, "<u8")])
        return write_if_possible(self._file, np.unique(states).astype("<u8").tobytes())


def forget_states(uuid: str) -> None:
    """Forget what was read for an index: a hash tells whoever guesses a path and a content that it was there."""
    with suppress(OSError):
        for file in (state_folder() / "files").glob(f"{uuid}*.u64"):
            file.unlink(missing_ok=True)


def content_key(sha256: str) -> int:
    """Return what stands for a content in a state: the first eight digits of its hash as a number.

    >>> content_key("00000001" + 56 * "0") == content_key("00000001") != content_key("00000002")
    True
    """
    return int.from_bytes(sha256[:8].encode().ljust(8), "little")


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")
