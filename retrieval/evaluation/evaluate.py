"""How good an index is on its own labelled rows: retrieval, zero-shot, a vote of neighbours, a linear probe.

Every labelled row asks in turn, with its own patient out of the gallery. Every number comes with an
interval from a bootstrap over patients, overall, for each class, and for each subgroup asked for. Cells
that rest on few patients are marked, not hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.labels.cases import Cases, subgroups
from retr.retrieval.stats import bootstrap, curves, metrics
from retr.retrieval.stats.bootstrap import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.classify.methods import TextSide
    from retr.retrieval.labels.label_set import LabelSet

#: A cell with fewer patients than this is marked as small.
SMALL = 10
_BLOCK = 1024  # queries searched at once


@dataclass(frozen=True)
class Options:
    """What all evaluations share: number of bootstrap resamples, seed, and columns to divide the queries by."""

    resamples: int = 1000
    seed: int = 0
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes
    ----------
    kind
        ``"retrieval"``, ``"zero-shot"``, ``"neighbours"`` or ``"probe"``.
    facts
        What it rests on: columns, numbers of queries, patients and classes, settings.
    metrics
        The numbers over all queries.
    per_class, per_subgroup
        One row a class or subgroup: name, ``n``, ``patients``, ``small``, and numbers.
    curves
        What the report draws: arrays, JSON-ready.
    notes
        What a reader of the numbers must know, one line each.
    """

    kind: str
    facts: dict[str, Any]
    metrics: dict[str, Estimate]
    per_class: list[dict[str, Any]]
    per_subgroup: list[dict[str, Any]]
    curves: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give one JSON-ready object."""
        return {
            "evaluation": self.kind,
            **self.facts,
            "metrics": {name: estimate.to_json() for name, estimate in self.metrics.items()},
            "per_class": [_plain(row) for row in self.per_class],
            "per_subgroup": [_plain(row) for row in self.per_subgroup],
            "curves": self.curves,
            "notes": list(self.notes),
        }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value.to_json() if isinstance(value, Estimate) else value for key, value in row.items()}


def _facts(store: Store, cases: Cases, options: Options) -> dict[str, Any]:
    return {
        "index": store.path.name,
        "encoder": store.manifest.encoder.name,
        "label": cases.label,
        "excluded_with_the_query": cases.group or "only itself",
        "queries": len(cases.queries),
        "patients" if cases.group else "groups": len(np.unique(cases.groups[cases.queries])),
        "gallery": len(cases.rows),
        "classes": len(cases.classes),
        "resamples": options.resamples,
        "seed": options.seed,
    }


def _cell(cases: Cases, inside: NDArray[np.bool_]) -> dict[str, Any]:
    """Say what a cell of a table rests on; ``inside`` is bool ``(q,)``."""
    patients = len(np.unique(cases.groups[cases.queries][inside]))
    return {"n": int(inside.sum()), "patients": patients, "small": patients < SMALL}


# retrieval


def retrieval(
    store: Store, cases: Cases, *, ks: Sequence[int] = (1, 5, 10), options: Options | None = None
) -> Evaluation:
    """Measure how many of the nearest rows share the query's class.

    Parameters
    ----------
    store, cases
        The index and its labelled rows (`retr.retrieval.labels.cases.find_cases`).
    ks
        At which depths.
    options
        Resamples, seed and subgroups.

    Returns
    -------
    Evaluation
        precision, any-hit, recall, mAP and nDCG at each k, MRR within the deepest k, and the macro means over
        classes of precision and any-hit.

    Raises
    ------
    UsageError
        A k is below 1, or a column of ``by`` is missing.
    """
    options = options or Options()
    ks = sorted(set(ks))
    if not ks or ks[0] < 1:
        raise UsageError(f"k must be at least 1, got: {list(ks)!r}")
    neighbours = _neighbours(store, cases, max(ks))[0]
    asked = cases.member[cases.queries]
    found = np.where((neighbours >= 0)[:, :, None], cases.member[neighbours], False)  # (q, k, c)
    hits = np.asarray((found & asked[:, None, :]).any(axis=2), bool)
    relevant = cases.relevant()
    values: dict[str, NDArray[np.float64]] = {}
    for k in ks:
        values[f"precision@{k}"] = metrics.precision_at(hits, k)
        values[f"any_hit@{k}"] = metrics.any_hit_at(hits, k)
        values[f"recall@{k}"] = metrics.recall_at(hits, k, relevant)
        values[f"map@{k}"] = metrics.average_precision_at(hits, k, relevant)
        values[f"ndcg@{k}"] = metrics.ndcg_at(hits, k, relevant)
    values["mrr"] = metrics.reciprocal_rank(hits)
    codes = cases.groups[cases.queries]
    mean = partial(bootstrap.mean_interval, resamples=options.resamples, seed=options.seed)
    estimates = {name: mean(value, codes) for name, value in values.items()}
    for name in (f"{kind}@{k}" for kind in ("precision", "any_hit") for k in ks):
        estimates[f"macro_{name}"] = mean(values[name], codes, member=asked)
    shown = [f"precision@{ks[0]}", f"precision@{ks[-1]}", f"any_hit@{ks[-1]}", f"map@{ks[-1]}"]

    def numbers(inside: NDArray[np.bool_]) -> dict[str, Any]:
        return {name: mean(values[name][inside], codes[inside]) for name in dict.fromkeys(shown)}

    per_class = [
        {"class": name, **_cell(cases, asked[:, c]), **numbers(asked[:, c])} for c, name in enumerate(cases.classes)
    ]
    notes = list(cases.notes)
    if (relevant == 0).any():
        notes.append(
            f"{int((relevant == 0).sum())} queries have no other picture of their class in the gallery: they count as "
            "0 for precision and any-hit, and are left out of recall, mAP and nDCG"
        )
    return Evaluation(
        kind="retrieval",
        facts=_facts(store, cases, options) | {"k": list(ks)},
        metrics=estimates,
        per_class=per_class,
        per_subgroup=_by_subgroup(store, cases, options, numbers),
        curves={
            "precision_recall": curves.precision_recall(hits, relevant),
            "confusion": curves.confusion(
                asked.argmax(axis=1), np.where(neighbours[:, 0] >= 0, cases.truth[neighbours[:, 0]], -1), cases.classes
            )
            if not cases.several
            else None,
        },
        notes=tuple(notes),
    )


def _neighbours(store: Store, cases: Cases, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find each query's nearest cases of other patients: places in ``cases.rows`` ``(q, k)``, -1 padded, and scores."""
    gallery = np.zeros(store.n_total, dtype=bool)
    gallery[cases.rows] = True
    place = np.full(store.n_total + 1, -1, dtype=np.int64)  # the last entry serves the padding
    place[cases.rows] = np.arange(len(cases.rows))
    order = np.argsort(cases.groups, kind="stable")
    starts = np.searchsorted(cases.groups[order], np.arange(cases.groups.max() + 2))
    rows, scores = [], []
    for start in range(0, len(cases.queries), _BLOCK):
        asked = cases.queries[start : start + _BLOCK]
        own = [cases.rows[order[starts[g] : starts[g + 1]]] for g in cases.groups[asked]]
        vectors = np.asarray(store.vectors(cases.rows[asked]), dtype=np.float32)
        found = store.search(vectors, k, mask=gallery, exclude=own)
        rows.append(place[found.rows])
        scores.append(found.scores)
    return np.concatenate(rows), np.concatenate(scores)


def _by_subgroup(
    store: Store, cases: Cases, options: Options, numbers: Callable[[NDArray[np.bool_]], dict[str, Any]]
) -> list[dict[str, Any]]:
    return [
        {"column": column, "value": value, **_cell(cases, inside), **numbers(inside)}
        for column in options.by
        for value, inside in subgroups(store, cases, column)
    ]


# classification


def neighbours(store: Store, cases: Cases, *, k: int = 5, options: Options | None = None) -> Evaluation:
    """Measure a vote of the ``k`` nearest rows of other patients, the nearer the more."""
    from retr.retrieval.stats.confidence import Votes, VoteScale

    if k < 1:
        raise UsageError(f"k must be at least 1, got: {k!r}")
    found, scores = _neighbours(store, cases, k)
    share = cases.member.mean(axis=0, dtype=np.float64)
    if cases.several:
        weight = np.where(found >= 0, 1.0, 0.0)
        votes = np.einsum("qk,qkc->qc", weight, cases.member[found])
        probabilities = votes / np.maximum(weight.sum(axis=1), 1)[:, None]
    else:
        codes = np.where(found >= 0, cases.truth[found], -1)
        probabilities = VoteScale().probabilities(Votes(scores, codes, share))
    return _classification("neighbours", store, cases, probabilities, options or Options(), {"k": k})


def probe(store: Store, cases: Cases, *, folds: int = 5, options: Options | None = None) -> Evaluation:
    """Measure a linear probe: logistic regression, every patient answered by a fit that never saw that patient.

    Parameters
    ----------
    store, cases
        The index and its labelled rows.
    folds
        Into how many parts the patients are dealt.
    options
        Resamples, seed and subgroups.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    options = options or Options()
    vectors = np.asarray(store.vectors(cases.rows), dtype=np.float32)
    folds = min(folds, len(np.unique(cases.groups)))
    if folds < 2:
        raise UsageError("all labelled rows belong to one patient: a probe needs others to learn from")
    probabilities = np.zeros((len(cases.rows), len(cases.classes)))

    def fitted(inside: NDArray[np.int64], target: NDArray[Any]) -> Any:
        # a fixed, strong penalty: nothing is tuned on the rows that are scored
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=300))
        return model.fit(vectors[inside], target[inside])

    for inside, outside in GroupKFold(folds, shuffle=True, random_state=options.seed).split(
        vectors, groups=cases.groups
    ):
        if not cases.several:
            model = fitted(inside, cases.truth)
            probabilities[np.ix_(outside, model[-1].classes_)] = model.predict_proba(vectors[outside])
            continue
        for c in range(len(cases.classes)):
            target = cases.member[:, c]
            if target[inside].any() and not target[inside].all():
                probabilities[outside, c] = fitted(inside, target).predict_proba(vectors[outside])[:, 1]
            else:
                probabilities[outside, c] = target[inside].mean()
    return _classification("probe", store, cases, probabilities[cases.queries], options, {"folds": folds})


def zero_shot(
    store: Store, cases: Cases, encoder: TextSide, labels: LabelSet, *, options: Options | None = None
) -> Evaluation:
    """Measure naming by words alone: no label of the index is used but to score the answers.

    Parameters
    ----------
    store, cases
        The index and its labelled rows.
    encoder
        The index's encoder; it must have a text side.
    labels
        The classes and their prompts; values of the label column are matched by name or alias.
    options
        Resamples, seed and subgroups.

    Raises
    ------
    UsageError
        No value of the label column names a class of the set.
    NoTextSideError
        The encoder embeds images only.
    """
    texts = np.stack([encoder.class_embedding(list(one.prompts)) for one in labels.classes])
    logits = encoder.similarity_logits(np.asarray(store.vectors(cases.rows), dtype=np.float32), texts)
    place = [labels.class_of(name) for name in cases.classes]
    unknown = [name for name, at in zip(cases.classes, place, strict=True) if at is None]
    member = np.zeros((len(cases.rows), len(labels.classes)), dtype=bool)
    for c, at in enumerate(place):
        if at is not None:
            member[:, at] |= cases.member[:, c]
    if not member.any():
        raise UsageError(
            f"no value of {cases.label!r} names a class of the label set {labels.name!r}",
            hint=f"its classes are {', '.join(labels.names[:8])}; add aliases to the label file",
        )
    notes = list(cases.notes)
    keep = np.asarray(member.any(axis=1), bool)
    if unknown:
        notes.append(
            f"{int((~keep).sum())} rows are left out: the label set does not know {', '.join(map(repr, unknown[:5]))}"
            + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        )
    kept = Cases(
        label=cases.label,
        group=cases.group,
        rows=cases.rows[keep],
        asks=cases.asks[keep],
        classes=tuple(labels.names),
        member=member[keep],
        groups=np.unique(cases.groups[keep], return_inverse=True)[1].astype(np.int64),
        group_values=tuple(value for value, inside in zip(cases.group_values, keep, strict=True) if inside),
        notes=tuple(notes),
    )
    asked = logits[keep][kept.queries].astype(np.float64)
    if kept.several or labels.multilabel:
        scores = 1 / (1 + np.exp(-asked))
    else:
        scores = np.exp(asked - asked.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    return _classification("zero-shot", store, kept, scores, options or Options(), {"label_set": labels.name})


def _classification(
    kind: str,
    store: Store,
    cases: Cases,
    probabilities: NDArray[np.float64],
    options: Options,
    facts: dict[str, Any],
) -> Evaluation:
    """Score probabilities ``(q, c)`` of the queries."""
    asked, codes = cases.member[cases.queries], cases.groups[cases.queries]
    # a statistic that is no mean is computed anew for every resample: fewer of them
    resamples = max(1, options.resamples // 5)
    score = _several if cases.several else _single

    def estimates(inside: NDArray[np.bool_], names: Sequence[str] | None = None) -> dict[str, Estimate]:
        rows = np.flatnonzero(inside)
        part = np.unique(codes[rows], return_inverse=True)[1].astype(np.int64)
        return bootstrap.intervals(
            lambda at: score(probabilities[rows[at]], asked[rows[at]], names),
            part,
            resamples=resamples,
            seed=options.seed,
        )

    everything = np.ones(len(asked), dtype=bool)
    shown = ("auroc", "auprc") if cases.several else ("top1", "balanced_accuracy", "macro_f1")
    auroc = metrics.auroc_per_class(probabilities, asked)
    auprc = metrics.auprc_per_class(probabilities, asked)
    answer = probabilities.argmax(axis=1)
    mean = partial(bootstrap.mean_interval, resamples=options.resamples, seed=options.seed)
    per_class: list[dict[str, Any]] = []
    for c, name in enumerate(cases.classes):
        row: dict[str, Any] = {"class": name, **_cell(cases, asked[:, c])}
        if not cases.several:
            right = np.where(asked[:, c], answer == c, np.nan)
            row["recall"] = mean(right, codes)
        row |= {"auroc": curves.number(auroc[c]), "auprc": curves.number(auprc[c])}
        per_class.append(row)
    drawn: dict[str, Any] = {"precision_recall_classes": curves.class_curves(probabilities, asked, cases.classes)}
    if not cases.several:
        truth = asked.argmax(axis=1)
        bins = metrics.reliability(probabilities, truth)
        drawn["confusion"] = curves.confusion(truth, answer, cases.classes)
        drawn["calibration"] = {
            "confidence": [curves.number(x) for x in bins.confidence],
            "accuracy": [curves.number(x) for x in bins.accuracy],
            "count": bins.count.tolist(),
        }
    return Evaluation(
        kind=kind,
        facts=_facts(store, cases, options) | facts,
        metrics=estimates(everything),
        per_class=per_class,
        per_subgroup=_by_subgroup(store, cases, options, lambda inside: estimates(inside, shown)),
        curves=drawn,
        notes=cases.notes,
    )


def _single(
    probabilities: NDArray[np.float64], member: NDArray[np.bool_], names: Sequence[str] | None
) -> dict[str, float]:
    scores = metrics.classification(probabilities, member.argmax(axis=1))
    return scores if names is None else {name: scores[name] for name in names}


def _several(
    probabilities: NDArray[np.float64], member: NDArray[np.bool_], names: Sequence[str] | None
) -> dict[str, float]:
    del names  # all of them
    return {
        "auroc": _mean(metrics.auroc_per_class(probabilities, member)),
        "auprc": _mean(metrics.auprc_per_class(probabilities, member)),
    }


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
