"""Searching inverted lists of RaBitQ codes: one bit a dimension, refined from the stored vectors.

The codes are faiss's (``IndexIVFRaBitQ``: Gao and Long, 2024, https://arxiv.org/abs/2405.12497); how they are read is
ours. A row x in the list of the centroid c has the bits b of the signs of x - c, rotated. The estimate of its product
with a query q is linear in q, so that all that depends on x and c alone is worked out once:

    <x, q> ~ <c, q> + factor * (2 <b, q> - sum(q)) + shift

The query is rounded to 5 bits a dimension; ``<b, q>`` is then a matter of counting bits, the same for every list. (The
readers in faiss subtract the centroid from the query and make a table for each list they visit; at a few hundred rows
a list that takes most of their time.) The best estimates are scored again on the stored vectors.

A query is answered in the same way alone and among others.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index import kernels
from retr.index.candidates import Candidates
from retr.index.config import IVF
from retr.index.errors import IndexCorruptError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.index.config import Config
    from retr.index.rotation import Rotation

_LOGGER = logging.getLogger("retr")
# A wait shorter than this, in seconds, needs no explanation.
_PATIENCE = 2.0
_ALL = np.empty(0, bool)
# Fewer queries a thread are answered before the threads have started.
_QUERIES_PER_THREAD = 4


class BitLists:
    """Inverted lists as faiss read them, laid out for scanning: the words of a list's codes side by side.

    Parameters
    ----------
    index
        faiss's ``IndexIVFRaBitQ``, trained on rotated vectors; not needed afterwards.
    rotation
        What its vectors and centroids were rotated by.
    vectors
        The stored vectors ``(n, d)``, float32 or float16.
    threads
        How many may work on a batch.

    Raises
    ------
    IndexCorruptError
        The lists hold other rows than the vectors.
    """

    def __init__(self, index: Any, rotation: Rotation, vectors: NDArray[Any], *, threads: int) -> None:
        import faiss

        self._rotation = rotation
        self._threads = threads
        self._vectors = vectors.view(np.uint16) if vectors.dtype == np.float16 else vectors
        self._centroids = index.quantizer.reconstruct_n(0, index.nlist)
        self._guide = _coded(self._centroids)
        sizes = [index.invlists.list_size(number) for number in range(index.nlist)]
        self._bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        words = -(-index.d // 64)
        self._codes = np.empty(words * len(vectors) + kernels.PADDING, np.uint64)
        self._factor, self._shift, self._ones = np.empty((3, len(vectors)), np.float32)
        self._rows = np.empty(len(vectors), np.int32)
        for number, (start, size) in enumerate(zip(self._bounds.tolist(), sizes, strict=False)):
            part = slice(start, start + size)
            packed = faiss.rev_swig_ptr(index.invlists.get_codes(number), size * index.code_size).view(np.uint8)
            codes = self._codes[start * words : (start + size) * words].reshape(words, size)
            out = codes, self._factor[part], self._shift[part], self._ones[part]
            kernels.unpack(packed.reshape(size, index.code_size), self._centroids[number], *out)
            self._rows[part] = faiss.rev_swig_ptr(index.invlists.get_ids(number), size)
        if self._bounds[-1] != len(vectors) or self._rows.min() < 0 or self._rows.max() >= len(vectors):
            # What is compiled does not look where it reads.
            raise IndexCorruptError("an accelerator names rows that are not there", hint="run `retr index tune` again")
        notice = threading.Timer(_PATIENCE, _LOGGER.info, ["compiling the search for this processor, once"])
        notice.start()
        try:
            self.search(self._centroids[:1], 1, IVF(probes=1, refine=1))
        finally:
            notice.cancel()

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        config: Config,
        *,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Candidates:
        """Propose about ``k`` rows for each query; see `Accelerator.search`."""
        if not isinstance(config, IVF):
            raise TypeError(type(config).__name__)
        probes = min(config.probes, len(self._centroids))
        n = len(queries)
        rows, scores = np.empty((n, k), np.int64), np.empty((n, k), np.float32)

        def some(part: slice) -> None:
            rotated = self._rotation(queries[part])
            lists = np.empty((len(rotated), probes), np.int64)
            offers = np.empty(lists.shape, np.float32)
            kernels.nearest_lists(rotated, probes, self._centroids, *self._guide, lists, offers)
            kernels.search_lists(
                queries[part],
                rotated,
                lists,
                offers,
                k * config.refine,
                self._vectors,
                _ALL if allowed is None else allowed,
                self._codes,
                self._factor,
                self._shift,
                self._ones,
                self._rows,
                self._bounds,
                rows[part],
                scores[part],
            )

        threads = min(self._threads, n // _QUERIES_PER_THREAD)
        if threads < 2:
            some(slice(None))
        else:
            step = -(-n // threads)
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(some, [slice(start, start + step) for start in range(0, n, step)]))
        return Candidates(rows, scores)


def _coded(centroids: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    """Code the centroids ``(n, d)`` as one list: what `kernels.unpack` gives of rows."""
    n, dim = centroids.shape
    middle = centroids.mean(axis=0)
    aside = centroids - middle
    bits = aside > 0
    along = np.abs(aside).sum(axis=1)
    factor = np.square(aside).sum(axis=1) / np.where(along > 0, along, 1)
    shift = aside @ middle - factor * (2 * (bits @ middle) - middle.sum())
    codes = np.zeros((n, -(-dim // 64) * 8), np.uint8)
    codes[:, : -(-dim // 8)] = np.packbits(bits, axis=1, bitorder="little")
    words = np.zeros(codes.size // 8 + kernels.PADDING, np.uint64)
    words[: codes.size // 8] = codes.view(np.uint64).T.reshape(-1)
    return words, *(part.astype(np.float32) for part in (factor, shift, bits.sum(axis=1)))
