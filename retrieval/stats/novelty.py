"""A conformal bound on the similarity of ordinary pictures, over patients.

The score of a picture is its similarity to the nearest row of another patient. The archive's own scores, each patient
held out in turn, say how low it falls for ordinary pictures. Let a new patient be exchangeable with the ``G`` patients
of the archive, and ``W(t)`` the sum over patients of the share of their pictures that score at most ``t``. A picture of
score ``s`` is called unlike where ``1 + W(s) <= rate * (G + 1)``. Then at most ``rate`` of the pictures of new patients
are, on average over archives: hierarchical conformal prediction (Lee, Barber and Willett, 2023, "Distribution-free
inference with hierarchical data"), in which a row of the new patient among the archive's could only raise their scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log, log1p
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The share of ordinary pictures that may be called unlike, where there are patients enough to promise it.
RATE = 0.01
#: Fewer patients than this promise less than one in twenty: there is no fence.
LEAST_GROUPS = 19
# Of what is stated of this one archive.
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Fence:
    """A similarity below which pictures are unlike those it was measured on, and how often that is wrong.

    Attributes
    ----------
    threshold
        Scores below it are unlike.
    rate
        On average over archives of so many groups at most this share of new groups' pictures falls below.
    high
        Of this archive so, with a confidence of 95 %.
    groups, rows
        How many it was measured on.
    """

    threshold: float
    rate: float
    high: float
    groups: int
    rows: int


def fence(nearest: NDArray[Any], groups: NDArray[np.int64], rate: float = RATE) -> Fence:
    """Return the highest similarity below which at most ``rate`` of new groups' pictures fall.

    Where there are too few groups for the rate it is the lowest similarity of all, with a rate of ``1 / (G + 1)``.

    Parameters
    ----------
    nearest
        float ``(n,)``, at least one: similarity of rows to their nearest row of another group.
    groups
        int64 ``(n,)``, the group of each.
    rate
        Between 0 and 1.

    >>> found = fence(np.linspace(0.5, 0.9, 100), np.arange(100))
    >>> round(found.threshold, 3), found.rate
    (0.5, 0.01)
    >>> fence(np.linspace(0.5, 0.9, 24), np.arange(24)).rate
    0.04
    """
    _, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(nearest, kind="stable")
    # Units of a millionth of a group are rounding.
    below = np.cumsum(1 / sizes[members[order]])
    budget = max(rate * (len(sizes) + 1) - 1, 0.0)
    at = min(int(np.searchsorted(below, budget + 1e-6, side="right")), len(order) - 1)
    return Fence(
        threshold=float(nearest[order[at]]),
        rate=max(rate, 1 / (len(sizes) + 1)),
        # the share of a population below an order statistic of a sample, of which shares of patients make a broken rank
        high=_beta_quantile(budget + 1, len(sizes) - budget, _CONFIDENCE),
        groups=len(sizes),
        rows=len(order),
    )


def _beta_quantile(a: float, b: float, share: float) -> float:
    """Return the value below which a share of a beta distribution lies, for ``a`` and ``b`` of at least 1.

    scipy's ``betaincinv``, without scipy: building an index needs no more of it.
    """
    low, high = 0.0, 1.0
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _beta_share(a, b, middle) < share else (low, middle)
    return (low + high) / 2


def _beta_share(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function: its continued fraction (DLMF 8.17.22), evaluated by Lentz."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    # where it converges fast
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_share(b, a, 1 - x)
    tiny = 1e-300
    c = 1.0
    d = value = 1 / (1 - (a + b) * x / (a + 1) or tiny)
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    logarithm = lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)
    return exp(logarithm) / a * value
