"""Embed batches in a thread of their own, while the next is decoded and the last is committed.

At most `BATCHES_AHEAD` batches are with it, one that runs and one that lies ready: it waits for neither disk nor
decoder where these keep up, and memory stays bounded. Batches come back in the order of their pictures.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from retr.retrieval.encoders.runtime.batches import encode_batch, encode_stacks, stack_batch
from retr.retrieval.ingest.rows import score_column

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.encoders.runtime.batches import Stacks
    from retr.retrieval.ingest.decode import Frame

BATCHES_AHEAD = 2

if TYPE_CHECKING:
    # vectors and probabilities of pictures, and vectors of all their regions
    _Embedded: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]


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
        self._running: deque[tuple[list[Frame], Future[_Embedded]]] = deque()

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
            parts = [part for frame in batch for part in frame.parts]
            for frame in batch:
                frame.prepared, frame.parts = None, []
            self._running.append((batch, self._thread.submit(self._embedded, stacks, parts)))
        while self._running and (everything or self._running[0][1].done()):
            self._receive()
            yield

    def _embedded(self, stacks: Stacks, parts: Sequence[NDArray[Any]]) -> _Embedded:
        """Embed pictures, and the regions of all of them, batch by batch."""
        size = self._encoder.batch_size
        found = encode_stacks(self._encoder, stacks, self._findings)
        some = [parts[start : start + size] for start in range(0, len(parts), size)]
        regions = [encode_batch(self._encoder, inputs)[0] for inputs in some]
        return *found, np.concatenate(regions) if regions else None

    def _receive(self) -> None:
        """Wait for the oldest batch; set the vectors of its pictures."""
        batch, embedded = self._running.popleft()
        columns = [score_column(finding) for finding in self._findings]
        vectors, probabilities, regions = embedded.result()
        for number, (frame, vector, scores) in enumerate(zip(batch, vectors, probabilities, strict=True)):
            frame.vector = vector
            frame.columns |= dict(zip(columns, scores.tolist(), strict=True))
            if regions is not None:
                frame.regions = regions.reshape(len(batch), -1, regions.shape[-1])[number]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)
