"""Exact search with the scan on one GPU or several.

The vectors lie on the GPUs in float16, split by rows; a scan there gives candidates and a score that no other row
exceeds, and the exact search goes on as it does everywhere: candidates scored again from the stored vectors, a query
that this cannot settle scanned again on the CPU. faiss's GPU indexes ignore selectors without saying so; masks and
exclusions are therefore applied here, to what comes back.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.accelerators.faiss_library import load_faiss
from retr.index.gpu import devices
from retr.index.scan.ranking import best
from retr.index.types import Scans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.types import Block

# What faiss's GPU indexes can return for a query.
_MAX_WANT = 2048
# float16 has 11 significant bits, for both factors; sums run in float32.
_ERROR = 2.1 * 2.0**-11
# faiss moves what a GPU index holds whenever it grows; filled by one call it reserves once. So vectors come in parts of
# this many float32 bytes, each an index of its own: small enough to be copied together here, and few enough that a
# query is not kept waiting by their number.
_PART_BYTES = 4 << 30
# faiss keeps two tiles of (queries x 524,288) float32 scores: so many queries stay within its temporary memory.
_BATCH = 256


class FaissScan:
    """All rows of a snapshot on GPUs.

    Parameters
    ----------
    blocks
        The vectors.
    dim
        Their length.
    max_norm
        The largest norm among them.
    numbers
        The GPUs that share the rows.

    Raises
    ------
    RetrError
        The vectors do not fit.
    """

    margin = 54

    def __init__(self, blocks: Sequence[Block], dim: int, max_norm: float, numbers: Sequence[int]) -> None:
        # Below 2**-14 a float16 loses bits: half of its last one, in every dimension, is the most a score is off by.
        self._error = _ERROR + dim * 2.0**-24 + 4 * dim**0.5 * 2.0**-25
        self._max_norm = max_norm
        self._scale = float(power_of_two(np.array([max_norm]))[0])
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(len(numbers), "gpu")
        total = sum(len(block.vectors) for block in blocks)
        bounds = np.linspace(0, total, len(numbers) + 1).astype(np.int64).tolist()
        needed = [(stop - start) * (2 * dim + 4) for start, stop in pairwise(bounds)]
        devices.require_memory(numbers, needed, f"{total} float16 vectors of {dim} dimensions")
        with devices.gpu_errors("taking the vectors"):
            self._devices = [
                self._filled(blocks, dim, number, start, stop)
                for number, (start, stop) in zip(numbers, pairwise(bounds), strict=True)
            ]

    def _filled(self, blocks: Sequence[Block], dim: int, number: int, start: int, stop: int) -> list[tuple[Any, int]]:
        """Put rows ``start`` to ``stop`` on a GPU: indexes, and the number of the first row of each."""
        faiss = load_faiss()
        resources = faiss.StandardGpuResources()
        config = faiss.GpuIndexFlatConfig()
        # cuVS, where it is built in, computes in its own way, whose error is not known.
        config.device, config.useFloat16, config.use_cuvs = number, True, False
        parts = []
        rows = max(1, _PART_BYTES // (4 * dim))
        for at in range(start, stop, rows):
            part = faiss.GpuIndexFlatIP(resources, dim, config)
            part.add(_together(blocks, at, min(at + rows, stop), self._scale))
            parts.append((part, at))
        return parts

    def reaches(self, wanted: int, allowed: NDArray[np.bool_] | None) -> bool:
        """Return whether the most that a GPU returns for a query holds so many allowed rows, and some more."""
        return wanted + self.margin <= _MAX_WANT * (1.0 if allowed is None else float(allowed.mean()))

    def __call__(
        self,
        queries: NDArray[np.float32],
        allowed: NDArray[np.bool_] | None,
        exclude: Sequence[NDArray[np.int64]],
        want: int,
    ) -> Scans:
        """Return about ``want`` candidates for each query; see `Scans`."""
        want += max(map(len, exclude), default=0)
        if allowed is not None:
            want = int(want / max(float(allowed.mean()), 1e-9))
        want = min(want, _MAX_WANT)
        norms = np.linalg.norm(queries, axis=1)
        scale = power_of_two(norms)
        with self._lock, devices.gpu_errors("searching"):
            asked = (queries * scale[:, None]).astype(np.float32)
            found = devices.in_batches(lambda batch: self._batch(batch, want), asked, _BATCH)
        rows, _, bound = (np.concatenate(part) for part in zip(*found, strict=True))
        if allowed is not None:
            rows[~allowed[rows]] = -1
        for number, excluded in enumerate(exclude):
            if len(excluded):
                rows[number, np.isin(rows[number], excluded)] = -1
        # The error of the product on either side: a score that is compared, and the bound.
        error = 2 * self._error * norms * self._max_norm
        return Scans(rows, None, bound / (scale * self._scale) + error)

    def _batch(
        self, queries: NDArray[np.float32], want: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Return rows and scores ``(n, c)`` of all GPUs together, and for each query a score no other row exceeds."""
        rows, scores = [], []
        bound = np.full(len(queries), -np.inf, np.float32)
        # One thread a GPU: they work at the same time, and no GPU is asked by two threads.
        for found in self._pool.map(lambda parts: [_search(part, queries, want) for part in parts], self._devices):
            for part_rows, part_scores, complete in found:
                if not complete:
                    np.maximum(bound, part_scores[:, -1], out=bound)
                rows.append(part_rows)
                scores.append(part_scores)
        together, score = np.concatenate(rows, axis=1), np.concatenate(scores, axis=1)
        if together.shape[1] > want:
            together, score, dropped = best(together, score, want)
            np.maximum(bound, dropped, out=bound)
        return together, score, bound


def _search(
    part: tuple[Any, int], queries: NDArray[np.float32], want: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], bool]:
    """Search one index: rows, scores, and whether these are all of its rows."""
    index, start = part
    k = min(want, index.ntotal)
    scores, found = index.search(queries, k)
    return np.where(found >= 0, found + start, -1), scores, k == index.ntotal


def power_of_two(norms: NDArray[Any]) -> NDArray[np.float64]:
    """Return factors that round nothing and bring vectors of these norms near length 1, where float16 is fine."""
    factors: NDArray[np.float64] = np.exp2(-np.round(np.log2(np.maximum(norms, 1e-15, dtype=np.float64))))
    return factors


def _together(blocks: Sequence[Block], start: int, stop: int, scale: float) -> NDArray[np.float32]:
    """Return rows ``start`` to ``stop`` as one float32 array; without a copy where they lie so already."""
    pieces = []
    for block in blocks:
        first, last = max(start - block.start, 0), min(stop - block.start, len(block.vectors))
        if first < last:
            pieces.append(block.vectors[first:last])
    if len(pieces) == 1 and scale == 1.0:
        return np.ascontiguousarray(pieces[0], np.float32)
    together = np.concatenate(pieces, dtype=np.float32, casting="same_kind")
    together *= np.float32(scale)
    return together
