"""How well wrong labels are found: ``python -m retr.benchmarks.suspects --index FOLDER``.

In the label column of an index 5 % and 10 % of the labels are made wrong: more in some classes than in others
(``class``), or all of some patients (``patient``), each into a class that its own is often taken for. Measured are the
average precision of the list, and the precision among its first 50, over several plantings, with 95 % intervals of t
over these. What was wrong before counts as right, so that the figures are too low where an archive has errors of its
own.

Against: votes of the 5 and 20 nearest rows of other patients, and the recipe of cleanlab's documentation
(self-confidence of a cross-validated logistic regression), the last for at most five classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.benchmarks.record import record
from retr.index.store import Store
from retr.retrieval.classify.probe import fit_probe
from retr.retrieval.curation.discriminant import FOLDS, VOTERS, held_out, vote
from retr.retrieval.curation.neighbours import nearest_others
from retr.retrieval.curation.suspects import judge, judged_cases
from retr.retrieval.labels.folds import deal
from retr.retrieval.raw_vectors import raw_vectors
from retr.retrieval.stats.confidence import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST = 50


def plant(
    codes: NDArray[np.int64], groups: NDArray[np.int64], kind: str, rate: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return labels of which some are wrong, and which."""
    rng, n = np.random.default_rng(seed), int(codes.max()) + 1
    into = rng.dirichlet(np.full(n, 0.3), size=n) * np.sqrt(np.bincount(codes, minlength=n)) + 1e-9
    np.fill_diagonal(into, 0)
    into /= into.sum(axis=1, keepdims=True)
    if kind == "class":
        weight = np.clip(rng.dirichlet(np.ones(n)) * n, 0.2, 3)[codes]
        wrong = rng.random(len(codes)) < weight / weight.mean() * rate
    else:
        order = rng.permutation(groups.max() + 1)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        wrong = np.isin(np.arange(len(codes)), np.argsort(place[groups], kind="stable")[: round(rate * len(codes))])
    planted = codes.copy()
    for at in np.flatnonzero(wrong).tolist():
        planted[at] = rng.choice(n, p=into[codes[at]])
    return planted, wrong


def measure(index: Path, label: str, seeds: int) -> dict[str, Any]:
    """Return the figures of one index."""
    from scipy.stats import t
    from sklearn.metrics import average_precision_score

    store = Store.open(index)
    cases, _ = judged_cases(store, label, separator=None, group=None, where=None)
    vectors, groups, codes = raw_vectors(store, cases.rows), cases.groups, cases.truth
    near = nearest_others(store, cases.rows, groups, VOTERS)
    folds, n = deal(groups, FOLDS), len(cases.classes)
    figures: dict[str, Any] = {"rows": len(codes), "patients": len(np.unique(groups)), "classes": n, "plantings": seeds}
    for kind in ("class", "patient"):
        for rate in (0.05, 0.1):
            found: dict[str, list[tuple[float, float]]] = {}
            for seed in range(seeds):
                planted, wrong = plant(codes, groups, kind, rate, seed)
                member = planted[:, None] == np.arange(n)
                rows = np.arange(len(codes))
                places, cosines = near
                lists = {
                    "retr index suspects": judge(
                        held_out(vectors, member, groups, near, several=False), member, several=False
                    ).order,
                    **{
                        f"vote of {k}": judge(
                            np.stack([member[places[:, :k]][:, :, one].mean(axis=1) for one in range(n)], axis=1),
                            member,
                            several=False,
                        ).order
                        for k in (5, 20)
                    },
                    "weighted vote of 20": judge(vote(member, places, cosines), member, several=False).order,
                }
                if n <= 5:
                    sure = np.zeros(member.shape)
                    for fold in range(FOLDS):
                        coef, offset = fit_probe(vectors[folds != fold], planted[folds != fold], n, 0.001)
                        sure[folds == fold] = softmax(vectors[folds == fold] @ coef.T + offset)
                    lists["logistic regression, self-confidence"] = np.argsort(sure[rows, planted], kind="stable")
                for name, order in lists.items():
                    score = np.empty(len(rows))
                    score[order] = -rows
                    precision = float(wrong[order[:FIRST]].mean())
                    found.setdefault(name, []).append((float(average_precision_score(wrong, score)), precision))
            for name, pairs in found.items():
                means = np.mean(pairs, axis=0)
                half = t.ppf(0.975, seeds - 1) * np.std(pairs, axis=0, ddof=1) / np.sqrt(seeds)
                figures[f"{kind}, {rate:.0%}, {name}"] = {
                    "average precision": f"{means[0]:.3f} +- {half[0]:.3f}",
                    f"precision among {FIRST}": f"{means[1]:.3f} +- {half[1]:.3f}",
                }
    return figures


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--label", default="label")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    name = options.index.name.removesuffix(".retr")
    record(
        f"suspects_{name}",
        {
            "data": name,
            "encoder": Store.open(options.index).manifest.encoder.name,
            **measure(options.index, options.label, options.seeds),
        },
        command=f"python -m retr.benchmarks.suspects --index {name}.retr --seeds {options.seeds}",
        note="vectors of lite as built by `retr index build`; intervals over plantings",
    )


if __name__ == "__main__":
    main()
