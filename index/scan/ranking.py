"""From scored candidates to the k best: by score, equal scores by id, at most one of a group."""

from __future__ import annotations

from operator import gt
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from retr.index.types import Ask, GroupCodes

# So many candidates are ranked at a time.
_AT_ONCE = 1 << 20
# Candidates of one query that are ordered without arrays.
_FEW = 64


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
    """Order scored candidates ``(n, c)`` by (score, id), apply ``one_per`` and ``min_score``, keep the first k of each.

    Ids, and groups, are read for many queries together: where many rows are the same all of them tie on the same rows.

    Parameters
    ----------
    rows, scores
        Where a row is -1 its score is ``-inf``.
    ids_of
        Returns the ids of rows; only asked where scores tie.

    Returns
    -------
    tuple
        int64 rows and float32 scores ``(n, k)``, -1 and ``-inf`` where there are fewer.
    """
    if ask.one_per is None and ask.min_score is None and rows.shape[1] == ask.k and _falls(scores):
        # nothing ties, and nothing is left out
        return rows, scores
    alone = len(rows) == 1 and ask.one_per is None and ask.min_score is None and rows.shape[1] >= ask.k
    if alone and (best := _best_of_one(rows[0], scores[0], ask.k)) is not None:
        return best
    if len(rows) == 1 and ask.one_per is not None and ask.min_score is None:
        order = np.argsort(-scores[0], kind="stable")[: np.count_nonzero(rows >= 0)]
        mine, my_scores = rows[:, order], scores[:, order]
        if _falls(my_scores) and len(first := _first(ask.one_per[mine[0]], ask.k)) == ask.k:
            return mine[:, first], my_scores[:, first]
    kept = np.full((len(rows), ask.k), -1, np.int64)
    kept_scores = np.full((len(rows), ask.k), -np.inf, np.float32)
    step = max(1, _AT_ONCE // max(rows.shape[1], 1))
    for start in range(0, len(rows), step):
        some = slice(start, start + step)
        mine, my_scores = _ranked(rows[some], scores[some], ask, ids_of)
        width = min(mine.shape[1], ask.k)
        kept[some, :width], kept_scores[some, :width] = mine[:, :width], my_scores[:, :width]
    return kept, kept_scores


def _best_of_one(
    rows: NDArray[np.int64], scores: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
    """Return the k best of at least so many candidates ``(c,)`` of one query, ``(1, k)``; ``None`` where some tie."""
    if len(rows) <= _FEW:
        # of few, numbers take less than arrays of them
        line = scores.tolist()
        places: Any = sorted(range(len(line)), key=line.__getitem__, reverse=True)[: k + 1]
        falls = all(map(gt, (best := [line[place] for place in places]), best[1:]))
    else:
        places = scores.argsort()[::-1][: k + 1]
        falls = _falls(scores[places][None])
    # one more than is wanted, where there is one, may tie with the last
    return (rows[places[:k]][None], scores[places[:k]][None]) if falls else None


def _first(codes: NDArray[np.int64], k: int) -> list[int]:
    """Return the places of the first k rows that are each the first of its group, or of none, or as many as there are.

    Parameters
    ----------
    codes
        The groups of rows in order, ``(n,)``, negative for none.
    """
    found, seen = list[int](), set[int]()
    for at, code in enumerate(codes.tolist()):
        if len(found) == k:
            break
        if code < 0 or code not in seen:
            seen.add(code)
            found.append(at)
    return found


def _ranked(
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    ask: Ask,
    ids_of: Callable[[NDArray[np.int64]], Sequence[str]],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Put candidates ``(n, c)`` in order; what is not kept is -1 and comes last, the first k are right."""
    if not _falls(scores):
        places = np.argsort(-scores, axis=1, kind="stable")
        rows, scores = np.take_along_axis(rows, places, axis=1), np.take_along_axis(scores, places, axis=1)
    if ask.min_score is not None:
        rows, scores = _only(scores >= ask.min_score, rows, scores)
    tied = _tied(rows, scores)
    if ask.one_per is None and rows.shape[1] > ask.k:
        # ids settle ties, also one between the last that is kept and the first that is not, but none further down
        tied &= scores >= scores[:, ask.k - 1 : ask.k]
    some = np.flatnonzero(tied.any(axis=1))
    if len(some):
        rows = rows.copy()
        want = rows.shape[1] if ask.one_per is not None else min(ask.k, rows.shape[1])
        rows[some, :want] = _settled(rows[some], scores[some], tied[some], want, ids_of)
    if ask.one_per is not None:
        keep = _first_of_group(rows, ask.one_per)
        rows, scores = _only(keep, rows, scores)
        places = np.argsort(~keep, axis=1, kind="stable")
        rows, scores = np.take_along_axis(rows, places, axis=1), np.take_along_axis(scores, places, axis=1)
    return rows, scores


def _falls(scores: NDArray[np.float32]) -> bool:
    """Return whether each score of a query is less than the one before."""
    return bool((scores[:, 1:] < scores[:, :-1]).all())


def _only(
    keep: NDArray[np.bool_], rows: NDArray[np.int64], scores: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.where(keep, rows, -1), np.where(keep, scores, np.float32(-np.inf))


def _tied(rows: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which of the candidates sorted by score have the score of a neighbour: bool ``(n, c)``."""
    equal = (scores[:, 1:] == scores[:, :-1]) & (rows[:, 1:] >= 0)
    tied = np.zeros(rows.shape, np.bool_)
    tied[:, 1:] |= equal
    tied[:, :-1] |= equal
    return tied


def _settled(
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    tied: NDArray[np.bool_],
    want: int,
    ids_of: Callable[[NDArray[np.int64]], Sequence[str]],
) -> NDArray[np.int64]:
    """Return the first ``want`` rows of each query ``(n, c)`` where those that tie are in the order of their ids."""
    distinct, which = _encoded(rows[tied])
    ids = ids_of(distinct)
    rank = np.empty(len(distinct), np.int64)
    rank[sorted(range(len(distinct)), key=ids.__getitem__)] = np.arange(len(distinct))
    key = np.zeros(rows.shape, np.int64)
    np.cumsum(scores[:, 1:] != scores[:, :-1], axis=1, out=key[:, 1:])
    key *= len(distinct)
    key[tied] += rank[which]
    if want < rows.shape[1]:
        near = np.argpartition(key, want - 1, axis=1)[:, :want]
        places = np.take_along_axis(near, np.argsort(np.take_along_axis(key, near, axis=1), axis=1), axis=1)
    else:
        places = np.argsort(key, axis=1)
    return np.take_along_axis(rows, places, axis=1)


def _first_of_group(rows: NDArray[np.int64], one_per: GroupCodes) -> NDArray[np.bool_]:
    """Return which rows are the first of their group in a query, or of none: bool ``(n, c)``."""
    keep = rows >= 0
    if len(rows) == 1:
        codes = one_per[rows[keep]]
        first = codes < 0
        first[np.unique(codes, return_index=True)[1]] = True
        keep[keep] = first
        return keep
    distinct, which = _encoded(rows[keep])
    codes = one_per[distinct][which]
    query = np.nonzero(keep)[0]
    # what is new of all that came before it
    numbers = _encoded(query * (codes.max(initial=0) + 2) + codes + 1)[1]
    keep[keep] = (codes < 0) | (np.diff(np.maximum.accumulate(numbers), prepend=-1) > 0)
    return keep


def _encoded(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the distinct values in the order in which they come, and the number of each value among them."""
    encoded = pa.array(values).dictionary_encode()
    return encoded.dictionary.to_numpy(), encoded.indices.to_numpy()
