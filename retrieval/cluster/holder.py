"""One process of a cluster that holds a shard: mapped files of the version that is asked for, and of the one before.

Who asks says with each question which state of the shard is meant, by its whole manifest. So a process that was started
anew knows what to open, and one that has not seen a commit yet does.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retr.index.disk.current import read_current
from retr.index.disk.manifest import Manifest, shard_folder
from retr.index.disk.shards import NOTE
from retr.index.disk.verified import verify_new
from retr.index.errors import IndexNotFoundError, RetrError, UsageError
from retr.index.once import Once
from retr.index.store import Store

if TYPE_CHECKING:
    from retr.index.scatter import Question

# Seconds after which a state that was followed by another is let go: what was asked of it has been answered.
_GRACE = 60.0


class Holder:
    """Made by Ray, one a shard.

    Parameters
    ----------
    path
        The folder of the whole index, as all machines see it.
    threads
        How many threads a search may use.
    """

    def __init__(self, path: str, threads: int) -> None:
        # before anything is searched: read once (`retr.index.scan.processor`)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._path = Path(path)
        self._open: dict[bytes, Once] = {}
        self._lock = threading.Lock()

    def prepare(self, manifest: bytes | None) -> str:
        """Open a state, after which others are let go, and return on which machine; ``None`` has no state follow.

        Raises
        ------
        RetrError
            The shard cannot be opened here.
        """
        if manifest is not None:
            self._store(manifest)
        with self._lock:
            before = [one for one in self._open if one != manifest]
        if before:
            timer = threading.Timer(_GRACE, self._let_go, [before])
            timer.daemon = True
            timer.start()
        return socket.gethostname()

    def answer(self, manifest: bytes, question: Question[Any]) -> Any:
        """Answer a question by one state of the shard.

        Raises
        ------
        RetrError
            The shard cannot be opened here, or the question cannot be answered.
        """
        return question.answer(self._store(manifest))

    def _let_go(self, manifests: list[bytes]) -> None:
        with self._lock:
            for manifest in manifests:
                self._open.pop(manifest, None)

    def _store(self, manifest: bytes) -> Store:
        with self._lock:
            once = self._open.setdefault(manifest, Once())
        store: Store = once("store", lambda: self._opened(Manifest.from_bytes(manifest)))
        return store

    def _opened(self, manifest: Manifest) -> Store:
        note = manifest.extra.get(NOTE)
        folder = self._path if note is None else self._path / shard_folder(note["number"])
        try:
            store = Store(folder, manifest)
            verify_new(folder, manifest, store.segments)
        except FileNotFoundError:
            raise self._missing(manifest) from None
        except OSError as error:
            said = error.strerror or type(error).__name__
            raise UsageError(f"the machine {socket.gethostname()!r} cannot read the index: {said}") from None
        return store

    def _missing(self, manifest: Manifest) -> RetrError:
        """Return why files of a state are not there."""
        name, host = self._path.name, socket.gethostname()
        try:
            newest = read_current(self._path).version
        except (RetrError, OSError):
            what = f"the machine {host!r} does not see the index {name!r}"
            return UsageError(what, hint="mount its folder there under the same name")
        what = f"version {manifest.version} of the index {name!r} is gone: the newest is {newest}"
        return IndexNotFoundError(what, hint="move on with `Index.refresh`, or open it again")
