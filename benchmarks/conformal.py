"""Do the sets hold the truth for as many new patients as promised? ``python -m retr.benchmarks.conformal``.

Archives are simulated, calibrated, and asked with new patients; each cell is the chance that the set of a random image
of a random new patient holds the truth, over many archives, with its Monte Carlo error (one standard deviation of the
mean). Thresholds that count patients (`retr.retrieval.stats.conformal`) stand beside those that count images, which is
ordinary split conformal prediction.

Three parts: scores that were fixed beforehand, where the theorem holds and the coverage of a threshold is known;
thresholds by class; and probes and votes that are learned from the same patients, as `retr calibrate` does it, where
no theorem holds. Where MAPIE and crepes are installed (``benchmarks/conformal-requirements.txt``) their sets are
compared with ours.
"""

from __future__ import annotations

import argparse
import importlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.benchmarks.record import record
from retr.retrieval.classify import probe
from retr.retrieval.classify.calibrate import Sets, measure_calibration
from retr.retrieval.labels.labelled import Labelled
from retr.retrieval.stats import conformal
from retr.retrieval.stats.confidence import Temperature, Votes, VoteScale

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHAS = (0.1, 0.2)
# How patients differ in the log-odds of their truth, and a patient's images among each other.
BETWEEN, WITHIN = 1.0, 0.2
SPREAD = (BETWEEN**2 + WITHIN**2) ** 0.5
CLASSES, SHARES, EASE = ("common", "less common", "rare"), (0.6, 0.3, 0.1), (1.0, 0.0, -1.0)
NEIGHBOURS = 10


@dataclass(frozen=True)
class Archive:
    """How many patients there are, how many images each has and how often, and how much easier many images are."""

    patients: int
    sizes: tuple[int, ...]
    chances: tuple[float, ...]
    slope: float = 0.0

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Draw the probability of each image's true class and its patient: float64 and int64 ``(n,)``."""
        sizes = rng.choice(self.sizes, self.patients, p=self.chances)
        ease = self.slope * np.log(sizes) + rng.normal(size=self.patients) * BETWEEN
        groups = np.repeat(np.arange(self.patients), sizes)
        return _share(ease[groups] + rng.normal(size=len(groups)) * WITHIN), groups

    def coverage(self, threshold: float) -> float:
        """Return the chance that a random image of a new patient reaches a threshold."""
        return float(np.dot(self.chances, _reaches(threshold, self.slope * np.log(self.sizes))))


def _share(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    share: NDArray[np.float64] = 1 / (1 + np.exp(-odds))
    return share


def _reaches(threshold: float, ease: Any) -> NDArray[np.float64]:
    """Return the chance that an image of a patient of that mean ease reaches a threshold."""
    from scipy.stats import norm

    odds = np.log(threshold / (1 - threshold)) if threshold > 0 else -np.inf
    return np.asarray(norm.cdf((np.asarray(ease) - odds) / SPREAD))


_TAIL = tuple(range(1, 501))
_TAILED = tuple((np.arange(1, 501) ** -1.8 / (np.arange(1, 501) ** -1.8).sum()).tolist())
ARCHIVES = {
    "60 patients of 4 images": Archive(60, (4,), (1.0,)),
    "10 patients of 1 or 100": Archive(10, (1, 100), (0.5, 0.5)),
    "2 patients of 1 or 100": Archive(2, (1, 100), (0.5, 0.5)),
    "9 patients of 1 or 100": Archive(9, (1, 100), (0.5, 0.5)),
    "8 patients of 1 or 100": Archive(8, (1, 100), (0.5, 0.5)),
    "40 patients, few with 100, which are easy": Archive(40, (1, 100), (0.8, 0.2), 0.6),
    "40 patients, few with 100, which are hard": Archive(40, (1, 100), (0.8, 0.2), -0.6),
    "50 patients, heavy-tailed sizes to 500": Archive(50, _TAIL, _TAILED),
    "50 patients, heavy-tailed sizes, larger easier": Archive(50, _TAIL, _TAILED, 0.5),
}


def cell(values: list[float]) -> list[float]:
    """Return a mean and its Monte Carlo error."""
    return [round(float(np.mean(values)), 4), round(float(np.std(values) / len(values) ** 0.5), 4)]


def fixed(rng: np.random.Generator, archive: Archive, alpha: float, simulations: int) -> dict[str, Any]:
    """Measure thresholds of scores that were fixed beforehand."""
    found: dict[str, list[float]] = {"counting images": [], "counting patients": []}
    refused = archive.patients < conformal.groups_needed(alpha)
    for _ in range(simulations):
        own, groups = archive.draw(rng)
        found["counting images"].append(archive.coverage(conformal.threshold(own, np.arange(len(own)), alpha)))
        if not refused:
            found["counting patients"].append(archive.coverage(conformal.threshold(own, groups, alpha)))
    return {name: cell(values) if values else "refused" for name, values in found.items()} | {
        "deviation among archives": None if refused else round(float(np.std(found["counting patients"])), 4)
    }


def by_class(rng: np.random.Generator, patients: int, alpha: float, simulations: int) -> dict[str, Any]:
    """Measure one threshold for all classes, and one for each, on classes that differ in how hard they are."""
    ease = np.array(EASE)
    one: list[list[float]] = [[] for _ in CLASSES]
    each: list[list[float]] = [[] for _ in CLASSES]
    without = np.zeros(len(CLASSES))
    for _ in range(simulations):
        sizes = rng.integers(1, 7, patients)
        codes = rng.choice(len(CLASSES), patients, p=SHARES)
        groups = np.repeat(np.arange(patients), sizes)
        truth = codes[groups]
        person = rng.normal(size=patients) * BETWEEN
        own = _share(ease[truth] + person[groups] + rng.normal(size=len(groups)) * WITHIN)
        limit = conformal.threshold(own, groups, alpha)
        limits = conformal.class_thresholds(own, truth, groups, len(CLASSES), alpha)
        for code in range(len(CLASSES)):
            one[code].append(float(_reaches(limit, ease[code])))
            each[code].append(float(_reaches(limits[code], ease[code])))
        without += limits == 0
    return {
        name: {
            "one threshold": cell(one[code]),
            "one a class": cell(each[code]),
            "archives where it is in every set": round(float(without[code]) / simulations, 4),
        }
        for code, name in enumerate(CLASSES)
    }


def learned(rng: np.random.Generator, patients: int, alpha: float, simulations: int) -> dict[str, Any]:
    """Measure probes and votes as `retr calibrate` makes them, asked with patients that were not there."""
    stated: dict[str, list[float]] = {"probe": [], "neighbours": []}
    real: dict[str, list[float]] = {"probe": [], "neighbours": []}
    centres = np.random.default_rng(0).normal(size=(3, 12)) * 0.6
    sets = Sets(alpha, False, "patient")
    while len(real["probe"]) < simulations:
        vectors, rows = pictures(rng, patients, centres)
        if len(np.unique(rows.codes)) < 3:
            continue
        new, asked = pictures(rng, 400, centres)
        folds, logits = rows.folds(5), np.zeros((len(rows), 3), dtype=np.float32)
        if any(len(np.unique(rows.codes[folds != fold])) < 2 for fold in range(5)):
            continue
        for fold in range(5):
            inside = folds != fold
            coef, intercept = probe.fit_probe(vectors[inside], rows.codes[inside], 3, 0.01)
            logits[~inside] = vectors[~inside] @ coef.T + intercept
        coef, intercept = probe.fit_probe(vectors, rows.codes, 3, 0.01)
        same = rows.groups[:, None] == rows.groups[None]
        ways: list[tuple[str, Any, Any, Any, Any]] = [
            ("probe", logits, new @ coef.T + intercept, Temperature(), Temperature.fit),
            (
                "neighbours",
                votes(vectors, vectors, rows, same),
                votes(new, vectors, rows, np.zeros((len(new), len(rows)), bool)),
                VoteScale(),
                VoteScale.fit,
            ),
        ]
        for name, evidence, of_new, before, fit in ways:
            found = measure_calibration(name, evidence, rows, sets, before=before, fit=fit)
            chance = found.scale.probabilities(of_new)
            covered = conformal.prediction_sets(chance, found.thresholds)[np.arange(len(asked)), asked.codes]
            real[name].append(conformal.group_mean(covered, asked.groups) or 0.0)
            stated[name] += [] if found.coverage is None else [found.coverage]
    return {
        name: {"stated": cell(stated[name]) if stated[name] else "not measured", "new patients": cell(real[name])}
        for name in real
    }


def pictures(
    rng: np.random.Generator, patients: int, centres: NDArray[np.float64]
) -> tuple[NDArray[np.float32], Labelled]:
    """Draw vectors of patients who have one class each, most of them one image, some of them ten."""
    codes, sizes = rng.integers(0, 3, patients), rng.choice([1, 10], patients, p=[0.7, 0.3])
    groups = np.repeat(np.arange(patients), sizes)
    person = rng.normal(size=(patients, centres.shape[1])) * 0.6
    vectors = centres[codes[groups]] + person[groups] + rng.normal(size=(len(groups), centres.shape[1])) * 0.4
    rows = Labelled("label", np.arange(len(groups)), codes[groups], groups, ("a", "b", "c"))
    return vectors.astype(np.float32), rows


def votes(asked: NDArray[np.float32], vectors: NDArray[np.float32], rows: Labelled, own: NDArray[np.bool_]) -> Votes:
    """Return the nearest rows that are not ``own``, bool ``(n, rows)``."""
    scores = np.where(own, -np.inf, -np.square(asked[:, None] - vectors[None]).sum(axis=2))
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, :NEIGHBOURS]
    best = np.take_along_axis(scores, nearest, axis=1)
    codes = np.where(np.isfinite(best), rows.codes[nearest], -1)
    return Votes(np.where(codes >= 0, best, best[:, :1]), codes, rows.prior)


def compared(rng: np.random.Generator, cases: int) -> dict[str, Any]:
    """Compare sets with those of MAPIE and crepes where each patient has one image, as they count; and with numpy."""
    same: dict[str, list[float]] = {"MAPIE": [], "crepes": [], "crepes, by class": [], "numpy, by patient": []}
    for _ in range(cases):
        n, alpha = int(rng.integers(30, 300)), float(rng.choice([0.05, 0.1, 0.2]))
        chance = rng.dirichlet([0.6] * 4, n + 200)
        truth = np.array([rng.choice(4, p=row) for row in chance])
        old, new, groups = chance[:n], chance[n:], np.arange(n)
        own = old[groups, truth[:n]]
        ours = conformal.prediction_sets(new, conformal.threshold(own, groups, alpha))
        limits = conformal.class_thresholds(own, truth[:n], groups, 4, alpha)
        same["MAPIE"].append(_agreement(ours, mapie_sets(old, truth[:n], new, alpha)))
        same["crepes"].append(_agreement(ours, crepes_sets(own, new, alpha)))
        their = crepes_sets(own, new, alpha, truth[:n])
        same["crepes, by class"].append(_agreement(conformal.prediction_sets(new, limits), their))
        some = np.sort(rng.integers(0, n // 3, n))
        n_groups = len(np.unique(some))
        weights = np.append(conformal.weights(some) * n_groups, 1.0)
        # exactly at a step of the weights numpy's comparison of floats may fall to either side: kept off it
        level = 1 - alpha - 1e-7
        theirs = -np.quantile(np.append(-own, np.inf), level, weights=weights, method="inverted_cdf")
        same["numpy, by patient"].append(
            float(np.isclose(max(theirs, 0.0), conformal.threshold(own, some, alpha + 1e-7)))
        )
    return {
        name: "not installed" if np.isnan(values).any() else float(np.mean(values)) for name, values in same.items()
    }


def _agreement(ours: NDArray[np.bool_], theirs: NDArray[np.bool_] | None) -> float:
    return float("nan") if theirs is None else float((ours == theirs).mean())


def mapie_sets(
    old: NDArray[np.float64], truth: NDArray[np.int64], new: NDArray[np.float64], alpha: float
) -> NDArray[np.bool_] | None:
    """Return MAPIE's split-conformal sets of the score ``1 - p``; ``None`` where it is not installed."""
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Known(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        """A classifier whose inputs are its probabilities."""

        classes_ = np.arange(old.shape[1])

        def fit(self, *_: Any) -> Any:
            return self

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def predict_proba(self, chance: Any) -> Any:
            return np.asarray(chance)

        def predict(self, chance: Any) -> Any:
            return np.asarray(chance).argmax(axis=1)

    try:
        theirs = importlib.import_module("mapie.classification")
    except ImportError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = theirs.SplitConformalClassifier(Known(), confidence_level=1 - alpha, conformity_score="lac", prefit=True)
        found: NDArray[np.bool_] = made.conformalize(old, truth).predict_set(new)[1][:, :, 0]
    return found


def crepes_sets(
    own: NDArray[np.float64], new: NDArray[np.float64], alpha: float, truth: NDArray[np.int64] | None = None
) -> NDArray[np.bool_] | None:
    """Return crepes' sets of the score ``1 - p``, by class where ``truth`` is given; ``None`` without crepes."""
    try:
        theirs = importlib.import_module("crepes")
    except ImportError:
        return None
    made = theirs.ConformalClassifier()
    made.fit(1 - own, bins=truth)
    # by p-values: `predict_set` compares them with 1 - (1 - alpha), which as floats is less than alpha
    each = [
        made.predict_p(1 - new[:, [code]], bins=None if truth is None else np.full(len(new), code), smoothing=False)
        for code in range(new.shape[1])
    ]
    sets: NDArray[np.bool_] = np.column_stack(each) > alpha
    return sets


def main() -> None:
    """Simulate, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000, help="archives a cell, of fixed scores and by class")
    parser.add_argument("--learned", type=int, default=120, help="archives a cell, of probes and votes")
    options = parser.parse_args()
    figures: dict[str, Any] = {"simulations": options.simulations, "simulations_learned": options.learned}
    for alpha in ALPHAS:
        rng = np.random.default_rng(round(100 * alpha))
        figures[f"promised {1 - alpha:g}"] = {
            "fixed scores": {name: fixed(rng, one, alpha, options.simulations) for name, one in ARCHIVES.items()},
            "by class": {f"{n} patients": by_class(rng, n, alpha, options.simulations) for n in (60, 300)},
            "learned": {f"{n} patients": learned(rng, n, alpha, options.learned) for n in (12, 25, 100)},
        }
    figures["the same sets as"] = compared(np.random.default_rng(0), 100)
    record(
        "conformal",
        figures,
        note="Each cell: the share of random images of random new patients whose set holds the truth, and its Monte "
        "Carlo error; refused: fewer patients than alpha needs",
    )


if __name__ == "__main__":
    main()
