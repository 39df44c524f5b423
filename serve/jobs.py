"""Work that takes longer than an answer may: done in a thread of its own, one after another, and asked for by name."""

from __future__ import annotations

import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from retr import RetrError, UsageError
from retr.serve.batching import Busy
from retr.serve.schemas import Job

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future


@dataclass
class _Held:
    owner: str
    asked: float = field(default_factory=time.monotonic)
    ended: float | None = None
    future: Future[dict[str, Any]] | None = None


class Jobs:
    """The jobs of a server.

    Parameters
    ----------
    waiting
        How many may be unfinished; beyond that `begin` raises `Busy`.
    kept
        How many finished ones are held for those who asked.
    """

    def __init__(self, waiting: int = 4, kept: int = 64) -> None:
        self._waiting, self._kept = waiting, kept
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="retr-job")

    def begin(self, owner: str, work: Callable[[], dict[str, Any]]) -> str:
        """Have something done, and return its name, which cannot be guessed."""
        with self._lock:
            if sum(held.ended is None for held in self._held.values()) >= self._waiting:
                raise Busy
            name, held = secrets.token_urlsafe(18), _Held(owner)
            held.future = self._thread.submit(self._run, held, work)
            self._held[name] = held
            ended = [one for one, other in self._held.items() if other.ended is not None]
            for one in ended[: max(0, len(self._held) - self._kept)]:
                del self._held[one]
        return name

    @staticmethod
    def _run(held: _Held, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return work()
        finally:
            held.ended = time.monotonic()

    def of(self, name: str, owner: str, tell: Callable[[str], str]) -> Job:
        """Return how a job of an owner stands; ``tell`` takes paths out of an error's message.

        Raises
        ------
        UsageError
            There is none of that name, or not any more.
        """
        with self._lock:
            held = self._held.get(name)
        if held is None or held.owner != owner or held.future is None:
            raise UsageError("there is no job of that name, or not any more", hint="ask for it again")
        seconds = round((held.ended or time.monotonic()) - held.asked, 3)
        if not held.future.done():
            return Job(job=name, status="running" if held.future.running() else "waiting", seconds=seconds)
        error = held.future.exception()
        if error is None:
            return Job(job=name, status="done", seconds=seconds, result=held.future.result())
        # of a fault of ours its kind alone: its message may hold an identifier
        said = tell(error.message) if isinstance(error, RetrError) else f"internal error ({type(error).__name__})"
        return Job(job=name, status="failed", seconds=seconds, error=said)

    def close(self) -> None:
        """Begin nothing further; what runs is waited for."""
        self._thread.shutdown(cancel_futures=True)
