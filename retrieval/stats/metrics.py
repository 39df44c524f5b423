"""Metrics of retrieval and classification; arrays only.

Ranking metrics take *hits*: a boolean array ``(n, k)``, one row for each query in rank order, ``True``
where the row found at that rank is relevant (places that stayed empty are ``False``). They give one value
for each query, ``(n,)``, so that the caller can average over everything, over a class or over a subgroup,
and take patients for the unit (`retr.retrieval.stats.intervals`). Definitions follow trec_eval: average precision and
recall divide by all relevant rows of the gallery, not by those that could fit into k. Where a query has no
relevant row at all, recall, average precision and nDCG are undefined and come back as ``nan``.

Classification metrics are scikit-learn's, but for the AUROC; this module only lines up their arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.index.machine.extras import needed
from retr.retrieval.ignored_warnings import ignoring

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


def _first(hits: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    if not 1 <= k <= hits.shape[1]:
        raise UsageError(f"k must be between 1 and the {hits.shape[1]} neighbours searched, got: {k!r}")
    return hits[:, :k]


def precision_at(hits: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Share of the first ``k`` places that hold a relevant row.

    Parameters
    ----------
    hits
        bool ``(n, depth)``, relevance in rank order.
    k
        Places looked at, at most ``depth``.

    Returns
    -------
    NDArray
        float64 ``(n,)``.

    Raises
    ------
    UsageError
        If ``k`` is not between 1 and ``depth``.

    Examples
    --------
    >>> precision_at(np.array([[True, False, True]]), 2).tolist()
    [0.5]
    """
    return np.asarray(_first(hits, k).mean(axis=1), np.float64)


def any_hit_at(hits: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """1 where at least one of the first ``k`` places holds a relevant row, else 0: float64 ``(n,)``.

    >>> any_hit_at(np.array([[False, True], [False, False]]), 2).tolist()
    [1.0, 0.0]
    """
    return np.asarray(_first(hits, k).any(axis=1), np.float64)


def recall_at(hits: NDArray[np.bool_], k: int, relevant: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of a query's ``relevant`` rows, int ``(n,)``, that are among the first ``k``: float64 ``(n,)``.

    >>> recall_at(np.array([[True, False, True]]), 3, np.array([4])).tolist()
    [0.5]
    """
    return _ratio(_first(hits, k).sum(axis=1), relevant)


def average_precision_at(hits: NDArray[np.bool_], k: int, relevant: NDArray[np.integer]) -> NDArray[np.float64]:
    """Precision at each relevant place up to ``k``, summed, over ``relevant``: float64 ``(n,)``.

    The mean over queries is mAP@k.

    >>> average_precision_at(np.array([[True, False, True]]), 3, np.array([2])).round(4).tolist()
    [0.8333]
    """
    first = _first(hits, k)
    precision = first.cumsum(axis=1) / np.arange(1, k + 1)
    return _ratio((precision * first).sum(axis=1), relevant)


def ndcg_at(hits: NDArray[np.bool_], k: int, relevant: NDArray[np.integer]) -> NDArray[np.float64]:
    """Discounted gain over that of a perfect order, with relevance 0 or 1: float64 ``(n,)``.

    >>> ndcg_at(np.array([[False, True]]), 2, np.array([1])).round(4).tolist()
    [0.6309]
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], discount.cumsum()])[np.minimum(relevant, k)]
    return _ratio(_first(hits, k) @ discount, ideal)


def reciprocal_rank(hits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 / place of the first relevant row, 0 where there is none: float64 ``(n,)``; its mean is MRR@depth.

    >>> reciprocal_rank(np.array([[False, True, True], [False, False, False]])).tolist()
    [0.5, 0.0]
    """
    return np.asarray(hits.any(axis=1) / (hits.argmax(axis=1) + 1), np.float64)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    ratio = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio


@dataclass(frozen=True)
class Reliability:
    """How far stated confidence and accuracy agree, in bins of equal width.

    ``edges`` float64 ``(bins + 1,)``; ``confidence``, ``accuracy`` float64 ``(bins,)``, ``nan`` in an empty
    bin; ``count`` int64 ``(bins,)``.
    """

    edges: NDArray[np.float64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]

    @property
    def ece(self) -> float:
        """Expected calibration error: the bins' gaps, weighted by how much is in them."""
        filled = self.count > 0
        gaps = np.abs(self.confidence - self.accuracy)[filled]
        return float(np.average(gaps, weights=self.count[filled])) if filled.any() else float("nan")


def reliability(probabilities: ArrayLike, truth: ArrayLike, *, bins: int = 15) -> Reliability:
    """Compare the confidence of the most probable class with how often it is the true one.

    Parameters
    ----------
    probabilities
        float ``(n, c)``; or ``(n,)``, then ``truth`` says whether the answer was right.
    truth
        int ``(n,)``, the true class; or bool ``(n,)``.
    bins
        Number of bins of equal width over 0 to 1, each open on the left.

    Returns
    -------
    Reliability
        The bins; ``.ece`` is their summary.
    """
    scores, target = np.asarray(probabilities, np.float64), np.asarray(truth)
    if scores.ndim == 2:
        target = scores.argmax(axis=1) == target
        scores = scores.max(axis=1)
    place = _places(scores, bins)
    count = np.bincount(place, minlength=bins)
    confidence = _ratio(np.bincount(place, weights=scores, minlength=bins), count)
    accuracy = _ratio(np.bincount(place, weights=target, minlength=bins), count)
    return Reliability(np.linspace(0, 1, bins + 1), confidence, accuracy, count)


def _places(scores: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Return the bin of each confidence: int64 ``(n,)``."""
    found = np.searchsorted(np.linspace(0, 1, bins + 1), scores, side="left") - 1
    return np.asarray(np.clip(found, 0, bins - 1), np.int64)


def ece(probabilities: ArrayLike, truth: ArrayLike, *, bins: int = 15) -> float:
    """Expected calibration error of the most probable class (`reliability` says what the arguments are).

    >>> round(ece([[0.8, 0.2], [0.8, 0.2]], [0, 1]), 6)
    0.3
    """
    return reliability(probabilities, truth, bins=bins).ece


def ece_by_chance(probabilities: ArrayLike, truth: ArrayLike, groups: NDArray[np.int64], *, bins: int = 15) -> float:
    """Return the calibration error that chance alone gives a perfectly calibrated model, to read `ece` by.

    The confidences stay, and so does how far rows of one group are right or wrong together; but in each bin answers are
    right as often as stated, up to chance, whose mean distance is ``sqrt(2 / pi)`` of its deviation.

    Parameters
    ----------
    probabilities, truth, bins
        As in `reliability`.
    groups
        int64 ``(n,)``: equal numbers mark one group.
    """
    scores, target = np.asarray(probabilities, np.float64), np.asarray(truth)
    if not len(scores):
        return float("nan")
    if scores.ndim == 2:
        target = scores.argmax(axis=1) == target
        scores = np.clip(scores.max(axis=1), 0, 1)
    place = _places(scores, bins)
    count = np.maximum(np.bincount(place, minlength=bins), 1)
    off = target - scores
    off = off - (np.bincount(place, off, minlength=bins) / count)[place]
    together = np.bincount(np.unique(groups, return_inverse=True)[1], off)
    alone = float(np.square(off).sum())
    design = max(1.0, float(np.square(together).sum()) / alone) if alone > 0 else 1.0
    deviation = np.sqrt(design * np.bincount(place, scores * (1 - scores), minlength=bins))
    return float(np.sqrt(2 / np.pi) * deviation.sum() / len(scores))


def depths(scores: NDArray[Any], topk: Sequence[int] = (1, 3, 5)) -> list[int]:
    """Return for which k top-k says something: 1, and those that not all classes of ``scores`` ``(n, c)`` fit into."""
    return [k for k in topk if k == 1 or k < scores.shape[1]]


def in_top_k(scores: ArrayLike, truth: ArrayLike, k: int) -> NDArray[np.float64]:
    """Return the chance that the true class is among the ``k`` highest, classes of equal score in any order.

    Only the class that is answered, the first of the highest, comes first: the top 1 is right where the answer is. A
    class of probability 0, or one that no neighbour voted for, is in no top k, whatever its place in the alphabet.

    Parameters
    ----------
    scores
        float ``(n, c)``: probabilities, or logits of any sign; a score of exactly 0 is none where none is below it and
        some are above.
    truth
        int ``(n,)``.
    k
        At least 1.

    Returns
    -------
    NDArray
        float64 ``(n,)``, 0 or 1 where there are no ties.

    Examples
    --------
    >>> in_top_k(np.array([[0.5, 0.25, 0.25, 0.0, 0.0]]), [2], 2).tolist()
    [0.5]
    >>> in_top_k(np.array([[1.0, 0.0, 0.0]]), [1], 2).tolist()
    [0.0]
    """
    wide, target = np.asarray(scores, np.float64), np.asarray(truth)
    own = wide[np.arange(len(wide)), target][:, None]
    above, equal = (wide > own).sum(axis=1), (wide == own).sum(axis=1)
    answered, highest = wide.argmax(axis=1) == target, above == 0
    places, rivals = k - np.maximum(above, 1), np.where(highest, equal - 1, equal)
    chance = np.where(answered, 1.0, np.clip(places / np.maximum(rivals, 1), 0.0, 1.0))
    nothing = (own[:, 0] == 0) & (wide >= 0).all(axis=1) & (wide > 0).any(axis=1)
    return np.where(nothing, 0.0, chance)


def top_k_accuracy(probabilities: ArrayLike, truth: ArrayLike, k: int) -> float:
    """Share of rows whose true class is among the ``k`` most probable, as `in_top_k` counts ties."""
    return float(np.mean(in_top_k(probabilities, truth, k)))


def macro_f1(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Mean of F1 over the classes that occur in ``truth``, int ``(n,)``."""
    with needed():
        from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, labels=np.unique(np.asarray(truth)), average="macro"))


def kappa(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Cohen's kappa, unweighted: agreement beyond chance, in which every mistake counts the same.

    >>> round(kappa([0, 1, 2, 0], [0, 1, 2, 2]), 4)
    0.6364
    """
    return _kappa(predicted, truth, None)


def quadratic_kappa(predicted: ArrayLike, truth: ArrayLike, classes: int) -> float:
    """Cohen's kappa with quadratic weights, for grades 0..``classes``-1 in their order: far mistakes count more.

    It says nothing about classes without an order.
    """
    return _kappa(predicted, truth, "quadratic", labels=np.arange(classes))


def _kappa(predicted: ArrayLike, truth: ArrayLike, weights: str | None, **given: Any) -> float:
    with needed():
        from sklearn.metrics import cohen_kappa_score

    # one class only: the value is nan, which says it
    with ignoring(), np.errstate(all="ignore"):
        return float(cohen_kappa_score(truth, predicted, weights=weights, **given))


def auroc_per_class(scores: ArrayLike, member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Area under the ROC curve of each class against the rest.

    Parameters
    ----------
    scores
        float ``(n, c)``.
    member
        bool ``(n, c)``: which classes a row carries (several in multi-label data).

    Returns
    -------
    NDArray
        float64 ``(c,)``, ``nan`` where a class has no positive or no negative row.
    """
    with needed():
        from scipy.stats import rankdata

    # the rank sum of Mann and Whitney, for all classes at once: intervals measure it a hundred times
    inside = member.sum(axis=0)
    outside = len(member) - inside
    above = (rankdata(np.asarray(scores, np.float64), axis=0) * member).sum(axis=0) - inside * (inside + 1) / 2
    return _ratio(above, inside * outside)


def auprc_per_class(scores: ArrayLike, member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average precision of each class against the rest; arguments and result as in `auroc_per_class`."""
    with needed():
        from sklearn.metrics import average_precision_score

    columns = np.asarray(scores, np.float64)
    positives = member.sum(axis=0)
    both = (positives > 0) & (positives < len(member))
    areas = [
        average_precision_score(member[:, c], columns[:, c]) if both[c] else np.nan for c in range(columns.shape[1])
    ]
    return np.array(areas, np.float64)


def macro(values: NDArray[np.float64]) -> float:
    """Mean over the classes that have a value; ``nan`` where none has.

    >>> macro(np.array([0.5, np.nan, 1.0]))
    0.75
    """
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def classification(
    probabilities: ArrayLike,
    truth: ArrayLike,
    *,
    topk: Sequence[int] = (1, 3, 5),
    grades: NDArray[np.integer] | None = None,
) -> dict[str, float]:
    """Score single-label answers.

    Parameters
    ----------
    probabilities
        float ``(n, c)``, rows sum to 1.
    truth
        int ``(n,)``, the true class of each row.
    topk
        For which k top-k accuracy is given; of k that all classes fit into only ``top1``, since that says nothing.
    grades
        int ``(c,)``: the place of each class in an order that was declared, from 0.

    Returns
    -------
    dict
        ``top1`` ..., ``balanced_accuracy`` and ``macro_f1`` over the classes that occur in ``truth``, ``kappa``
        (Cohen's, unweighted), ``auroc`` (macro over the classes with rows inside and outside, one against the rest: no
        class is the positive one), ``ece``; and with ``grades`` ``kappa_quadratic``.
    """
    with needed():
        from sklearn.metrics import recall_score

    scores, target = np.asarray(probabilities, np.float64), np.asarray(truth)
    predicted = scores.argmax(axis=1)
    present = np.unique(target)
    every = {"labels": present, "average": "macro"}
    auroc = auroc_per_class(scores, target[:, None] == np.arange(scores.shape[1]))
    graded = {}
    if grades is not None:
        graded["kappa_quadratic"] = quadratic_kappa(grades[predicted], grades[target], int(grades.max()) + 1)
    return {
        **{f"top{k}": top_k_accuracy(scores, target, k) for k in depths(scores, topk)},
        "balanced_accuracy": float(recall_score(target, predicted, **every)),
        "macro_f1": macro_f1(predicted, target),
        "kappa": kappa(predicted, target),
        **graded,
        "auroc": macro(auroc),
        "ece": ece(scores, target),
    }
