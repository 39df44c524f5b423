"""What `Index.search` costs beside `Store.search`, one query at a time: ``python -m retr.benchmarks.public_path``.

A tuned index of ``--rows`` x ``--dim`` with eleven columns of metadata, whose vectors lie in clusters. The same vector
is asked of the store, which gives row numbers and scores, and of the public class: for ids and scores; for a table of
five columns; with all columns; with a condition, with an exclusion, by id, and one hit a patient. All take turns in one
process on one thread; times are CPU microseconds, the lower quartile of many turns, since other programs only ever
add. ``over the store`` divides by the store's own search, for a condition and one hit a patient by the store's with the
same.

Goals: 1.5 with ids and scores read, 2.5 with the table of five columns.
"""

from __future__ import annotations

import os

# before anything that takes threads
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.benchmarks.ann import mixture
from retr.benchmarks.metadata import piece
from retr.benchmarks.record import record
from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.index.tune import tune
from retr.index.vectors import unit
from retr.retrieval.index import Index

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from retr.retrieval.hits import Hits

_FIVE = ["label", "patient", "age", "sex", "device"]
_WHERE = "age >= 60 and sex = 'F'"
_K = 10
# What is asked of the store, beside which the public class's own is set.
_STORE = {"with a condition": "store, condition", "one hit a patient": "store, one a patient"}


def build(path: Path, rows: int, dim: int) -> None:
    """Make the index and tune it."""
    info = EncoderInfo("synthetic", dim, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    with Store.create(path, encoder=info).writer() as writer:
        writer.append(piece(0, rows), mixture(rows, dim, 1))
        writer.set_group("patient")
        writer.commit()
    with Store.open(path).writer() as writer:
        tune(writer, recall=0.99)


def calls(index: Index, vectors: NDArray[np.float32], ids: list[str]) -> dict[str, Callable[[int], Any]]:
    """Return what is timed, each called with the number of a query."""
    store = index.store

    def ids_and_scores(hits: Hits) -> Any:
        return hits.ids, hits.scores

    def search(at: int, **options: Any) -> Hits:
        return index.search(vector=vectors[at], k=_K, **options)

    return {
        "store": lambda at: store.search(vectors[at : at + 1], _K),
        "store, condition": lambda at: store.search(vectors[at : at + 1], _K, where=_WHERE),
        "store, one a patient": lambda at: store.search(vectors[at : at + 1], _K, one_per="patient"),
        "ids and scores": lambda at: ids_and_scores(search(at)),
        "table of five columns": lambda at: search(at, columns=_FIVE).table,
        "table of all columns": lambda at: search(at).table,
        "all hits as objects": lambda at: list(search(at)),
        "with a condition": lambda at: ids_and_scores(search(at, where=_WHERE)),
        "one hit a patient": lambda at: ids_and_scores(search(at, one_per="patient")),
        "by id, without its patient": lambda at: ids_and_scores(index.search(id=ids[at], k=_K, exclude_same="patient")),
    }


def measure(index: Index, turns: int) -> dict[str, Any]:
    """Return the CPU microseconds of each call, and what they are beside the store's."""
    store, rng = index.store, np.random.default_rng(7)
    rows = np.sort(rng.choice(store.n_total, 200, replace=False))
    near = np.asarray(store.vectors(rows), np.float32)
    vectors = unit(near + 0.05 * rng.standard_normal(near.shape, np.float32))
    timed = calls(index, vectors, store.table(["id"], rows)["id"].to_pylist())
    taken: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(turns):
        for name, call in timed.items():
            began = time.process_time_ns()
            call(turn % len(rows))
            # the first round reads from disk
            if turn >= len(rows):
                taken[name].append((time.process_time_ns() - began) / 1000)
    microseconds = {name: round(statistics.quantiles(found, n=4)[0], 1) for name, found in taken.items()}
    beside = {
        name: round(value / microseconds[_STORE.get(name, "store")], 2)
        for name, value in microseconds.items()
        if not name.startswith("store")
    }
    return {"CPU microseconds": microseconds, "over the store": beside}


def main() -> None:
    """Build, measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--turns", type=int, default=600)
    parser.add_argument("--work", type=Path, help="keep the index here between runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = (options.work or Path(scratch)) / f"{options.rows}x{options.dim}.retr"
        if not Store.exists(path):
            build(path, options.rows, options.dim)
        index = Index.open(path)
        figures = {
            "rows": options.rows,
            "dim": options.dim,
            "k": _K,
            "index": index.info()["search"]["kind"],
            "recall when tuned": index.info()["search"]["recall"],
            **measure(index, options.turns),
        }
    command = f"python -m retr.benchmarks.public_path --rows {options.rows} --dim {options.dim}"
    record("public_path", figures, command=command, note="one thread; the calls take turns in one process")


if __name__ == "__main__":
    main()
