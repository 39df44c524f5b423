"""Prediction sets by hierarchical split-conformal thresholds over patients; arrays only.

Images of one patient are no independent evidence. With ``G`` groups (patients), each of the ``n_g`` images of group
``g`` weighs ``1 / (n_g (G + 1))``, and the ``1 / (G + 1)`` that is missing lies with the patient to come. The threshold
is the ``1 - alpha`` quantile of that distribution: hierarchical conformal prediction (Lee, Barber and Willett,
"Distribution-free inference with hierarchical data", arXiv:2306.06342; for two-layer models Dunn, Wasserman and Ramdas,
"Distribution-free prediction sets for two-layer hierarchical models", arXiv:1809.07441). With one image a group it is
ordinary split conformal prediction.

What is promised
----------------
Groups exchangeable, images exchangeable within their group, and a score that was fixed before: a random image of a new
group is covered with a chance of at least ``1 - alpha``. It is one average over patients, over their images and over
the draw of those who calibrate; no class, no subgroup and no single patient is promised anything. Thresholds by class
(`class_thresholds`; Mondrian: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005) promise the
same for a random image of each class, of a new group that has one.

What is not
-----------
Where the scores are cross-fitted (each group scored by a fit without it) and a new group is scored by the fit on all,
no distribution-free theorem holds. It would for sets that compare the new image under each fold's fit with that fold's
scores, and then at ``1 - 2 alpha``: CV+ and jackknife+ (Barber, Candes, Ramdas and Tibshirani, arXiv:1905.02928), the
hierarchical jackknife+ in Lee et al. Sets from the fit on all rows agree with those as far as leaving out a fold of
groups hardly changes a score (stability), and that has to be measured.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A share this near to 1 - alpha counts as reached: weights are floats, and nine groups at alpha 0.1 must just do.
_EPSILON = 1e-9


def groups_needed(alpha: float) -> int:
    """Return how many groups a threshold at an error level needs: ``ceil(1 / alpha) - 1``.

    With fewer the quantile lies with the group to come, and every set would hold every class.

    Raises
    ------
    UsageError
        If ``alpha`` is not between 0 and 1.

    >>> groups_needed(0.1), groups_needed(0.05), groups_needed(0.01), groups_needed(0.3)
    (9, 19, 99, 3)
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha must lie between 0 and 1, got {alpha!r}", hint="0.1 promises 90 %")
    # 1 / alpha as a float may lie just above the whole number that is meant, or beyond all floats
    needed = (1 - 1e-12) / float(alpha)
    return max(math.ceil(needed) - 1, 1) if math.isfinite(needed) else sys.maxsize


def threshold(own: NDArray[np.float64], groups: NDArray[np.int64], alpha: float) -> float:
    """Return the probability that a class must reach to be in the set.

    Parameters
    ----------
    own
        float64 ``(n,)``: the probability of each image's true class, by a model that has not seen its group.
    groups
        int64 ``(n,)``: the group of each image.
    alpha
        The error level, between 0 and 1.

    Returns
    -------
    float
        The largest value that the images of weight ``1 - alpha`` reach; 0, which every class reaches, with fewer than
        `groups_needed` groups.

    Raises
    ------
    UsageError
        If ``alpha`` is not between 0 and 1.

    >>> own, groups = np.array([0.9, 0.8, 0.1, 0.2, 0.7]), np.array([0, 1, 2, 2, 3])
    >>> threshold(own, groups, 0.4), threshold(own, groups, 0.3), threshold(own, groups, 0.1)
    (0.7, 0.2, 0.0)
    """
    n_groups = len(np.unique(groups))
    if n_groups < groups_needed(alpha):
        return 0.0
    order = np.argsort(-own, kind="stable")
    reached = np.cumsum(weights(groups)[order]) * n_groups / (n_groups + 1)
    place = int(np.searchsorted(reached, 1 - alpha - _EPSILON))
    return float(own[order[min(place, len(own) - 1)]])


def class_thresholds(
    own: NDArray[np.float64], truth: NDArray[np.int64], groups: NDArray[np.int64], n_classes: int, alpha: float
) -> NDArray[np.float64]:
    """Return a threshold for each class, from the images of that class alone: float64 ``(c,)``.

    A class with fewer than `groups_needed` groups gets 0: it is in every set.

    Parameters
    ----------
    own, groups, alpha
        As in `threshold`.
    truth
        int64 ``(n,)``: the true class of each image.
    """
    return np.array([threshold(own[truth == c], groups[truth == c], alpha) for c in range(n_classes)])


def prediction_sets(probabilities: NDArray[np.float64], thresholds: float | NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which classes are in each set: bool ``(n, c)``, for one threshold or one a class ``(c,)``."""
    return probabilities >= thresholds


def weights(groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what each image weighs where each group weighs the same: float64 ``(n,)`` of sum 1.

    >>> weights(np.array([7, 7, 9])).tolist()
    [0.25, 0.25, 0.5]
    """
    unique, members, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return 1 / (counts[members] * max(len(unique), 1))


def group_mean(values: NDArray[Any], groups: NDArray[np.int64]) -> float | None:
    """Return the mean over groups of the mean within each; ``None`` of nothing.

    >>> group_mean(np.array([1, 0, 1]), np.array([7, 7, 9]))
    0.75
    """
    return float(values @ weights(groups)) if len(values) else None
