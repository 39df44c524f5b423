"""Naming the labelled rows and scoring the answers: a vote of neighbours, a linear probe, words alone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.classify.probe import fit
from retr.retrieval.classify.prompts import class_vectors
from retr.retrieval.encoders.lengths import unread_ends
from retr.retrieval.evaluation.evaluation import Evaluation, Options, by_subgroup, cell, facts_of
from retr.retrieval.evaluation.protocols.linear import folds_by_patient
from retr.retrieval.evaluation.retrieval import nearest
from retr.retrieval.labels.cases import Cases
from retr.retrieval.stats import bootstrap, curves, metrics
from retr.retrieval.stats.confidence import Votes, VoteScale, softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.classify.prompts import TextSide
    from retr.retrieval.labels.label_set import LabelSet
    from retr.retrieval.stats.bootstrap import Estimate

STRENGTH = 0.01


def neighbours(store: Store, cases: Cases, *, k: int, options: Options) -> Evaluation:
    """Measure a vote of the ``k`` nearest rows of other patients, the nearer the more."""
    if k < 1:
        raise UsageError(f"k must be at least 1, got: {k!r}")
    found, scores = nearest(store, cases, k)
    share = cases.member.mean(axis=0, dtype=np.float64)
    if cases.several:
        weight = np.where(found >= 0, 1.0, 0.0)
        votes = np.einsum("qk,qkc->qc", weight, cases.member[found])
        probabilities = votes / np.maximum(weight.sum(axis=1), 1)[:, None]
    else:
        codes = np.where(found >= 0, cases.truth[found], -1)
        probabilities = VoteScale().probabilities(Votes(scores, codes, share))
    return _classification("neighbours", store, cases, probabilities, options, {"k": k})


def probe(store: Store, cases: Cases, *, folds: int, options: Options) -> Evaluation:
    """Measure a linear probe: logistic regression, every patient answered by a fit that never saw that patient.

    The fit is that of `retr.retrieval.classify.probe` with one fixed, strong penalty: nothing is tuned on the rows that
    are scored.

    Parameters
    ----------
    store, cases
        The index and its labelled rows.
    folds
        Into how many parts the patients are dealt.
    options
        Resamples, seed and subgroups.
    """
    if folds < 2:
        raise UsageError(f"patients are dealt into at least 2 folds, got: {folds!r}")
    vectors = np.asarray(store.vectors(cases.rows), dtype=np.float32)
    folds = min(folds, len(np.unique(cases.groups)))
    if folds < 2:
        raise UsageError("all labelled rows belong to one patient: a probe needs others to learn from")
    probabilities = np.zeros((len(cases.rows), len(cases.classes)))

    def answers(inside: NDArray[np.int64], outside: NDArray[np.int64], codes: NDArray[np.int64], n: int) -> Any:
        coef, intercept = fit(vectors[inside], codes[inside], n, STRENGTH)
        return softmax(vectors[outside] @ coef.T + intercept)

    for inside, outside in folds_by_patient(cases.groups, folds, options.seed):
        if not cases.several:
            probabilities[outside] = answers(inside, outside, cases.truth, len(cases.classes))
            continue
        for c in range(len(cases.classes)):
            target = cases.member[:, c]
            if target[inside].any() and not target[inside].all():
                probabilities[outside, c] = answers(inside, outside, target.astype(np.int64), 2)[:, 1]
            else:
                probabilities[outside, c] = target[inside].mean()
    return _classification("probe", store, cases, probabilities[cases.queries], options, {"folds": folds})


def zero_shot(store: Store, cases: Cases, encoder: TextSide, labels: LabelSet, *, options: Options) -> Evaluation:
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
    texts = class_vectors(encoder, [one.prompts for one in labels.classes])
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
    notes = [*cases.notes, *unread_ends(encoder, [prompt for one in labels.classes for prompt in one.prompts])]
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
        notes=tuple(notes),
        grades=_grades(labels, cases),
    )
    asked = logits[keep][kept.queries].astype(np.float64)
    scores = 1 / (1 + np.exp(-asked)) if kept.several or labels.multilabel else softmax(asked)
    return _classification("zero-shot", store, kept, scores, options, {"label_set": labels.name})


def _grades(labels: LabelSet, cases: Cases) -> NDArray[np.int64] | None:
    """Return the places of a label set's classes in the declared order: its own, or that of the cases."""
    if labels.ordered:
        return np.arange(len(labels.classes))
    if cases.grades is None:
        return None
    grade = {labels.class_of(name): place for name, place in zip(cases.classes, cases.grades.tolist(), strict=True)}
    absent = [name for at, name in enumerate(labels.names) if at not in grade]
    if absent:
        raise UsageError(
            f"the order of the classes does not place {absent[0]!r} of the label set {labels.name!r}",
            hint="write `ordered: true` into the label file, with its classes from the least grade to the most",
        )
    return np.array([grade[at] for at in range(len(labels.classes))], np.int64)


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
    score = _several if cases.several else partial(_single, grades=cases.grades)

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
        row: dict[str, Any] = {"class": name, **cell(cases, asked[:, c])}
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
        facts=facts_of(store, cases, options) | facts | _meanings(cases),
        metrics=estimates(everything),
        per_class=per_class,
        per_subgroup=by_subgroup(store, cases, options, lambda inside: estimates(inside, shown)),
        curves=drawn,
        notes=cases.notes,
    )


def _meanings(cases: Cases) -> dict[str, Any]:
    """Say what those numbers are that have several definitions."""
    if cases.several:
        return {"definitions": "auroc and auprc: macro over classes, each against the rest"}
    order, graded = "by name, which means nothing", ""
    if cases.grades is not None:
        order = ", ".join(cases.classes[at] for at in np.argsort(cases.grades))
        graded = "; kappa_quadratic: weighted by the squared distance of grades"
    return {
        "order_of_classes": order,
        "definitions": f"macro: over the classes that occur; auroc: macro, each class against the rest; "
        f"kappa: Cohen's, unweighted{graded}",
    }


def _single(
    probabilities: NDArray[np.float64],
    member: NDArray[np.bool_],
    names: Sequence[str] | None,
    *,
    grades: NDArray[np.int64] | None,
) -> dict[str, float]:
    scores = metrics.classification(probabilities, member.argmax(axis=1), grades=grades)
    return scores if names is None else {name: scores[name] for name in names}


def _several(
    probabilities: NDArray[np.float64], member: NDArray[np.bool_], names: Sequence[str] | None
) -> dict[str, float]:
    del names  # all of them
    return {
        "auroc": metrics.macro(metrics.auroc_per_class(probabilities, member)),
        "auprc": metrics.macro(metrics.auprc_per_class(probabilities, member)),
    }
