"""Search on a GPU against what the GPU allows, against faiss and torch, and against the CPU's answers.

Exact search of the 10 best among float16 vectors: milliseconds of the scan alone and of the whole search at four batch
sizes, also as multiples of the floor: the time in which the vectors are read once at the rate of a device copy (a copy
reads and writes, and both count), or multiplied at the rate of a large bfloat16 product, whichever is longer. Beside it
on the same vectors: faiss's own ``GpuIndexFlatIP`` in float16, and torch's ``mm`` and ``topk``. The ids of 16 queries
are compared with the CPU's, up to ties. Then IVF (``sq8``, ``fp16``) and, where faiss has cuVS, CAGRA over
``--ann-rows`` rows, each tuned to recall 0.95.

Data: a mixture of Gaussians in chunks (a centre for 200 rows, at most 20,000; a common offset, so that random pairs are
similar as real embeddings are), stored as float16.

Needs a GPU and torch for CUDA; faiss's part and the accelerators need ``retr[gpu]``. 10 million x 768 take 31 GB of GPU
memory with faiss's copy, and 20 GB of memory.

Run: ``python -m retr.benchmarks.gpu --rows 10000000 --dim 768``
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.benchmarks.exact import seconds
from retr.benchmarks.record import record
from retr.index import tune
from retr.index.encoder import EncoderInfo
from retr.index.errors import RetrError
from retr.index.gpu import devices
from retr.index.scan import exact
from retr.index.store import Store
from retr.index.types import Ask, Block, Neighbours
from retr.index.vectors import unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

K = 10
BATCHES = (1, 16, 256, 4096)
COMPARED = 16
_CHUNK = 20_000
_NO_EXCLUSION = np.empty(0, np.int64)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the result file; without a GPU, say so and exit with 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--ann-rows", type=int, default=1_000_000, help="of IVF and CAGRA; 0 leaves them out")
    parser.add_argument("--beside", default="torch,faiss", help="whose own search is measured on the same vectors")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cuda:all")
    args = parser.parse_args(arguments)
    if not args.device.startswith("cuda"):
        parser.error(f"--device is a GPU, got {args.device!r}")
    try:
        numbers = devices.gpu_numbers(devices.parse_device(args.device))
    except RetrError as error:
        sys.exit(f"error: {error}")
    command = f"python -m retr.benchmarks.gpu --rows {args.rows} --dim {args.dim} --ann-rows {args.ann_rows}"
    command += f" --beside {args.beside}"
    figures: dict[str, Any] = {"rows": args.rows, "dim": args.dim, "device": args.device, "k": K}
    # after every step: what was measured is kept when a later step fails, or is stopped
    for _ in measure(args, numbers, figures):
        record(f"gpu_{args.rows}x{args.dim}", figures, command=f"{command} --device {args.device}")


def measure(args: argparse.Namespace, numbers: Sequence[int], figures: dict[str, Any]) -> Iterator[None]:
    """Add the figures of one step after another."""
    copied, multiplied = rates()
    figures["copy, GB/s read and written"] = round(copied / 1e9, 1)
    figures["bfloat16 product, TFLOP/s"] = round(multiplied / 1e12, 1)
    floors = {
        batch: 2e3 * args.rows * args.dim * max(1 / copied, batch / multiplied) / len(numbers) for batch in BATCHES
    }
    blocks = [Block(made(args.rows, args.dim), 0)]
    queries = unit(questions(max(*BATCHES, COMPARED), args.dim))
    for figures["exact"] in ours(blocks, args.dim, numbers, queries, floors):
        yield
    rows = min(args.rows, 1_000_000)
    halves = blocks[0].vectors[:rows]
    for some in ([Block(halves, 0)], [Block(halves.astype(np.float32), 0)]):
        scan = exact_scanner(some, args.dim, numbers)
        took = {f"batch {batch}": seconds(partial(search, some, queries[:batch], scan)) for batch in BATCHES}
        name = f"{rows} rows stored in {some[0].vectors.dtype}: search, ms"
        figures[name] = {batch: round(1e3 * each, 3) for batch, each in took.items()}
    yield
    beside = args.beside.split(",")
    if "torch" in beside and devices.torch_gpus():
        for figures["torch mm and topk, ms"] in torch_alone(blocks, numbers, queries):
            yield
    if "faiss" in beside and devices.faiss_gpus():
        for figures["faiss GpuIndexFlatIP, ms"] in faiss_alone(blocks, args.dim, numbers, queries):
            yield
    if args.ann_rows and devices.faiss_gpus():
        figures["approximate"] = kinds = dict[str, Any](rows=args.ann_rows)
        with tempfile.TemporaryDirectory() as folder:
            store = stored(Path(folder) / "index", args.ann_rows, args.dim)
            for kind in tune.gpu_kinds():
                name = f"{type(kind).__name__} {getattr(kind, 'codec', '')}".strip()
                kinds[name] = tuned(store, kind, args.device)
                yield


def ours(
    blocks: Sequence[Block],
    dim: int,
    numbers: Sequence[int],
    queries: NDArray[np.float32],
    floors: Mapping[int, float],
) -> Iterator[dict[str, Any]]:
    """Yield the figures of exact search, more of them each time."""
    start = time.perf_counter()
    scan = exact_scanner(blocks, dim, numbers)
    figures: dict[str, Any] = {"seconds to put the vectors there": round(time.perf_counter() - start, 1)}
    for batch in BATCHES:
        none = [_NO_EXCLUSION] * batch
        alone = seconds(lambda b=batch, n=none: scan(queries[:b], None, n, K + scan.margin))  # type: ignore[misc]
        whole = seconds(lambda b=batch: search(blocks, queries[:b], scan))  # type: ignore[misc]
        figures[f"batch {batch}"] = {
            "floor, ms": round(floors[batch], 3),
            "scan, ms": round(1e3 * alone, 3),
            "search, ms": round(1e3 * whole, 3),
            "scan, times the floor": round(1e3 * alone / floors[batch], 2),
            "search, times the floor": round(1e3 * whole / floors[batch], 2),
            "queries/s": round(batch / whole, 1),
        }
        yield figures
    allowed = np.random.default_rng(0).random(len(blocks[0].vectors)) < 0.1
    filtered = seconds(lambda: search(blocks, queries[:1], scan, allowed))
    figures["batch 1, a filter that lets a tenth through: search, ms"] = round(1e3 * filtered, 3)
    found, truth = search(blocks, queries[:COMPARED], scan), search(blocks, queries[:COMPARED], None)
    same = [agree(*pair) for pair in zip(found.rows, found.scores, truth.rows, truth.scores, strict=True)]
    figures["queries with the CPU's ids, up to ties"] = f"{sum(same)} of {len(same)}"
    yield figures


def exact_scanner(blocks: Sequence[Block], dim: int, numbers: Sequence[int]) -> Any:
    """Return the scan that `retr.index.gpu.placement` takes here."""
    if devices.torch_gpus():
        from retr.index.gpu.torch_scan import TorchScan

        return TorchScan(blocks, dim, 1.001, numbers)
    from retr.index.gpu.faiss_scan import FaissScan

    return FaissScan(blocks, dim, 1.001, numbers)


def search(
    blocks: Sequence[Block], queries: NDArray[np.float32], scan: Any, allowed: NDArray[np.bool_] | None = None
) -> Neighbours:
    """Search as `Store.search` does when it has read what was asked."""
    ask = Ask(K, allowed, [_NO_EXCLUSION] * len(queries), None, None)
    ids = "{:09d}".format
    return exact.search(
        blocks, queries, ask, max_norm=1.001, cosine=False, ids_of=lambda rows: list(map(ids, rows)), first_scan=scan
    )


def torch_alone(
    blocks: Sequence[Block], numbers: Sequence[int], queries: NDArray[np.float32]
) -> Iterator[dict[str, float]]:
    """Yield milliseconds of torch's product and selection for each batch; all vectors lie on the first GPU."""
    import torch

    device = torch.device("cuda", numbers[0])
    vectors = torch.cat([torch.from_numpy(np.asarray(block.vectors)).to(device) for block in blocks])
    figures: dict[str, float] = {}

    def work(batch: int) -> None:
        for start in range(0, batch, 256):
            asked = torch.from_numpy(queries[start : min(start + 256, batch)]).to(device).half()
            for part in torch.topk(torch.mm(asked, vectors.t()), K):
                part.cpu()

    for batch in BATCHES:
        figures[f"batch {batch}"] = round(1e3 * seconds(partial(work, batch), 3), 3)
        yield figures


def faiss_alone(
    blocks: Sequence[Block], dim: int, numbers: Sequence[int], queries: NDArray[np.float32]
) -> Iterator[dict[str, float]]:
    """Yield milliseconds of faiss's own search for each batch."""
    from retr.index.gpu.faiss_scan import FaissScan

    # in parts of 4 GiB of float32 a GPU: a second call of `add` would move what is there
    parts = [part for device in FaissScan(blocks, dim, 1.001, numbers)._devices for part, _ in device]
    figures: dict[str, float] = {}

    def work(batch: int) -> None:
        for start in range(0, batch, 256):
            for part in parts:
                part.search(queries[start : min(start + 256, batch)], K)

    for batch in BATCHES:
        figures[f"batch {batch}"] = round(1e3 * seconds(partial(work, batch), 3), 3)
        yield figures


def tuned(store: Store, kind: Any, device: str) -> dict[str, Any]:
    """Tune one kind of accelerator on the GPU and measure it."""
    start = time.perf_counter()
    with Store.open(store.path).writer() as writer:
        tuning = tune.tune(writer, recall=0.95, kinds=[kind], device=device)
    figures: dict[str, Any] = {
        "seconds to build and tune": round(time.perf_counter() - start, 1),
        "setting": str(tuning.config),
        "recall, measured": round(tuning.recall, 4),
    }
    placed = Store.open(store.path)
    placed.place(device)
    queries = questions(max(*BATCHES, COMPARED), store.manifest.encoder.dim)
    for batch in BATCHES:
        whole = seconds(lambda batch=batch: placed.search(queries[:batch], K))  # type: ignore[misc]
        figures[f"batch {batch}, queries/s"] = round(batch / whole, 1)
    return figures


def agree(
    ids: Sequence[Any],
    scores: NDArray[np.float32],
    others: Sequence[Any],
    other_scores: NDArray[np.float32],
    tolerance: float = 1e-6,
) -> bool:
    """Return whether two answers to one query differ by no more than the order of rows whose scores tie.

    Scores must agree place by place; in each run of scores that tie the ids must be the same, except in the last run,
    which k may have cut.

    >>> scores = np.array([3, 2, 2, 1], np.float32)
    >>> [agree("abcd", scores, other, scores) for other in ("acbd", "abce", "bacd", "abed")]
    [True, True, False, False]
    """
    if len(ids) != len(others) or not np.allclose(scores, other_scores, rtol=0, atol=tolerance):
        return False
    runs = [0, *(np.flatnonzero(np.diff(scores) < -tolerance) + 1).tolist(), len(ids)]
    return all(set(ids[start:stop]) == set(others[start:stop]) for start, stop in list(pairwise(runs))[:-1])


def stored(path: Path, rows: int, dim: int) -> Store:
    """Make an index of made-up rows."""
    # they come at unit length: the writer need not scale them again
    info = EncoderInfo("synthetic", dim, "dot", "none", text=False, weights_sha256="0", preprocessing="none")
    vectors = made(rows, dim)
    with Store.create(path, encoder=info, dtype="float16").writer() as writer:
        for start in range(0, rows, _CHUNK):
            part = vectors[start : start + _CHUNK]
            writer.append(pa.table({"id": [f"{number:09d}" for number in range(start, start + len(part))]}), part)
        return writer.commit()


def chunk(seed: int, n: int, means: NDArray[np.float32]) -> NDArray[np.float32]:
    """Draw unit vectors ``(n, dim)`` around random ones of ``means``."""
    rng = np.random.default_rng([1, seed])
    vectors = rng.standard_normal((n, means.shape[1]), np.float32)
    vectors *= 0.8
    vectors += means[rng.integers(0, len(means), n)]
    vectors += 0.75
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def questions(n: int, dim: int) -> NDArray[np.float32]:
    """Draw queries that no row is."""
    means = np.random.default_rng(0).standard_normal((50, dim), np.float32)
    return chunk(2**40, n, means)


def made(rows: int, dim: int) -> NDArray[np.float16]:
    """Draw the vectors, each chunk by a core."""
    means = np.random.default_rng(0).standard_normal((min(20_000, max(50, rows // 200)), dim), np.float32)
    vectors = np.empty((rows, dim), np.float16)

    def fill(start: int) -> None:
        part = vectors[start : start + _CHUNK]
        part[:] = chunk(start, len(part), means)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(fill, range(0, rows, _CHUNK)))
    return vectors


def rates() -> tuple[float, float]:
    """Return bytes a second of a copy within the first GPU, read and written, and operations a second of a product."""
    import torch

    source = torch.ones(1 << 30, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    left, right = (torch.randn((8192, 8192), dtype=torch.bfloat16, device="cuda") for _ in range(2))

    def work(call: Callable[[], object]) -> None:
        call()
        torch.cuda.synchronize()

    copied = 2 * source.nbytes / seconds(lambda: work(lambda: target.copy_(source)), 20)
    multiplied = 2 * 8192**3 / seconds(lambda: work(lambda: left @ right), 20)
    return copied, multiplied


if __name__ == "__main__":
    main()
