"""How the loops of `retr.index.gpu.triton_kernels` are best cut into tiles on this GPU.

For 1, 16, 64 and 256 queries every setting of the scan that fits is timed over ``--rows`` random vectors, and given as
a multiple of the floor: the time in which the vectors are read once at the rate of a device copy, or multiplied at the
rate of a large float16 product, whichever is longer. Beside it the same scan with tiles that the copy engine brings
(``descriptor``), and for several sizes of a group what follows the scan: choosing the groups and scoring their rows.

Run: ``python -m retr.benchmarks.gpu_tiles --dim 768``
"""

from __future__ import annotations

import argparse
import itertools
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from retr.benchmarks.record import record
from retr.index.gpu.triton_kernels import group_maxima, group_scores

# For so many queries: rows, queries and values of a tile, warps, and loads under way.
SETTINGS: dict[int, list[tuple[int, int, int, int, int]]] = {
    16: [
        *itertools.product((64, 128), (16,), (64, 128), (4,), (3, 4, 6)),
        *itertools.product((256,), (16,), (64,), (4, 8), (3, 4)),
    ],
    64: [*itertools.product((128,), (64,), (64,), (4, 8), (3, 4, 5)), (256, 64, 64, 8, 3), (256, 64, 64, 8, 4)],
    256: [
        *itertools.product((128,), (256,), (64,), (8,), (3, 4)),
        *itertools.product((128, 256), (128,), (64,), (4, 8), (3, 4)),
        (128, 256, 32, 8, 5),
        (64, 256, 64, 4, 3),
        (64, 256, 64, 4, 4),
        (128, 256, 128, 8, 2),
        (128, 128, 128, 8, 3),
    ],
}
GROUPS = (32, 64, 128)


@triton.jit
def described_maxima(
    vectors,
    queries,
    maxima,
    n_rows,
    n_queries,
    dim: tl.constexpr,
    group: tl.constexpr,
    block_rows: tl.constexpr,
    block_queries: tl.constexpr,
    block_dim: tl.constexpr,
):
    """Do what `group_maxima` does, from tensor descriptors."""
    query_blocks = tl.cdiv(n_queries, block_queries)
    row_block = tl.program_id(0) // query_blocks
    query_block = tl.program_id(0) % query_blocks
    scores = tl.zeros((block_rows, block_queries), tl.float32)
    for at in range(0, dim, block_dim):
        left = vectors.load([row_block * block_rows, at])
        right = queries.load([query_block * block_queries, at])
        scores = tl.dot(left, right.T, scores)
    rows = row_block * block_rows + tl.arange(0, block_rows)
    scores = tl.where((rows < n_rows)[:, None], scores, float("-inf"))
    best = tl.max(tl.reshape(scores, (block_rows // group, group, block_queries)), axis=1)
    asked = query_block * block_queries + tl.arange(0, block_queries)
    groups = row_block.to(tl.int64) * (block_rows // group) + tl.arange(0, block_rows // group)
    tl.store(maxima + groups[:, None] * n_queries + asked[None, :], best, mask=asked[None, :] < n_queries)


def data(rows: int, dim: int, queries: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw random vectors and queries, float16, on the GPU."""
    generator = torch.Generator("cuda").manual_seed(0)
    made = [torch.empty((n, dim), dtype=torch.float16, device="cuda") for n in (rows, queries)]
    for one in made:
        for start in range(0, len(one), 1 << 18):
            one[start : start + (1 << 18)].normal_(generator=generator).mul_(dim**-0.5)
    return made[0], made[1]


def launch(
    vectors: torch.Tensor,
    queries: torch.Tensor,
    maxima: torch.Tensor,
    setting: tuple[int, int, int, int, int],
    group: int,
    *,
    descriptor: bool,
) -> None:
    """Run one scan."""
    block_rows, block_queries, block_dim, warps, stages = setting
    grid = (len(vectors) // block_rows * (len(queries) // block_queries),)
    sizes = {"block_rows": block_rows, "block_queries": block_queries, "block_dim": block_dim}
    how = {"dim": vectors.shape[1], "group": group, **sizes, "num_warps": warps, "num_stages": stages}
    n = (len(vectors), len(queries))
    if descriptor:
        left = TensorDescriptor.from_tensor(vectors, [block_rows, block_dim])
        right = TensorDescriptor.from_tensor(queries, [block_queries, block_dim])
        described_maxima[grid](left, right, maxima, *n, **how)
    else:
        group_maxima[grid](vectors, queries, vectors, maxima, *n, masked=False, **how)


def compiles(work: tuple[int, tuple[int, int, int, int, int], int, bool]) -> str | None:
    """Compile one setting, in a process of its own; return what went wrong, or None."""
    dim, setting, group, descriptor = work
    try:
        vectors, queries = data(setting[0], dim, setting[1])
        maxima = torch.empty((setting[0] // group, setting[1]), device="cuda")
        launch(vectors, queries, maxima, setting, group, descriptor=descriptor)
        want = (vectors.float() @ queries.float().t()).view(-1, group, setting[1]).amax(1)
        off = float((maxima - want).abs().max())
    except Exception as error:  # noqa: BLE001 - a setting that does not fit is a line of the result
        return str(error).strip().splitlines()[-1][:100] if str(error).strip() else type(error).__name__
    return None if off < 1e-3 else f"off by {off:.1e}"


def rates() -> tuple[float, float]:
    """Return bytes a second of a device copy, read and written, and operations a second of a large product."""
    source = torch.ones(1 << 30, device="cuda")
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / (1e-3 * triton.testing.do_bench(lambda: target.copy_(source), return_mode="median"))
    left, right = data(8192, 8192, 8192)
    multiplied = 2 * 8192**3 / (1e-3 * triton.testing.do_bench(lambda: left @ right, return_mode="median"))
    return copied, multiplied


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--dim", type=int, default=768)
    args = parser.parse_args()
    rows = args.rows // 256 * 256
    copied, multiplied = rates()
    figures: dict[str, Any] = {"rows": rows, "dim": args.dim, "copy, GB/s": round(copied / 1e9, 1)}
    figures["float16 product, TFLOP/s"] = round(multiplied / 1e12, 1)
    works = [
        (args.dim, setting, 64, descriptor)
        for settings in SETTINGS.values()
        for setting in settings
        for descriptor in (False, True)
    ]
    with ProcessPoolExecutor(min(8, os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        wrong = dict(zip(works, pool.map(compiles, works), strict=True))
    vectors, queries = data(rows, args.dim, 256)
    for number, settings in SETTINGS.items():
        floor = 1e3 * max(2 * rows * args.dim / copied, 2 * rows * args.dim * number / multiplied)
        found = []
        for setting, descriptor in itertools.product(settings, (False, True)):
            name = f"{'x'.join(map(str, setting))}{' descriptor' if descriptor else ''}"
            if why := wrong[args.dim, setting, 64, descriptor]:
                found.append((float("inf"), f"{name}: {why}"))
                continue
            maxima = torch.empty((rows // 64, number), device="cuda")
            asked = queries[:number]
            took = triton.testing.do_bench(
                lambda s=setting, d=descriptor, a=asked, m=maxima: launch(vectors, a, m, s, 64, descriptor=d),
                warmup=5,
                rep=30,
                return_mode="median",
            )
            found.append((took, f"{name}: {took:.3f} ms, {took / floor:.2f} x floor"))
        figures[f"{number} queries, floor {floor:.3f} ms"] = [line for _, line in sorted(found)]
    for group in GROUPS:
        figures[f"after the scan, groups of {group}, ms"] = {
            f"{number} queries": after(vectors, queries[:number], group) for number in (1, 256)
        }
    record(f"gpu_tiles_{args.dim}", figures, command=f"python -m retr.benchmarks.gpu_tiles --dim {args.dim}")


def after(vectors: torch.Tensor, queries: torch.Tensor, group: int) -> dict[str, float]:
    """Time the choice of 32 groups among those of 10 million rows, and the scores of their rows."""
    number, groups = len(queries), 10_000_000 // group
    maxima = torch.randn((groups, number), device="cuda")
    top = torch.topk(maxima.t().contiguous(), 33).indices[:, :32] % (len(vectors) // group)
    chosen = top.contiguous()
    scores = torch.empty((number, 32 * group), dtype=torch.float64, device="cuda")
    full = queries.float()

    def score() -> None:
        how = {"dim": vectors.shape[1], "masked": False, "group": group, "block_dim": 64, "num_warps": 4}
        group_scores[(32, number)](vectors, full, chosen, vectors, scores, len(vectors), 32, **how)

    def bench(work: Any) -> float:
        return round(float(triton.testing.do_bench(work, warmup=5, rep=30, return_mode="median")), 4)

    return {
        "transposed": bench(lambda: maxima.t().contiguous()),
        "chosen": bench(lambda: torch.topk(maxima.t().contiguous(), 33)),
        "scored": bench(score),
        "kept": bench(lambda: torch.topk(scores, 33)),
    }


if __name__ == "__main__":
    main()
