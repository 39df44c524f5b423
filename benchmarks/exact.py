"""Exact search against what the machine allows: ratios within one run.

Three questions: how near batch-1 search comes to the rate at which this machine reads memory; what a search costs
beside the plain faiss call on the same vectors; and whether a filter that passes a tenth of the rows slows it.

Run: ``python -m retr.benchmarks.exact [--rows 200000] [--dim 1280] [--dtype float32]``
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retr.benchmarks.record import record
from retr.index.encoder import EncoderInfo
from retr.index.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def seconds(call: Callable[[], object], repeats: int = 7) -> float:
    """Give the median time of a call, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def read_seconds(vectors: NDArray[np.floating]) -> float:
    """Give the time this machine needs to read the vectors' bytes once: the fastest of several readers.

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
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    args = parser.parse_args()
    result: dict[str, object] = vars(args).copy()
    with tempfile.TemporaryDirectory() as folder:
        store = synthetic(Path(folder) / "index", args.rows, args.dim, args.dtype)
        vectors = store.vectors()
        queries = np.random.default_rng(1).standard_normal((256, args.dim)).astype(np.float32)
        read = read_seconds(vectors)
        one = seconds(lambda: store.search(queries[:1], 10))
        result["read GB/s"] = round(vectors.nbytes / read / 1e9, 2)
        result["batch 1, share of the read rate"] = round(read / one, 3)
        filtered = seconds(lambda: store.search(queries[:1], 10, where="tenth = 3"))
        result["filter passing 10 %, times unfiltered"] = round(filtered / one, 3)
        result.update(against_faiss(store, queries))
    record(
        f"exact_{args.rows}x{args.dim}",
        result,
        command=f"python -m retr.benchmarks.exact --rows {args.rows} --dim {args.dim}",
    )


def against_faiss(store: Store, queries: NDArray[np.float32]) -> dict[str, float]:
    """Give our time over that of ``IndexFlatIP.search`` on the same vectors, by batch size."""
    import faiss

    flat = faiss.IndexFlatIP(queries.shape[1])
    flat.add(store.vectors().astype(np.float32))
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    ratios = {}
    for batch in (1, 16, 256):
        repeats = 7 if batch < 256 else 3
        ours = seconds(lambda batch=batch: store.search(queries[:batch], 10), repeats)  # type: ignore[misc]
        plain = seconds(lambda batch=batch: flat.search(unit[:batch], 10), repeats)  # type: ignore[misc]
        ratios[f"batch {batch}, times plain faiss"] = round(ours / plain, 3)
    return ratios


if __name__ == "__main__":
    main()
