"""Pictures of strangers, decoded in processes that may be killed.

A decoder that loops, eats memory or crashes takes its own process with it and nothing else. The processes are spawned,
read pictures and nothing more, may use so much memory and no file that they could write, and are replaced after a
failure and after so many pictures.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retr import ImageReadError, RetrError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from retr import Picture

_MEMORY = 4 << 30
_PICTURES_EACH = 1000


@dataclass(frozen=True)
class Limits:
    """What decoding one picture may cost."""

    seconds: float = 20.0
    memory: int = _MEMORY


class Decoders:
    """A few processes that read pictures; `read` may be called from many threads, which wait for a free one."""

    def __init__(self, count: int = 2, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._free: queue.SimpleQueue[_Decoder] = queue.SimpleQueue()
        self._all = [_Decoder(self._limits) for _ in range(count)]
        self._closed = threading.Event()
        for decoder in self._all:
            self._free.put(decoder)

    def read(self, data: bytes, **options: Any) -> Picture:
        """Read a picture from the bytes of a file, as `retr.read_picture` does.

        Raises
        ------
        ImageReadError
            It cannot be read, or took too long or too much memory.
        """
        decoder = self._free.get()
        try:
            return decoder.read(data, options)
        finally:
            self._free.put(decoder)

    def close(self) -> None:
        """End the processes."""
        for decoder in self._all:
            decoder.end()


class _Decoder:
    """One process, begun when it is first needed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._done = 0

    def read(self, data: bytes, options: dict[str, Any]) -> Picture:
        if self._process is None or not self._process.is_alive() or self._done >= _PICTURES_EACH:
            self._begin()
        assert self._pipe is not None
        self._done += 1
        answer: Any = None
        with contextlib.suppress(EOFError, OSError):
            self._pipe.send((data, options))
            slow = not self._pipe.poll(self._limits.seconds)
            answer = None if slow else self._pipe.recv()
        if answer is None:
            # it hangs, or died of what it read
            self.end()
            raise ImageReadError(
                f"the picture cannot be read here within {self._limits.seconds:g} seconds",
                reason="damaged",
                hint="convert it to PNG or JPEG",
            )
        if isinstance(answer, RetrError):
            raise answer
        picture: Picture = answer
        return picture

    def _begin(self) -> None:
        self.end()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        with theirs:
            process = context.Process(target=_work, args=(theirs, self._limits.memory), daemon=True)
            process.start()
        # one that could not be started is none
        self._process = process
        self._done = 0

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join(5)
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


def _work(pipe: Connection, memory: int) -> None:
    """Read pictures until the other end is closed."""
    import signal

    from retr import read_picture

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            data, options = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer: Any = read_picture(data, **options)
            answer.image.load()
        except RetrError as error:
            answer = error
        except MemoryError:
            answer = ImageReadError("the picture needs more memory than it may have", reason="too large")
        pipe.send(answer)
