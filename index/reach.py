"""How far a search must look that goes best first: for what was tuned, and for any question under adverse filters."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index import adverse
from retr.index.accelerators import approximate
from retr.index.accelerators.config import DEPTH
from retr.index.measuring import BATCH, alone, by_turns
from retr.index.scan import exact
from retr.index.types import is_best_first

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.measuring import Questions
    from retr.index.store import Store

_WIDE_REACHES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
# Filters differ: on average no more than this part of what may be missed is.
_SPARE = 0.4
# How far below the target one filter may be measured, by chance; and how far below no more filters are tried.
_NOISE, _HOPELESS = 0.01, 0.05
# The best row alone is found less often than the ten best: its list is one that it stands out from.
_FIRST = "the first alone"
_REACHES = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 1.0)


@dataclass(frozen=True)
class Reached:
    """What a search to a bound reached, by sort of question, and seconds for one query alone.

    ``reach`` is how far it looks (see `retr.index.types.BestFirst`), infinite where it looks at all that is allowed;
    ``least`` what was reached under the filter that fares worst.
    """

    reach: float
    recalls: Mapping[str, float]
    seconds: float
    least: float = 1.0

    @property
    def recall(self) -> float:
        """The recall that is stated: on the sort of question that fares worst, and no more than ``least``."""
        return min(*self.recalls.values(), self.least)

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest keeps."""
        return {
            "milliseconds": round(self.seconds * 1e3, 4),
            "reach": self.reach if math.isfinite(self.reach) else None,
            "recall": round(self.recall, 4),
            "recalls": {sort: round(value, 4) for sort, value in self.recalls.items()},
        }


def _bounded(store: Store, reach: float, few: float | None = None) -> None:
    """Have a trial search to a bound."""
    store.plan.promises = replace(store.plan.promises, bound=approximate.Bound(reach, few=few))


def bound(store: Store, few: Reached | None, filtered: Reached | None) -> None:
    """Have a trial search as far as was chosen."""
    _bounded(store, filtered.reach if filtered else math.inf, few.reach if few else None)


def few(store: Store, asked: Mapping[str, Questions], target: float) -> Reached | None:
    """Return how far to look best first for what was tuned, where that takes less time than the setting chosen."""
    if not _best_first(store):
        return None
    image = asked["image"].vectors[:BATCH]
    for reach in _REACHES:
        _bounded(store, math.inf, reach)
        if min(questions.half(0).recall(store, BATCH) for questions in asked.values()) < target:
            continue
        # a query is answered alike alone and among others
        promised = {sort: questions.half(1).recall(store, BATCH) for sort, questions in asked.items()}
        if min(promised.values()) < target:
            continue

        def search(few: float | None) -> Callable[[], object]:
            def once() -> None:
                _bounded(store, math.inf, few)
                for query in image:
                    store.search(query[None], DEPTH)
                store.search(image, DEPTH)

            return once

        chosen, other = by_turns(store, [search(None), search(reach)])
        _bounded(store, math.inf, reach)
        reached = Reached(reach, promised, alone(store, image))
        _bounded(store, math.inf)
        return reached if other < chosen else None
    _bounded(store, math.inf)
    return None


@dataclass(frozen=True)
class HardQuestion:
    """An adverse question, its filter kept as one bit a row: there are some eighty, each as long as the index."""

    question: adverse.Question
    packed: NDArray[np.uint8] | None
    rows: int

    @classmethod
    def of(cls, question: adverse.Question) -> HardQuestion:
        """Return a question with its filter packed."""
        allowed = question.ask.allowed
        bare = replace(question, ask=replace(question.ask, allowed=None))
        return cls(bare, None if allowed is None else np.packbits(allowed), 0 if allowed is None else len(allowed))

    def first_alone(self, last: NDArray[np.float32]) -> HardQuestion:
        """Return the same question for its best row alone, under the same filter."""
        bare = self.question
        return replace(self, question=replace(bare, sort=_FIRST, ask=replace(bare.ask, k=1), last=last))

    def half(self, which: int) -> adverse.Question:
        """Return every second query, with the filter as it was."""
        question = self.question.half(which)
        if self.packed is None:
            return question
        allowed = np.unpackbits(self.packed, count=self.rows).view(np.bool_)
        return replace(question, ask=replace(question.ask, allowed=allowed))


def hard_questions(store: Store) -> list[HardQuestion]:
    """Return adverse questions with their exact answers; asked before accelerators take memory."""
    plan = store.plan
    asked = []
    for question in adverse.questions(store):
        truth = exact.search(plan.blocks, question.vectors, question.ask, **plan.how(store))
        # what fewer rows are allowed for is found by every search
        if len(question.vectors) < 2 or (truth.rows[:, -1] < 0).any():
            continue
        kept = HardQuestion.of(replace(question, last=truth.scores[:, -1]))
        asked.append(kept)
        if question.ask.k == DEPTH:
            asked.append(kept.first_alone(truth.scores[:, 0]))
    return asked


def filtered(store: Store, asked: Sequence[HardQuestion], target: float, say: Callable[[str], None]) -> Reached | None:
    """Return how far to look best first for any question, and the recall that this reaches under adverse filters."""
    if not _best_first(store):
        return None
    if not asked:
        return Reached(math.inf, {"all": 1.0}, 0.0)
    for reach in (*_WIDE_REACHES, math.inf):
        if not math.isinf(reach) and not _suffices(_recalls(store, asked, 0, reach, target), target):
            continue
        start = time.process_time()
        found = _recalls(store, asked, 1, reach, target)
        seconds = (time.process_time() - start) / sum(len(kept.question.vectors) // 2 for kept in asked)
        if math.isinf(reach) or _suffices(found, target):
            worst = min(min(shares) for sort, shares in found.items() if sort != _FIRST)
            reached = Reached(
                reach, {sort: _mean(shares) for sort, shares in found.items()}, seconds, min(worst, target)
            )
            say(f"under adverse filters: recall {reached.recall:.4f}, {seconds * 1e3:.2f} ms a query")
            return reached
    return None


def _recalls(
    store: Store, asked: Sequence[HardQuestion], half: int, reach: float, target: float
) -> dict[str, list[float]]:
    """Return, for each sort of question, the share of the best that is found under each filter.

    Of half of the queries; it ends with the first filter that fares so badly that no other need be tried.
    """
    plan, found = store.plan, dict[str, list[float]]()
    for question in (question.half(half) for question in asked):
        bound = approximate.Bound(reach, few=reach)
        how = plan.accelerators[0], plan.config, question.vectors, question.ask, bound
        near = approximate.search(plan.blocks, *how, **plan.how(store))
        share = float(np.mean(near.scores >= question.last[:, None]))
        found.setdefault(question.sort, []).append(share)
        if share < target - _HOPELESS and question.sort != _FIRST and not math.isinf(reach):
            break
    return found


def _suffices(found: Mapping[str, Sequence[float]], target: float) -> bool:
    """Return whether what is found is enough under each filter, and on average so much more that it is under others."""
    enough = 1 - (1 - target) * _SPARE
    each = (share for sort, shares in found.items() for share in shares if sort != _FIRST)
    return min(map(_mean, found.values())) >= enough and min(each) >= target - _NOISE


def _mean(shares: Sequence[float]) -> float:
    return sum(shares) / len(shares)


def _best_first(store: Store) -> bool:
    """Return whether a trial's accelerators can search to a bound."""
    found = store.plan.accelerators[0] if store.placement.device == "cpu" else ()
    return any(map(is_best_first, found))
