"""Evaluate retrieval of cases: how many of the nearest cases of other patients share the question's class.

A case is what `retr.index.rows.items` says; its parts are its labelled rows. It has one label: a case whose rows carry
different ones neither asks nor answers, and is counted. Cases that share a patient are kept apart as rows are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.index.item_search import search_items
from retr.index.rows.items import items_of, rule_of
from retr.index.scan.items import ItemQuestion, require_score
from retr.retrieval.labels.cases import Cases
from retr.retrieval.labels.labelled import merge_groups
from retr.retrieval.labels.trained_rows import noted_head

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.index.types import ItemScore

# Questions whose parts are held in memory at a time.
_AT_ONCE = 64


@dataclass(frozen=True)
class ItemCases(Cases):
    """Cases of several rows, each of which asks and answers as one: ``rows`` holds the first row of each.

    Attributes
    ----------
    rule, score
        What a case is, and how it is scored.
    numbers
        int64 ``(n,)``: the number of each among the index's cases.
    parts
        For each case its labelled rows.
    """

    rule: str = ""
    score: ItemScore = "maxsim"
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    parts: tuple[NDArray[np.int64], ...] = ()


def of_items(store: Store, cases: Cases, item: str | bool, score: ItemScore) -> ItemCases:
    """Return the cases that labelled rows make.

    Raises
    ------
    UsageError
        The index has no such cases, is adapted, or fewer than two cases have one label each.
    """
    require_score(score)
    if noted_head(store) is not None:
        raise UsageError(
            "cases of an adapted index are not measured: its head has seen rows of theirs",
            hint="measure the index that it was made from",
        )
    rule = rule_of(store, item)
    items = items_of(store, rule)
    number = items.numbers[cases.rows].astype(np.int64)
    there = np.flatnonzero(number >= 0)
    order = there[np.argsort(number[there], kind="stable")]
    found, starts = np.unique(number[order], return_index=True)
    places = np.split(order, starts[1:]) if len(order) else []
    single = np.array([bool((cases.member[one] == cases.member[one[0]]).all()) for one in places], bool)
    kept = [one for one, alone in zip(places, single, strict=True) if alone]
    if len(kept) < 2:
        raise UsageError(f"{len(kept)} cases by {rule!r} have one label, at least two are needed", hint="see --label")
    # a case of two patients ties them together
    tied = np.zeros(len(cases.rows), np.int64)
    tied[:] = np.arange(len(tied)) + len(items)
    tied[there] = number[there]
    groups = merge_groups(np.unique(tied, return_inverse=True)[1], cases.groups)
    first = np.array([one[0] for one in kept])
    notes = list(cases.notes)
    if mixed := len(places) - len(kept):
        notes.append(f"{mixed} cases by {rule!r} carry more than one label: they neither ask nor answer")
    if len(there) < len(number):
        notes.append(f"{len(number) - len(there)} labelled rows are parts of no case by {rule!r}")
    base = {one.name: getattr(cases, one.name) for one in fields(Cases)}
    return ItemCases(
        **base
        | {
            "rows": cases.rows[first],
            "asks": np.array([bool(cases.asks[one].any()) for one in kept]),
            "member": cases.member[first],
            "groups": np.unique(groups[first], return_inverse=True)[1].astype(np.int64),
            "notes": tuple(notes),
        },
        rule=rule,
        score=score,
        numbers=found[single],
        parts=tuple(np.sort(cases.rows[one]) for one in kept),
    )


def nearest_items(store: Store, cases: ItemCases, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find each asking case's nearest cases of other patients, as `nearest` does of rows."""
    k = min(k, len(cases.rows))
    shape = len(cases.queries), k
    places, scores = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    place = np.full(int(cases.numbers.max()) + 1, -1, np.int64)
    place[cases.numbers] = np.arange(len(cases.numbers))
    mask = np.zeros(store.n_total, bool)
    mask[np.concatenate([cases.parts[at] for at in cases.gallery.tolist()])] = True
    own: dict[int, Any] = {}
    for at in np.argsort(cases.groups, kind="stable").tolist():
        own.setdefault(int(cases.groups[at]), []).append(cases.parts[at])
    for start in range(0, len(cases.queries), _AT_ONCE):
        asked = cases.queries[start : start + _AT_ONCE].tolist()
        questions = [
            ItemQuestion(
                np.asarray(store.vectors(cases.parts[at]), np.float32),
                np.ones(len(cases.parts[at])),
                np.concatenate(own[int(cases.groups[at])]),
            )
            for at in asked
        ]
        found = search_items(store, questions, cases.rule, k, score=cases.score, mask=mask, exactly=True)
        for line, answer in enumerate(found, start=start):
            places[line, : len(answer.items)] = place[answer.items]
            scores[line, : len(answer.items)] = answer.scores
    return places, scores
