"""Numbers that say how good an answer is, from arrays alone.

Ranking metrics take *hits*: a boolean array ``(n, k)``, one row for each query in rank order, ``True``
where the row found at that rank is relevant (places that stayed empty are ``False``). They give one value
for each query, ``(n,)``, so that the caller can average over everything, over a class or over a subgroup,
and resample patients (`retr.retrieval.stats.bootstrap`). Definitions follow trec_eval: average precision and
recall divide by all relevant rows of the gallery, not by those that could fit into k. Where a query has no
relevant row at all, recall, average precision and nDCG are undefined and come back as ``nan``.

Classification metrics are scikit-learn's; this module only lines up their arguments.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError

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
    """1 / place of the first relevant row, 0 where there is none: float64 ``(n,)``; its mean is MRR.

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
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, scores, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    confidence = _ratio(np.bincount(place, weights=scores, minlength=bins), count)
    accuracy = _ratio(np.bincount(place, weights=target, minlength=bins), count)
    return Reliability(edges, confidence, accuracy, count)


def ece(probabilities: ArrayLike, truth: ArrayLike, *, bins: int = 15) -> float:
    """Expected calibration error of the most probable class (`reliability` says what the arguments are).

    >>> round(ece([[0.8, 0.2], [0.8, 0.2]], [0, 1]), 6)
    0.3
    """
    return reliability(probabilities, truth, bins=bins).ece


def top_k_accuracy(probabilities: ArrayLike, truth: ArrayLike, k: int) -> float:
    """Share of rows whose true class is among the ``k`` most probable."""
    from sklearn.metrics import top_k_accuracy_score

    scores = np.asarray(probabilities, np.float64)
    if k >= scores.shape[1]:
        return 1.0
    if k == 1:  # of equal classes the first, as `argmax` takes it everywhere else
        return float(np.mean(scores.argmax(axis=1) == np.asarray(truth)))
    return float(top_k_accuracy_score(truth, scores, k=k, labels=np.arange(scores.shape[1])))


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
    from sklearn.metrics import cohen_kappa_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one class only: the value is nan, which says it
        with np.errstate(all="ignore"):
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
    return _per_class("roc_auc_score", scores, member)


def auprc_per_class(scores: ArrayLike, member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average precision of each class against the rest; arguments and result as in `auroc_per_class`."""
    return _per_class("average_precision_score", scores, member)


def macro(values: NDArray[np.float64]) -> float:
    """Mean over the classes that have a value; ``nan`` where none has.

    >>> macro(np.array([0.5, np.nan, 1.0]))
    0.75
    """
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _per_class(name: str, scores: ArrayLike, member: NDArray[np.bool_]) -> NDArray[np.float64]:
    import sklearn.metrics

    columns = np.asarray(scores, np.float64)
    positives = member.sum(axis=0)
    both = (positives > 0) & (positives < len(member))
    return np.array(
        [
            getattr(sklearn.metrics, name)(member[:, c], columns[:, c]) if both[c] else np.nan
            for c in range(columns.shape[1])
        ]
    )


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
    from sklearn.metrics import f1_score, recall_score

    scores, target = np.asarray(probabilities, np.float64), np.asarray(truth)
    predicted = scores.argmax(axis=1)
    present = np.unique(target)
    every = {"labels": present, "average": "macro"}
    auroc = auroc_per_class(scores, target[:, None] == np.arange(scores.shape[1]))
    graded = {}
    if grades is not None:
        graded["kappa_quadratic"] = quadratic_kappa(grades[predicted], grades[target], int(grades.max()) + 1)
    return {
        **{f"top{k}": top_k_accuracy(scores, target, k) for k in topk if k == 1 or k < scores.shape[1]},
        "balanced_accuracy": float(recall_score(target, predicted, **every)),
        "macro_f1": float(f1_score(target, predicted, **every)),
        "kappa": kappa(predicted, target),
        **graded,
        "auroc": macro(auroc),
        "ece": ece(scores, target),
    }
