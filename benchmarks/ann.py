"""Approximate search beside other engines: the same vectors, the same run, one thread, each in its own process.

Every engine is built once and then searched with settings of growing cost until it reaches the recall asked for. Then
all wait, and are timed by turns, so that whatever else the machine does falls on all of them. Rates are queries per
second of CPU time, medians of five turns over 1,000 held-out queries; build time is CPU time too. A row counts as found
when its exact score is at least that of the tenth best. Settings of index and clustering were chosen before the run.

Data: ``--data mixture`` draws from N/200 Gaussians with Zipf-distributed sizes, spectra falling as a power law, and a
common offset, so that random pairs are similar as real embeddings are. ``--data INDEX`` tiles the vectors of a real
index: each row is one of them plus Gaussian noise of 0.6 of the median distance to its nearest neighbour; queries are
made in the same way.

Resident memory is what a process holds for itself; mapped files, which the system may drop, are shown beside it.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.benchmarks.engines import ENGINES, K, Search
from retr.benchmarks.record import record
from retr.index.vectors import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUERIES = 1000
TURNS = 5
# The fewest Gaussians of a mixture.
_FEWEST = 500


def mixture(n: int, dim: int, seed: int, archive: int = 0) -> NDArray[np.float32]:
    """Draw unit vectors ``(n, dim)`` from the mixture that the module's docstring describes.

    Parameters
    ----------
    archive
        How many rows the archive has, for questions that are asked of it: they come from its Gaussians.
    """
    return mixture_with_clusters(n, dim, seed, archive)[0]


def mixture_with_clusters(
    n: int, dim: int, seed: int, archive: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw as `mixture` does; return also which Gaussian each vector comes from, int64 ``(n,)``."""
    fixed = np.random.default_rng(0)
    means = fixed.standard_normal((_FEWEST, dim), np.float32)
    more = max(0, max(n, archive) // 200 - _FEWEST)
    # the axes of the noise do not depend on how many there are
    means = np.concatenate([means, np.random.default_rng((0, 1)).standard_normal((more, dim), np.float32)])
    shares = np.arange(1, len(means) + 1) ** -0.8
    spectrum = (np.arange(1, dim + 1) ** -0.6).astype(np.float32)
    spectrum *= np.sqrt(dim) / np.linalg.norm(spectrum)
    turns = fixed.permutation(dim)
    rng = np.random.default_rng(seed)
    vectors, clusters = np.empty((n, dim), np.float32), np.empty(n, np.int64)
    for start in range(0, n, 50_000):
        stop = min(n, start + 50_000)
        which = rng.choice(len(means), stop - start, p=shares / shares.sum())
        noise = rng.standard_normal((stop - start, dim), np.float32) * spectrum
        vectors[start:stop] = unit(means[which] + 0.8 * noise[:, turns] + 0.75)
        clusters[start:stop] = which
    return vectors, clusters


def tiled(index: Path, n: int, seed: int) -> NDArray[np.float32]:
    """Repeat the vectors of a real index with noise, as the module's docstring describes."""
    from retr.index.store import Store

    store = Store.open(index)
    real = np.asarray(store.vectors(store.live_rows()), np.float32)
    found = store.search(real[:500], 2, exact=True).scores[:, 1]
    noise = 0.6 * float(np.sqrt(np.median(2 - 2 * found))) / np.sqrt(real.shape[1])
    rng = np.random.default_rng(seed)
    return unit(real[rng.integers(0, len(real), n)] + noise * rng.standard_normal((n, real.shape[1]), np.float32))


def build(name: str, folder: Path) -> None:
    """Build one engine and print the CPU seconds it took."""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    (folder / name).mkdir()
    start = time.process_time()
    ENGINES[name].build(vectors, folder / name)
    spent = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    figures = json.dumps({"build CPU s": round(spent, 1), "MB peak of build": round(peak, 1)})
    (folder / f"{name}.json").write_text(figures)
    print(figures)


def serve(name: str, folder: Path, target: float) -> None:
    """Search one engine with growing effort until it reaches the target, then time each batch size that stdin asks for.

    Lines are printed as JSON: the engine's figures, then the rates.
    """
    queries = np.load(folder / "queries.npy")
    kth = np.load(folder / "kth.npy")
    before = _memory()
    settings = ENGINES[name].serve(folder / name, queries.shape[1])
    label, search = next(settings)
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    while True:
        rows = np.concatenate([search(queries[at : at + 256]) for at in range(0, QUERIES, 256)])
        found = np.stack([vectors[np.maximum(mine, 0)] @ query for mine, query in zip(rows, queries, strict=True)])
        recall = float(np.mean((found >= kth[:, None] - 1e-6) & (rows >= 0)))
        following = None if recall >= target else next(settings, None)
        if following is None:
            break
        label, search = following
    del vectors
    now = _memory()
    figures = {
        "setting": label,
        "recall": round(recall, 4),
        "MB on disk": round(sum(file.stat().st_size for file in (folder / name).rglob("*") if file.is_file()) / 1e6, 1),
        "MB resident": round((now["RssAnon"] - before["RssAnon"]) / 1e6, 1),
        "MB of mapped files": round((now["RssFile"] - before["RssFile"]) / 1e6, 1),
    }
    print(json.dumps(figures), flush=True)
    for line in sys.stdin:
        batch = int(line)
        print(json.dumps(_rate(search, queries[:200] if batch == 1 else queries, batch)), flush=True)


def _rate(search: Search, queries: NDArray[np.float32], batch: int) -> float:
    # One thread: its CPU time is what a quiet machine would have taken.
    start = time.process_time()
    for at in range(0, len(queries), batch):
        search(queries[at : at + batch])
    return len(queries) / (time.process_time() - start)


def _memory() -> dict[str, int]:
    """Return the bytes of this process's memory that are its own, and those of mapped files."""
    lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return {words[0][:-1]: int(words[1]) * 1024 for words in lines if words and words[0] in {"RssAnon:", "RssFile:"}}


def main() -> None:
    """Read the arguments: a comparison, or one phase of one engine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--data", default="mixture", help="`mixture`, or the path of an index to tile")
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--engines", default="retr,hnswlib")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs all engines but retr")
    parser.add_argument("--note", help="what to remember of this run, beside its figures")
    parser.add_argument("--work", type=Path, help="keep data and built engines here, and use those that are there")
    for phase in ("--build", "--serve"):
        parser.add_argument(phase, nargs=2, metavar=("ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.build:
        build(args.build[0], Path(args.build[1]))
    elif args.serve:
        serve(args.serve[0], Path(args.serve[1]), args.recall)
    else:
        compare(args)


def make_data(folder: Path, args: argparse.Namespace) -> None:
    """Write the vectors, the queries, and the exact score of each query's tenth best."""
    make = mixture if args.data == "mixture" else None
    vectors = make(args.rows, args.dim, 1) if make else tiled(Path(args.data), args.rows, 1)
    queries = make(QUERIES, args.dim, 2, args.rows) if make else tiled(Path(args.data), QUERIES, 2)
    kth = [np.partition(part @ vectors.T, -K, axis=1)[:, -K] for part in np.array_split(queries, QUERIES // 50)]
    for what, array in {"vectors": vectors, "queries": queries, "kth": np.concatenate(kth)}.items():
        np.save(folder / f"{what}.npy", array)


def compare(args: argparse.Namespace) -> None:
    """Make the data and run every engine in processes of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work or Path(temporary)
        folder.mkdir(exist_ok=True)
        if not (folder / "kth.npy").exists():
            make_data(folder, args)
        rows, dim = np.load(folder / "vectors.npy", mmap_mode="r").shape
        figures: dict[str, Any] = {"rows": rows, "dim": dim, "recall asked": args.recall}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        running = {}
        for engine in args.engines.split(","):
            python = sys.executable if engine == "retr" else args.python
            command = [python, "-m", "retr.benchmarks.ann", "--recall", str(args.recall)]
            pipes: dict[str, Any] = {"env": environment, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            if not (folder / f"{engine}.json").exists():
                subprocess.run([*command, "--build", engine, folder], env=environment, stdout=sys.stderr, check=True)
            figures[engine] = json.loads((folder / f"{engine}.json").read_text())
            running[engine] = subprocess.Popen([*command, "--serve", engine, folder], text=True, **pipes)
            figures[engine] |= _answer(running[engine])
            print(engine, figures[engine], file=sys.stderr)
        for batch in (1, 256):
            turns = [{engine: _answer(process, batch) for engine, process in running.items()} for _ in range(TURNS)]
            for engine in running:
                figures[engine][f"queries/s, batch {batch}"] = round(statistics.median(turn[engine] for turn in turns))
        for process in running.values():
            process.communicate()
    figures["retr over the others"] = ratios(figures)
    command_line = f"python -m retr.benchmarks.ann --rows {rows} --dim {dim} --recall {args.recall}"
    tag = "mixture" if args.data == "mixture" else "tiled"
    name = f"ann_{tag}_{rows}x{dim}_{round(100 * args.recall)}"
    record(name, figures, command=f"{command_line} --engines {args.engines}", note=args.note)


def _answer(process: subprocess.Popen[str], batch: int | None = None) -> Any:
    """Read what a worker prints next, after asking it to time a batch size."""
    assert process.stdin is not None
    assert process.stdout is not None
    if batch is not None:
        print(batch, file=process.stdin, flush=True)
    for line in process.stdout:
        # libraries may print too
        if line.startswith(("{", *"0123456789")):
            return json.loads(line)
    raise SystemExit(f"an engine ended before it answered, with status {process.wait()}")


def ratios(figures: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return our figures over each other engine's."""
    others = {name: value for name, value in figures.items() if name in ENGINES and name != "retr"}
    mine = figures.get("retr", {})
    return {
        name: {
            what: round(mine[what] / value[what], 3)
            for what in mine
            if what != "setting" and mine[what] and value[what]
        }
        for name, value in others.items()
        if mine
    }


if __name__ == "__main__":
    main()
