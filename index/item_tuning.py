"""How many rows accelerators must propose for a search of cases: chosen by measurement, as `retr.index.tune` chooses.

Cases of the index ask, each with its own rows and those of its patient left out. One half of them chooses the least
depth that finds the share of the ten best that is wanted; the other half, never looked at before, measures what is
promised. Where a reading of all vectors takes no longer, cases are searched exactly.
"""

from __future__ import annotations

from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.accelerators.config import DEPTH
from retr.index.item_search import Promise, search_items
from retr.index.rows.items import items_of
from retr.index.scan.items import ItemQuestion

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retr.index.rows.items import Items
    from retr.index.store import Store
    from retr.index.types import ItemScore

_DEPTHS = (10, 20, 40, 80, 160, 320, 640)
# Cases that ask, half of them to choose; and the most parts of each: more only cost time.
_QUESTIONS, _PARTS = 64, 32
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
    questions = _questions(store, items_of(store, rule))
    noted: dict[str, Any] = {"rule": rule}
    for score in SCORES if len(questions) > 1 else ():
        found = _chosen(store, questions, rule, score, target)
        if found is None:
            say(f"cases by {rule!r} ({score}) are searched exactly: no depth reached the target at less cost")
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
        asks = store.in_id_order(rows)[:_PARTS]
        vectors = np.asarray(store.vectors(asks), np.float32)
        questions.append(ItemQuestion(vectors, np.ones(len(asks)), np.unique(np.concatenate([rows, *others]))))
    return questions


def _named(store: Store, group: str, rows: Any) -> list[str]:
    return sorted({name for name in store.identity.of(group, rows) if name is not None})


def _chosen(
    store: Store, questions: Sequence[ItemQuestion], rule: str, score: ItemScore, target: float
) -> dict[str, Any] | None:
    truth, exactly = _timed(store, questions, rule, score, None)
    # a question that finds fewer than ten cases would find them all in any way
    asked = [(question, one[-1]) for question, one in zip(questions, truth, strict=True) if len(one) == DEPTH]
    halves = asked[::2], asked[1::2]
    if not all(halves):
        return None
    for depth in _DEPTHS:
        promise = Promise(depth, target)
        recalls, seconds = [], 0.0
        for half in halves:
            found, seconds = _timed(store, [question for question, _ in half], rule, score, promise)
            shares = [np.mean(one >= last) for one, (_, last) in zip(found, half, strict=True)]
            recalls.append(float(np.mean(shares)))
            if recalls[-1] < target:
                break
        if len(recalls) == len(halves) and min(recalls) >= target:
            if seconds >= exactly:
                return None
            return {
                "depth": depth,
                "exact_milliseconds": round(exactly * 1e3, 3),
                "milliseconds": round(seconds * 1e3, 3),
                "recall": round(recalls[-1], 4),
            }
    return None


def _timed(
    store: Store, questions: Sequence[ItemQuestion], rule: str, score: ItemScore, promise: Promise | None
) -> tuple[list[Any], float]:
    """Return the scores that are found, question by question, and the CPU seconds of one."""
    start = process_time()
    found = [
        search_items(store, [question], rule, DEPTH, score=score, exactly=promise is None, promise=promise)[0].scores
        for question in questions
    ]
    return found, (process_time() - start) / max(len(questions), 1)
