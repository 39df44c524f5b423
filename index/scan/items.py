"""Exact search of cases: the k whose parts are most like the parts of a question.

Two steps, as in `retr.index.scan.exact`. A scan multiplies the question's parts with all vectors, block by block, and
keeps of each case what its score may be; then every case that may be among the best is scored again, each pair of parts
in float64 in an order that depends on nothing but the two vectors. A sum over pairs is rounded once (`math.fsum`), so
that no score depends on how rows lie in segments, on the order of a question's parts, or on other questions.

The scores, of a question's parts i with weights w and a case's allowed parts j, whose pairs score s:

* ``maxsim``: the sum over i of w_i times the largest s_ij;
* ``mean``: the mean of s_ij over all pairs, each i counted by its weight;
* ``best``: the largest s_ij, weights left aside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, get_args

import numpy as np

from retr.index.errors import UsageError
from retr.index.scan.exact import gather, hide, pieces
from retr.index.scan.matmul import choose_product
from retr.index.scan.ranking import ranked
from retr.index.types import Ask, ItemScore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from retr.index.rows.items import Items
    from retr.index.scan.matmul import Product
    from retr.index.types import Block

# Scores of one block of the scan; the best scores of all cases by part of a question; what is scored again at a time.
_BLOCK_SCORES, _CASE_SCORES, _RESCORED = 4_000_000, 1 << 25, 1 << 22
# More parts than this are multiplied in turns: the scores of a block stay near the processor.
_MOST_PARTS = 256
# Below this share of allowed rows, copying them together costs less than scoring all.
_GATHER_SHARE = 0.35
# With fewer parts numpy reduces column by column at less cost.
_FEW = 8


@dataclass(frozen=True)
class ItemQuestion:
    """The parts of a question.

    Attributes
    ----------
    vectors
        float32 ``(m, d)``, unit vectors where the similarity is cosine; at least one.
    weights
        float64 ``(m,)``, above 0.
    exclude
        Rows that are no parts of any case for this question, sorted int64.
    """

    vectors: NDArray[np.float32]
    weights: NDArray[np.float64]
    exclude: NDArray[np.int64]


@dataclass(frozen=True)
class ItemAsk:
    """What is wanted of a search of cases, beside the questions.

    ``allowed`` is a bool mask ``(n_total,)`` or ``None`` for all: other rows are no parts.
    """

    k: int
    allowed: NDArray[np.bool_] | None
    score: ItemScore = "maxsim"
    min_score: float | None = None


@dataclass(frozen=True)
class ItemAnswer:
    """The best cases of one question, best first.

    Attributes
    ----------
    items
        int64 ``(n,)`` numbers of cases.
    scores
        float32 ``(n,)``.
    rows
        int64 ``(n, m)``: for each part of the question the part of the case that is most like it.
    pairs
        float32 ``(n, m)``: how like.
    exact
        Whether these are provably the best.
    note
        What a person should know of how they were found, or ``None``.
    searched
        The share of the rows that was looked at.
    """

    items: NDArray[np.int64]
    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
    pairs: NDArray[np.float32]
    exact: bool = True
    note: str | None = None
    searched: float = 1.0


@dataclass(frozen=True)
class Vectors:
    """What is searched: all rows, the largest norm among them, whether pairs are clipped to [-1, 1], and ids of rows.

    ``ids_of`` is asked where two parts of a case are equally like a part of the question.
    """

    blocks: Sequence[Block]
    max_norm: float
    cosine: bool
    ids_of: Callable[[NDArray[np.int64]], Sequence[str]]


def require_score(score: object) -> None:
    """Raise `UsageError` where a score is none of `ItemScore`."""
    if score not in get_args(ItemScore):
        raise UsageError(f"cases are scored by {', '.join(get_args(ItemScore))}, got: {score!r}")


def search(vectors: Vectors, items: Items, questions: Sequence[ItemQuestion], ask: ItemAsk) -> list[ItemAnswer]:
    """Return the ``ask.k`` best cases of each question, fewer only where fewer have an allowed part."""
    answers: list[ItemAnswer] = []
    for some in _together(questions, len(items), ask.score):
        for question, (totals, slack) in zip(some, _scan(vectors, items, some, ask), strict=True):
            there = np.flatnonzero(totals > -np.inf)
            if len(there) > ask.k:
                # whatever rounding did to either: no other can be among the best
                worst = np.partition(totals[there], len(there) - ask.k)[len(there) - ask.k]
                there = there[totals[there] >= worst - slack]
            answers.append(best_of(vectors, items, question, there, ask))
    return answers


def best_of(
    vectors: Vectors, items: Items, question: ItemQuestion, candidates: NDArray[np.int64], ask: ItemAsk
) -> ItemAnswer:
    """Score some cases exactly, and return the ``ask.k`` best of them; a case without an allowed part is none."""
    rows, owner = _parts_of(items, question, candidates, ask)
    if ask.score == "mean":
        scores = _means(vectors, question, rows, owner, len(candidates))
    else:
        scores = _scores(_best_pairs(vectors, question, rows, owner, len(candidates))[0], question.weights, ask.score)
    wanted = Ask(min(ask.k, max(len(candidates), 1)), None, [], None, ask.min_score)
    best, top = ranked(
        candidates[None], scores[None], wanted, lambda numbers: [items.names[at] for at in numbers.tolist()]
    )
    # of a case without parts the score is that of none
    kept = (best[0] >= 0) & (top[0] > -np.inf)
    numbers, scores = best[0][kept], top[0][kept]
    rows, owner = _parts_of(items, question, numbers, ask)
    pairs, reached = _best_pairs(vectors, question, rows, owner, len(numbers), kept=True)
    matched = np.full(pairs.shape, -1, np.int64)
    ids = vectors.ids_of(reached[2])
    # of parts that are equally like, the one whose id comes first
    for place in sorted(range(len(ids)), key=ids.__getitem__, reverse=True):
        matched[reached[0][place], reached[1][place]] = reached[2][place]
    return ItemAnswer(numbers, scores, matched, pairs)


def _parts_of(
    items: Items, question: ItemQuestion, numbers: NDArray[np.int64], ask: ItemAsk
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the allowed parts of some cases, case by case, and of each the place of its case in ``numbers``."""
    rows, sizes = items.all_rows(numbers)
    keep = np.ones(len(rows), bool) if ask.allowed is None else ask.allowed[rows]
    if len(question.exclude):
        keep &= ~np.isin(rows, question.exclude)
    return rows[keep], np.repeat(np.arange(len(numbers)), sizes)[keep]


def _together(questions: Sequence[ItemQuestion], n_items: int, score: ItemScore) -> Iterator[list[ItemQuestion]]:
    """Yield questions that are asked in one reading of the vectors."""
    most = _parts_at_once(n_items)
    some: list[ItemQuestion] = []
    size = 0
    for question in questions:
        parts = 1 if score == "mean" else len(question.vectors)
        if some and size + parts > most:
            yield some
            some, size = [], 0
        some.append(question)
        size += parts
    if some:
        yield some


def _parts_at_once(n_items: int) -> int:
    return max(1, min(_MOST_PARTS, _CASE_SCORES // max(n_items, 1)))


def _scan(
    vectors: Vectors, items: Items, questions: Sequence[ItemQuestion], ask: ItemAsk
) -> list[tuple[NDArray[np.float64], float]]:
    """Return for each question the score of every case ``(n_items,)``, and by how much two of these may be wrong."""
    asked = [_mean_part(question) if ask.score == "mean" else question.vectors for question in questions]
    bounds = np.cumsum([0, *map(len, asked)]).tolist()
    parts, owner = np.concatenate(asked), np.repeat(np.arange(len(asked)), np.diff(bounds))
    norms = np.sqrt(np.square(parts, dtype=np.float64).sum(axis=1)) * max(vectors.max_norm, 1e-30)
    totals = np.zeros((len(questions), len(items)))
    total_rows = sum(len(block.vectors) for block in vectors.blocks)
    error = 0.0
    for start in range(0, len(parts), _parts_at_once(len(items))):
        some = slice(start, start + _parts_at_once(len(items)))
        product = choose_product(len(parts[some]), parts.shape[1], rows=total_rows, fast=False)
        error = max(error, product.error)
        exclude = [questions[number].exclude for number in owner[some].tolist()]
        if ask.score == "mean":
            totals[some] = _mean_scores(vectors.blocks, items, parts[some], ask.allowed, exclude, product).T
            continue
        best = _best_scores(vectors.blocks, items, parts[some], ask.allowed, exclude, product)
        for number in np.unique(owner[some]).tolist():
            mine = np.flatnonzero(owner[some] == number)
            if ask.score == "best":
                first = start <= bounds[number]
                found = best[:, mine].max(axis=1)
                totals[number] = found if first else np.maximum(totals[number], found)
            else:
                weights = questions[number].weights[start + mine - bounds[number]]
                there = best[:, mine[0]] > -np.inf
                totals[number, there] += best[np.ix_(there, mine)].astype(np.float64) @ weights
                totals[number, ~there] = -np.inf
    # of a product on either side, and of what is rounded to float32 when it is scored again
    rounding = 2 * error + 2.0**-21
    slack = []
    for number, question in enumerate(questions):
        own = norms[bounds[number] : bounds[number + 1]]
        slack.append(rounding * float((own * question.weights).sum() if ask.score == "maxsim" else own.max()))
    return list(zip(totals, slack, strict=True))


def _mean_part(question: ItemQuestion) -> NDArray[np.float32]:
    return _mean_exactly(question)[None].astype(np.float32)


def _mean_exactly(question: ItemQuestion) -> NDArray[np.float64]:
    """Return the weighted mean of a question's parts: each number of it rounded once."""
    weighted = question.vectors.astype(np.float64) * question.weights[:, None]
    whole = math.fsum(question.weights.tolist())
    return np.array([math.fsum(column) / whole for column in weighted.T.tolist()])


def _best_scores(
    blocks: Sequence[Block],
    items: Items,
    parts: NDArray[np.float32],
    allowed: NDArray[np.bool_] | None,
    exclude: Sequence[NDArray[np.int64]],
    product: Product,
) -> NDArray[np.float32]:
    """Return the best score of each case with each part: float32 ``(n_items, m)``, ``-inf`` without allowed parts."""
    best = np.full((len(items) + 1, len(parts)), -np.inf, np.float32)
    for rows, scores in _scored(blocks, parts, allowed, exclude, product):
        runs, largest = _by_run(items.numbers[rows], scores)
        if (np.diff(runs) < 0).any():
            order = np.argsort(runs, kind="stable")
            runs, largest = _by_run(runs[order], largest[order])
        best[runs] = np.maximum(best[runs], largest)
    # the last place serves rows of no case
    return best[:-1]


def _by_run(numbers: NDArray[np.int32], scores: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the number of each run of equal numbers, and the largest scores in it."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(numbers)) + 1])
    return numbers[starts], _largest(scores, starts)


def _largest(scores: NDArray[np.float32], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the largest of each run of rows ``(m, n)``, by column."""
    if len(starts) == len(scores):
        return scores
    if scores.shape[1] < _FEW:
        columns = [np.maximum.reduceat(np.ascontiguousarray(column), starts) for column in scores.T]
        return np.stack(columns, axis=1)
    largest: NDArray[np.float32] = np.maximum.reduceat(scores, starts, axis=0)
    return largest


def _mean_scores(
    blocks: Sequence[Block],
    items: Items,
    parts: NDArray[np.float32],
    allowed: NDArray[np.bool_] | None,
    exclude: Sequence[NDArray[np.int64]],
    product: Product,
) -> NDArray[np.float64]:
    """Return the mean score of each case with each part: ``(n_items, m)``, ``-inf`` without allowed parts."""
    sums, counts = np.zeros((len(parts), len(items) + 1)), np.zeros((len(parts), len(items) + 1))
    for rows, scores in _scored(blocks, parts, allowed, exclude, product):
        numbers = items.numbers[rows] + 1
        for at, column in enumerate(scores.T):
            there = column > -np.inf
            sums[at] += np.bincount(numbers[there], column[there], len(items) + 1)
            counts[at] += np.bincount(numbers[there], minlength=len(items) + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts > 0, sums / counts, -np.inf)[:, 1:].T


def _scored(
    blocks: Sequence[Block],
    parts: NDArray[np.float32],
    allowed: NDArray[np.bool_] | None,
    exclude: Sequence[NDArray[np.int64]],
    product: Product,
) -> Iterator[tuple[slice | NDArray[np.int64], NDArray[np.float32]]]:
    """Yield rows in order and their scores ``(m, n)`` with n parts, ``-inf`` where a row is hidden from one."""
    chosen = None
    if allowed is not None and np.count_nonzero(allowed) < _GATHER_SHARE * len(allowed):
        chosen = np.flatnonzero(allowed)
    hidden = [number for number in range(len(parts)) if len(exclude[number])]
    for rows, block in pieces(blocks, chosen, max(1024, _BLOCK_SCORES // len(parts))):
        if not len(block):
            continue
        scores = product.multiply(parts, block)
        if allowed is not None and chosen is None:
            scores[~allowed[rows]] = -np.inf
        for number in hidden:
            hide(scores[:, number], rows, exclude[number])
        yield rows, scores


def _best_pairs(
    vectors: Vectors,
    question: ItemQuestion,
    rows: NDArray[np.int64],
    owner: NDArray[np.int64],
    n: int,
    *,
    kept: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the best pair of each of ``n`` cases with each part of a question, exactly: float32 ``(n, m)``.

    Beside it, where they are ``kept``, the pairs that reach it: int64 ``(3, p)``, the place of the case, the number of
    the question's part, and the row.
    """
    parts = question.vectors
    product = choose_product(len(parts), parts.shape[1], fast=False)
    norms = np.sqrt(np.square(parts, dtype=np.float64).sum(axis=1)) * max(vectors.max_norm, 1e-30)
    error = 2 * (product.error + 2.0**-22) * norms
    best = np.full((n, len(parts)), -np.inf, np.float32)
    found, scored = [np.empty((3, 0), np.int64)], [np.empty(0, np.float32)]
    step = max(1, _RESCORED // max(parts.shape))
    for at in range(0, len(rows), step):
        mine, stored = owner[at : at + step], gather(vectors.blocks, rows[None, at : at + step])[0]
        near = product.multiply(parts, stored)
        starts = np.concatenate([[0], np.flatnonzero(np.diff(mine)) + 1])
        least = np.maximum.reduceat(near, starts, axis=0) - error
        row, part = np.nonzero(near >= np.repeat(least, np.diff([*starts.tolist(), len(mine)]), axis=0))
        pairs = np.concatenate(
            [_exactly(vectors, stored, row[some], parts, part[some]) for some in _slices(len(row), step)]
        )
        np.maximum.at(best, (mine[row], part), pairs)
        if kept:
            found.append(np.stack([mine[row], part, rows[at + row]]))
            scored.append(pairs)
    whole = np.concatenate(found, axis=1)
    reached = np.concatenate(scored) == best[whole[0], whole[1]]
    return best, whole[:, reached]


def _slices(n: int, step: int) -> list[slice]:
    return [slice(start, start + step) for start in range(0, n, step)]


def _exactly(
    vectors: Vectors,
    stored: NDArray[np.float32] | NDArray[np.float16],
    row: NDArray[np.int64],
    parts: NDArray[np.float32],
    part: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Score pairs, each by itself along its own memory."""
    scores = np.vecdot(stored[row].astype(np.float64), parts[part].astype(np.float64))
    return np.asarray(scores.clip(-1.0, 1.0) if vectors.cosine else scores, np.float32)


def _scores(pairs: NDArray[np.float32], weights: NDArray[np.float64], score: ItemScore) -> NDArray[np.float32]:
    if score == "best":
        return np.asarray(pairs.max(axis=1), np.float32)
    # a case without parts has no sum
    there = pairs[:, 0] > -np.inf
    scores = np.full(len(pairs), -np.inf, np.float32)
    weighted = pairs[there].astype(np.float64) * weights
    scores[there] = [math.fsum(line) for line in weighted.tolist()]
    return scores


def _means(
    vectors: Vectors, question: ItemQuestion, rows: NDArray[np.int64], owner: NDArray[np.int64], n: int
) -> NDArray[np.float32]:
    mean, exactly = _mean_exactly(question), np.empty(len(rows))
    for some in _slices(len(rows), max(1, _RESCORED // question.vectors.shape[1])):
        exactly[some] = np.vecdot(gather(vectors.blocks, rows[None, some])[0].astype(np.float64), mean[None])
    cuts = np.searchsorted(owner, np.arange(n + 1))
    means = np.full(n, -np.inf)
    for at, (start, stop) in enumerate(pairwise(cuts.tolist())):
        if start < stop:
            means[at] = math.fsum(exactly[start:stop].tolist()) / (stop - start)
    if vectors.cosine:
        means = np.where(means > -np.inf, means.clip(-1.0, 1.0), -np.inf)
    return means.astype(np.float32)
