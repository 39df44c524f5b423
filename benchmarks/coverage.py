"""Do 95 % intervals hold the truth in 95 % of cases? ``python -m retr.benchmarks.coverage``.

Patients are simulated whose precision is known: each has a chance of a right answer of its own, 1 to 6 pictures, and
patients with many pictures are harder, so that neither rows nor patients can be taken as independent and equal. The
truth is the mean over pictures of the whole population. Intervals that draw pictures instead of patients are counted
beside ours, to show what the difference is worth.
"""

from __future__ import annotations

import argparse

import numpy as np

from retr.benchmarks.record import record
from retr.retrieval.stats.bootstrap import mean_interval


def simulate(rng: np.random.Generator, patients: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw patients: right or wrong for each picture, float64 ``(n,)``, and the patient of each, int64 ``(n,)``."""
    pictures = rng.integers(1, 7, patients)
    chance = rng.beta(2.0, 2.0 + 0.3 * pictures)
    codes = np.repeat(np.arange(patients), pictures)
    return (rng.random(len(codes)) < chance[codes]).astype(np.float64), codes


def truth() -> float:
    """Mean over pictures of the whole population."""
    pictures = np.arange(1, 7)
    return float(np.average(2.0 / (4.0 + 0.3 * pictures), weights=pictures))


def main() -> None:
    """Simulate, count, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1600)
    parser.add_argument("--patients", type=int, nargs="+", default=[15, 30, 60, 200])
    options = parser.parse_args()
    known = truth()
    figures: dict[str, object] = {"simulations": options.simulations, "truth": round(known, 4)}
    for patients in options.patients:
        rng = np.random.default_rng(patients)
        held = {"by patient": 0, "by picture": 0}
        for number in range(options.simulations):
            values, codes = simulate(rng, patients)
            for name, groups in (("by patient", codes), ("by picture", np.arange(len(codes)))):
                found = mean_interval(values, groups, seed=number)
                held[name] += found.low <= known <= found.high
        for name, count in held.items():
            figures[f"coverage_{name.replace(' ', '_')}_{patients}_patients"] = round(count / options.simulations, 4)
    deviation = (0.95 * 0.05 / options.simulations) ** 0.5
    record(
        "coverage", figures, note=f"95 % intervals of 1,000 resamples; the counts have a deviation of {deviation:.1%}"
    )


if __name__ == "__main__":
    main()
