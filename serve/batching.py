"""Questions of several requests, answered together: what arrived while others were being answered is one call.

One picture through the network costs nearly as much as several, and one scan of the vectors as much as a dozen, so that
gathering pays as soon as there are others. A lone question waits for nobody; one that comes beside a call that runs
waits a few milliseconds for those that will come back from there.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


class Busy(Exception):  # noqa: N818 - an answer to a client, 503, rather than a fault
    """So many questions wait already that another would only wait longer."""


class Batcher(Generic[Item, Result]):
    """Gathers items under a key and hands those of one key to a function together.

    Parameters
    ----------
    answer
        Called in a thread of its own with a key and a list of items; returns as many results, in order.
    threads
        How many calls run at once.
    most
        Items of one call.
    wait
        Seconds for which an item waits for others while another call runs; while none does, it does not wait.
    waiting
        Items that may wait; beyond that `submit` raises `Busy`.
    """

    def __init__(
        self,
        answer: Callable[[Hashable, list[Item]], Sequence[Result]],
        *,
        threads: int = 2,
        most: int = 32,
        wait: float = 0.003,
        waiting: int = 1000,
    ) -> None:
        self._answer, self._most, self._wait = answer, most, wait
        self._calls, self._counting = 0, threading.Lock()
        self._queue: queue.Queue[tuple[Hashable, Item, Future[Result]] | None] = queue.Queue(waiting)
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, key: Hashable, item: Item) -> Future[Result]:
        """Ask; the future holds the result, or the error that this item alone raises."""
        future: Future[Result] = Future()
        try:
            self._queue.put_nowait((key, item, future))
        except queue.Full:
            raise Busy from None
        return future

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        # no variable here: while the thread waits, nothing holds an answer, and with it the snapshot it was found in
        while self._gather(self._queue.get()):
            pass

    def _gather(self, first: tuple[Hashable, Item, Future[Result]] | None) -> bool:
        """Answer an item and those that come right after it; return whether there is more to do."""
        if first is None:
            return False
        gathered = [first]
        until = time.monotonic() + self._wait
        with contextlib.suppress(queue.Empty):
            while len(gathered) < self._most:
                left = until - time.monotonic() if self._calls else 0.0
                other = self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
                if other is None:
                    self._queue.put(None)
                    break
                gathered.append(other)
        by_key: dict[Hashable, list[tuple[Item, Future[Result]]]] = {}
        for key, item, future in gathered:
            # a client that is gone by now is not answered
            if future.set_running_or_notify_cancel():
                by_key.setdefault(key, []).append((item, future))
        self._count(1)
        try:
            for key, asked in by_key.items():
                self._call(key, asked)
        finally:
            self._count(-1)
        return True

    def _count(self, more: int) -> None:
        with self._counting:
            self._calls += more

    def _call(self, key: Hashable, asked: list[tuple[Item, Future[Result]]]) -> None:
        try:
            results = self._answer(key, [item for item, _ in asked])
        except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it is
            if len(asked) == 1:
                # without its frames, which hold the snapshot that was asked, and this future, and so one another
                asked[0][1].set_exception(error.with_traceback(None))
                return
            # one question of the batch is at fault: each is asked alone, and that one alone fails
            for one in asked:
                self._call(key, [one])
            return
        for (_, future), result in zip(asked, results, strict=True):
            future.set_result(result)
