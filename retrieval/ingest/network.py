"""Embed batches in a thread of their own, while the next is decoded and the last is committed.

At most `BATCHES_AHEAD` batches are with it, one that runs and one that lies ready: it waits for neither disk nor
decoder where these keep up, and memory stays bounded. Batches come back in the order of their pictures.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from retr.retrieval.encoders.runtime.batches import encode_stacks, stack_batch
from retr.retrieval.ingest.rows import score_column

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.ingest.decode import Frame

BATCHES_AHEAD = 2


def network_thread() -> ThreadPoolExecutor:
    """Return a thread for networks to run in."""
    return ThreadPoolExecutor(1, thread_name_prefix="network")


class EmbeddingThread:
    """Embeds pictures in batches; a context, at whose end the thread is gone.

    Parameters
    ----------
    encoder
        Called from the one thread only, but for ``stack``.
    findings
        Also scored, see `encode_stacks`.
    thread
        The thread to run in, which several may share: their networks then take turns.
    """

    def __init__(self, encoder: BaseEncoder, findings: Sequence[str], thread: ThreadPoolExecutor | None = None) -> None:
        self._encoder = encoder
        self._findings = tuple(findings)
        self._thread = thread or network_thread()
        self._queue: list[Frame] = []
        self._running: deque[tuple[list[Frame], Future[tuple[NDArray[np.float32], NDArray[np.float32]]]]] = deque()

    @property
    def pictures(self) -> int:
        """How many pictures may be here at once, the batch being filled among them."""
        return (BATCHES_AHEAD + 1) * self._encoder.batch_size

    def embed(self, frames: Sequence[Frame], *, everything: bool = False) -> Iterator[None]:
        """Take pictures in; yield whenever a batch of them has its vectors.

        Parameters
        ----------
        frames
            Join those that wait for a full batch.
        everything
            Embed also what fills no batch, and wait for all of it.

        Raises
        ------
        BaseException
            Whatever the encoder raised.
        """
        self._queue += frames
        size = self._encoder.batch_size
        while len(self._queue) >= size or (everything and self._queue):
            while len(self._running) >= BATCHES_AHEAD:
                self._receive()
                yield
            batch, self._queue = self._queue[:size], self._queue[size:]
            stacks = stack_batch(self._encoder, [frame.prepared for frame in batch if frame.prepared is not None])
            for frame in batch:
                frame.prepared = None
            self._running.append((batch, self._thread.submit(encode_stacks, self._encoder, stacks, self._findings)))
        while self._running and (everything or self._running[0][1].done()):
            self._receive()
            yield

    def _receive(self) -> None:
        """Wait for the oldest batch; set the vectors of its pictures."""
        batch, embedded = self._running.popleft()
        columns = [score_column(finding) for finding in self._findings]
        for frame, vector, scores in zip(batch, *embedded.result(), strict=True):
            frame.vector = vector
            frame.columns |= dict(zip(columns, scores.tolist(), strict=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)
