"""Do 95 % intervals hold the truth in 95 % of cases? ``python -m retr.benchmarks.coverage``.

Shares: patients are simulated with a rate of right answers each (a beta distribution of given mean and intra-patient
correlation), 3 to 30 of them with 1 to 200 pictures, equal or very unequal. Other measures: AUROC and average precision
of normal scores with a patient's own shift, kappa and macro F1 of three classes, the mean reciprocal rank, the share
where patients with many pictures are harder. The truth is the value over all pictures of the whole population. Beside
the interval stands what it was before, the bootstrap over patients with percentiles moved out for few patients, and
where they apply independent implementations: scipy's BCa bootstrap, Wilson's and Clopper and Pearson's interval.
"""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from retr.benchmarks.record import record
from retr.retrieval.stats.intervals import Estimate, jackknife_intervals, mean_interval

if TYPE_CHECKING:
    from collections.abc import Callable

    Statistic = Callable[[np.ndarray], dict[str, float]]

PATIENTS = (3, 5, 10, 20, 30)
MEANS = (0.5, 0.7, 0.9, 0.95, 0.98)
SIZES = ("1", "20", "200", "1 to 200", "1, of one 200")
TOGETHER = (0.0, 0.3, 0.9)


def sizes(rng: np.random.Generator, how: str, patients: int) -> np.ndarray:
    """Draw how many pictures each patient has: int64 ``(patients,)``."""
    if how == "1 to 200":
        return np.exp(rng.uniform(0, np.log(201), patients)).astype(np.int64)
    counts = np.full(patients, int(how.split(",", maxsplit=1)[0]), np.int64)
    if "of one" in how:
        counts[0] = 200
    return counts


def rates(rng: np.random.Generator, mean: float, together: float, patients: int) -> np.ndarray:
    """Draw each patient's rate of right answers: float64 ``(patients,)``."""
    if together == 0:
        return np.full(patients, mean)
    return np.asarray(rng.beta(mean * (1 - together) / together, (1 - mean) * (1 - together) / together, patients))


def before(replicates: np.ndarray, patients: int) -> np.ndarray:
    """Return the limits of the bootstrap over patients, ``(2, ...)``, of replicates ``(resamples, ...)``.

    Hesterberg 2015, "What teachers should know about the bootstrap", section 5.3.
    """
    tail = stats.norm.cdf(np.sqrt(patients / (patients - 1)) * stats.t.ppf(0.025, patients - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a statistic may be undefined in all resamples
        return np.asarray(np.nanquantile(replicates, [tail, 1 - tail], axis=0))


def share(held: list[bool]) -> tuple[float, float]:
    """Return how often the truth was held, and the Monte Carlo error of that."""
    count = len(held)
    part = float(np.mean(held))
    # of a share of 0 or 1 the error is not 0: one case more is added on each side
    smooth = (part * count + 1) / (count + 2)
    return round(part, 4), round(float(np.sqrt(smooth * (1 - smooth) / count)), 4)


def shown(held: list[bool]) -> str:
    """Write how often the truth was held, with the Monte Carlo error."""
    part, error = share(held)
    return f"{part:.3f} ± {error:.3f}"


def shares(simulations: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Measure every cell of shares; return the cells, and the lowest coverage of each method with where it is."""
    cells: dict[str, Any] = {}
    every, widths = defaultdict(list), defaultdict(list)
    for patients in PATIENTS:
        for how in SIZES:
            for together in TOGETHER if how != "1" else (0.0,):
                rng = np.random.default_rng([patients, SIZES.index(how), int(10 * together)])
                figures = []
                for mean in MEANS:
                    now, old, width, wide = one_share(rng, simulations, patients, how, mean, together)
                    figures.append(f"{shown(now)}, width {width:.2f} (before: {shown(old)}, width {wide:.2f})")
                    for name, held, part in (("now", now, width), ("before", old, wide)):
                        for kind in (name, f"{name}_10_or_more_patients")[: 1 + (patients >= 10)]:
                            every[kind].append(share(held)[0])
                            widths[kind].append(part)
                cells[f"{patients} patients of {how} pictures, correlation {together:g}"] = figures
    summary: dict[str, float] = {}
    for name, parts in every.items():
        summary[f"cells_{name}"] = len(parts)
        summary[f"lowest_{name}"] = min(parts)
        summary[f"cells_below_0.93_{name}"] = sum(part < 0.93 for part in parts)
        summary[f"cells_above_0.98_{name}"] = sum(part > 0.98 for part in parts)
        summary[f"share_from_0.93_to_0.98_{name}"] = round(float(np.mean([0.93 <= part <= 0.98 for part in parts])), 3)
        summary[f"median_width_{name}"] = round(float(np.median(widths[name])), 3)
    return cells, summary


def one_share(
    rng: np.random.Generator, simulations: int, patients: int, how: str, mean: float, together: float
) -> tuple[list[bool], list[bool], float, float]:
    """Simulate one cell: whether each interval held the mean, now and before, and how wide they are on average."""
    counts = np.array([sizes(rng, how, patients) for _ in range(simulations)])
    right = rng.binomial(counts, [rates(rng, mean, together, patients) for _ in range(simulations)])
    drawn = rng.multinomial(patients, np.full(patients, 1 / patients), size=1000)
    limits = before((drawn @ right.T) / (drawn @ counts.T), patients)
    old = ((limits[0] <= mean) & (mean <= limits[1])).tolist()
    now, width = [], []
    for got, n in zip(right, counts, strict=True):
        found = mean_interval(answers(got, n), np.repeat(np.arange(patients), n))
        now.append(bool(found.low <= mean <= found.high))
        width.append(found.high - found.low)
    return now, old, float(np.mean(width)), float(np.mean(limits[1] - limits[0]))


def answers(right: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Write out so many right answers of so many pictures of each patient: float64 ``(n,)``."""
    within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    return np.asarray(within < np.repeat(right, counts), np.float64)


def independent(simulations: int) -> dict[str, Any]:
    """Compare with scipy: BCa over patients, and on one picture a patient Wilson's and the exact interval."""
    cells = {}
    for patients, how, mean, together in (
        (3, "20", 0.7, 0.3),
        (15, "1", 0.9, 0.0),
        (20, "1", 0.95, 0.0),
        (10, "200", 0.98, 0.3),
        (30, "1 to 200", 0.9, 0.9),
        (30, "20", 0.7, 0.3),
    ):
        rng = np.random.default_rng(patients)
        held: dict[str, list[bool]] = defaultdict(list)
        for _ in range(simulations):
            counts = sizes(rng, how, patients)
            right = rng.binomial(counts, rates(rng, mean, together, patients))
            found = mean_interval(answers(right, counts), np.repeat(np.arange(patients), counts))
            limits: dict[str, tuple[float, float]] = {"now": (found.low, found.high)}
            limits["BCa, scipy"] = bca(right, counts)
            if how == "1":
                test = stats.binomtest(int(right.sum()), patients)
                for name, method in (("Wilson, scipy", "wilson"), ("Clopper and Pearson, scipy", "exact")):
                    one = test.proportion_ci(0.95, method)
                    limits[name] = (float(one.low), float(one.high))
            for name, (low, high) in limits.items():
                held[name].append(bool(low <= mean <= high))
        name = f"{patients} patients of {how} pictures, mean {mean}, correlation {together:g}"
        cells[name] = {method: shown(found) for method, found in held.items()}
    return cells


def bca(right: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Return scipy's bias-corrected and accelerated bootstrap over patients; where it has none, the value itself."""

    def ratio(right: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(right.sum(axis=axis) / counts.sum(axis=axis))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degenerate data
        found = stats.bootstrap((right, counts), ratio, paired=True, n_resamples=999, method="BCa", rng=0)
    low, high = found.confidence_interval
    value = float(ratio(right, counts))
    return (value, value) if np.isnan(low) else (float(low), float(high))


def scores(
    rng: np.random.Generator, patients: int, apart: float, rare: float
) -> tuple[Statistic, np.ndarray, dict[str, np.ndarray]]:
    """Draw scores of two classes: AUROC and average precision, the codes, and what each rests on."""
    codes = np.repeat(np.arange(patients), rng.integers(1, 7, patients))
    truth = (rng.random(patients) < rare)[codes]
    score = apart * truth + np.sqrt(0.6) * rng.normal(size=patients)[codes] + np.sqrt(0.4) * rng.normal(size=len(codes))

    def measure(rows: np.ndarray) -> dict[str, float]:
        positive = truth[rows]
        p, n = int(positive.sum()), int((~positive).sum())
        if not p or not n:
            return {"auroc": np.nan, "auprc": np.nan}
        area = (stats.rankdata(score[rows])[positive].sum() - p * (p + 1) / 2) / (p * n)
        ranked = positive[np.argsort(-score[rows], kind="stable")]
        precision = ranked.cumsum() / np.arange(1, len(ranked) + 1)
        return {"auroc": float(area), "auprc": float(precision[ranked].mean())}

    return measure, codes, {"auroc": np.stack([truth, ~truth], axis=1), "auprc": truth[:, None]}


def names(
    rng: np.random.Generator, patients: int, mean: float, together: float
) -> tuple[Statistic, np.ndarray, dict[str, np.ndarray]]:
    """Draw answers in three classes of 60, 30 and 10 %: kappa and macro F1, the codes, and what each rests on."""
    codes = np.repeat(np.arange(patients), rng.integers(1, 7, patients))
    truth = rng.choice(3, patients, p=(0.6, 0.3, 0.1))[codes]
    right = rng.random(len(codes)) < rates(rng, mean, together, patients)[codes]
    answer = np.where(right, truth, (truth + rng.integers(1, 3, len(codes))) % 3)

    def measure(rows: np.ndarray) -> dict[str, float]:
        table = np.bincount(3 * truth[rows] + answer[rows], minlength=9).reshape(3, 3)
        of, called, both = table.sum(axis=1), table.sum(axis=0), np.diag(table)
        chance = float(of @ called) / len(rows) ** 2
        agreed = float(both.sum()) / len(rows)
        there = of > 0
        return {
            "kappa": (agreed - chance) / (1 - chance) if chance < 1 else np.nan,
            "macro_f1": float((2 * both[there] / (of + called)[there]).mean()),
        }

    return measure, codes, {"macro_f1": truth[:, None] == np.arange(3)}


def means(rng: np.random.Generator, patients: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw reciprocal ranks within ten, and right answers of patients who are harder the more pictures they have."""
    counts = rng.integers(1, 7, patients)
    codes = np.repeat(np.arange(patients), counts)
    rank = rng.geometric(rates(rng, 0.6, 0.3, patients)[codes])
    chance = rng.beta(2.0, 2.0 + 0.3 * counts)
    drawn = {"mrr@10": np.where(rank <= 10, 1 / rank, 0.0), "share": rng.random(len(codes)) < chance[codes]}
    return {name: one.astype(np.float64) for name, one in drawn.items()}, codes


Drawn = tuple[Any, np.ndarray, dict[str, np.ndarray]]
DRAWS: dict[str, Any] = {
    "classes 1 apart, half positive": partial(scores, apart=1.0, rare=0.5),
    "classes 2 apart, half positive": partial(scores, apart=2.0, rare=0.5),
    "classes 2 apart, one in ten positive": partial(scores, apart=2.0, rare=0.1),
    "right in 0.5, correlation 0.3": partial(names, mean=0.5, together=0.3),
    "right in 0.8, correlation 0.3": partial(names, mean=0.8, together=0.3),
    "right in 0.95, correlation 0.3": partial(names, mean=0.95, together=0.3),
}


def other_measures(simulations: int) -> dict[str, tuple[float, str]]:
    """Measure what is no share: each cell's coverage now, and all that is to be said of it."""
    cells: dict[str, tuple[float, str]] = {}
    for patients in (10, 20, 30, 60):
        for name, draw in DRAWS.items():
            measure, codes, _ = draw(np.random.default_rng(0), 60000)
            truth = measure(np.arange(len(codes)))
            rng = np.random.default_rng(patients)
            found = [_both(rng, *draw(rng, patients)) for _ in range(simulations)]
            cells |= _held(f"{patients} patients, {name}", truth, found)
        values, _ = means(np.random.default_rng(0), 300000)
        truth = {key: float(one.mean()) for key, one in values.items()}
        rng = np.random.default_rng(patients)
        found = [_both_means(rng, *means(rng, patients)) for _ in range(simulations)]
        cells |= _held(f"{patients} patients", truth, found)
    return cells


Pairs = dict[str, tuple[Estimate, np.ndarray]]


def _both(rng: np.random.Generator, measure: Statistic, codes: np.ndarray, rests_on: dict[str, np.ndarray]) -> Pairs:
    """Return the interval now, and the one before, of each statistic."""
    now = jackknife_intervals(measure, codes, member=rests_on, lowest={"kappa": -1.0})
    old = _bootstrap(rng, measure, codes)
    return {name: (now[name], old[name]) for name in now}


def _both_means(rng: np.random.Generator, values: dict[str, np.ndarray], codes: np.ndarray) -> Pairs:
    old = _bootstrap(rng, lambda rows: {name: float(one[rows].mean()) for name, one in values.items()}, codes)
    return {name: (mean_interval(one, codes), old[name]) for name, one in values.items()}


def _bootstrap(rng: np.random.Generator, measure: Statistic, codes: np.ndarray) -> dict[str, np.ndarray]:
    patients = int(codes.max()) + 1
    drawn = rng.multinomial(patients, np.full(patients, 1 / patients), size=200)
    replicates = [measure(np.repeat(np.arange(len(codes)), times[codes])) for times in drawn]
    return {name: before(np.array([one[name] for one in replicates]), patients) for name in replicates[0]}


def _held(cell: str, truth: dict[str, float], found: list[Pairs]) -> dict[str, tuple[float, str]]:
    cells = {}
    for name, true in truth.items():
        pairs = [one[name] for one in found if not np.isnan(one[name][0].low)]
        now = [bool(now.low <= true <= now.high) for now, _ in pairs]
        old = [bool(limits[0] <= true <= limits[1]) for _, limits in pairs]
        width = float(np.mean([now.high - now.low for now, _ in pairs]))
        given = f", given in {len(pairs) / len(found):.2f}" if len(pairs) < len(found) else ""
        text = f"{shown(now)}, width {width:.2f} (before: {shown(old)}; truth {true:.3f}{given})"
        cells[f"{name}: {cell}"] = (share(now)[0], text)
    return cells


def main() -> None:
    """Simulate, count, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    options = parser.parse_args()
    few = max(options.simulations // 4, 1)
    share_cells, summary = shares(options.simulations)
    others = other_measures(few)
    record(
        "coverage",
        {
            "simulations_of_shares": options.simulations,
            "simulations_of_others": few,
            "shares": summary,
            "others": {
                "cells": len(others),
                "lowest_now": min(part for part, _ in others.values()),
                "cells_above_0.98_now": sum(part > 0.98 for part, _ in others.values()),
            },
            "means_of_the_five": list(MEANS),
            "cells": share_cells,
            "other_measures": {name: text for name, (_, text) in others.items()},
            "independent": independent(few),
        },
        note="coverage of 95 % intervals ± its Monte Carlo error; 'before': bootstrap over patients, percentiles moved "
        "out for few of them; the five figures of a cell: one for each mean that is estimated",
    )


if __name__ == "__main__":
    main()
