"""The loops of an exact search over the rows that lie on one GPU: by Triton, or by torch where that cannot compile.

Both find the best score of every group of rows, and score the rows of groups. See `retr.index.gpu.torch_scan`, which
chooses the groups, and `retr.index.gpu.triton_kernels` for what Triton compiles.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from retr.index.machine.home import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable

# Rows of which only the best score leaves the registers.
GROUP = 64
# Vectors are filled up to a multiple of this.
VALUES = 64
# All chosen on an H100 by benchmarks/gpu_tiles.py. Rows of a tile of the scan, and for so many queries: values of a
# vector, warps, loads under way.
ROWS = 128
TILES = ((16, 64, 4, 6), (32, 64, 4, 5), (64, 64, 4, 5), (128, 64, 8, 3), (256, 64, 8, 3))
# What torch takes beside the vectors.
_TEMPORARY_BYTES = 512 << 20


@dataclass(frozen=True)
class Shard:
    """The rows that lie on one GPU.

    Attributes
    ----------
    vectors
        float16 ``(rows, dim)``, both filled up with zeros to whole tiles.
    start, rows
        The number of the first row, and how many there are.
    error
        The largest distance of a scaled vector from its float16 copy; 0 where all are exact.
    shared
        Bytes of shared memory that a program on the GPU may take.
    """

    vectors: torch.Tensor
    start: int
    rows: int
    error: float
    shared: int = 0

    @property
    def groups(self) -> int:
        """How many groups of rows there are."""
        return len(self.vectors) // GROUP

    def tile(self, n: int) -> tuple[int, int, int, int]:
        """Return how the scan for ``n`` queries is cut here."""
        fitting = [tile for tile in TILES if 2 * (ROWS + tile[0]) * tile[1] * tile[3] <= self.shared]
        return next((tile for tile in fitting if tile[0] >= n), fitting[-1])


def padded(n: int) -> int:
    """Return the next number of queries that all tiles divide which may be taken for ``n``.

    >>> [padded(n) for n in (1, 17, 200, 257)]
    [16, 32, 256, 512]
    """
    most = TILES[-1][0]
    return -(-n // most) * most if n > most else max(TILES[0][0], 1 << (n - 1).bit_length())


def shared_bytes(device: torch.device) -> int:
    """Return how much shared memory a program may take on a device."""
    if device.type != "cuda":
        return 0
    properties = torch.cuda.get_device_properties(device)
    # what every GPU since Volta has, where torch does not say
    return int(getattr(properties, "shared_memory_per_block_optin", 96 << 10))


def choose_loops(device: torch.device) -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]:
    """Return what finds groups' best scores and what scores groups: Triton's, or torch's where that cannot compile."""
    if device.type == "cuda":
        # compiled code is kept where everything else is that can be made again
        os.environ.setdefault("TRITON_CACHE_DIR", str(cache_folder() / "triton"))
        try:
            from retr.index.gpu import triton_kernels

            vectors = torch.zeros((ROWS, VALUES), dtype=torch.float16, device=device)
            tried = Shard(vectors, 0, 1, 0.0, shared_bytes(device))
            asked = torch.zeros((TILES[0][0], VALUES), device=device)
            maxima, scores = partial(compiled_maxima, triton_kernels), partial(compiled_scores, triton_kernels)
            scores(tried, asked, maxima(tried, asked.half(), 1, None).argmax(0)[:, None], None)
        except Exception:  # noqa: BLE001 - no Triton, no C compiler, an old GPU: each has its own exception
            return torch_maxima, torch_scores
        return maxima, scores
    return torch_maxima, torch_scores


def compiled_maxima(
    kernels: Any, shard: Shard, queries: torch.Tensor, n: int, mask: torch.Tensor | None
) -> torch.Tensor:
    """Return the best score of every group, float32 ``(groups, n)``, for the first ``n`` of queries in whole tiles."""
    device = queries.device
    block, values, warps, stages = shard.tile(n)
    maxima = torch.empty((shard.groups, n), dtype=torch.float32, device=device)
    with torch.cuda.device(device):
        kernels.group_maxima[(len(queries) // block * (len(shard.vectors) // ROWS),)](
            shard.vectors,
            queries,
            shard.vectors if mask is None else mask,
            maxima,
            shard.rows,
            n,
            dim=queries.shape[1],
            masked=mask is not None,
            group=GROUP,
            block_rows=ROWS,
            block_queries=block,
            block_dim=values,
            num_warps=warps,
            num_stages=stages,
        )
    return maxima


def compiled_scores(
    kernels: Any, shard: Shard, queries: torch.Tensor, groups: torch.Tensor, mask: torch.Tensor | None
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
            block_dim=VALUES,
            num_warps=4,
        )
    return scores


def torch_maxima(shard: Shard, queries: torch.Tensor, n: int, mask: torch.Tensor | None) -> torch.Tensor:
    """Do with torch what `compiled_maxima` does."""
    asked = queries[:n].t()
    step = max(1, _TEMPORARY_BYTES // (8 * n * GROUP)) * GROUP
    parts = []
    for start in range(0, len(shard.vectors), step):
        vectors = shard.vectors[start : start + step]
        if queries.is_cuda:
            scores = torch.mm(vectors, asked, out_dtype=torch.float32)
        else:
            scores = vectors.float() @ asked.float()
        scores[~_counts(shard, torch.arange(start, start + len(vectors), device=queries.device), mask)] = -torch.inf
        parts.append(scores.view(-1, GROUP, n).amax(1))
    return torch.cat(parts)


def torch_scores(shard: Shard, queries: torch.Tensor, groups: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Do with torch what `compiled_scores` does."""
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


def _counts(shard: Shard, rows: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return which of a shard's rows are rows, and allowed."""
    real = rows < shard.rows
    return real if mask is None else real & mask[rows.clamp(max=shard.rows - 1)].bool()
