"""Evaluate classification of labelled rows: neighbour vote, linear probe, zero-shot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.index.machine.extras import needed
from retr.retrieval.classify.probe import Scaling, fit_probe
from retr.retrieval.classify.prompts import class_vectors
from retr.retrieval.encoders.runtime.truncation import unread_ends
from retr.retrieval.evaluation.evaluation import (
    NO_INTERVAL,
    Evaluation,
    EvaluationOptions,
    by_subgroup,
    cell,
    evaluation_facts,
    without_interval,
)
from retr.retrieval.evaluation.retrieval import nearest
from retr.retrieval.labels.cases import Cases
from retr.retrieval.labels.folds import by_patient
from retr.retrieval.stats import curves, metrics
from retr.retrieval.stats.confidence import Votes, VoteScale, class_log_odds, softmax
from retr.retrieval.stats.intervals import Estimate, jackknife_intervals, mean_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.classify.prompts import WordEncoder
    from retr.retrieval.labels.label_set import LabelSet

_CERTAIN = 700.0  # log-odds whose exponential is still a number


def neighbours(store: Store, cases: Cases, *, k: int, options: EvaluationOptions) -> Evaluation:
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
    return _classification("neighbours", store, cases, probabilities, probabilities, options, {"k": k})


def probe(store: Store, cases: Cases, *, folds: int, options: EvaluationOptions) -> Evaluation:
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
        Seed and subgroups.
    """
    if folds < 2:
        raise UsageError(f"rows are dealt into at least 2 folds, got: {folds!r}")
    vectors = np.asarray(store.vectors(cases.rows), dtype=np.float32)
    folds = min(folds, len(np.unique(cases.groups)))
    if folds < 2:
        raise UsageError("all labelled rows belong to one group: a probe needs others to learn from")
    logits, scaling = np.zeros((len(cases.rows), len(cases.classes))), Scaling.of(store)

    def answers(inside: NDArray[np.int64], outside: NDArray[np.int64], codes: NDArray[np.int64], n: int) -> Any:
        coef, intercept = fit_probe(vectors[inside], codes[inside], n, scaling.fixed, scaling)
        return vectors[outside] @ coef.T + intercept

    for inside, outside in by_patient(cases.groups, folds, options.seed):
        if not cases.several:
            logits[outside] = answers(inside, outside, cases.truth, len(cases.classes))
            continue
        for c in range(len(cases.classes)):
            target = cases.member[:, c]
            if target[inside].any() and not target[inside].all():
                one = answers(inside, outside, target.astype(np.int64), 2)
                logits[outside, c] = one[:, 1] - one[:, 0]
            else:  # one answer for all: as sure as numbers can say
                logits[outside, c] = _CERTAIN if target[inside].any() else -_CERTAIN
    found, facts = logits[cases.queries], {"folds": folds}
    return _classification("probe", store, cases, *_answers(found, several=cases.several), options, facts)


def zero_shot(
    store: Store, cases: Cases, encoder: WordEncoder, labels: LabelSet, *, options: EvaluationOptions
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
        Seed and subgroups.

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
    answers = _answers(asked, several=kept.several or labels.multilabel)
    return _classification("zero-shot", store, kept, *answers, options, {"label_set": labels.name})


def _answers(logits: NDArray[np.float64], *, several: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the probabilities of logits ``(q, c)``, and the log-odds, which order classes and rows alike.

    Probabilities that round to 1 are ties; the log-odds behind them are not.
    """
    if several:
        with needed():
            from scipy.special import expit

        return np.asarray(expit(logits), np.float64), logits
    return softmax(logits), class_log_odds(logits)


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
    evidence: NDArray[np.float64],
    options: EvaluationOptions,
    facts: dict[str, Any],
) -> Evaluation:
    """Score the answers to the queries: probabilities ``(q, c)``, and what they were made of, which orders them."""
    asked, codes = cases.member[cases.queries], cases.groups[cases.queries]
    measure = _several if cases.several else _single

    def estimates(inside: NDArray[np.bool_], names: Sequence[str] | None = None) -> dict[str, Estimate]:
        rows = np.flatnonzero(inside)
        return measure(
            probabilities[rows], evidence[rows], asked[rows], codes[rows], names, grades=cases.grades, seed=options.seed
        )

    everything = estimates(np.ones(len(asked), dtype=bool))
    shown = ("auroc", "auprc") if cases.several else ("top1", "balanced_accuracy", "macro_f1")
    auroc = metrics.auroc_per_class(evidence, asked)
    auprc = metrics.auprc_per_class(evidence, asked)
    answer = evidence.argmax(axis=1)
    per_class: list[dict[str, Any]] = []
    for c, name in enumerate(cases.classes):
        row: dict[str, Any] = {"class": name, **cell(cases, asked[:, c])}
        if not cases.several:
            right = np.where(asked[:, c], answer == c, np.nan)
            row["recall"] = mean_interval(right, codes)
        row |= {"auroc": curves.number(auroc[c]), "auprc": curves.number(auprc[c])}
        per_class.append(row)
    drawn: dict[str, Any] = {"precision_recall_classes": curves.class_curves(evidence, asked, cases.classes)}
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
        facts=evaluation_facts(store, cases, options) | facts | _meanings(cases),
        metrics=everything,
        per_class=per_class,
        per_subgroup=by_subgroup(store, cases, options, lambda inside: estimates(inside, shown)),
        curves=drawn,
        notes=cases.notes + without_interval(cases, everything),
    )


def _meanings(cases: Cases) -> dict[str, Any]:
    """Return what those numbers are that have several definitions."""
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
    evidence: NDArray[np.float64],
    member: NDArray[np.bool_],
    codes: NDArray[np.int64],
    names: Sequence[str] | None,
    *,
    grades: NDArray[np.int64] | None,
    seed: int,
) -> dict[str, Estimate]:
    """Measure rows of one class each; ``names``: only these."""
    truth, answer = member.argmax(axis=1), evidence.argmax(axis=1)
    found = {f"top{k}": mean_interval(metrics.in_top_k(evidence, truth, k), codes) for k in metrics.depths(member)}
    found["balanced_accuracy"] = mean_interval((answer == truth).astype(np.float64), codes, member=member)
    anew: dict[str, Callable[[NDArray[np.int64]], float]] = {
        "macro_f1": lambda at: metrics.macro_f1(answer[at], truth[at]),
        "kappa": lambda at: metrics.kappa(answer[at], truth[at]),
        "auroc": lambda at: metrics.macro(metrics.auroc_per_class(evidence[at], member[at])),
    }
    if grades is not None:
        count = int(grades.max()) + 1
        anew["kappa_quadratic"] = lambda at: metrics.quadratic_kappa(grades[answer[at]], grades[truth[at]], count)
    anew = {name: one for name, one in anew.items() if names is None or name in names}
    rests_on = {"macro_f1": member, "auroc": np.hstack([member, ~member])}
    lowest = {"kappa": -1.0, "kappa_quadratic": -1.0}
    found |= jackknife_intervals(
        lambda at: {name: one(at) for name, one in anew.items()}, codes, member=rests_on, lowest=lowest, seed=seed
    )
    errors = metrics.ece(probabilities, truth), metrics.ece_by_chance(probabilities, truth, codes)
    for name, value in zip(NO_INTERVAL, errors, strict=True):
        found[name] = Estimate(value, float("nan"), float("nan"), len(truth), len(np.unique(codes)))
    return found if names is None else {name: found[name] for name in names}


def _several(
    probabilities: NDArray[np.float64],
    evidence: NDArray[np.float64],
    member: NDArray[np.bool_],
    codes: NDArray[np.int64],
    names: Sequence[str] | None,
    *,
    grades: NDArray[np.int64] | None,
    seed: int,
) -> dict[str, Estimate]:
    """Measure rows that may carry several classes: the areas, all of them."""
    del probabilities, names, grades
    return jackknife_intervals(
        lambda at: {
            "auroc": metrics.macro(metrics.auroc_per_class(evidence[at], member[at])),
            "auprc": metrics.macro(metrics.auprc_per_class(evidence[at], member[at])),
        },
        codes,
        member={"auroc": np.hstack([member, ~member]), "auprc": member},
        seed=seed,
    )
