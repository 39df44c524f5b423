"""Measuring a search: what share of the best rows it finds, and what it costs."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from retr.index.accelerators.config import DEPTH
from retr.index.vectors import unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store

# So many choose, and so many others measure what is promised: at a recall of 0.95 that is known to about 0.006.
_QUERIES = 1024
BATCH = 256
# Runs by turns, of which the least counts.
_TURNS = 5


@dataclass(frozen=True)
class Questions:
    """Queries of one sort with the rows they must not find and their exact k-th best scores."""

    vectors: NDArray[np.float32]
    exclude: list[NDArray[np.int64]]
    kth: NDArray[np.float32]

    def half(self, which: int) -> Questions:
        """Return every second query, from the first or the second on."""
        return Questions(self.vectors[which::2], self.exclude[which::2], self.kth[which::2])

    def recall(self, store: Store, at_a_time: int) -> float:
        """Return the share of the k best that is found; a row as good as the k-th best counts."""
        scores = [
            store.search(self.vectors[at : at + at_a_time], DEPTH, exclude=self.exclude[at : at + at_a_time]).scores
            for at in range(0, len(self.kth), at_a_time)
        ]
        return float(np.mean(np.concatenate(scores) >= self.kth[:, None]))


def answered(store: Store, vectors: NDArray[np.float32], exclude: list[NDArray[np.int64]] | None = None) -> Questions:
    """Return queries with their exact answers, float32 ``(n, d)``."""
    exclude = exclude or [np.empty(0, np.int64)] * len(vectors)
    truth = store.search(vectors, DEPTH, exclude=exclude, exact=True)
    return Questions(vectors, exclude, truth.scores[:, -1])


def row_questions(store: Store) -> Questions:
    """Return rows of a store as queries, which must not find themselves."""
    drawn = np.random.default_rng(0).choice(len(store), min(len(store), 2 * _QUERIES), replace=False)
    rows = store.live_rows()[drawn]
    vectors = np.asarray(store.vectors(rows), np.float32)
    return answered(store, vectors, [np.array([row]) for row in rows])


def unseen_questions(store: Store, rows: Questions) -> Questions:
    """Return questions that are no rows: rows moved by what tells another row from those that it is like.

    A new picture lies so far from the index, and in such directions: as a row from the last of its ten nearest, those
    of its own patient left out, since these may be all but the same picture. The row that is moved must not be found.

    Parameters
    ----------
    rows
        Of `row_questions`.
    """
    others = np.random.default_rng(1).permutation(len(rows.vectors))
    group, own = store.manifest.group, np.concatenate(rows.exclude)
    same = {} if group is None else {group: store.table([group], own)[group].to_pylist()}
    like = store.search(rows.vectors, DEPTH, exclude=rows.exclude, exclude_same=same, exact=True).rows[:, -1]
    apart = rows.vectors - np.asarray(store.vectors(np.where(like < 0, own, like)), np.float32)
    moved = rows.vectors + apart[others]
    cosine = store.manifest.encoder.similarity == "cosine"
    return answered(store, unit(moved) if cosine else moved, rows.exclude)


def by_turns(store: Store, searches: Sequence[Callable[[], object]]) -> list[float]:
    """Return the least cost of each of some searches."""
    now = clock(store)
    least = [math.inf] * len(searches)
    for _ in range(_TURNS):
        for number, search in enumerate(searches):
            start = now()
            search()
            least[number] = min(least[number], now() - start)
    return least


def alone(store: Store, queries: NDArray[np.float32]) -> float:
    """Return the seconds that a query takes alone: of the least of some runs, the median of some queries."""
    times = [least_seconds(partial(store.search, query[None], DEPTH)) for query in queries[:32]]
    return statistics.median(times)


def least_seconds(call: Callable[[], object]) -> float:
    """Return the least seconds, by the clock, of some runs."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def clock(store: Store) -> Callable[[], float]:
    """Return what tells the cost of a search: the time of the CPU, or on a GPU that of the clock."""
    return time.process_time if store.placement.device == "cpu" else time.perf_counter
