"""Exact search with the scan on one GPU or several, by torch and Triton.

The vectors lie on the GPUs in float16, split by rows. A scan (`gpu_kernels`) finds the best score of every group of
rows, and scores the rows of the best groups again in float64: no row outside them can be better than the best group
left out, by more than the rounding to float16, whose size is measured. Masks are applied inside the scan, so a narrow
filter costs no more than none. Where Triton cannot compile (it needs a C compiler), torch does the same in more steps.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from retr.index import devices
from retr.index.exact import Scans, best
from retr.index.gpu import power_of_two
from retr.index.home import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from retr.index.exact import Block

# Rows of which only the best score leaves the registers.
GROUP = 64
# A tile of the scan: rows, values of a vector.
_ROWS, _VALUES = 128, 64
# Chosen on an H100 (benchmarks/gpu_tiles.py): queries of a tile, warps, loads under way.
_TILES = ((16, 4, 4), (32, 4, 4), (64, 4, 4), (128, 8, 4), (256, 8, 3))
# More groups than these are not chosen for a query: k above some thousands is left to the CPU.
_MAX_CHOSEN = 16_384
# Intermediate results stay below this, and so does the copy of a mask.
_TEMPORARY_BYTES = 512 << 20
# Vectors are brought over in pieces of so many bytes.
_PIECE_BYTES = 256 << 20


@dataclass(frozen=True)
class _Shard:
    """The rows that lie on one GPU.

    Attributes
    ----------
    vectors
        float16 ``(rows, dim)``, both filled up with zeros to whole tiles.
    start, rows
        The number of the first row, and how many there are.
    error
        The largest distance of a scaled vector from its float16 copy; 0 where all are exact.
    """

    vectors: torch.Tensor
    start: int
    rows: int
    error: float

    @property
    def groups(self) -> int:
        return len(self.vectors) // GROUP


class TorchScan:
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

    margin = 22

    def __init__(self, blocks: Sequence[Block], dim: int, max_norm: float, numbers: Sequence[int]) -> None:
        self._dim = -(-dim // _VALUES) * _VALUES
        self._scale = float(power_of_two(np.array([max_norm]))[0])
        self._max_norm = max_norm * self._scale
        self._lock = threading.Lock()
        self._mask: tuple[NDArray[np.bool_], list[torch.Tensor]] | None = None
        total = sum(len(block.vectors) for block in blocks)
        bounds = np.linspace(0, total, len(numbers) + 1).astype(np.int64).tolist()
        needed = [2 * self._dim * (stop - start) for start, stop in pairwise(bounds)]
        devices.require_room(numbers, needed, f"{total} float16 vectors of {dim} dimensions")
        with devices.one_line("taking the vectors"):
            self._shards = [
                self._filled(blocks, dim, _device(number), start, stop)
                for number, (start, stop) in zip(numbers, pairwise(bounds), strict=True)
            ]
            self._maxima, self._scores = _loops(self._shards[0].vectors.device)

    def _filled(self, blocks: Sequence[Block], dim: int, device: torch.device, start: int, stop: int) -> _Shard:
        """Bring rows ``start`` to ``stop`` to a device."""
        rows = stop - start
        vectors = torch.zeros((max(1, -(-rows // _ROWS)) * _ROWS, self._dim), dtype=torch.float16, device=device)
        error, step = 0.0, max(1, _PIECE_BYTES // (4 * dim))
        for block in blocks:
            first, last = max(start - block.start, 0), min(stop - block.start, len(block.vectors))
            for at in range(first, last, step):
                stored = block.vectors[at : min(at + step, last)]
                # a memory map may not be written to, of which torch warns
                piece = torch.from_numpy(np.array(stored)).to(device, torch.float32) * self._scale
                target = vectors[block.start + at - start :][: len(piece), :dim]
                target.copy_(piece)
                error = max(error, float(torch.linalg.vector_norm(piece - target, dim=1).max()))
        return _Shard(vectors, start, rows, error)

    def reaches(self, wanted: int, allowed: NDArray[np.bool_] | None) -> bool:  # noqa: ARG002
        """Say whether so many rows are found for a query; a filter does not matter."""
        return wanted + self.margin < _MAX_CHOSEN

    def __call__(
        self,
        queries: NDArray[np.float32],
        allowed: NDArray[np.bool_] | None,
        exclude: Sequence[NDArray[np.int64]],
        want: int,
    ) -> Scans:
        """Return about ``want`` candidates for each query; see `exact.Scans`."""
        scale = power_of_two(np.linalg.norm(queries, axis=1))
        asked = (queries * scale[:, None]).astype(np.float32)
        unscaled = scale[:, None] * self._scale
        with self._lock, devices.one_line("searching"):
            masks = self._masks(allowed)
            numbers = np.arange(len(queries))
            parts = devices.in_batches(
                lambda some: self._batch(asked[some], masks, [exclude[i] for i in some], want),
                numbers,
                self._batch_size(want + max(map(len, exclude), default=0)),
            )
        rows, scores, floor = (np.concatenate(part) for part in zip(*parts, strict=True))
        exactly = all(shard.error == 0 for shard in self._shards)
        return Scans(rows, scores / unscaled if exactly else None, floor / unscaled[:, 0])

    def _batch_size(self, chosen: int) -> int:
        """Return how many queries the temporary memory holds."""
        each = max(4 * 3 * shard.groups + 8 * 4 * GROUP * min(chosen, shard.groups) for shard in self._shards)
        # whole tiles of queries
        fitting = max(1, _TEMPORARY_BYTES // each)
        return fitting if fitting < _TILES[-1][0] else fitting // _TILES[-1][0] * _TILES[-1][0]

    def _masks(self, allowed: NDArray[np.bool_] | None) -> list[torch.Tensor | None]:
        """Bring a mask to the devices; the last one stays there, since deletions come with every search."""
        if allowed is None:
            return [None] * len(self._shards)
        if self._mask is None or self._mask[0] is not allowed or allowed.flags.writeable:
            parts = [allowed[shard.start : shard.start + shard.rows] for shard in self._shards]
            there = [
                torch.from_numpy(part.astype(np.uint8)).to(shard.vectors.device)
                for part, shard in zip(parts, self._shards, strict=True)
            ]
            self._mask = allowed, there
        return list(self._mask[1])

    def _batch(
        self,
        queries: NDArray[np.float32],
        masks: Sequence[torch.Tensor | None],
        exclude: Sequence[NDArray[np.int64]],
        want: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return rows and scores ``(n, c)`` of all GPUs together, and for each query a score that no other exceeds."""
        # all are started before the first is waited for: they work at the same time
        started = [
            self._start(shard, queries, mask, exclude, want) for shard, mask in zip(self._shards, masks, strict=True)
        ]
        found = [tuple(part.cpu().numpy() for part in parts) for parts in started]
        rows, scores, floors = (list(part) for part in zip(*found, strict=True))
        together, score = np.concatenate(rows, axis=1), np.concatenate(scores, axis=1)
        floor: NDArray[np.float64] = np.stack(floors).max(axis=0)
        if together.shape[1] > want:
            together, score, dropped = best(together, score, want)
            error = max(shard.error for shard in self._shards) * np.linalg.norm(queries, axis=1)
            np.maximum(floor, dropped + error, out=floor)
        return np.where(np.isneginf(score), -1, together), score, floor

    def _start(
        self,
        shard: _Shard,
        queries: NDArray[np.float32],
        mask: torch.Tensor | None,
        exclude: Sequence[NDArray[np.int64]],
        want: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Start the scan of one GPU's rows."""
        device, n = shard.vectors.device, len(queries)
        full = torch.zeros((n, self._dim), dtype=torch.float32)
        full[:, : queries.shape[1]] = torch.from_numpy(queries)
        full = full.to(device)
        halves = full.half()
        maxima = self._maxima(shard, halves, mask)
        hidden = max(map(len, exclude), default=0)
        chosen = min(want + hidden, shard.groups)
        top = torch.topk(maxima, min(chosen + 1, shard.groups))
        rows = (top.indices[:, :chosen, None] * GROUP + torch.arange(GROUP, device=device)).flatten(1)
        scores = self._scores(shard, full, top.indices[:, :chosen].contiguous(), mask)
        if hidden:
            scores.masked_fill_(_among(rows, exclude, shard), -torch.inf)
        norms = torch.linalg.vector_norm(full.double(), dim=1)
        # the query's rounding times the longest vector, the vectors' rounding, and that of the sums
        rounded = torch.linalg.vector_norm((full - halves).double(), dim=1) * self._max_norm
        bound = rounded + norms * (shard.error + self._max_norm * self._dim * 2.0**-23)
        floor = torch.full((n,), -torch.inf, dtype=torch.float64, device=device)
        if chosen < shard.groups:
            floor = top.values[:, chosen].double() + bound
        kept = torch.topk(scores, min(want + 1, scores.shape[1]))
        if kept.values.shape[1] > want:
            floor = torch.maximum(floor, kept.values[:, want] + norms * shard.error)
        at = kept.indices[:, :want]
        return torch.gather(rows, 1, at) + shard.start, kept.values[:, :want], floor


def _device(number: int) -> torch.device:
    return torch.device("cuda", number)


def _among(rows: torch.Tensor, exclude: Sequence[NDArray[np.int64]], shard: _Shard) -> torch.Tensor:
    """Say which of a shard's rows ``(n, c)`` are among those excluded for their query."""
    width = shard.groups * GROUP
    keys = [
        number * width + part[(part >= shard.start) & (part < shard.start + shard.rows)] - shard.start
        for number, part in enumerate(exclude)
    ]
    owner = torch.arange(len(rows), device=rows.device)[:, None] * width
    found: torch.Tensor = torch.isin(rows + owner, torch.from_numpy(np.concatenate(keys)).to(rows.device))
    return found


def _loops(device: torch.device) -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]:
    """Return what finds groups' best scores and what scores groups: Triton's, or torch's where that cannot compile."""
    if device.type == "cuda":
        # compiled code is kept where everything else is that can be made again
        os.environ.setdefault("TRITON_CACHE_DIR", str(cache_folder() / "triton"))
        try:
            from retr.index import gpu_kernels

            tried = _Shard(torch.zeros((_ROWS, _VALUES), dtype=torch.float16, device=device), 0, 1, 0.0)
            asked = torch.zeros((1, _VALUES), device=device)
            maxima, scores = partial(_compiled_maxima, gpu_kernels), partial(_compiled_scores, gpu_kernels)
            scores(tried, asked, maxima(tried, asked.half(), None).argmax(1)[:, None], None)
        except Exception:  # noqa: BLE001 - no Triton, no C compiler, an old GPU: each has its own exception
            return _maxima, _scores
        return maxima, scores
    return _maxima, _scores


def _compiled_maxima(kernels: Any, shard: _Shard, queries: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the best score of every group: float32 ``(n, groups)``."""
    n = len(queries)
    block, warps, stages = next((tile for tile in _TILES if tile[0] >= n), _TILES[-1])
    blocks = -(-n // block)
    asked = torch.zeros((blocks * block, queries.shape[1]), dtype=torch.float16, device=queries.device)
    asked[:n] = queries
    maxima = torch.empty((shard.groups, n), dtype=torch.float32, device=queries.device)
    with torch.cuda.device(queries.device):
        kernels.group_maxima[(blocks * (len(shard.vectors) // _ROWS),)](
            shard.vectors,
            asked,
            shard.vectors if mask is None else mask,
            maxima,
            shard.rows,
            n,
            dim=queries.shape[1],
            masked=mask is not None,
            group=GROUP,
            block_rows=_ROWS,
            block_queries=block,
            block_dim=_VALUES,
            num_warps=warps,
            num_stages=stages,
        )
    return maxima.t().contiguous()


def _compiled_scores(
    kernels: Any, shard: _Shard, queries: torch.Tensor, groups: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Return the scores of the rows of groups ``(n, c)``: float64 ``(n, c * GROUP)``."""
    n, chosen = groups.shape
    scores = torch.empty((n, chosen * GROUP), dtype=torch.float64, device=queries.device)
    with torch.cuda.device(queries.device):
        kernels.group_scores[(chosen, n)](
            shard.vectors,
            queries,
            groups,
            shard.vectors if mask is None else mask,
            scores,
            shard.rows,
            chosen,
            dim=queries.shape[1],
            masked=mask is not None,
            group=GROUP,
            block_dim=_VALUES,
            num_warps=4,
        )
    return scores


def _maxima(shard: _Shard, queries: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Do with torch what `_compiled_maxima` does."""
    step = max(1, _TEMPORARY_BYTES // (8 * len(queries) * GROUP)) * GROUP
    parts = []
    for start in range(0, len(shard.vectors), step):
        vectors = shard.vectors[start : start + step]
        if queries.is_cuda:
            scores = torch.mm(queries, vectors.t(), out_dtype=torch.float32)
        else:
            scores = queries.float() @ vectors.float().t()
        scores[:, ~_counts(shard, torch.arange(start, start + len(vectors), device=queries.device), mask)] = -torch.inf
        parts.append(scores.view(len(scores), -1, GROUP).amax(2))
    return torch.cat(parts, dim=1)


def _scores(shard: _Shard, queries: torch.Tensor, groups: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Do with torch what `_compiled_scores` does."""
    rows = (groups[:, :, None] * GROUP + torch.arange(GROUP, device=groups.device)).flatten(1)
    scores = torch.empty(rows.shape, dtype=torch.float64, device=queries.device)
    step = max(1, _TEMPORARY_BYTES // (16 * queries.shape[1]))
    for number, asked in enumerate(queries.double()):
        for start in range(0, rows.shape[1], step):
            part = rows[number, start : start + step]
            # sums along rows, not a product of matrices: a score depends on nothing but its two vectors
            scores[number, start : start + step] = (shard.vectors[part].double() * asked).sum(1)
    scores[~_counts(shard, rows, mask)] = -torch.inf
    return scores


def _counts(shard: _Shard, rows: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Say which of a shard's rows are rows, and allowed."""
    real = rows < shard.rows
    return real if mask is None else real & mask[rows.clamp(max=shard.rows - 1)].bool()
