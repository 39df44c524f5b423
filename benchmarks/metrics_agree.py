"""Largest differences to scikit-learn and ranx on random cases: ``python -m retr.benchmarks.metrics_agree``."""

from __future__ import annotations

import warnings

import numpy as np
import ranx
from sklearn import metrics as theirs

from retr.benchmarks.record import record
from retr.retrieval.stats import metrics

CASES = 200


def ranking(rng: np.random.Generator) -> dict[str, float]:
    """Compare ranking metrics with ranx on one random set of queries."""
    queries, depth = int(rng.integers(5, 40)), int(rng.integers(5, 30))
    hits = rng.random((queries, depth)) < rng.random()
    relevant = hits.sum(axis=1) + rng.integers(1, 6, queries)
    qrels, run = {}, {}
    for q, row in enumerate(hits):
        missed = {f"m{j}": 1 for j in range(relevant[q] - row.sum())}
        qrels[f"q{q:03}"] = {f"d{j}": 1 for j in np.flatnonzero(row)} | missed
        run[f"q{q:03}"] = {f"d{j}": 1.0 - j / 100 for j in range(depth)}
    k = int(rng.integers(1, depth + 1))
    ours = {
        f"precision@{k}": metrics.precision_at(hits, k),
        f"hit_rate@{k}": metrics.any_hit_at(hits, k),
        f"recall@{k}": metrics.recall_at(hits, k, relevant),
        f"map@{k}": metrics.average_precision_at(hits, k, relevant),
        f"ndcg@{k}": metrics.ndcg_at(hits, k, relevant),
        "mrr": metrics.reciprocal_rank(hits),
    }
    found = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), list(ours), return_mean=False)
    return {name.partition("@")[0]: float(np.abs(found[name] - values).max()) for name, values in ours.items()}


def classification(rng: np.random.Generator) -> dict[str, float]:
    """Compare classification metrics with scikit-learn, called directly, on one random set of answers."""
    n, classes = int(rng.integers(60, 400)), int(rng.integers(4, 9))
    truth = np.concatenate([np.arange(classes), rng.integers(0, classes, n)])
    logits = rng.normal(size=(len(truth), classes)) + np.eye(classes)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answer = probabilities.argmax(axis=1)
    ours = metrics.classification(probabilities, truth, topk=(1, 3), grades=np.arange(classes))
    known = {
        "top1": theirs.accuracy_score(truth, answer),
        "top3": theirs.top_k_accuracy_score(truth, probabilities, k=3),
        "balanced_accuracy": theirs.balanced_accuracy_score(truth, answer),
        "macro_f1": theirs.f1_score(truth, answer, average="macro"),
        "kappa": theirs.cohen_kappa_score(truth, answer),
        "kappa_quadratic": theirs.cohen_kappa_score(truth, answer, weights="quadratic"),
        "auroc": theirs.roc_auc_score(truth, probabilities, multi_class="ovr"),
    }
    return {name: abs(ours[name] - value) for name, value in known.items()}


def main() -> None:
    """Compare, print and write the result file."""
    warnings.simplefilter("ignore")  # numba's, at ranx's first use
    worst: dict[str, float] = {}
    for case in range(CASES):
        rng = np.random.default_rng(case)
        for name, difference in (ranking(rng) | classification(rng)).items():
            worst[name] = max(worst.get(name, 0.0), difference)
    record("metrics_agree", {"cases": CASES, "largest_difference": worst, "all_below_1e-9": max(worst.values()) < 1e-9})


if __name__ == "__main__":
    main()
