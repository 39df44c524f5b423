"""Exact search beside plain faiss, and beside what the machine allows: ratios within one run.

Queries/s over those of ``faiss.IndexFlatIP`` on the same vectors, for stores in float32 and in float16 (the plain index
always holds float32), with torch loaded and not, by batch size, on one thread and on all. Each case runs in its own
process, the two sides in turns, medians; on one thread it is CPU time that counts, so others on the machine do not.
The ids must be those of the plain index up to ties, or the run fails. Two more questions: how near batch-1 search comes
to the rate at which this machine reads memory, and whether a filter that passes a tenth of the rows slows it.

Run: ``python -m retr.benchmarks.exact [--rows 400000] [--dim 512]``
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.benchmarks.record import record
from retr.index.encoder import EncoderInfo
from retr.index.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

K = 10
# Scores of one row by two orders of summation differ by less.
_TIE = 2e-6


def seconds(call: Callable[[], object], repeats: int = 7) -> float:
    """Return the median time of a call, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def read_seconds(vectors: NDArray[np.floating]) -> float:
    """Return the time this machine needs to read the vectors' bytes once: the fastest of several readers.

    A minimum over float32 keeps up with memory where an integer reduction does not.
    """
    words = np.ascontiguousarray(vectors).reshape(-1).view(np.float32)
    halves = np.array_split(words, 2)
    with ThreadPoolExecutor(2) as pool:
        both = [
            seconds(lambda reduce=reduce: list(pool.map(reduce, halves)))  # type: ignore[misc]
            for reduce in (np.minimum.reduce, np.maximum.reduce)
        ]
    return min(*both, seconds(lambda: np.minimum.reduce(words)))


def synthetic(path: Path, rows: int, dim: int, dtype: str) -> Store:
    """Build an index of random unit vectors with one metadata column, ``tenth``: 0 to 9."""
    info = EncoderInfo("synthetic", dim, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    rng = np.random.default_rng(0)
    store = Store.create(path, encoder=info, dtype="float16" if dtype == "float16" else "float32")
    with store.writer() as writer:
        for start in range(0, rows, 20_000):
            n = min(20_000, rows - start)
            ids = [f"{number:09d}" for number in range(start, start + n)]
            table = pa.table({"id": ids, "tenth": rng.integers(0, 10, n)})
            writer.append(table, rng.standard_normal((n, dim), np.float32))
        return writer.commit()


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(against_faiss(Store.open(args.worker), torch=args.torch)))
        return
    figures: dict[str, object] = {"rows": args.rows, "dim": args.dim}
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for dtype in ("float32", "float16"):
            synthetic(folder / dtype, args.rows, args.dim, dtype)
            files = [path for path in (folder / dtype).rglob("*") if path.is_file()]
            figures[f"{dtype}, bytes a row on disk"] = round(sum(path.stat().st_size for path in files) / args.rows)
        figures["opening, ms"] = round(seconds(lambda: Store.open(folder / "float32")) * 1e3, 2)
        figures.update(against_memory(Store.open(folder / "float32")))
        times: dict[str, object] = {}
        for dtype, torch, threads in product(("float32", "float16"), (False, True), sorted({1, cores})):
            command = [sys.executable, "-m", "retr.benchmarks.exact", "--worker", str(folder / dtype)]
            pinned = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
            done = subprocess.run(
                command + ["--torch"] * torch, env={**os.environ, **pinned}, stdout=subprocess.PIPE, check=True
            )
            case = f"{dtype}, {'torch loaded' if torch else 'without torch'}, {threads} thread{'s'[: threads > 1]}"
            times[case] = json.loads(done.stdout.splitlines()[-1])
            print(case, times[case], file=sys.stderr)
    figures["queries/s, times plain faiss"] = times
    record(
        f"exact_{args.rows}x{args.dim}",
        figures,
        command=f"python -m retr.benchmarks.exact --rows {args.rows} --dim {args.dim}",
    )


def against_memory(store: Store) -> dict[str, float]:
    """Compare one query, and one query with a filter, with reading the vectors once."""
    vectors = store.vectors()
    query = np.random.default_rng(1).standard_normal((1, vectors.shape[1])).astype(np.float32)
    read = read_seconds(vectors)
    one = seconds(lambda: store.search(query, K))
    filtered = seconds(lambda: store.search(query, K, where="tenth = 3"))
    return {
        "read GB/s": round(vectors.nbytes / read / 1e9, 2),
        "batch 1, share of the read rate": round(read / one, 3),
        "filter passing 10 %, times unfiltered": round(filtered / one, 3),
    }


def against_faiss(store: Store, *, torch: bool) -> dict[str, float]:
    """Return our queries/s over those of ``IndexFlatIP.search`` on the same vectors, by batch size."""
    import faiss

    if torch:
        importlib.import_module("torch")
    clock = time.process_time if os.environ.get("OMP_NUM_THREADS") == "1" else time.perf_counter
    queries = np.random.default_rng(1).standard_normal((256, store.manifest.encoder.dim)).astype(np.float32)
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    flat = faiss.IndexFlatIP(queries.shape[1])
    flat.add(store.vectors().astype(np.float32))
    ratios = {}
    for batch, repeats in ((1, 15), (16, 5), (256, 3)):
        sides: list[Callable[[], object]] = [
            lambda batch=batch: store.search(queries[:batch], K),  # type: ignore[misc]
            lambda batch=batch: flat.search(unit[:batch], K),  # type: ignore[misc]
        ]
        times: list[list[float]] = [[], []]
        for _ in range(repeats + 1):
            for call, taken in zip(sides, times, strict=True):
                start = clock()
                call()
                taken.append(clock() - start)
        # the first turn warms up
        ours, plain = (statistics.median(taken[1:]) for taken in times)
        ratios[f"batch {batch}"] = round(plain / ours, 2)
    _same(store.search(queries, K).rows, store, flat, unit)
    return ratios


def _same(rows: NDArray[np.int64], store: Store, flat: Any, unit: NDArray[np.float32]) -> None:
    """Fail unless the rows are those of the plain index, in its order, up to ties."""
    scores, expected = flat.search(unit, K)
    other = np.argwhere(rows != expected)
    vectors = store.vectors(rows[tuple(other.T)]).astype(np.float64)
    apart = np.abs((vectors * unit[other[:, 0]]).sum(axis=1) - scores[tuple(other.T)])
    if len(other) and apart.max() > _TIE:
        sys.exit(f"{int((apart > _TIE).sum())} of {rows.size} hits are not those of IndexFlatIP")


if __name__ == "__main__":
    main()
