"""Search of cases in a store: by reading all vectors, or among cases that the accelerators' rows are parts of.

An accelerator proposes, for each part of a question, the rows nearest to it: the fewer parts, the more for each. The
cases that these belong to are ordered by what their score would be of these rows alone (a part of the question without
a row of the case counts as the last that was proposed for it), and the first of them are scored exactly, with all their
parts. Rows that are left out are proposed beside the others and dropped, which costs less than to search around them.
How many rows are proposed, and how far the accelerator looks for them, is chosen by `tune`, which measures how many of
the best cases are found so; `retr.index.item_tuning`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.accelerators.config import DEPTH
from retr.index.disk.manifest import TUNING
from retr.index.errors import UsageError
from retr.index.json_fields import Fields, stored
from retr.index.plan import propose, require_k
from retr.index.rows.items import items_of
from retr.index.scan import items as exact
from retr.index.scan.items import ItemAnswer, ItemAsk, ItemQuestion, Vectors
from retr.index.scan.ranking import ranked
from retr.index.scatter import gather, notes, spans
from retr.index.types import Ask
from retr.index.vectors import unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.rows.items import Items
    from retr.index.scatter import Gathered, Span
    from retr.index.store import Store
    from retr.index.types import ItemScore

# At least so many times k cases are scored exactly, and one for so many proposed rows.
_SCORED, _ROWS_A_CASE = 4, 8
# Beyond these, rows that are left out are a large part of what is proposed.
_MOST_EXCLUDED = 2048
#: Of a question with more parts all vectors are read.
MOST_PARTS = 256
# For a part no more rows are proposed at first, and no more where these are of too few cases.
_MOST_ROWS, _AT_LAST = 512, 4096
_NOTHING = np.empty(0, np.int64)
_NOTED = ("the note of how cases are searched", "run `retr index tune` again")


@dataclass(frozen=True)
class Promise:
    """How cases are searched through accelerators, and the share of the ten best that was found when it was measured.

    Attributes
    ----------
    rows
        How many rows are proposed for all parts of a question together.
    effort
        How far the accelerators look for them: `retr.index.accelerators.config.effort_of`.
    recall
        The share.
    """

    rows: int
    effort: int
    recall: float

    def depth(self, parts: int, k: int) -> int:
        """Return how many rows are proposed for each of some parts, where k cases are wanted."""
        more = max(k, DEPTH) / DEPTH
        return max(min(math.ceil(self.rows * more / parts), _MOST_ROWS), k)

    def scored(self, k: int) -> int:
        """Return how many cases are scored exactly."""
        more = max(k, DEPTH) / DEPTH
        return max(_SCORED * k, math.ceil(self.rows * more / _ROWS_A_CASE))


def promised(manifest_extra: Mapping[str, Any], rule: str, score: ItemScore) -> Promise | None:
    """Return what `tune` measured for cases by a rule and a score; ``None`` where it chose none."""
    noted = manifest_extra.get(TUNING)
    if not noted or not noted.get("items"):
        return None
    with stored(*_NOTED):
        fields = Fields(noted["items"])
        if fields.text("rule") != rule or not fields.has(score):
            return None
        one = fields.inner(score)
        if not one.has("rows"):
            # as it was once noted, of another way to search
            return None
        most = 1 << 24
        return Promise(
            one.whole("rows", least=1, most=most), one.whole("effort", least=1, most=most), one.number("recall")
        )


def search_items(
    store: Store,
    questions: Sequence[ItemQuestion],
    rule: str,
    k: int,
    *,
    score: ItemScore = "maxsim",
    where: str | None = None,
    mask: NDArray[np.bool_] | None = None,
    min_score: float | None = None,
    exactly: bool = False,
    promise: Promise | None = None,
    partial: bool = False,
) -> list[ItemAnswer]:
    """Find the k best cases for each question.

    Parameters
    ----------
    questions
        Their parts; normalised here where the similarity is cosine.
    rule
        What a case is: `retr.index.rows.items`.
    k
        How many; that many come back whenever that many cases have an allowed part.
    score
        See `retr.index.scan.items`.
    where, mask
        Only rows for which this is true are parts of a case.
    min_score
        Only cases at least so similar.
    exactly
        Compare with every row, also where the index is tuned.
    promise
        How far the accelerators look; by default as tuned.
    partial
        Answer also where shards that are held elsewhere do not.

    Raises
    ------
    UsageError
        The index lacks a column of the rule, ``k`` is not positive, a question does not fit, or cases lie in several
        shards that are held elsewhere.
    FilterError
        The where-expression cannot be read or applied.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> store = sample_index().store
    >>> left = ItemQuestion(store.vectors([0]), np.ones(1), np.array([0]))
    >>> [answer] = search_items(store, [left], "patient", 2)
    >>> [items_of(store, "patient").names[number] for number in answer.items]
    ['P06', 'P08']
    """
    require_k(k)
    exact.require_score(score)
    items, info = items_of(store, rule), store.manifest.encoder
    dim, cosine = info.dim, info.similarity == "cosine"
    asked = [_prepared(question, dim, cosine=cosine) for question in questions]
    if mask is not None and (mask.shape != (store.n_total,) or mask.dtype != np.bool_):
        raise UsageError(f"a mask must be bool ({store.n_total},), got {mask.dtype} {mask.shape}")
    if not len(items):
        return [_nothing(question) for question in asked]
    if store.remote is not None:
        how = _How(rule, int(k), score, where, min_score, exactly, promise)
        return _elsewhere(store, items, questions, how, mask, partial=partial)
    allowed = None if where is None else store.where(where)
    if mask is not None:
        allowed = mask if allowed is None else mask & allowed
    ask = ItemAsk(min(int(k), max(len(items), 1)), allowed, score, min_score)
    vectors = Vectors(store.plan.blocks, store.plan.max_norm, cosine, store.ids)
    promise = promise or promised(store.manifest.extra, rule, score)
    quick = [_through_accelerators(store, vectors, items, one, ask, promise, exactly=exactly) for one in asked]
    slow = iter(exact.search(vectors, items, [one for one, got in zip(asked, quick, strict=True) if got is None], ask))
    return [next(slow) if got is None else got for got in quick]


@dataclass(frozen=True)
class _How:
    """What all shards are asked alike."""

    rule: str
    k: int
    score: ItemScore
    where: str | None
    min_score: float | None
    exactly: bool
    promise: Promise | None


@dataclass(frozen=True)
class _Items:
    """What one shard is asked."""

    questions: list[ItemQuestion]
    how: _How
    mask: NDArray[np.bool_] | None

    def answer(self, shard: Store) -> list[ItemAnswer]:
        how = self.how
        return search_items(
            shard,
            self.questions,
            how.rule,
            how.k,
            score=how.score,
            where=how.where,
            mask=self.mask,
            min_score=how.min_score,
            exactly=how.exactly,
            promise=how.promise,
        )


def _elsewhere(
    store: Store,
    items: Items,
    questions: Sequence[ItemQuestion],
    how: _How,
    mask: NDArray[np.bool_] | None,
    *,
    partial: bool,
) -> list[ItemAnswer]:
    """Ask shards that are held elsewhere for their best cases, and rank these together."""
    if not store.once(("cases in one shard", items.columns, how.rule), lambda: _each_in_one(store, items)):
        raise UsageError(
            f"some cases by {how.rule!r} have parts in several shards, and are not compared across machines",
            hint="leave --ray out, or declare the column that holds a case together: `retr index group COLUMN`",
        )

    def part(span: Span) -> _Items:
        mine = [replace(one, exclude=span.rows(np.unique(np.asarray(one.exclude, np.int64)))) for one in questions]
        return _Items(mine, how, span.mask(mask))

    got = gather(store, part, partial=partial)
    ask = Ask(min(how.k, max(len(items), 1)), None, [], None, how.min_score)
    return [_merged(items, got, number, ask) for number in range(len(questions))]


def _each_in_one(store: Store, items: Items) -> bool:
    """Return whether all parts of each case lie in one shard."""
    held = np.zeros(len(items), np.int64)
    for span in spans(store.manifest):
        mine = np.unique(items.numbers[span.start : span.stop])
        held[mine[mine >= 0]] += 1
    return bool((held <= 1).all())


def _merged(items: Items, got: Gathered[list[ItemAnswer]], number: int, ask: Ask) -> ItemAnswer:
    """Rank what the shards answered to one question together."""
    answers = [(span, found[number]) for span, found in got.answers]
    rows = np.concatenate([span.whole(one.rows) for span, one in answers])
    pairs = np.concatenate([one.pairs for _, one in answers])
    scores = np.concatenate([one.scores for _, one in answers])
    # a case that answers has a part for each of the question's
    cases = items.numbers[rows[:, 0]].astype(np.int64)
    best, top = ranked(cases[None], scores[None], ask, lambda some: [items.names[at] for at in some.tolist()])
    kept = best[0][best[0] >= 0]
    place = dict(zip(cases.tolist(), range(len(cases)), strict=True))
    at = np.array([place[case] for case in kept.tolist()], np.int64)
    exact = all(one.exact for _, one in answers) and got.searched == 1
    note = notes(*(one.note for _, one in answers), got.note)
    return ItemAnswer(kept, top[0][: len(kept)], rows[at], pairs[at], exact, note, got.searched)


def _prepared(question: ItemQuestion, dim: int, *, cosine: bool) -> ItemQuestion:
    vectors = np.ascontiguousarray(question.vectors, np.float32)
    weights = np.asarray(question.weights, np.float64)
    if vectors.ndim != 2 or vectors.shape[1] != dim or not len(vectors):
        raise UsageError(f"the parts of a question must have the shape (m, {dim}), got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise UsageError("a part of a question holds a value that is not a finite number")
    if weights.shape != (len(vectors),) or not (np.isfinite(weights) & (weights > 0)).all():
        raise UsageError("each part of a question has a weight above 0")
    exclude = np.unique(np.asarray(question.exclude, np.int64))
    return ItemQuestion(unit(vectors) if cosine else vectors, weights, exclude)


def _nothing(question: ItemQuestion) -> ItemAnswer:
    shape = 0, len(question.vectors)
    empty = np.empty(0, np.int64), np.empty(0, np.float32)
    return ItemAnswer(*empty, np.empty(shape, np.int64), np.empty(shape, np.float32))


def _through_accelerators(
    store: Store,
    vectors: Vectors,
    items: Items,
    question: ItemQuestion,
    ask: ItemAsk,
    promise: Promise | None,
    *,
    exactly: bool,
) -> ItemAnswer | None:
    """Answer among the cases that accelerators propose; ``None`` where these cannot, or were not measured so."""
    many = len(question.exclude) > _MOST_EXCLUDED or len(question.vectors) > MOST_PARTS
    if promise is None or exactly or ask.allowed is not None or many or ask.k * _SCORED > len(items) // 2:
        return None
    depth, chosen = promise.depth(len(question.vectors), ask.k), _NOTHING
    while len(chosen) < ask.k:
        wanted = min(depth + len(question.exclude), store.n_total)
        near = propose(store, store.plan, store.placement, question.vectors, wanted, promise.effort)
        if near is None or depth > _AT_LAST:
            # no accelerator serves this snapshot, or its rows are parts of few cases: all vectors are read
            return None
        chosen = _likely(items, *_others(*near, question.exclude, depth), question, ask, promise.scored(ask.k))
        depth *= 4
    found = exact.best_of(vectors, items, question, chosen, ask)
    said = f"approximate: recall {promise.recall:.3f} of the ten best cases when tuned"
    return ItemAnswer(found.items, found.scores, found.rows, found.pairs, exact=False, note=said)


def _others(
    rows: NDArray[np.int64], scores: NDArray[np.float32], exclude: NDArray[np.int64], depth: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the best of proposed rows without those that are left out: so many, whether some are left out or none.

    Else a question of the index, which leaves itself out, would look further than one from elsewhere.
    """
    if not len(exclude):
        return rows, scores
    hidden = np.isin(rows, exclude)
    rows, scores = np.where(hidden, -1, rows), np.where(hidden, np.float32(-np.inf), scores)
    if rows.shape[1] <= depth:
        return rows, scores
    best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
    return np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)


def _likely(
    items: Items,
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    question: ItemQuestion,
    ask: ItemAsk,
    most: int,
) -> NDArray[np.int64]:
    """Return the cases of proposed rows ``(m, n)`` that score best by these rows alone, in the order of their ids."""
    numbers = np.where(rows >= 0, items.numbers[rows], -1)
    part, place = np.nonzero(numbers >= 0)
    cases, which = np.unique(numbers[part, place], return_inverse=True)
    # what was not proposed is at most as like as the last that was
    last = np.where(rows >= 0, scores, np.float32(np.inf)).min(axis=1)
    best = np.broadcast_to(np.where(np.isfinite(last), last, 0), (len(cases), len(last))).copy()
    np.maximum.at(best, (which, part), scores[part, place])
    totals = best.max(axis=1) if ask.score == "best" else best.astype(np.float64) @ question.weights
    order = np.argsort(-totals, kind="stable")[:most]
    return np.sort(cases[order]).astype(np.int64)
