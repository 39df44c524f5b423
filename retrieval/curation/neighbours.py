"""The nearest rows of other patients, by raw vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retr.retrieval.labels.labelled import others, row_groups
from retr.retrieval.raw_vectors import raw_vectors, searches_raw

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.index.store import Store

# Rows that ask, and rows that are compared with them, at a time.
_ASKING, _ASKED = 2048, 16_384


def nearest_others(
    store: Store, rows: NDArray[np.int64], groups: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find, for each of some rows, the nearest of these rows that belong to another group.

    Parameters
    ----------
    rows
        int64 ``(n,)`` row numbers, in any order; of equal rows the first comes first.
    groups
        int64 ``(n,)``: equal numbers mark one patient.
    k
        How many.

    Returns
    -------
    tuple
        Places in ``rows``, int64 ``(n, k)``, -1 where there are no more, and their cosines, float32.
    """
    whole = searches_raw(store) and np.array_equal(np.sort(rows), store.live_rows())
    if whole and np.array_equal(groups, row_groups(store, rows)):
        return _searched(store, rows, k)
    return _compared(store, rows, groups, k)


def _searched(store: Store, rows: NDArray[np.int64], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ask the index, which may have accelerators."""
    place = np.full(store.n_total + 1, -1, np.int64)  # the last is that of no row
    place[rows] = np.arange(len(rows))
    found, cosines = [], []
    for start in range(0, len(rows), _ASKING):
        asked = rows[start : start + _ASKING]
        near = store.search(np.asarray(store.vectors(asked), np.float32), k, exclude=others(store, asked))
        found.append(place[near.rows])
        cosines.append(near.scores)
    places, scores = np.concatenate(found), np.concatenate(cosines)
    return places, np.where(places < 0, -np.inf, scores).astype(np.float32)


def _compared(
    store: Store, rows: NDArray[np.int64], groups: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Compare all with all, block by block."""
    n = len(rows)
    places = np.full((n, k), -1, np.int64)
    scores = np.full((n, k), -np.inf, np.float32)
    for begin in range(0, n, _ASKED):
        gallery = raw_vectors(store, rows[begin : begin + _ASKED])
        theirs = groups[begin : begin + _ASKED]
        for start in range(0, n, _ASKING):
            part = slice(start, start + _ASKING)
            found = raw_vectors(store, rows[part]) @ gallery.T
            found[groups[part, None] == theirs] = -np.inf
            best = np.argpartition(-found, min(k, found.shape[1]) - 1, axis=1)[:, :k]
            score = np.concatenate([scores[part], np.take_along_axis(found, best, 1)], axis=1)
            which = np.concatenate([places[part], best + begin], axis=1)
            # the best first; of equal ones the first row
            order = np.lexsort((which, -score), axis=1)[:, :k]
            scores[part] = np.take_along_axis(score, order, 1)
            places[part] = np.where(np.isfinite(scores[part]), np.take_along_axis(which, order, 1), -1)
    return places, scores
