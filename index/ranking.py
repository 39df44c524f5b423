"""From scored candidates to the k best: by score, equal scores by id, at most one of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from retr.index.exact import Ask


def best(
    rows: NDArray[np.int64], scores: NDArray[Any], want: int
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    """Keep the ``want`` best of each query's candidates ``(n, c)``, c above ``want``, in no order.

    Returns
    -------
    tuple
        Rows and scores ``(n, want)``, and the best score that was dropped ``(n,)``.
    """
    places = np.argpartition(-scores, want, axis=1)
    dropped = np.take_along_axis(scores, places[:, want:], axis=1).max(axis=1)
    places = places[:, :want]
    return np.take_along_axis(rows, places, axis=1), np.take_along_axis(scores, places, axis=1), dropped


def ranked(
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    ask: Ask,
    ids_of: Callable[[NDArray[np.int64]], Sequence[str]],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Put scored candidates ``(n, c)`` in the order of `order`, all queries at once where nothing forbids it.

    Returns
    -------
    tuple
        int64 rows and float32 scores ``(n, k)``, -1 and ``-inf`` where there are fewer.
    """
    n, c = rows.shape
    kept = np.full((n, ask.k), -1, np.int64)
    kept_scores = np.full((n, ask.k), -np.inf, np.float32)
    single = np.arange(n)
    if ask.one_per is None and ask.min_score is None:
        if not (scores[:, 1:] < scores[:, :-1]).all():
            each, places = single[:, None], np.argsort(-scores, axis=1, kind="stable")
            rows, scores = rows[each, places], scores[each, places]
        width = min(c, ask.k)
        kept[:, :width], kept_scores[:, :width] = rows[:, :width], scores[:, :width]
        # ids settle ties, also one between the last that is kept and the first that is not
        head = scores[:, : ask.k + 1]
        tied = (head[:, 1:] >= head[:, :-1]) & (rows[:, 1 : ask.k + 1] >= 0)
        single = np.flatnonzero(tied.any(axis=1))
    for number in single:
        found = np.flatnonzero(rows[number] >= 0)
        mine, my_scores = order(rows[number, found], scores[number, found], ask, ids_of)
        kept[number], kept_scores[number] = -1, -np.inf
        kept[number, : len(mine)], kept_scores[number, : len(mine)] = mine, my_scores
    return kept, kept_scores


def order(
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    ask: Ask,
    ids_of: Callable[[NDArray[np.int64]], Sequence[str]],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Order scored rows by (score, id), apply ``one_per`` and ``min_score``, keep the first k."""
    if ask.min_score is not None:
        keep = scores >= ask.min_score
        rows, scores = rows[keep], scores[keep]
    places = np.argsort(-scores, kind="stable")
    rows, scores = rows[places], scores[places]
    rows = _settle_ties(rows, scores, ids_of)
    if ask.one_per is not None:
        codes = ask.one_per[rows]
        _, first = np.unique(codes, return_index=True)
        keep = codes == -1
        keep[first] = True
        rows, scores = rows[keep], scores[keep]
    return rows[: ask.k], scores[: ask.k]


def _settle_ties(
    rows: NDArray[np.int64], scores: NDArray[np.float32], ids_of: Callable[[NDArray[np.int64]], Sequence[str]]
) -> NDArray[np.int64]:
    equal = scores[1:] == scores[:-1]
    tied = np.zeros(len(rows), bool)
    tied[1:] |= equal
    tied[:-1] |= equal
    at = np.flatnonzero(tied)
    if len(at) == 0:
        return rows
    ids = ids_of(rows[at])
    by_id = sorted(range(len(at)), key=lambda j: (-float(scores[at[j]]), ids[j]))
    settled = rows.copy()
    settled[at] = rows[at[by_id]]
    return settled
