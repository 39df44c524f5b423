"""Confidence intervals by drawing patients, not pictures.

Two eyes of one patient, or twenty slices of one study, say nearly the same thing twice; an interval that
draws rows one by one is then too narrow. Everything here draws whole groups with replacement. The gallery
stays what it is: the interval answers "other patients asked of the same archive".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retr.index.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

#: Coverage of every interval.
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, and what it rests on (``n`` rows in ``groups`` groups)."""

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
        """Give a JSON-ready dictionary; undefined numbers become ``null``."""
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


def _draws(codes: NDArray[np.int64], resamples: int, seed: int) -> tuple[NDArray[np.int64], int]:
    """How often each group is drawn, ``(resamples, groups)``."""
    if resamples < 1:
        raise UsageError(f"the number of bootstrap resamples must be at least 1, got: {resamples!r}")
    groups = int(codes.max()) + 1 if len(codes) else 0
    rng = np.random.default_rng(seed)
    return rng.multinomial(groups, np.full(groups, 1 / max(groups, 1)), size=resamples), groups


def _limits(replicates: NDArray[np.float64], value: float, groups: int) -> tuple[float, float]:
    """Percentiles, widened for few groups.

    Plain percentiles undercover when groups are few, because the bootstrap's variance is short by (G - 1) /
    G and its tails are those of a normal, not of a t distribution; the percentile levels are moved out to
    make up for both (Hesterberg 2015, "What teachers should know about the bootstrap", section 5.3).
    """
    from scipy.stats import norm, t

    defined = replicates[np.isfinite(replicates)]
    if groups < 2 or not len(defined):
        return float("nan"), float("nan")
    tail = norm.cdf(np.sqrt(groups / (groups - 1)) * t.ppf((1 - LEVEL) / 2, groups - 1))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return min(float(low), value), max(float(high), value)


def mean_interval(
    values: NDArray[np.float64],
    codes: NDArray[np.int64],
    *,
    member: NDArray[np.bool_] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Interval of the mean over rows, or of the macro mean over classes.

    Parameters
    ----------
    values
        float64 ``(n,)``; ``nan`` is left out.
    codes
        int64 ``(n,)`` from `group_codes`.
    member
        bool ``(n, c)``: if given, the mean of the classes' means (classes without rows are left out).
    resamples, seed
        Number of resamples, and the seed: the same seed gives the same interval.

    Returns
    -------
    Estimate
        ``nan`` everywhere if no value is defined; ``nan`` limits with fewer than two groups.
    """
    keep = ~np.isnan(values)
    values, codes = values[keep], np.unique(codes[keep], return_inverse=True)[1].astype(np.int64)
    weight = np.ones((len(values), 1)) if member is None else member[keep].astype(np.float64)
    weight = weight[:, weight.any(axis=0)]
    if not weight.size:
        return Estimate(float("nan"), float("nan"), float("nan"), 0, 0)
    drawn, groups = _draws(codes, resamples, seed)
    sums, counts = np.zeros((groups, weight.shape[1])), np.zeros((groups, weight.shape[1]))
    np.add.at(sums, codes, weight * values[:, None])
    np.add.at(counts, codes, weight)
    value = float(np.mean(sums.sum(axis=0) / counts.sum(axis=0)))
    with np.errstate(invalid="ignore"):  # a resample may hold nobody of a class: that class is left out of it
        per_class = (drawn @ sums) / (drawn @ counts)
    present = np.isfinite(per_class)
    replicates = np.where(present, per_class, 0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    replicates[~present.any(axis=1)] = np.nan
    return Estimate(value, *_limits(replicates, value, groups), len(values), groups)


def intervals(
    statistics: Callable[[NDArray[np.int64]], Mapping[str, float]],
    codes: NDArray[np.int64],
    *,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Intervals of any statistics of rows.

    Parameters
    ----------
    statistics
        From row numbers, int64 ``(m,)`` with repetitions, to named numbers; ``nan`` where one is undefined.
    codes
        int64 ``(n,)`` from `group_codes`.
    resamples, seed
        As in `mean_interval`.

    Returns
    -------
    dict
        Each statistic of all rows, with its interval.
    """
    drawn, groups = _draws(codes, resamples, seed)
    order = np.argsort(codes, kind="stable")
    values = statistics(np.arange(len(codes)))
    replicates = [statistics(np.repeat(order, times[codes[order]])) for times in drawn]
    estimates = {}
    for name, value in values.items():
        limits = _limits(np.array([found[name] for found in replicates]), float(value), groups)
        estimates[name] = Estimate(float(value), *limits, len(codes), groups)
    return estimates
