"""Exact search with the scan on one GPU or several.

The vectors lie on the GPUs in float16, split by rows; a scan there gives candidates and a score that no other row
exceeds, and the exact search goes on as it does everywhere: candidates scored again from the stored vectors, a query
that this cannot settle scanned again on the CPU. faiss's GPU indexes ignore selectors without saying so; masks and
exclusions are therefore applied here, to what comes back.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.ann import load_faiss
from retr.index.errors import UsageError
from retr.index.exact import Scan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.exact import Block

# What faiss's GPU indexes can return for a query.
MAX_K = 2048
# float16 has 11 significant bits, for both factors; sums run in float32.
_ERROR = 2.1 * 2.0**-11
_CHUNK_ROWS = 100_000
_BATCH = 2048


class GpuScan:
    """All rows of a snapshot on the GPUs.

    Raises
    ------
    UsageError
        faiss sees no GPU.
    MissingExtraError
        faiss is not installed.
    """

    margin = 64

    def __init__(self, blocks: Sequence[Block], dim: int) -> None:
        faiss = load_faiss()
        count = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
        if count == 0:
            raise UsageError("faiss sees no GPU", hint='install `pip install "retr[gpu]"`, or search on the CPU')
        self.error = _ERROR + dim * 2.0**-24
        total = sum(len(block.vectors) for block in blocks)
        bounds = np.linspace(0, total, count + 1).astype(np.int64)
        self._shards = []
        for device, (start, stop) in enumerate(pairwise(bounds.tolist())):
            if start < stop:
                shard = _flat(faiss, dim, device)
                for block in blocks:
                    _add(shard, block, start, stop)
                self._shards.append((shard, start))

    def __call__(
        self,
        queries: NDArray[np.float32],
        allowed: NDArray[np.bool_] | None,
        exclude: Sequence[NDArray[np.int64]],
        want: int,
    ) -> list[Scan]:
        """Give up to ``want`` candidates for each query; see `exact.scan`."""
        scans = []
        for at in range(0, len(queries), _BATCH):
            scans += self._batch(queries[at : at + _BATCH], allowed, exclude[at : at + _BATCH], min(want, MAX_K))
        return scans

    def _batch(
        self,
        queries: NDArray[np.float32],
        allowed: NDArray[np.bool_] | None,
        exclude: Sequence[NDArray[np.int64]],
        want: int,
    ) -> list[Scan]:
        rows, scores = [], []
        floor = np.full(len(queries), -np.inf, np.float32)
        for shard, start in self._shards:
            k = min(want, shard.ntotal)
            found_scores, found = shard.search(queries, k)
            if k < shard.ntotal:
                np.maximum(floor, found_scores[:, -1], out=floor)
            rows.append(np.where(found >= 0, found + start, -1))
            scores.append(found_scores)
        together, score = np.concatenate(rows, axis=1), np.concatenate(scores, axis=1)
        keep = together >= 0
        if allowed is not None:
            keep &= allowed[together]
        scans = []
        for number, excluded in enumerate(exclude):
            mine = keep[number]
            if len(excluded):
                mine &= ~np.isin(together[number], excluded)
            scans.append(Scan(together[number, mine], score[number, mine], float(floor[number])))
        return scans


def _flat(faiss: Any, dim: int, device: int) -> Any:
    config = faiss.GpuIndexFlatConfig()
    config.useFloat16 = True
    config.device = device
    return faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), dim, config)


def _add(shard: Any, block: Block, start: int, stop: int) -> None:
    """Add the rows of a block that lie between ``start`` and ``stop``, in pieces."""
    first, last = max(start - block.start, 0), min(stop - block.start, len(block.vectors))
    for at in range(first, last, _CHUNK_ROWS):
        shard.add(np.ascontiguousarray(block.vectors[at : min(at + _CHUNK_ROWS, last)], np.float32))
