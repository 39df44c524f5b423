"""Approximate search beside other engines: the same vectors, the same run, one thread, each in its own process.

Every engine is built once and then searched with settings of growing cost until it reaches the recall asked for.
Rates are queries per second of CPU time, medians of three passes over 1,000 held-out queries; build time is CPU time
too, so another process on the machine does not count. A row counts as found when its exact score is at least that of
the tenth best.

Data: ``--data mixture`` draws from N/200 Gaussians with Zipf-distributed sizes, spectra falling as a power law, and a
common offset, so that random pairs are similar as real embeddings are. ``--data INDEX`` tiles the vectors of a real
index: each row is one of them plus Gaussian noise of 0.6 of the median distance to its nearest neighbour.

Run: ``python -m retr.benchmarks.ann --rows 100000 --dim 512 --recall 0.99``
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retr.benchmarks.record import record
from retr.index.vectors import unit

K = 10
QUERIES = 1000
Search: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.int64]]
# An engine builds itself from the vectors and a folder for its files, and gives settings with a search for each.
Engine: TypeAlias = Callable[[NDArray[np.float32], Path], Iterator[tuple[str, Search]]]


def mixture(n: int, dim: int, seed: int) -> NDArray[np.float32]:
    """Draw unit vectors ``(n, dim)`` from the mixture that the module's docstring describes."""
    fixed = np.random.default_rng(0)
    centres = max(50, n // 200) if seed == 1 else 500
    means = fixed.standard_normal((max(centres, 500), dim), np.float32)
    shares = np.arange(1, len(means) + 1) ** -0.8
    spectrum = (np.arange(1, dim + 1) ** -0.6).astype(np.float32)
    spectrum *= np.sqrt(dim) / np.linalg.norm(spectrum)
    turns = fixed.permutation(dim)
    rng = np.random.default_rng(seed)
    vectors = np.empty((n, dim), np.float32)
    for start in range(0, n, 50_000):
        stop = min(n, start + 50_000)
        which = rng.choice(len(means), stop - start, p=shares / shares.sum())
        noise = rng.standard_normal((stop - start, dim), np.float32) * spectrum
        vectors[start:stop] = unit(means[which] + 0.8 * noise[:, turns] + 0.75)
    return vectors


def tiled(index: Path, n: int, seed: int) -> NDArray[np.float32]:
    """Repeat the vectors of a real index with noise, as the module's docstring describes."""
    from retr.index.store import Store

    store = Store.open(index)
    real = np.asarray(store.vectors(store.live_rows()), np.float32)
    found = store.search(real[:500], 2, exactly=True).scores[:, 1]
    noise = 0.6 * float(np.sqrt(np.median(2 - 2 * found))) / np.sqrt(real.shape[1])
    rng = np.random.default_rng(seed)
    return unit(real[rng.integers(0, len(real), n)] + noise * rng.standard_normal((n, real.shape[1]), np.float32))


def ours(vectors: NDArray[np.float32], folder: Path) -> Iterator[tuple[str, Search]]:
    """Search a store with float16 vectors through an IVF-RaBitQ accelerator."""
    from dataclasses import replace
    from functools import partial

    from retr.index.ann import train
    from retr.index.config import IVF, to_json
    from retr.index.encoder import EncoderInfo
    from retr.index.search import NOTE
    from retr.index.store import Store

    dim = vectors.shape[1]
    info = EncoderInfo("benchmark", dim, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    store = Store.create(folder / "index", encoder=info, dtype="float16")
    with store.writer() as writer:
        for start in range(0, len(vectors), 50_000):
            part = vectors[start : start + 50_000]
            writer.append(pa.table({"id": [str(number) for number in range(start, start + len(part))]}), part)
        store = writer.commit()
        writer.compact()
        for position, segment in enumerate(writer.store.segments):
            writer.accelerate(position, partial(train, segment.vectors, IVF(), budget=2 << 30))
        for refine in (2, 3, 4, 10):
            for probes in (4, 8, 12, 16, 24, 32, 48, 64, 96, 128):
                kind = replace(IVF(), probes=probes, refine=refine)
                writer.note(NOTE, {"index": to_json(kind), "recall": 0.0})
                store = writer.commit()
                yield f"probes {probes}, refine {refine}", lambda queries: store.search(queries, K).rows  # noqa: B023


def hnswlib(vectors: NDArray[np.float32], folder: Path) -> Iterator[tuple[str, Search]]:
    """Search hnswlib with M=16, ef_construction=200."""
    import hnswlib as library

    index = library.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), M=16, ef_construction=200)
    index.set_num_threads(1)
    index.add_items(vectors)
    index.save_index(str(folder / "hnswlib"))
    for effort in (16, 24, 32, 48, 64, 96, 128, 192, 256, 512):
        index.set_ef(effort)
        yield f"ef {effort}", lambda queries: index.knn_query(queries, K)[0].astype(np.int64)


def usearch(vectors: NDArray[np.float32], folder: Path) -> Iterator[tuple[str, Search]]:
    """Search usearch with bf16 vectors."""
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="ip", dtype="bf16", connectivity=16, expansion_add=128)
    index.add(np.arange(len(vectors)), vectors, threads=1)
    index.save(str(folder / "usearch"))
    for effort in (16, 32, 64, 128, 256, 512):
        index.expansion_search = effort
        yield (
            f"expansion {effort}",
            lambda queries: np.atleast_2d(index.search(queries, K, threads=1).keys).astype(np.int64),
        )


def faiss_hnsw(vectors: NDArray[np.float32], folder: Path) -> Iterator[tuple[str, Search]]:
    """Search plain faiss HNSW with M=16, efConstruction=80."""
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 80
    index.add(vectors)
    faiss.write_index(index, str(folder / "faiss"))
    for effort in (16, 32, 64, 128, 256, 512):
        index.hnsw.efSearch = effort
        yield f"efSearch {effort}", lambda queries: index.search(queries, K)[1]


def autofaiss(vectors: NDArray[np.float32], folder: Path) -> Iterator[tuple[str, Search]]:
    """Search what autofaiss chooses by itself (give its own environment with ``--python``)."""
    from autofaiss import build_index

    index, _ = build_index(
        vectors, save_on_disk=True, index_path=str(folder / "autofaiss"), index_infos_path=str(folder / "infos.json")
    )
    yield "its choice", lambda queries: index.search(queries, K)[1]


ENGINES: dict[str, Engine] = {
    "retr": ours,
    "hnswlib": hnswlib,
    "usearch": usearch,
    "faiss-hnsw": faiss_hnsw,
    "autofaiss": autofaiss,
}


def worker(name: str, folder: Path, target: float) -> dict[str, Any]:
    """Build one engine and search it with growing effort until it reaches the target; give its figures."""
    vectors = np.load(folder / "vectors.npy")
    queries = np.load(folder / "queries.npy")
    kth = np.load(folder / "kth.npy")
    own = folder / name
    own.mkdir()
    loaded = _resident()
    start = time.process_time()
    settings = ENGINES[name](vectors, own)
    label, search = next(settings)
    build = time.process_time() - start
    while True:
        rows = np.concatenate([search(queries[at : at + 256]) for at in range(0, QUERIES, 256)])
        scores = np.einsum("nkd,nd->nk", vectors[np.maximum(rows, 0)], queries)
        recall = float(np.mean((scores >= kth[:, None] - 1e-6) & (rows >= 0)))
        following = None if recall >= target else next(settings, None)
        if following is None:
            break
        label, search = following
    alone = [_rate(search, queries[:200], 1) for _ in range(3)]
    batched = [_rate(search, queries, 256) for _ in range(3)]
    return {
        "setting": label,
        "recall": round(recall, 4),
        "queries/s, batch 1": round(statistics.median(alone)),
        "queries/s, batch 256": round(statistics.median(batched)),
        "build CPU s": round(build, 1),
        "MB on disk": round(sum(file.stat().st_size for file in own.rglob("*") if file.is_file()) / 1e6, 1),
        "MB resident beside the data": round((_resident() - loaded) / 1e6, 1),
        "MB peak": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1),
    }


def _rate(search: Search, queries: NDArray[np.float32], batch: int) -> float:
    # One thread: its CPU time is what a quiet machine would have taken.
    start = time.process_time()
    for at in range(0, len(queries), batch):
        search(queries[at : at + batch])
    return len(queries) / (time.process_time() - start)


def _resident() -> int:
    """Give the bytes of anonymous memory this process holds (mapped files are the system's to drop)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """Make the data, run every engine in its own process, print and record the figures and their ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--data", default="mixture", help="`mixture`, or the path of an index to tile")
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--engines", default="retr,hnswlib")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs autofaiss")
    parser.add_argument("--worker", nargs=2, metavar=("ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(worker(args.worker[0], Path(args.worker[1]), args.recall)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = mixture if args.data == "mixture" else None
        vectors = make(args.rows, args.dim, 1) if make else tiled(Path(args.data), args.rows, 1)
        queries = make(QUERIES, args.dim, 2) if make else tiled(Path(args.data), QUERIES, 2)
        kth = np.concatenate(
            [np.partition(part @ vectors.T, -K, axis=1)[:, -K] for part in np.array_split(queries, QUERIES // 50)]
        )
        for what, array in {"vectors": vectors, "queries": queries, "kth": kth}.items():
            np.save(folder / f"{what}.npy", array)
        dim = vectors.shape[1]
        del vectors
        figures: dict[str, Any] = {"rows": args.rows, "dim": dim, "recall asked": args.recall}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        for engine in args.engines.split(","):
            python = args.python if engine == "autofaiss" else sys.executable
            command = [python, "-m", "retr.benchmarks.ann", "--recall", str(args.recall), "--worker", engine, name]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
            figures[engine] = json.loads(done.stdout.splitlines()[-1])
            print(engine, figures[engine], file=sys.stderr)
    figures["retr over the others"] = ratios(figures)
    command_line = f"python -m retr.benchmarks.ann --rows {args.rows} --dim {dim} --recall {args.recall}"
    tag = "mixture" if args.data == "mixture" else "tiled"
    record(f"ann_{tag}_{args.rows}", figures, command=f"{command_line} --engines {args.engines}")


def ratios(figures: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Give our figures over each other engine's."""
    others = {name: value for name, value in figures.items() if name in ENGINES and name != "retr"}
    mine = figures.get("retr", {})
    return {
        name: {what: round(mine[what] / value[what], 3) for what in mine if what != "setting" and value[what]}
        for name, value in others.items()
        if mine
    }


if __name__ == "__main__":
    main()
