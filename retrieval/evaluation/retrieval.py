"""Evaluate retrieval: how many of the nearest rows of other patients share the query's class."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.evaluation.evaluation import (
    Evaluation,
    EvaluationOptions,
    by_subgroup,
    cell,
    evaluation_facts,
    without_interval,
)
from retr.retrieval.evaluation.items import ItemCases, nearest_items
from retr.retrieval.labels.held_out_views import Unseen
from retr.retrieval.stats import curves, metrics
from retr.retrieval.stats.intervals import mean_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.labels.cases import Cases
    from retr.retrieval.stats.intervals import Estimate


def retrieval(
    store: Store,
    cases: Cases,
    *,
    ks: Sequence[int],
    options: EvaluationOptions,
    sizes: Sequence[int | None] = (),
) -> Evaluation:
    """Measure how many of the nearest rows share the query's class.

    Parameters
    ----------
    store, cases
        The index and its labelled rows (`retr.retrieval.labels.cases.find_cases`).
    ks
        At which depths; deeper than there are labelled rows, the places beyond them count as wrong.
    options
        Resamples, seed and subgroups.
    sizes
        Of smaller galleries in which all queries are asked again; ``None`` is the whole one.

    Returns
    -------
    Evaluation
        precision, any-hit, recall, mAP and nDCG at each k, MRR within the deepest k, and the macro means over
        classes of precision and any-hit.

    Raises
    ------
    UsageError
        A k or a size is below 1, or a column of ``subgroups`` is missing.
    """
    ks = sorted(set(ks))
    if not ks or ks[0] < 1:
        raise UsageError(f"k must be at least 1, got: {list(ks)!r}")
    if any(size is not None and size < 1 for size in sizes):
        raise UsageError(f"a gallery holds at least 1 row, got: {list(sizes)!r}")
    one = _measured(store, cases, ks)
    asked, codes, values, highest, relevant = one.asked, one.codes, one.values, one.highest, one.relevant
    estimates = one.estimates()
    shown = [f"precision@{ks[0]}", f"precision@{ks[-1]}", f"any_hit@{ks[-1]}", f"map@{ks[-1]}"]

    def numbers(inside: NDArray[np.bool_]) -> dict[str, Any]:
        found = {}
        for name in shown:
            most = highest[name][inside] if name in highest else None
            found[name] = mean_interval(values[name][inside], codes[inside], highest=most)
        return found

    per_class = [
        {"class": name, **cell(cases, asked[:, c]), **numbers(asked[:, c])} for c, name in enumerate(cases.classes)
    ]
    notes = list(cases.notes)
    per_gallery: list[dict[str, Any]] = []
    for size in sizes:
        wanted = len(cases.rows) if size is None else size
        if wanted > len(cases.rows):
            notes.append(f"no gallery of {wanted}: there are {len(cases.rows)} labelled rows")
            continue
        smaller = _measured(store, replace(cases, answers=draw_gallery(store, cases, wanted, options.seed)), ks)
        without = int((smaller.relevant == 0).sum())
        per_gallery.append({"gallery": wanted, "no_relevant": without, **smaller.estimates()})
    if any(row["gallery"] < len(cases.rows) for row in per_gallery):
        notes.append(
            f"galleries are drawn by hashes of patients and ids (seed {options.seed}), a smaller within a larger one; "
            "the intervals are over who asks, not over the draw"
        )
    if ks[-1] > len(cases.rows):
        labelled = f"there are {len(cases.rows)} labelled rows"
        notes.append(f"{labelled}: in precision@{ks[-1]} the places beyond count as wrong")
    if (relevant == 0).any():
        notes.append(
            f"{int((relevant == 0).sum())} queries have no other picture of their class in the gallery: they count as "
            "0 for precision and any-hit, and are left out of recall, mAP and nDCG"
        )
    return Evaluation(
        kind="retrieval",
        facts=evaluation_facts(store, cases, options) | _of_item(cases) | {"k": list(ks)},
        metrics=estimates,
        per_class=per_class,
        per_subgroup=by_subgroup(store, cases, options, numbers),
        curves={
            "precision_recall": curves.precision_recall(one.hits, relevant),
            "confusion": curves.confusion(
                asked.argmax(axis=1), np.where(one.first >= 0, cases.truth[one.first], -1), cases.classes
            )
            if not cases.several
            else None,
        },
        notes=(*notes, *without_interval(cases, estimates)),
        per_gallery=per_gallery,
    )


def _of_item(cases: Cases) -> dict[str, Any]:
    if not isinstance(cases, ItemCases):
        return {}
    return {"item": cases.rule, "item_score": cases.score, "parts": sum(map(len, cases.parts))}


@dataclass(frozen=True)
class _Measured:
    """What the queries found in one gallery.

    ``hits`` is bool ``(q, k)``, ``first`` the place of each query's nearest row, ``highest`` what a query's measure can
    reach of so many relevant rows.
    """

    asked: NDArray[np.bool_]
    codes: NDArray[np.int64]
    hits: NDArray[np.bool_]
    first: NDArray[np.int64]
    relevant: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    highest: dict[str, NDArray[np.float64]]

    def estimates(self) -> dict[str, Estimate]:
        """Return the means over the queries, and those macro over the classes of precision and any-hit."""
        found = {
            name: mean_interval(value, self.codes, highest=self.highest.get(name))
            for name, value in self.values.items()
        }
        for name in [name for name in found if name.startswith(("precision@", "any_hit@"))]:
            found[f"macro_{name}"] = mean_interval(
                self.values[name], self.codes, member=self.asked, highest=self.highest.get(name)
            )
        return found


def _measured(store: Store, cases: Cases, ks: Sequence[int]) -> _Measured:
    search = nearest_items if isinstance(cases, ItemCases) else nearest
    neighbours = search(store, cases, ks[-1])[0]  # type: ignore[arg-type]
    asked = cases.member[cases.queries]
    found = np.where((neighbours >= 0)[:, :, None], cases.member[neighbours], False)  # (q, k, c)
    hits = np.asarray((found & asked[:, None, :]).any(axis=2), bool)
    relevant = cases.relevant() - _not_in_view(store, cases)
    values: dict[str, NDArray[np.float64]] = {}
    for k in ks:
        depth = min(k, hits.shape[1])
        values[f"precision@{k}"] = metrics.precision_at(hits, depth) * (depth / k)
        values[f"any_hit@{k}"] = metrics.any_hit_at(hits, depth)
        values[f"recall@{k}"] = metrics.recall_at(hits, depth, relevant)
        values[f"map@{k}"] = metrics.average_precision_at(hits, depth, relevant)
        values[f"ndcg@{k}"] = metrics.ndcg_at(hits, depth, relevant)
    values[f"mrr@{ks[-1]}"] = metrics.reciprocal_rank(hits)
    highest: dict[str, NDArray[np.float64]] = {}  # that a query's measure can reach, of so many relevant rows
    for k in ks:
        # precision: a query with none counts as with one, since a patient that was not met may have one
        some = np.maximum(relevant, 1)
        reached = np.minimum(some, min(k, hits.shape[1]))
        highest[f"precision@{k}"] = reached * (1 / k)
        highest[f"recall@{k}"] = highest[f"map@{k}"] = reached / some
    first = np.asarray(neighbours[:, 0], np.int64)
    return _Measured(asked, cases.groups[cases.queries], hits, first, relevant, values, highest)


def draw_gallery(store: Store, cases: Cases, size: int, seed: int) -> NDArray[np.bool_]:
    """Choose the rows of a smaller gallery, patient by patient, in the order of hashes: bool ``(n,)``.

    The same rows give the same gallery in whatever order they lie in the index, and a smaller one is part of a larger.
    """

    def order(name: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{name}".encode()).digest()

    ids = store.ids(cases.rows)
    least: dict[int, str] = {}
    for group, name in zip(cases.groups.tolist(), ids, strict=True):
        least[group] = min(name, least.get(group, name))
    patients = {group: order(name) for group, name in least.items()}
    ranked = sorted(range(len(ids)), key=lambda at: (patients[int(cases.groups[at])], order(ids[at])))
    chosen = np.zeros(len(ids), bool)
    chosen[ranked[:size]] = True
    return chosen


def _not_in_view(store: Store, cases: Cases) -> NDArray[np.int64]:
    """Count, for each query, the relevant rows that are missing where it is asked: int64 ``(q,)``."""
    unseen, missing = Unseen(store, cases.rows, cases.group), np.zeros(len(cases.queries), np.int64)
    for fold in np.unique(unseen.fold[cases.queries]).tolist():
        if fold >= 0:
            at, gone = unseen.fold[cases.queries] == fold, ~unseen.learn(fold)
            gone = gone if cases.answers is None else gone & cases.answers
            asked = cases.queries[at]
            share = cases.member[asked].astype(np.float32) @ cases.member[gone].T.astype(np.float32) > 0
            missing[at] = (share & (cases.groups[asked, None] != cases.groups[gone])).sum(axis=1)
    return missing


def nearest(store: Store, cases: Cases, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find each query's nearest cases of other patients: places in ``cases.rows``, -1 padded, and scores.

    Both are ``(q, min(k, n))`` for ``n`` cases.
    """
    place = np.full(store.n_total + 1, -1, dtype=np.int64)  # the last entry serves the padding
    place[cases.rows] = np.arange(len(cases.rows))
    order = np.argsort(cases.groups, kind="stable")
    starts = np.searchsorted(cases.groups[order], np.arange(cases.groups.max() + 2))
    own = [cases.rows[order[starts[g] : starts[g + 1]]] for g in cases.groups[cases.queries]]
    rows, scores = Unseen(store, cases.rows, cases.group).nearest(
        cases.queries, min(k, len(cases.rows)), own, answers=cases.answers
    )
    return place[rows], scores
