"""Embed files away from their index: what a part of a build does, and a machine of a cluster.

What comes out is what the index's own threads and network would have made of the files
(`retr.retrieval.ingest.reading`), to the last bit, since a vector depends on its picture alone. What the index holds
already is settled where it is written.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retr import system
from retr.retrieval.ingest.decode import Decoder, Read, Unchanged, read_for
from retr.retrieval.ingest.network import EmbeddingThread, network_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from retr.retrieval.archive.sources import Item, Skipped, Source
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.read_options import ReadOptions

# an item, and whether the index needs no vector of a file with some sha256
Asked = tuple["Item", "Callable[[str], bool]"]


class _AwayDecoder(Decoder):
    """Notes a header's hashed identifiers, which the index may have to ask for, and passes over what it holds."""

    def known(self, read: Read, data: bytes | None, rows: int) -> Read | Unchanged | None:  # noqa: ARG002
        assert data is not None
        read.stated.update(self.stated(data))
        return read if self.holds(read.item, read.sha256) else None


@dataclass(frozen=True)
class _Held:
    held: Callable[[str], bool]

    def __call__(self, item: Item, sha256: str) -> bool:  # noqa: ARG002
        return self.held(sha256)


def _none(sha256: str) -> tuple[int, ...]:  # noqa: ARG001
    return ()


@dataclass(frozen=True)
class How:
    """How files become vectors, the same for all parts of a build.

    Attributes
    ----------
    reading
        How files are read.
    scores
        Findings that are scored.
    """

    reading: ReadOptions
    scores: tuple[str, ...] = ()


class AwayEmbedder:
    """Reads files and embeds their pictures; safe to call from several threads, which share its own.

    Parameters
    ----------
    source, encoder
        Where the files are, and who embeds.
    key
        Returns the key of hashed identifiers; asked for when the first file has some.
    workers
        How many threads decode; by default as many as there are cores.
    """

    def __init__(
        self, source: Source, encoder: BaseEncoder, how: How, key: Callable[[], bytes], workers: int | None = None
    ) -> None:
        self._source, self._encoder, self._how, self._key = source, encoder, how, key
        workers = workers or max(getattr(source, "parallel", 1), system.processors())
        self._ahead = encoder.batch_size + 2 * workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._network = network_thread()

    def embed(self, asked: Sequence[Asked]) -> list[Read | Skipped]:
        """Read some files.

        Returns
        -------
        list
            For each a record of why it cannot be read, or what was read: without pictures where the index needs none,
            else each with its vector.
        """
        network = EmbeddingThread(self._encoder, self._how.scores, self._network)
        window: deque[Future[list[Read | Unchanged | Skipped]]] = deque()
        found: list[Read | Skipped] = []

        def take() -> None:
            result = window.popleft().result()[0]
            assert not isinstance(result, Unchanged)
            found.append(result)
            if isinstance(result, Read):
                for _ in network.embed(result.frames):
                    pass

        for item, held in asked:
            decoder = _AwayDecoder(self._source, self._encoder, self._key, _Held(held), _none, self._how.reading)
            window.append(self._pool.submit(read_for, [(decoder, item, 0)]))
            if len(window) >= self._ahead:
                take()
        while window:
            take()
        for _ in network.embed([], everything=True):
            pass
        return found

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)
        self._network.shutdown(cancel_futures=True)
