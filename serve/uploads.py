"""Pictures that were uploaded for several questions: held in memory for a while, never on disk."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retr import UsageError

if TYPE_CHECKING:
    from retr import Picture

KEPT_SECONDS = 1800


@dataclass
class Upload:
    """One upload: the picture that was read, whose token brought it, and when it was last used."""

    picture: Picture
    owner: str
    used: float
    data: bytes = b""
    digest: str = ""

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return 3 * self.picture.image.width * self.picture.image.height + len(self.data)


class Uploads:
    """The uploads of a server; the least recently used go first where they need more than ``most`` bytes."""

    def __init__(self, most: int = 512 << 20, seconds: float = KEPT_SECONDS) -> None:
        self._most, self._seconds = most, seconds
        self._held: dict[str, Upload] = {}
        self._lock = threading.Lock()

    def add(self, picture: Picture, owner: str, data: bytes = b"", digest: str = "") -> str:
        """Hold a picture, and the file of one with more to see in it; return its name, which cannot be guessed."""
        name = secrets.token_urlsafe(18)
        with self._lock:
            self._held[name] = Upload(picture, owner, time.monotonic(), data, digest)
            self._drop()
        return name

    def digest(self, name: str) -> str:
        """Return the SHA-256 of an upload's bytes; empty where it is not held any more."""
        with self._lock:
            held = self._held.get(name)
            return "" if held is None else held.digest

    def of(self, name: str, owner: str) -> Picture:
        """Return the picture of an upload; see `held`."""
        return self.held(name, owner).picture

    def held(self, name: str, owner: str) -> Upload:
        """Return an upload of the same owner.

        Raises
        ------
        UsageError
            There is none of that name, or not any more.
        """
        with self._lock:
            self._drop()
            held = self._held.pop(name, None)
            if held is not None:
                self._held[name] = held
            if held is None or held.owner != owner:
                raise UsageError("that upload is not held any more", hint="upload the picture again")
            held.used = time.monotonic()
            return held

    def _drop(self) -> None:
        now = time.monotonic()
        for name in [name for name, held in self._held.items() if now - held.used > self._seconds]:
            del self._held[name]
        while len(self._held) > 1 and sum(held.size for held in self._held.values()) > self._most:
            del self._held[next(iter(self._held))]
