"""Confidence intervals over patients, not pictures.

Two eyes of one patient, or twenty slices of one study, say nearly the same thing twice; an interval that takes rows as
independent is then too narrow. Here a patient (a *group*) is the unit. What is estimated is the value over all pictures
of a large population of such patients, each picture counting the same, and so a patient with many pictures more; the
gallery stays what it is: "other patients asked of the same archive".

The interval is Wilson's score interval with three changes, all of them in `_limits`:

* its variance is that of the delete-one-group jackknife (for the mean of rows the cluster-robust variance "CR3"), and
  its quantile that of t: the effective number of trials of Korn and Graubard 1998, "Confidence intervals for
  proportions with small expected number of positive counts estimated from survey data", in Wilson's interval, as
  compared by Franco et al. 2019, "Comparative study of confidence intervals for proportions in complex sample
  surveys". Degrees of freedom lie between the number of groups and that of groups of equal weight that would weigh as
  much, both less 1;
* the variance is at least that of independent rows, and (of a mean) at most about that of groups which are each all
  right or all wrong;
* a group that was not met may be another world. A term is added that allows for it: where all groups are right, the
  interval is Wilson's for somewhat fewer trials than there are groups. It fades as the rarer outcome is seen more.

A measure whose rows cannot reach 1 (one neighbour is at most one of a hundred relevant rows) is divided by what it can
reach.

How often such intervals hold the truth was measured (``benchmarks/coverage.py``); the constants were chosen there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from retr.index.machine.extras import needed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

#: Coverage that every interval aims at.
LEVEL = 0.95
#: With fewer groups nothing can be said of how they differ, and no interval is given.
FEWEST = 3
#: Statistics that are computed anew without each group are computed so often at most: then groups are left out in
#: blocks drawn at random.
MOST_BLOCKS = 100
# How many times the variance of groups that are each all right or all wrong is believed at most; what is allowed for
# groups that were not met, and how fast that fades: chosen by simulation, see the module's text.
_MOST, _UNSEEN, _FADES = 1.6, 1.3, 1.5


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, and what it rests on (``n`` rows in ``groups`` groups).

    ``low`` and ``high`` are ``nan`` where no interval can be given.
    """

    value: float
    low: float
    high: float
    n: int
    groups: int

    def __format__(self, spec: str) -> str:
        spec = spec or ".3f"
        if np.isnan(self.low):  # too few groups to say how sure
            return "" if np.isnan(self.value) else f"{self.value:{spec}}"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def to_json(self) -> dict[str, float | int | None]:
        """Return a JSON-ready dictionary; undefined numbers become ``null``."""
        low, value, high = (None if np.isnan(x) else float(x) for x in (self.low, self.value, self.high))
        return {"value": value, "low": low, "high": high, "n": self.n, "groups": self.groups}


def group_codes(groups: Sequence[object] | NDArray[np.generic] | None, n: int) -> NDArray[np.int64]:
    """Number the groups 0, 1, ...; a row without a group (``None`` or no column) is a group of its own.

    >>> group_codes(["b", "a", None, "b"], 4).tolist()
    [0, 1, 2, 0]
    """
    if groups is None:
        return np.arange(n)
    seen: dict[object, int] = {}
    keys = ((row,) if name is None else name for row, name in enumerate(groups))
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)


def mean_interval(
    values: NDArray[np.float64],
    codes: NDArray[np.int64],
    *,
    member: NDArray[np.bool_] | None = None,
    highest: NDArray[np.float64] | None = None,
) -> Estimate:
    """Return the mean over rows, or the macro mean over classes, with its interval.

    Parameters
    ----------
    values
        float64 ``(n,)``, each between 0 and 1; ``nan`` is left out.
    codes
        int64 ``(n,)``: equal numbers mark one group.
    member
        bool ``(n, c)``: if given, the mean of the classes' means (classes without rows are left out).
    highest
        float64 ``(n,)``: the highest value that each row can take, where that is not 1.

    Returns
    -------
    Estimate
        ``nan`` everywhere if no value is defined; ``nan`` limits with fewer than `FEWEST` groups.
    """
    keep = ~np.isnan(values)
    values, codes = values[keep], np.unique(codes[keep], return_inverse=True)[1].astype(np.int64)
    weight = _weights(len(values), None if member is None else member[keep])
    if not weight.size:
        return Estimate(float("nan"), float("nan"), float("nan"), 0, 0)
    groups, classes = int(codes.max()) + 1, weight.shape[1]
    sums = np.stack([np.bincount(codes, one * values, groups) for one in weight.T], axis=1)
    counts = np.stack([np.bincount(codes, one, groups) for one in weight.T], axis=1)
    total, size = sums.sum(axis=0), counts.sum(axis=0)
    means = total / size
    value = float(means.mean())
    if groups < FEWEST:
        return Estimate(value, float("nan"), float("nan"), len(values), groups)
    rest = size - counts
    # without its only group a class is left out of the mean
    left = np.where(rest > 0, (total - sums) / np.where(rest > 0, rest, 1), np.nan)
    present = np.isfinite(left)
    without = np.where(present, left, 0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    share = weight / size / classes  # of each row in the value
    reach = share.sum(axis=1) * (1.0 if highest is None else highest[keep])
    span = float(reach.sum())
    if span <= 0:  # no row could be anything but 0
        return Estimate(value, float("nan"), float("nan"), len(values), groups)
    rows, alike = _effective(reach, codes)
    low, high = _limits(
        value / span,
        _jackknife(without / span, value / span),
        float(np.square(share * (values[:, None] - means) / span).sum()),
        rows=rows,
        groups=alike,
        df=_freedom(groups, alike),
        mean=True,
    )
    return Estimate(value, min(span * low, value), max(span * high, value), len(values), groups)


def jackknife_intervals(
    statistics: Callable[[NDArray[np.int64]], Mapping[str, float]],
    codes: NDArray[np.int64],
    *,
    member: Mapping[str, NDArray[np.bool_]] | None = None,
    lowest: Mapping[str, float] | None = None,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return any statistics of rows with their intervals.

    Parameters
    ----------
    statistics
        From row numbers, int64 ``(m,)``, to named numbers of at most 1; ``nan`` where one is undefined.
    codes
        int64 ``(n,)``: equal numbers mark one group.
    member
        bool ``(n, c)`` by a statistic's name: the classes over which it is a mean. How many groups carry a class then
        counts, not how many there are; rare positives are few, however many groups are negative.
    lowest
        The lowest value that a statistic can take, where that is not 0.
    seed
        Of the blocks, where there are more than `MOST_BLOCKS` groups.

    Returns
    -------
    dict
        Each statistic of all rows; ``nan`` limits with fewer than `FEWEST` groups, and where a statistic is undefined
        without some group (all positive rows are of one patient).
    """
    codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    values, n, groups = statistics(np.arange(len(codes))), len(codes), int(codes.max(initial=-1)) + 1
    if groups < FEWEST:
        nowhere = float("nan"), float("nan")
        return {name: Estimate(float(value), *nowhere, n, groups) for name, value in values.items()}
    blocks = np.arange(groups)
    if groups > MOST_BLOCKS:
        blocks = np.random.default_rng(seed).permutation(groups) % MOST_BLOCKS
    block = blocks[codes]
    parts = [statistics(np.flatnonzero(block != number)) for number in range(min(groups, MOST_BLOCKS))]
    rests_on, found = member or {}, {}
    for name, one in values.items():
        value, low = float(one), (lowest or {}).get(name, 0.0)
        span, without = 1 - low, np.array([part[name] for part in parts], np.float64)
        scaled, spread = (value - low) / span, _jackknife(without, value) / span**2
        rows, alike = _effective(_shares(n, rests_on.get(name)), codes)
        df = _freedom(len(parts), min(alike, len(parts)))
        below, above = _limits(scaled, spread, scaled * (1 - scaled) / n, rows=rows, groups=alike, df=df)
        found[name] = Estimate(value, min(low + span * below, value), max(low + span * above, value), n, groups)
    return found


def _weights(n: int, member: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Return which rows belong to which class that has any: ``(n, c)``; without classes all to one."""
    weight = np.ones((n, 1)) if member is None else member.astype(np.float64)
    return weight[:, weight.any(axis=0)]


def _shares(n: int, member: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Return how much each row weighs in the mean over classes: ``(n,)``."""
    weight = _weights(n, member)
    return np.asarray((weight / weight.sum(axis=0)).sum(axis=1))


def _effective(share: NDArray[np.float64], codes: NDArray[np.int64]) -> tuple[float, float]:
    """Return how many rows, and how many groups, of equal weight would weigh as these do."""

    def number(part: NDArray[np.float64]) -> float:
        return float(part.sum() ** 2 / max(np.square(part).sum(), 1e-300))

    return number(share), number(np.asarray(np.bincount(codes, share), np.float64))


def _freedom(groups: int, alike: float) -> float:
    """Return the degrees of freedom of so many groups that weigh as ``alike`` of equal weight would."""
    return float(np.sqrt((groups - 1) * max(alike - 1, 1.0)))


def _jackknife(without: NDArray[np.float64], value: float) -> float:
    """Return the variance of a value from those without each group, ``(g,)``."""
    return float((len(without) - 1) / len(without) * np.square(without - value).sum())


def _limits(
    value: float, variance: float, independent: float, *, rows: float, groups: float, df: float, mean: bool = False
) -> tuple[float, float]:
    """Return the limits of a value between 0 and 1.

    Parameters
    ----------
    value, variance
        The value and the jackknife's variance of it.
    independent
        Its variance if rows were independent.
    rows, groups
        How many rows and groups of equal weight would weigh as those do.
    df
        Degrees of freedom.
    mean
        Whether it is a mean of rows, whose variance has a bound.
    """
    if not np.isfinite(variance) or not np.isfinite(value) or not groups:  # nothing, or no row, that it could rest on
        return float("nan"), float("nan")
    value = min(max(value, 0.0), 1.0)
    t2, z2, trial = _quantile(df) ** 2, _quantile(np.inf) ** 2, value * (1 - value)
    wide = max(t2 * variance, z2 * independent) / trial if trial > 0 else 0.0  # quantile squared, over trials
    seen = min(value, 1 - value) * (min(rows, t2 / wide) if wide > 0 else rows)  # trials with the rarer outcome
    if mean:
        wide = min(wide, _MOST * z2 / groups)
    wide += _UNSEEN * z2 / groups / (1 + _FADES * seen**1.5)
    half = np.sqrt(wide * trial + wide**2 / 4)
    low, high = (value + wide / 2 - half) / (1 + wide), (value + wide / 2 + half) / (1 + wide)
    return max(min(float(low), value), 0.0), min(max(float(high), value), 1.0)


@cache
def _quantile(df: float) -> float:
    with needed():
        from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, df))
