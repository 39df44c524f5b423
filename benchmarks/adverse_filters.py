"""Recall and cost of filtered search on a tuned index, by what the filter keeps and by the share of rows it keeps.

An index of the mixture of `retr.benchmarks.ann` is tuned; then questions that it has never seen are asked one at a
time, each with a mask that keeps about the share asked for:

``unrelated``
    rows drawn at random.
``class``
    whole clusters that lie on one side of the archive, as a diagnosis does; questions come from everywhere.
``near``, ``far``
    the clusters nearest to the question, or farthest from it: "the nearest glaucoma to this normal eye".
``column``
    rows that are large in a measure which depends in part on the vector, as an age does.
``rest``
    all rows but those nearest to the question, as when a large study is left out.

A row counts as found when its score is at least that of the tenth best allowed one. Cost is CPU time of one thread, the
median of the questions; beside it that of the exact search. ``stated`` is the least recall that a note beside the hits
claimed.

Run: ``OMP_NUM_THREADS=1 python -m retr.benchmarks.adverse_filters --rows 100000``
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.benchmarks.ann import mixture_with_clusters
from retr.benchmarks.record import record
from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.index.tune import K, tune

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

SHARES = (0.005, 0.01, 0.02, 0.05, 0.08, 0.15, 0.3, 0.6)


class Filters:
    """Makes masks over the rows of one archive, each for one question.

    Parameters
    ----------
    vectors
        float32 ``(n, d)``.
    clusters
        int64 ``(n,)``: which cluster each row belongs to.
    """

    def __init__(self, vectors: NDArray[np.float32], clusters: NDArray[np.int64]) -> None:
        self._vectors, self._clusters = vectors, clusters
        self._rng = np.random.default_rng(5)
        sizes = np.bincount(clusters)
        sums = np.zeros((len(sizes), vectors.shape[1]), np.float32)
        order = np.argsort(clusters, kind="stable")
        present = np.flatnonzero(sizes)
        starts = np.concatenate([[0], np.cumsum(sizes[present])[:-1]])
        for cluster, start in zip(present.tolist(), starts.tolist(), strict=True):
            sums[cluster] = vectors[order[start : start + sizes[cluster]]].sum(axis=0)
        self._sizes, self._means = sizes, sums / np.maximum(sizes, 1)[:, None]
        side = self._rng.standard_normal(vectors.shape[1], np.float32)
        self._side = self._means @ side
        measure = vectors @ side
        self._measure = measure + measure.std() * self._rng.standard_normal(len(vectors), np.float32)
        self.kinds: dict[str, Callable[[NDArray[np.float32], float], Mask]] = {
            "unrelated": lambda _, share: self._rng.random(len(self._vectors)) < share,
            "class": lambda _, share: self._whole(self._side, share),
            "near": lambda query, share: self._whole(self._means @ query, share),
            "far": lambda query, share: self._whole(-(self._means @ query), share),
            "column": lambda _, share: self._measure > np.quantile(self._measure, 1 - share),
            "rest": self._rest,
        }

    def _whole(self, liking: NDArray[np.floating], share: float) -> Mask:
        """Keep whole clusters, those that are liked best, and of the last a part."""
        order = np.argsort(-liking)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        wanted = int(share * len(self._clusters))
        upto = int(np.searchsorted(np.cumsum(self._sizes[order]), wanted))
        mask: Mask = place[self._clusters] < upto
        last = np.flatnonzero(place[self._clusters] == upto)
        mask[last[: wanted - int(mask.sum())]] = True
        return mask

    def _rest(self, query: NDArray[np.float32], share: float) -> Mask:
        scores = self._vectors @ query
        return np.asarray(scores <= np.quantile(scores, share))


def made(folder: Path, rows: int, dim: int, recall: float) -> tuple[Store, NDArray[np.float32], NDArray[np.int64]]:
    """Open the tuned index in a folder, and build it first where it is not there; return also what it holds."""
    vectors, clusters = mixture_with_clusters(rows, dim, 1)
    if not folder.exists():
        info = EncoderInfo("benchmark", dim, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
        with Store.create(folder, encoder=info, dtype="float16").writer() as writer:
            for start in range(0, rows, 50_000):
                part = vectors[start : start + 50_000]
                writer.append(pa.table({"id": [str(number) for number in range(start, start + len(part))]}), part)
            writer.commit()
            writer.compact()
            tune(writer, recall=recall, say=print)
    return Store.open(folder), vectors, clusters


def measure(store: Store, questions: NDArray[np.float32], masks: list[NDArray[np.bool_]]) -> dict[str, Any]:
    """Ask every question with its own mask, through the accelerators and exactly."""
    found, near, exact, stated = [], [], [], 1.0
    for query, mask in zip(questions, masks, strict=True):
        start = time.process_time()
        hits = store.search(query[None], K, mask=mask)
        near.append(time.process_time() - start)
        start = time.process_time()
        truth = store.search(query[None], K, mask=mask, exact=True)
        exact.append(time.process_time() - start)
        found.append(hits.scores >= truth.scores[:, -1:])
        claim = re.search(r"recall ([01]\.\d+)", hits.note or "")
        stated = min(stated, float(claim[1]) if claim else 1.0)
    return {
        "recall": round(float(np.mean(found)), 4),
        "stated": stated,
        "CPU ms": round(statistics.median(near) * 1e3, 2),
        "CPU ms exactly": round(statistics.median(exact) * 1e3, 2),
    }


def main() -> None:
    """Measure every kind of filter at every share, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--work", type=Path, help="keep the index here, and use one that is there")
    parser.add_argument("--suffix", default="", help="ends the name of the result file")
    parser.add_argument("--note", help="what to remember of this run, beside its figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        store, vectors, clusters = made(
            options.work or Path(scratch) / "index", options.rows, options.dim, options.recall
        )
        filters = Filters(vectors, clusters)
        questions = mixture_with_clusters(options.questions, options.dim, 2, options.rows)[0]
        # loading is no part of a search
        everything = [np.ones(options.rows, np.bool_)] * len(questions)
        measure(store, questions[:2], everything[:2])
        figures: dict[str, Any] = {
            "all rows": _plain(store, questions),
            "all rows by a mask": measure(store, questions, everything),
        }
        for kind, mask in filters.kinds.items():
            figures[kind] = {
                f"{share:.1%}": measure(store, questions, [mask(query, share) for query in questions])
                for share in SHARES
            }
            print(kind, figures[kind], flush=True)
    name = f"adverse_filters_{options.rows}{options.suffix}"
    command = f"OMP_NUM_THREADS=1 python -m retr.benchmarks.adverse_filters --rows {options.rows} --dim {options.dim}"
    record(name, figures, command=command, note=options.note, quiet=True)


def _plain(store: Store, questions: NDArray[np.float32]) -> dict[str, Any]:
    times, found = [], []
    for query in questions:
        start = time.process_time()
        hits = store.search(query[None], K)
        times.append(time.process_time() - start)
        found.append(hits.scores >= store.search(query[None], K, exact=True).scores[:, -1:])
    return {"recall": round(float(np.mean(found)), 4), "CPU ms": round(statistics.median(times) * 1e3, 2)}


if __name__ == "__main__":
    main()
