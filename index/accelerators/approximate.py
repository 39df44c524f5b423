"""Approximate search through accelerators, with exact search where they cannot answer.

Each segment gives candidates: one with an accelerator proposes them, one without (rows added since the last ``tune``)
is scanned. All come with the scores that the exact search gives, are re-checked against the mask and the exclusions,
and ranked together. A query that is left with fewer than k rows is answered by the exact search instead.

How an accelerator is asked depends on the question. Few rows of all are found as `tune` measured it. Under a filter, an
exclusion or a grouping, or further down, the rows that are wanted may lie anywhere: then a segment is searched best
first, to a bound, by an accelerator that can, and otherwise scanned.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from operator import gt
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from retr.index.accelerators.config import DEPTH
from retr.index.scan import exact
from retr.index.scan.ranking import ranked
from retr.index.types import Ask, Block, Candidates, Neighbours, is_best_first

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from retr.index.accelerators.config import Config
    from retr.index.types import Accelerator, BestFirst

# Beyond these the candidates would be a large part of all rows.
_MAX_EXCLUDED = 2048
_MAX_K = 2048
# Nanoseconds of a query alone, and of one in a large batch, for every value of an allowed row that is scored exactly;
# for every list of a search by bounds, and for the rest of such a search.
_VALUE, _VALUE_IN_BATCH, _LIST, _SEARCH = 0.2, 0.03, 80.0, 100_000.0
# Where some may be of one group no more rows are looked at for each that is wanted.
_DEEPEST = 128
# For more groups than this, finding which one a row is of takes longer than the rows that it saves.
_MOST_GROUPS = 64


@dataclass(frozen=True)
class Bound:
    """How far a search by bounds looks: see `retr.index.types.BestFirst`.

    Attributes
    ----------
    reach, most
        For any question.
    few
        The reach for a question of the sort that settings of accelerators are chosen for; these serve it where there is
        none.
    """

    reach: float
    most: int | None = None
    few: float | None = None


class How(TypedDict):
    """What all kinds of search are told of the vectors; see `exact.search`."""

    max_norm: float
    cosine: bool
    ids_of: Callable[[NDArray[np.int64]], Sequence[str]]


def measured(ask: Ask) -> bool:
    """Return whether a question is of the sort that settings of accelerators are chosen for: few rows, of all."""
    return ask.allowed is None and ask.one_per is None and ask.k <= DEPTH and ask.k + ask.excluded <= DEPTH + 1


def suits(ask: Ask, n_rows: int, dim: int) -> bool:
    """Return whether accelerators can serve what is asked of ``n_rows`` rows, and do so at less cost than a scan."""
    if ask.k > min(_MAX_K, n_rows // 20) or ask.excluded > _MAX_EXCLUDED:
        return False
    if ask.allowed is None:
        return True
    allowed = int(np.count_nonzero(ask.allowed)) if ask.few is None else len(ask.few)
    return not scanned(allowed, len(ask.exclude), n_rows, dim)


def scanned(allowed: int, n_queries: int, n_rows: int, dim: int) -> bool:
    """Return whether scoring so many allowed rows of all exactly costs no more than to search by bounds."""
    value = _VALUE_IN_BATCH + (_VALUE - _VALUE_IN_BATCH) / max(n_queries, 1)
    return value * dim * allowed <= _SEARCH + _LIST * 4 * math.isqrt(n_rows)


def search(
    blocks: Sequence[Block],
    accelerators: Sequence[Accelerator | None],
    config: Config,
    queries: NDArray[np.float32],
    ask: Ask,
    bound: Bound,
    *,
    max_norm: float,
    cosine: bool,
    ids_of: Callable[[NDArray[np.int64]], Sequence[str]],
    deep: int = 4,
) -> Neighbours:
    """Find about the ``ask.k`` best rows for each query; see `exact.search` for the arguments.

    Parameters
    ----------
    accelerators
        One for each block, or ``None`` where there is none.
    config
        How they are searched for few rows of all.
    bound
        How far they are searched for anything else.
    deep
        So many rows for each that is wanted are looked at where some may be of one group; more where that is too few.
    """
    k = ask.k
    how = How(max_norm=max_norm, cosine=cosine, ids_of=ids_of)
    few = measured(ask)
    want = k * (deep if ask.one_per is not None else 1)
    found = []
    scanned: list[Block] = []
    for block, accelerator in zip(blocks, accelerators, strict=True):
        # (what a protocol is asked for takes longer than the rest of this loop)
        if accelerator is not None and few and not (bound.few and is_best_first(accelerator)):
            found.append(_shifted(accelerator.search(queries, want + ask.excluded, config), block.start))
        elif is_best_first(accelerator):
            found.append(_bounded(block, accelerator, bound, queries, ask, want))
        else:
            scanned.append(block)
    found += [_scanned(run, queries, ask, want, max_norm=max_norm, ids_of=ids_of) for run in _runs(scanned)]
    rows, scores = found[0]
    if len(found) > 1:
        rows, scores = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
        # those that are left out below are among them
        kept = want + ask.excluded
        best = np.argpartition(-scores, min(kept, rows.shape[1]) - 1, axis=1)[:, :kept]
        rows, scores = np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)
    # Only now: what a forbidden row kept out is missing, and the query is short.
    if ask.allowed is not None:
        forbidden = ~ask.allowed[rows]
        rows[forbidden], scores[forbidden] = -1, -np.inf
    for number, excluded in enumerate(ask.exclude if ask.excluded else ()):
        if len(excluded):
            forbidden = np.isin(rows[number], excluded)
            rows[number, forbidden], scores[number, forbidden] = -1, -np.inf
    if cosine:
        np.minimum(scores, 1, out=scores)
        below = scores < -1
        if below.any():
            scores[below & (rows >= 0)] = -1
    result = Neighbours(*ranked(rows, scores, ask, ids_of), exact=False)
    # rows that there are come before those that are missing
    if (result.rows >= 0).all():
        return result
    n_allowed = sum(len(block.vectors) for block in blocks)
    if ask.allowed is not None:
        n_allowed = int(np.count_nonzero(ask.allowed))
    short = result.rows[:, min(k, n_allowed) - 1] < 0
    if ask.min_score is not None:
        short &= ~((rows >= 0) & (scores < ask.min_score)).any(axis=1)
    if short.any():
        again = np.flatnonzero(short)
        rest = dataclasses.replace(ask, exclude=[ask.exclude[number] for number in again.tolist()])
        if ask.one_per is not None and not few and deep < _DEEPEST and deep * k <= _MAX_K:
            whole = search(blocks, accelerators, config, queries[again], rest, bound, **how, deep=8 * deep)
        else:
            whole = exact.search(blocks, queries[again], rest, **how)
        result.rows[again], result.scores[again] = whole.rows, whole.scores
    return result


def candidates(
    blocks: Sequence[Block],
    accelerators: Sequence[Accelerator | None],
    config: Config,
    queries: NDArray[np.float32],
    n: int,
    *,
    max_norm: float,
    ids_of: Callable[[NDArray[np.int64]], Sequence[str]],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return about the ``n`` rows of all, deleted ones among them, that are most like each query, in no order.

    Accelerators look as far as ``config`` says, however many are wanted; what that finds is for the caller to measure.
    Returns int64 ``(m, c)``, -1 padded, and their scores.
    """
    found = []
    scanned: list[Block] = []
    for block, accelerator in zip(blocks, accelerators, strict=True):
        if accelerator is None:
            scanned.append(block)
        else:
            found.append(_shifted(accelerator.search(queries, min(n, len(block.vectors)), config), block.start))
    every = Ask(n, None, [np.empty(0, np.int64)] * len(queries), None, None)
    found += [_scanned(run, queries, every, n, max_norm=max_norm, ids_of=ids_of) for run in _runs(scanned)]
    rows, scores = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
    if rows.shape[1] > n:
        best = np.argpartition(-scores, n - 1, axis=1)[:, :n]
        rows, scores = np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)
    return rows, scores


def plain(
    accelerators: Sequence[Accelerator | None], config: Config, queries: NDArray[np.float32], k: int, *, cosine: bool
) -> Neighbours | None:
    """Answer what is asked most, few rows of all, through the accelerator of an only block, as `search` does.

    ``None`` where that needs more than to ask it: several blocks, scores that tie, fewer rows than k.
    """
    if len(accelerators) != 1 or (accelerator := accelerators[0]) is None:
        return None
    found = accelerator.search(queries, k, config)
    scores = found.scores
    if cosine:
        scores = np.minimum(scores, 1)
    if found.rows.shape[1] != k or not _settled(scores):
        return None
    return Neighbours(found.rows, scores, exact=False)


def _settled(scores: NDArray[np.float32]) -> bool:
    """Return whether each query's scores ``(n, k)`` fall, and end above the lowest that there is: no row is missing."""
    if len(scores) == 1:
        # of one query a few numbers, which take less than arrays of them
        line = scores[0].tolist()
        return bool(line[-1] > -1 and all(map(gt, line, line[1:])))
    return bool((scores[:, 1:] < scores[:, :-1]).all() and (scores[:, -1] > -1).all())


def _shifted(found: Candidates, start: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return (np.where(found.rows >= 0, found.rows + start, -1) if start else found.rows), found.scores


def _bounded(
    block: Block, accelerator: BestFirst, bound: Bound, queries: NDArray[np.float32], ask: Ask, want: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the best allowed rows of one block, int64 ``(n, c)``, -1 padded, and their scores."""
    start, stop = block.start, block.start + len(block.vectors)
    groups = ask.groups if ask.k <= _MOST_GROUPS else None
    found = accelerator.best_first(
        queries,
        min(want, len(block.vectors)),
        reach=bound.few if bound.few and measured(ask) else bound.reach,
        most=bound.most,
        allowed=None if ask.allowed is None else ask.allowed[start:stop],
        exclude=_within(ask, start, stop) if ask.excluded else None,
        groups=None if groups is None else groups[start:stop],
        apart=0 if groups is None else ask.k,
    )
    return _shifted(found, start)


def _within(ask: Ask, start: int, stop: int) -> list[NDArray[np.int64]]:
    """Return each query's forbidden rows of one block, counted from its first."""
    return [part[slice(*np.searchsorted(part, (start, stop)))] - start for part in ask.exclude]


def _runs(blocks: Sequence[Block]) -> list[list[Block]]:
    """Return blocks that follow on each other together: one scan of several costs no more than of one as large."""
    runs: list[list[Block]] = []
    stop = -1
    for block in blocks:
        if block.start != stop:
            runs.append([])
        runs[-1].append(block)
        stop = block.start + len(block.vectors)
    return runs


def _scanned(
    run: Sequence[Block],
    queries: NDArray[np.float32],
    ask: Ask,
    want: int,
    *,
    max_norm: float,
    ids_of: Callable[[NDArray[np.int64]], Sequence[str]],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ``want`` best allowed rows of blocks in a row and their scores, as `_bounded` does."""
    start, stop = run[0].start, run[-1].start + len(run[-1].vectors)
    here = Ask(
        k=min(want, stop - start),
        allowed=None if ask.allowed is None else ask.allowed[start:stop],
        exclude=_within(ask, start, stop),
        one_per=None,
        min_score=None,
    )
    found = exact.search(
        [Block(block.vectors, block.start - start) for block in run],
        queries,
        here,
        max_norm=max_norm,
        cosine=False,
        ids_of=lambda rows: ids_of(rows + start),
    )
    return np.where(found.rows >= 0, found.rows + start, -1), found.scores
