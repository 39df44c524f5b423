"""The difference of two measures of the same rows, with its interval over patients.

Two intervals that overlap say little about a difference: both move with which patients were drawn. Here each row is
compared with itself. What it gains and what it loses (the difference above and below 0) are two means between 0 and 1,
each with the interval of `retr.retrieval.stats.intervals`; the interval of their difference is put together from
the four limits, with the correlation of the two means over patients: the method of variance estimates recovery (Zou and
Donner 2008, "Construction of confidence limits about effect measures: a general approach"), which for single pairs is
Newcombe's (1998, "Improved confidence intervals for the difference between binomial proportions based on paired data").
Where no row differs, the interval is not empty: patients that were not met may differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retr.retrieval.stats.intervals import Estimate, mean_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray


def paired_difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    codes: NDArray[np.int64],
    *,
    member: NDArray[np.bool_] | None = None,
) -> Estimate:
    """Return the mean of ``second - first`` over rows, or its macro mean over classes, with its interval.

    Parameters
    ----------
    first, second
        float64 ``(n,)``, between 0 and 1: the measures of each row; a row of which one is ``nan`` is left out.
    codes
        int64 ``(n,)``: equal numbers mark one group.
    member
        bool ``(n, c)``: if given, the mean of the classes' means.

    Returns
    -------
    Estimate
        Between -1 and 1; ``nan`` limits where groups are too few (`retr.retrieval.stats.intervals.FEWEST`).

    Examples
    --------
    >>> right, both = np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0, 0.0])
    >>> f"{paired_difference(right, both, np.arange(4)):.2f}"
    '0.25 [-0.35, 0.82]'
    """
    difference = np.asarray(second - first, np.float64)
    gain = mean_interval(np.maximum(difference, 0), codes, member=member)
    loss = mean_interval(np.maximum(-difference, 0), codes, member=member)
    value = gain.value - loss.value
    together = _correlation(difference, codes, member)

    def limit(one: float, other: float) -> float:
        return float(np.sqrt(max(one**2 - 2 * together * one * other + other**2, 0.0)))

    low = value - limit(gain.value - gain.low, loss.high - loss.value)
    high = value + limit(gain.high - gain.value, loss.value - loss.low)
    return Estimate(value, max(low, -1.0), min(high, 1.0), gain.n, gain.groups)


def _correlation(difference: NDArray[np.float64], codes: NDArray[np.int64], member: NDArray[np.bool_] | None) -> float:
    """Return how gains and losses go together from group to group; 0 where one of them is everywhere the same."""
    keep = ~np.isnan(difference)
    difference, codes = difference[keep], np.unique(codes[keep], return_inverse=True)[1]
    weight = np.ones((len(difference), 1)) if member is None else member[keep].astype(np.float64)
    weight /= np.maximum(weight.sum(axis=0), 1)
    sums = []
    for part in (np.maximum(difference, 0), np.maximum(-difference, 0)):
        # of each row in the value, less what a row of its classes has on average
        apart = weight.sum(axis=1) * part - weight @ (weight.T @ part)
        sums.append(np.asarray(np.bincount(codes, apart), np.float64))
    gains, losses = sums
    lengths = float(np.linalg.norm(gains) * np.linalg.norm(losses))
    return float(gains @ losses) / lengths if lengths > 0 else 0.0
