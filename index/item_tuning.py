"""How many rows accelerators must propose for a search of cases: chosen by measurement, as `retr.index.tune` chooses.

Cases of the index ask, each with its own rows and those of its patient left out: once with its parts, and once with one
of them alone, since few parts propose fewer cases. One half of the cases chooses the cheapest setting that finds the
share of the ten best that is wanted for both; the other half, never looked at before, measures what is promised, which
is the share of the sort that fares worse. Where a reading of all vectors takes no longer, cases are searched exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.accelerators.config import DEPTH, effort_of
from retr.index.item_search import MOST_PARTS, Promise, search_items
from retr.index.rows.items import items_of
from retr.index.scan.items import ItemQuestion

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from retr.index.rows.items import Items
    from retr.index.store import Store
    from retr.index.types import ItemScore

# Rows proposed for all parts together, and how many times as far as for single rows accelerators look for them.
_ROWS, _FARTHER = (512, 2048, 8192, 32768), (1, 4, 16, 64)
# Cases that ask, half of them to choose.
_QUESTIONS = 64
#: The scores that a case reaches by its nearest parts, which accelerators propose; of a mean all parts count.
SCORES: tuple[ItemScore, ...] = ("maxsim", "best")


def tune_items(store: Store, target: float, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Return what is noted of how cases are searched by the rule that an index records; ``None`` where it records none.

    Parameters
    ----------
    store
        A trial, with the accelerators and the settings that were chosen.
    target
        The share of the ten best cases that is to be found.
    say
        Told what was chosen, a line at a time.
    """
    rule = store.manifest.item
    if rule is None:
        return None
    whole = _questions(store, items_of(store, rule))
    alone = [replace(one, vectors=one.vectors[len(one.vectors) // 2 :][:1], weights=one.weights[:1]) for one in whole]
    noted: dict[str, Any] = {"rule": rule}
    for score in SCORES if len(whole) > 1 else ():
        trial = _Trial(store, rule, score, target)
        found = _chosen(trial, [trial.answered(whole), trial.answered(alone)])
        if found is None:
            say(f"cases by {rule!r} ({score}) are searched exactly: no setting reached the target at less cost")
            continue
        noted[score] = found
        say(f"cases by {rule!r} ({score}): recall {found['recall']:.4f}, {found['milliseconds']:.1f} ms a question")
    return noted


def _questions(store: Store, items: Items) -> list[ItemQuestion]:
    """Return cases as questions, which must find neither themselves nor their patient."""
    drawn = np.random.default_rng(0).permutation(len(items))[:_QUESTIONS]
    group = store.manifest.group
    questions = []
    for number in drawn.tolist():
        rows = items.rows(number)
        others = [] if group is None else store.identity.rows(group, _named(store, group, rows))
        asks = store.in_id_order(rows)[:MOST_PARTS]
        vectors = np.asarray(store.vectors(asks), np.float32)
        questions.append(ItemQuestion(vectors, np.ones(len(asks)), np.unique(np.concatenate([rows, *others]))))
    return questions


def _named(store: Store, group: str, rows: Any) -> list[str]:
    return sorted({name for name in store.identity.of(group, rows) if name is not None})


@dataclass(frozen=True)
class _Sort:
    """Questions of one sort, the score of the last case that each must find, and the seconds that one takes exactly."""

    questions: list[ItemQuestion]
    last: list[float]
    exactly: float


@dataclass(frozen=True)
class _Trial:
    """What is measured: a snapshot, by a rule and a score, against a target."""

    store: Store
    rule: str
    score: ItemScore
    target: float

    def answered(self, questions: Sequence[ItemQuestion]) -> _Sort:
        """Return questions that find ten cases; one that finds fewer would find them all in any way."""
        truth, exactly = self.timed(questions, None)
        known = [(one, scores[-1]) for one, scores in zip(questions, truth, strict=True) if len(scores) == DEPTH]
        return _Sort([one for one, _ in known], [float(last) for _, last in known], exactly)

    def measured(self, sort: _Sort, half: int, promise: Promise) -> tuple[float, float]:
        """Return the share that one half of the questions finds, and the seconds that one takes."""
        found, seconds = self.timed(sort.questions[half::2], promise)
        shares = [np.mean(scores >= last) for scores, last in zip(found, sort.last[half::2], strict=True)]
        return float(np.mean(shares)), seconds

    def timed(
        self, questions: Sequence[ItemQuestion], promise: Promise | None
    ) -> tuple[list[NDArray[np.float32]], float]:
        """Return the scores that are found, question by question, and the CPU seconds of one: the median."""
        found, seconds = [], []
        for question in questions:
            start = process_time()
            [answer] = search_items(
                self.store, [question], self.rule, DEPTH, score=self.score, exactly=promise is None, promise=promise
            )
            seconds.append(process_time() - start)
            found.append(answer.scores)
        return found, median(seconds)


def _chosen(trial: _Trial, sorts: Sequence[_Sort]) -> dict[str, Any] | None:
    """Return the cheapest setting that reaches the target for both sorts, and costs each less than exact search."""
    known = effort_of(trial.store.plan.config)
    if known is None or any(len(sort.questions) < 2 for sort in sorts):
        return None
    reached = []
    for times in _FARTHER:
        for rows in _ROWS:
            promise = Promise(rows, known * times, trial.target)
            found = [trial.measured(sort, 0, promise) for sort in sorts]
            if min(recall for recall, _ in found) >= trial.target:
                # more rows cost more
                reached.append((found[0][1], promise))
                break
    for _, promise in sorted(reached, key=lambda one: one[0]):
        found = [trial.measured(sort, 1, promise) for sort in sorts]
        recall = min(recall for recall, _ in found)
        if recall >= trial.target and _cheaper([seconds for _, seconds in found], sorts):
            return {
                "effort": promise.effort,
                "exact_milliseconds": round(sorts[0].exactly * 1e3, 3),
                "milliseconds": round(found[0][1] * 1e3, 3),
                "recall": round(recall, 4),
                "rows": promise.rows,
            }
    return None


def _cheaper(seconds: Sequence[float], sorts: Sequence[_Sort]) -> bool:
    return all(one < sort.exactly for one, sort in zip(seconds, sorts, strict=True))
