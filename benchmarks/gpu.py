"""Search on a GPU against what its memory allows, and against the CPU's answers.

Exact search with float16 vectors on the GPU: seconds of the scan alone and of the whole search (candidates scored again
from the stored vectors) at four batch sizes; for one query also as a multiple of the floor, the time in which the GPU
reads the vectors' bytes once at the rate of a device copy (measured with torch, in a process of its own; a copy reads
and writes, and both count). The ids of 16 queries are compared with the CPU's, up to ties. Then IVF (``sq8``, ``fp16``)
and, where faiss has cuVS, CAGRA over ``--ann-rows`` rows, each tuned to recall 0.95.

Data: a mixture of Gaussians in chunks (a centre for 200 rows, at most 20,000; a common offset, so that random pairs are
similar as real embeddings are), stored as float16. ``--index FOLDER`` keeps the index and finds it again.

Needs ``retr[gpu]`` and a GPU; 10 million x 768 take 19 GB of GPU memory, 16 GB of disk and 20 GB of memory.

Run: ``python -m retr.benchmarks.gpu --rows 10000000 --dim 768``
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.benchmarks.exact import seconds
from retr.benchmarks.record import record
from retr.index import devices, tune
from retr.index.config import Flat
from retr.index.encoder import EncoderInfo
from retr.index.errors import RetrError
from retr.index.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cuda:all")
    parser.add_argument("--index", type=Path, help="where to keep the index, or find it")
    parser.add_argument("--copy-rate", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if not args.device.startswith("cuda"):
        parser.error(f"--device is a GPU, got {args.device!r}")
    if args.copy_rate:
        print(copy_rate())
        return
    try:
        devices.numbers(devices.parse(args.device))
        figures = measure(args)
    except RetrError as error:
        sys.exit(f"error: {error}")
    command = f"python -m retr.benchmarks.gpu --rows {args.rows} --dim {args.dim} --ann-rows {args.ann_rows}"
    note = None if "floor, ms" in figures else "without the floor: torch sees no GPU here"
    record(f"gpu_{args.rows}x{args.dim}", figures, command=f"{command} --device {args.device}", note=note)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Give all figures."""
    figures: dict[str, Any] = {"rows": args.rows, "dim": args.dim, "device": args.device, "k": K}
    rate = copy_rate_apart()
    if rate is not None:
        figures["copy, GB/s read and written"] = round(rate / 1e9, 1)
        gpus = len(devices.numbers(devices.parse(args.device)))
        figures["floor, ms"] = round(1e3 * 2 * args.rows * args.dim / rate / gpus, 4)
    with tempfile.TemporaryDirectory() as folder:
        path = args.index or Path(folder)
        store = opened(path / f"{args.rows}x{args.dim}", args.rows, args.dim)
        figures["exact"] = exact(store, args.device, figures.get("floor, ms"))
        if args.ann_rows:
            smaller = opened(path / f"{args.ann_rows}x{args.dim}", args.ann_rows, args.dim)
            kinds = tune.gpu_kinds()
            figures["approximate"] = {
                "rows": args.ann_rows,
                **{
                    f"{type(kind).__name__} {getattr(kind, 'codec', '')}".strip(): tuned(smaller, kind, args.device)
                    for kind in kinds
                },
            }
    return figures


def exact(store: Store, device: str, floor_ms: float | None) -> dict[str, Any]:
    """Measure exact search on the GPU, and compare its answers with the CPU's."""
    queries = questions(max(*BATCHES, COMPARED), store.manifest.encoder.dim)
    placed = Store.open(store.path)
    placed.place(device)
    start = time.perf_counter()
    scan = placed.placement.take(placed, Flat(), 1).scan
    figures: dict[str, Any] = {"seconds to put the vectors there": round(time.perf_counter() - start, 1)}
    assert scan is not None
    for batch in BATCHES:
        asked = queries[:batch]
        none = [_NO_EXCLUSION] * batch
        alone = seconds(lambda asked=asked, none=none: scan(asked, None, none, K + scan.margin))  # type: ignore[misc]
        whole = seconds(lambda asked=asked: placed.search(asked, K))  # type: ignore[misc]
        figures[f"batch {batch}"] = {
            "scan, ms": round(1e3 * alone, 3),
            "search, ms": round(1e3 * whole, 3),
            "queries/s": round(batch / whole, 1),
        }
        if floor_ms is not None and batch == 1:
            figures["batch 1"]["scan, times the floor"] = round(1e3 * alone / floor_ms, 2)
            figures["batch 1"]["search, times the floor"] = round(1e3 * whole / floor_ms, 2)
    ours, theirs = placed.search(queries[:COMPARED], K), store.search(queries[:COMPARED], K)
    same = [agree(*pair) for pair in zip(ours.rows, ours.scores, theirs.rows, theirs.scores, strict=True)]
    figures["queries with the CPU's ids, up to ties"] = f"{sum(same)} of {len(same)}"
    return figures


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
    """Say whether two answers to one query differ by no more than the order of rows whose scores tie.

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


def opened(path: Path, rows: int, dim: int) -> Store:
    """Open the index of made-up rows at ``path``, or make it."""
    if Store.exists(path):
        store = Store.open(path)
        if (store.n_total, store.manifest.encoder.dim) == (rows, dim):
            return store
    # chunks come at unit length, each made by a core: the one writer need not scale them again
    info = EncoderInfo("synthetic", dim, "dot", "none", text=False, weights_sha256="0", preprocessing="none")
    store = Store.create(path, encoder=info, dtype="float16")
    means = np.random.default_rng(0).standard_normal((min(20_000, max(50, rows // 200)), dim), np.float32)
    cores = len(os.sched_getaffinity(0))
    with store.writer() as writer, ThreadPoolExecutor(cores) as pool:
        starts = iter(range(0, rows, _CHUNK))
        ahead: deque[tuple[int, Future[NDArray[np.float32]]]] = deque()
        while True:
            for start in itertools.islice(starts, cores + 1 - len(ahead)):
                ahead.append((start, pool.submit(chunk, start, min(_CHUNK, rows - start), means)))
            if not ahead:
                return writer.commit()
            start, made = ahead.popleft()
            vectors = made.result()
            ids = [f"{number:09d}" for number in range(start, start + len(vectors))]
            writer.append(pa.table({"id": ids}), vectors)


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


def copy_rate_apart() -> float | None:
    """Give bytes a second read and written by a device copy, or ``None`` where torch sees no GPU.

    In a process of its own: what torch takes of the GPU's memory is gone when faiss comes.
    """
    command = [sys.executable, "-m", "retr.benchmarks.gpu", "--copy-rate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return float(done.stdout) or None
    except ValueError:
        return None


def copy_rate() -> float:
    """Copy 4 GiB within the first GPU, 20 times; 0 where torch is not installed or sees no GPU."""
    try:
        import torch
    except ImportError:
        return 0.0
    if not torch.cuda.is_available():
        return 0.0
    source = torch.ones(1 << 30, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize()

    return 2 * source.nbytes / seconds(copy, 20)


if __name__ == "__main__":
    main()
