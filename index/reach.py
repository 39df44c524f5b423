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
from retr.index.types import BestFirst

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.measuring import Questions
    from retr.index.plan import Plan
    from retr.index.store import Store

_REACHES = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 1.0)


@dataclass(frozen=True)
class Reached:
    """What a search to a bound reached, by sort of question, and seconds for one query alone.

    ``reach`` is how far it looks (see `retr.index.types.BestFirst`), infinite where it looks at all that is allowed.
    """

    reach: float
    recalls: Mapping[str, float]
    seconds: float

    @property
    def recall(self) -> float:
        """The recall on the sort of question that fares worst."""
        return min(self.recalls.values())

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


def few(store: Store, asked: Mapping[str, Questions], target: float) -> Reached | None:
    """Return how far to look best first for what was tuned, where that takes less time than the setting chosen."""
    if not _best_first(store):
        return None
    image = asked["image"].vectors[:BATCH]
    for reach in _REACHES:
        _bounded(store, math.inf, reach)
        if min(questions.half(0).recall(store, BATCH) for questions in asked.values()) < target:
            continue
        promised = {sort: questions.half(1).recall(store, 1) for sort, questions in asked.items()}
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


def filtered(store: Store, target: float, say: Callable[[str], None]) -> Reached | None:
    """Return how far to look best first for any question, and the recall that this reaches under adverse filters."""
    if not _best_first(store):
        return None
    plan = store.plan
    asked = []
    for question in adverse.questions(store):
        truth = exact.search(plan.blocks, question.vectors, question.ask, **plan.how)
        # what fewer rows are allowed for is found by every search
        if len(question.vectors) > 1 and (truth.rows[:, -1] >= 0).all():
            asked.append(replace(question, last=truth.scores[:, -1]))
    for reach in (*_REACHES, math.inf):
        if min(_recalls(plan, [question.half(0) for question in asked], reach).values(), default=1.0) < target:
            continue
        start = time.process_time()
        recalls = _recalls(plan, [question.half(1) for question in asked], reach)
        seconds = (time.process_time() - start) / max(1, sum(len(question.vectors) // 2 for question in asked))
        if math.isinf(reach) or min(recalls.values(), default=1.0) >= target:
            say(f"under adverse filters: recall {min(recalls.values()):.4f}, {seconds * 1e3:.2f} ms a query")
            return Reached(reach, recalls, seconds)
    return None


def _recalls(plan: Plan, asked: Sequence[adverse.Question], reach: float) -> dict[str, float]:
    """Return the share of the best that each sort of question finds."""
    found: dict[str, list[NDArray[np.bool_]]] = {}
    for question in asked:
        accelerators = plan.accelerators[0]
        bound = approximate.Bound(reach, few=reach)
        near = approximate.search(
            plan.blocks, accelerators, plan.config, question.vectors, question.ask, bound, **plan.how
        )
        found.setdefault(question.sort, []).append((near.scores >= question.last[:, None]).reshape(-1))
    return {sort: float(np.concatenate(parts).mean()) for sort, parts in found.items()}


def _best_first(store: Store) -> bool:
    """Return whether a trial's accelerators can search to a bound."""
    found = store.plan.accelerators[0] if store.placement.device == "cpu" else ()
    return any(isinstance(accelerator, BestFirst) for accelerator in found)
