"""Exact search with the scan on one GPU or several, by torch and Triton.

The vectors lie on the GPUs in float16, split by rows. A scan (`retr.index.gpu.loops`) finds the best score of every
group of rows, and scores the rows of the best groups again in float64: no row outside them can be better than the best
group left out, by more than the rounding to float16, whose size is measured. Masks are applied inside the scan, so a
narrow filter costs no more than none. Where Triton cannot compile (it needs a C compiler), torch does the same in more
steps.
"""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from retr.index.gpu import devices
from retr.index.gpu.faiss_scan import power_of_two
from retr.index.gpu.loops import GROUP, TILES, VALUES, Shard, choose_loops, padded, shared_bytes
from retr.index.scan.ranking import best
from retr.index.types import Scans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.types import Block

# Groups of which the best are chosen together.
_RUN = 32
# More groups than these are not chosen for a query: k above some thousands is left to the CPU.
_MAX_CHOSEN = 16_384
# Intermediate results stay below this, and so does the copy of a mask.
_TEMPORARY_BYTES = 512 << 20
# Vectors are brought over in pieces of so many bytes.
_PIECE_BYTES = 256 << 20


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
        self._dim = -(-dim // VALUES) * VALUES
        self._scale = float(power_of_two(np.array([max_norm]))[0])
        self._max_norm = max_norm * self._scale
        self._lock = threading.Lock()
        self._mask: tuple[NDArray[np.bool_], list[torch.Tensor]] | None = None
        total = sum(len(block.vectors) for block in blocks)
        bounds = np.linspace(0, total, len(numbers) + 1).astype(np.int64).tolist()
        needed = [2 * self._dim * (stop - start) for start, stop in pairwise(bounds)]
        devices.require_memory(numbers, needed, f"{total} float16 vectors of {dim} dimensions")
        with devices.gpu_errors("taking the vectors"):
            self._shards = [
                self._filled(blocks, dim, _device(number), start, stop)
                for number, (start, stop) in zip(numbers, pairwise(bounds), strict=True)
            ]
            self._maxima, self._scores = choose_loops(self._shards[0].vectors.device)

    def _filled(self, blocks: Sequence[Block], dim: int, device: torch.device, start: int, stop: int) -> Shard:
        """Bring rows ``start`` to ``stop`` to a device."""
        rows = stop - start
        vectors = torch.zeros(
            (max(1, -(-rows // (GROUP * _RUN))) * GROUP * _RUN, self._dim), dtype=torch.float16, device=device
        )
        error, step = 0.0, max(1, _PIECE_BYTES // (4 * dim))
        for block in blocks:
            first, last = max(start - block.start, 0), min(stop - block.start, len(block.vectors))
            for at in range(first, last, step):
                stored = block.vectors[at : min(at + step, last)]
                # a memory map may not be written to, of which torch warns
                piece = torch.from_numpy(np.array(stored)).to(device).float() * self._scale
                target = vectors[block.start + at - start :][: len(piece), :dim]
                target.copy_(piece)
                error = max(error, float(torch.linalg.vector_norm(piece - target, dim=1).max()))
        return Shard(vectors, start, rows, error, shared_bytes(device))

    def reaches(self, wanted: int, allowed: NDArray[np.bool_] | None) -> bool:  # noqa: ARG002
        """Return whether so many rows are found for a query; a filter does not matter."""
        return wanted + self.margin < _MAX_CHOSEN

    def __call__(
        self,
        queries: NDArray[np.float32],
        allowed: NDArray[np.bool_] | None,
        exclude: Sequence[NDArray[np.int64]],
        want: int,
    ) -> Scans:
        """Return about ``want`` candidates for each query; see `Scans`."""
        scale = power_of_two(np.linalg.norm(queries, axis=1))
        asked = queries * scale[:, None].astype(np.float32)
        unscaled = scale[:, None] * self._scale
        with self._lock, devices.gpu_errors("searching"):
            masks = self._masks(allowed)
            numbers = np.arange(len(queries))
            parts = devices.in_batches(
                lambda some: self._batch(asked[some], masks, [exclude[i] for i in some], want),
                numbers,
                self._batch_size(want + max(map(len, exclude), default=0)),
            )
        rows, scores, bound = (np.concatenate(part) for part in zip(*parts, strict=True))
        exactly = all(shard.error == 0 for shard in self._shards)
        return Scans(rows, scores / unscaled if exactly else None, bound / unscaled[:, 0])

    def _batch_size(self, chosen: int) -> int:
        """Return how many queries the temporary memory holds."""
        each = max(4 * 2 * shard.groups + 8 * 4 * GROUP * min(chosen, shard.groups) for shard in self._shards)
        # whole tiles of queries
        fitting = max(1, _TEMPORARY_BYTES // each)
        return fitting if fitting < TILES[-1][0] else fitting // TILES[-1][0] * TILES[-1][0]

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
        n, dim = queries.shape
        full = np.zeros((padded(n), self._dim), np.float32)
        full[:n, :dim] = queries
        # all are started before the first is waited for: they work at the same time
        started = [
            self._start(shard, n, full, mask, exclude, want) for shard, mask in zip(self._shards, masks, strict=True)
        ]
        rows, scores, bound = [], [], np.full(n, -np.inf)
        for shard, packed in zip(self._shards, started, strict=True):
            found = packed.cpu().numpy()
            width = (found.shape[1] - 4) // 2
            rows.append(found[:, :width].astype(np.int64))
            scores.append(found[:, width : 2 * width])
            dropped, left_out, norms, rounded = found[:, -4:].T
            # what rounding the query costs with the longest vector, and what the sums' own rounding does
            rounded = (rounded + norms * self._dim * 2.0**-23) * self._max_norm
            np.maximum(bound, dropped + norms * shard.error, out=bound)
            np.maximum(bound, left_out + norms * shard.error + rounded, out=bound)
        together, score = np.concatenate(rows, axis=1), np.concatenate(scores, axis=1)
        if together.shape[1] > want:
            together, score, dropped = best(together, score, want)
            np.maximum(bound, dropped + norms * max(shard.error for shard in self._shards), out=bound)
        return np.where(np.isneginf(score), -1, together), score, bound

    def _start(
        self,
        shard: Shard,
        n: int,
        full: NDArray[np.float32],
        mask: torch.Tensor | None,
        exclude: Sequence[NDArray[np.int64]],
        want: int,
    ) -> torch.Tensor:
        """Start the scan of one GPU's rows.

        Returns
        -------
        torch.Tensor
            float64 ``(n, 2 * c + 4)``: rows, their scores, the best score dropped among the rows that were scored, the
            best of the groups that were not, the query's length, and that of what rounding took from it.
        """
        device = shard.vectors.device
        asked = torch.from_numpy(full).to(device)
        halves = asked.half()
        maxima = self._maxima(shard, halves, n, mask)
        asked = asked[:n]
        hidden = max(map(len, exclude), default=0)
        chosen = min(want + hidden, shard.groups)
        values, groups = _choose(maxima, min(chosen + 1, shard.groups))
        rows = (groups[:, :chosen, None] * GROUP + torch.arange(GROUP, device=device)).flatten(1)
        scores = self._scores(shard, asked, groups[:, :chosen].contiguous(), mask)
        if hidden:
            scores.masked_fill_(_among(rows, exclude, shard), -torch.inf)
        kept = torch.topk(scores, min(want + 1, scores.shape[1]))
        nothing = torch.full((n, 1), -torch.inf, dtype=torch.float64, device=device)
        parts = [
            (torch.gather(rows, 1, kept.indices[:, :want]) + shard.start).double(),
            kept.values[:, :want],
            kept.values[:, want:] if kept.values.shape[1] > want else nothing,
            values[:, chosen:].double() if chosen < shard.groups else nothing,
            torch.linalg.vector_norm(asked, dim=1, keepdim=True, dtype=torch.float64),
            torch.linalg.vector_norm(asked - halves[:n], dim=1, keepdim=True, dtype=torch.float64),
        ]
        return torch.cat(parts, dim=1)


def _choose(maxima: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ``number`` best of maxima ``(groups, n)`` for each query, falling, and their groups: ``(n, number)``.

    They lie in the ``number`` best runs of groups, so only small matrices are sorted.
    """
    groups, n = maxima.shape
    if number >= groups // _RUN:
        top = torch.topk(maxima.t().contiguous(), number)
        return top.values, top.indices
    runs = torch.topk(maxima.view(-1, _RUN, n).amax(1).t().contiguous(), number, sorted=False).indices
    inside = (runs[:, :, None] * _RUN + torch.arange(_RUN, device=maxima.device)).flatten(1)
    top = torch.topk(maxima[inside, torch.arange(n, device=maxima.device)[:, None]], number)
    return top.values, torch.gather(inside, 1, top.indices)


def _device(number: int) -> torch.device:
    return torch.device("cuda", number)


def _among(rows: torch.Tensor, exclude: Sequence[NDArray[np.int64]], shard: Shard) -> torch.Tensor:
    """Return which of a shard's rows ``(n, c)`` are among those excluded for their query."""
    width = shard.groups * GROUP
    keys = [
        number * width + part[(part >= shard.start) & (part < shard.start + shard.rows)] - shard.start
        for number, part in enumerate(exclude)
    ]
    owner = torch.arange(len(rows), device=rows.device)[:, None] * width
    found: torch.Tensor = torch.isin(rows + owner, torch.from_numpy(np.concatenate(keys)).to(rows.device))
    return found
