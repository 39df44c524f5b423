"""The scan of all vectors for a few queries, by faiss: it multiplies them as they lie, at the rate of the memory.

It keeps the best while it reads, and float16 numbers, of which numpy has no product, need not be made wide first. One
to three queries are worth this; a batch reads each vector once for all its queries (`products`).
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.ann import load_faiss, view
from retr.index.errors import MissingExtraError
from retr.index.exact import Scan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.exact import Block

# Beyond these, a product of matrices costs less.
_MAX_QUERIES = 3
# faiss keeps the best in a heap, which is cheap while it is small.
_MAX_K = 256
# Fewer values are scored before the threads have started, and before faiss is loaded.
_MIN_VALUES = 1 << 20
_MIN_VALUES_UNLOADED = 1 << 27


def flat_scan(blocks: Sequence[Block], n_queries: int, k: int) -> FlatScan | None:
    """Give the scan where it is the fastest: few queries, and faiss at hand or worth loading."""
    if n_queries > _MAX_QUERIES or k > _MAX_K:
        return None
    least = _MIN_VALUES if "faiss" in sys.modules else _MIN_VALUES_UNLOADED
    if sum(block.vectors.size for block in blocks) < least:
        return None
    try:
        return FlatScan(blocks)
    except MissingExtraError:
        return None


class FlatScan:
    """All rows of a snapshot as faiss sees them, without a copy.

    Raises
    ------
    MissingExtraError
        faiss is not installed.
    """

    margin = 16

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._faiss = load_faiss()
        self._threads = self._faiss.omp_get_max_threads()
        # How wide its sums are depends on the processor; one by one is the worst.
        self.error = (max((block.vectors.shape[1] for block in blocks), default=0) + 2) * 2.0**-24
        self._parts = []
        for block in blocks:
            bounds = np.linspace(0, len(block.vectors), self._threads + 1).astype(np.int64)
            for start, stop in pairwise(bounds.tolist()):
                if start < stop:
                    self._parts.append((view(block.vectors[start:stop]), block.start + start))

    def __call__(
        self,
        queries: NDArray[np.float32],
        allowed: NDArray[np.bool_] | None,
        exclude: Sequence[NDArray[np.int64]],
        want: int,
    ) -> list[Scan]:
        """Give about ``want`` candidates for each query from each part; see `exact.scan`."""
        # faiss divides queries among threads; here one query's rows are divided instead.
        with ThreadPoolExecutor(self._threads, initializer=partial(self._faiss.omp_set_num_threads, 1)) as pool:
            scans = []
            for query, excluded in zip(queries, exclude, strict=True):
                one = partial(self._scan, query[None], allowed, excluded, want)
                found = list(pool.map(one, self._parts))
                rows, scores = (np.concatenate([part[place] for part in found]) for place in (0, 1))
                scans.append(Scan(rows, scores, max(part[2] for part in found)))
        return scans

    def _scan(
        self,
        query: NDArray[np.float32],
        allowed: NDArray[np.bool_] | None,
        excluded: NDArray[np.int64],
        want: int,
        part: tuple[Any, int],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], float]:
        """Give the rows, the scores, and the score that no other row of one part exceeds."""
        flat, start = part
        total = allowed_here = flat.ntotal
        options = None
        if allowed is not None or len(excluded):
            mask = np.ones(total, bool) if allowed is None else allowed[start : start + total].copy()
            mask[excluded[(excluded >= start) & (excluded < start + total)] - start] = False
            allowed_here = int(np.count_nonzero(mask))
            bits = np.packbits(mask, bitorder="little")
            options = self._faiss.SearchParameters(sel=self._faiss.IDSelectorBitmap(bits))
        scores, rows = flat.search(query, min(want, total), params=options)
        found = rows[0] >= 0
        floor = float(scores[0, -1]) if want < allowed_here else -np.inf
        return rows[0, found] + start, scores[0, found], floor
