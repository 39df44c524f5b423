"""Confidence intervals over patients, not pictures.

Two eyes of one patient, or twenty slices of one study, say nearly the same thing twice; an interval that takes rows as
independent is then too narrow. Here a patient (a *group*) is the unit. What is estimated is the value over all pictures
of a large population of such patients, each picture counting the same, and so a patient with many pictures more; the
gallery stays what it is: "other patients asked of the same archive".

The interval is a t interval with one degree of freedom less than there are groups, around the variance of the
delete-one-group jackknife (for the mean of rows that is the cluster-robust variance "CR3"). Two things are added,
because few groups, or groups that happen to be all right, show less spread than there is:

* the variance is at least that of independent rows;
* each limit allows for groups that were not met: towards 0, one more group that is wrong throughout; towards 1, one
  that is right throughout. Where no error was seen this is the "rule of three" of groups. It counts less the better
  the rows show that groups are alike (`_unseen`).

Where groups have equally many rows and each is all right or all wrong (as with one picture a patient), each is a
trial, and the interval is the exact one of Clopper and Pearson.

How often such intervals hold the truth was measured (``benchmarks/coverage.py``); the constants were chosen there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

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
# Weight of the group that was not met, and how fast it loses weight: measured, see the module's text.
_UNSEEN, _ALIKE = 2.0, 2.0


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
    values: NDArray[np.float64], codes: NDArray[np.int64], *, member: NDArray[np.bool_] | None = None
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
    if classes == 1 and (counts == counts[0]).all() and ((sums == 0) | (sums == counts)).all():
        limits = _exact(int((sums > 0).sum()), groups)  # each group is one trial, right or wrong
        return Estimate(value, *limits, len(values), groups)
    rest = size - counts
    # without its only group a class is left out of the mean
    left = np.where(rest > 0, (total - sums) / np.where(rest > 0, rest, 1), np.nan)
    present = np.isfinite(left)
    without = np.where(present, left, 0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    share = weight / size / classes  # of each row in the value
    independent = float((np.square(share) * np.square(values[:, None] - means)).sum())
    limits = _limits(value, _jackknife(without, value), independent, **_effective(weight, codes), df=groups - 1)
    return Estimate(value, *limits, len(values), groups)


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
    everything, rests_on, found = _effective(_weights(n, None), codes), member or {}, {}
    for name, value in values.items():
        low, without = (lowest or {}).get(name, 0.0), np.array([part[name] for part in parts], np.float64)
        span = 1 - low
        scaled, spread = (float(value) - low) / span, _jackknife(without, float(value)) / span**2
        effective = _effective(_weights(n, rests_on[name]), codes) if name in rests_on else everything
        limits = _limits(scaled, spread, scaled * (1 - scaled) / n, **effective, df=len(parts) - 1)
        found[name] = Estimate(float(value), low + span * limits[0], low + span * limits[1], n, groups)
    return found


def _weights(n: int, member: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Return which rows belong to which class that has any: ``(n, c)``; without classes all to one."""
    weight = np.ones((n, 1)) if member is None else member.astype(np.float64)
    return weight[:, weight.any(axis=0)]


def _effective(weight: NDArray[np.float64], codes: NDArray[np.int64]) -> dict[str, float]:
    """Return how many rows, and how many groups, of equal weight would weigh as these do in the mean over classes."""
    share = (weight / weight.sum(axis=0)).sum(axis=1) / max(weight.shape[1], 1)
    counted = {"rows": share, "groups": np.bincount(codes, share)}
    return {name: 1 / max(float(np.square(one).sum()), 1e-300) for name, one in counted.items()}


def _jackknife(without: NDArray[np.float64], value: float) -> float:
    """Return the variance of a value from those without each group, ``(g,)``."""
    return float((len(without) - 1) / len(without) * np.square(without - value).sum())


def _limits(
    value: float, variance: float, independent: float, *, rows: float, groups: float, df: int
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
    """
    if not np.isfinite(variance) or not np.isfinite(value):
        return float("nan"), float("nan")
    unseen = _unseen(value, variance, rows, groups)
    times, spread = _quantile(df), max(variance, independent)
    low = value - times * np.sqrt(spread + unseen * value**2)
    high = value + times * np.sqrt(spread + unseen * (1 - value) ** 2)
    return max(float(low), 0.0), min(float(high), 1.0)


@cache
def _quantile(df: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, df))


def _exact(right: int, trials: int) -> tuple[float, float]:
    """Return the limits of Clopper and Pearson, for so many right of independent trials."""
    from scipy.stats import beta

    tail = (1 - LEVEL) / 2
    low = float(beta.ppf(tail, right, trials - right + 1)) if right else 0.0
    high = float(beta.ppf(1 - tail, right + 1, trials - right)) if right < trials else 1.0
    return low, high


def _unseen(value: float, variance: float, rows: float, groups: float) -> float:
    """Return the squared weight of the group that was not met.

    In full it is that of one group more, doubled. It is reduced where groups are seen to be alike: where the variance
    is a small part of what it would be if each group were all right or all wrong, and where errors (or right answers,
    if they are the fewer) are many, so that a group of only them would be a surprise.
    """
    most = value * (1 - value) / groups
    alike = variance / most if most > 0 else 0.0
    surprise = 1 / (1 + rows * min(value, 1 - value))
    return _UNSEEN * min(1.0, _ALIKE * (alike + surprise)) / (groups * (groups + 1))
