"""Ranking metrics against ranx, classification metrics against scikit-learn's own call signatures."""

import numpy as np
import pytest
from sklearn import metrics as sk

from retr.index.errors import UsageError
from retr.retrieval.stats import metrics


@pytest.fixture
def ranking():
    """40 queries, 12 places, relevance at random; some queries have relevant rows that were not found."""
    rng = np.random.default_rng(3)
    hits = rng.random((40, 12)) < 0.3
    return hits, hits.sum(axis=1) + rng.integers(1, 4, 40)


def ranx_values(hits, relevant, names):
    ranx = pytest.importorskip("ranx")
    qrels, run = {}, {}
    for q, row in enumerate(hits):
        found = {f"d{j}": 1 for j in np.flatnonzero(row)}
        missed = {f"m{j}": 1 for j in range(relevant[q] - len(found))}
        qrels[f"q{q:03}"] = {**found, **missed}
        run[f"q{q:03}"] = {f"d{j}": 1.0 - j / 100 for j in range(len(row))}
    return ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), names, return_mean=False)


@pytest.mark.slow  # ranx compiles its metrics on first use
@pytest.mark.filterwarnings("ignore")
def test_ranking_metrics_agree_with_ranx(ranking):
    hits, relevant = ranking
    ours = {
        "precision@5": metrics.precision_at(hits, 5),
        "hit_rate@3": metrics.any_hit_at(hits, 3),
        "recall@5": metrics.recall_at(hits, 5, relevant),
        "map@12": metrics.average_precision_at(hits, 12, relevant),
        "map@5": metrics.average_precision_at(hits, 5, relevant),
        "ndcg@12": metrics.ndcg_at(hits, 12, relevant),
        "ndcg@5": metrics.ndcg_at(hits, 5, relevant),
        "mrr": metrics.reciprocal_rank(hits),
    }
    theirs = ranx_values(hits, relevant, list(ours))
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], atol=1e-9, err_msg=name)


def test_a_query_without_relevant_rows_is_undefined_not_zero():
    hits, none = np.zeros((1, 3), bool), np.array([0])
    for metric in (metrics.recall_at, metrics.average_precision_at, metrics.ndcg_at):
        assert np.isnan(metric(hits, 3, none)).all()


@pytest.mark.parametrize("k", [0, 13, -1])
def test_k_outside_the_searched_depth_is_an_error(ranking, k):
    with pytest.raises(UsageError, match=f"got: {k}"):
        metrics.precision_at(ranking[0], k)


@pytest.fixture
def answers():
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 4, 300)
    logits = rng.normal(size=(300, 4)) + 1.5 * np.eye(4)[truth]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), truth


def test_classification_agrees_with_scikit_learn(answers):
    probabilities, truth = answers
    got = metrics.classification(probabilities, truth, topk=(1, 2, 9))
    predicted = probabilities.argmax(axis=1)
    expected = {
        "top1": sk.accuracy_score(truth, predicted),
        "top2": sk.top_k_accuracy_score(truth, probabilities, k=2),
        "top9": 1.0,
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "macro_f1": sk.f1_score(truth, predicted, average="macro"),
        "kappa": sk.cohen_kappa_score(truth, predicted, weights="quadratic"),
        "auroc": sk.roc_auc_score(truth, probabilities, multi_class="ovr"),
    }
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-9), name


def test_expected_calibration_error_of_one_bin_and_of_perfect_answers(answers):
    probabilities, truth = answers
    right = probabilities.argmax(axis=1) == truth
    assert metrics.ece(probabilities, truth, bins=1) == pytest.approx(
        abs(probabilities.max(axis=1).mean() - right.mean())
    )
    assert metrics.ece(np.eye(4)[truth], truth) == 0
    assert metrics.ece(np.full(10, 0.9), np.array([True] * 6 + [False] * 4)) == pytest.approx(0.3)


def test_a_class_that_never_or_always_occurs_has_no_auroc():
    member = np.array([[True, False, True], [True, False, False]])
    scores = np.array([[0.1, 0.2, 0.9], [0.3, 0.1, 0.2]])
    np.testing.assert_array_equal(metrics.auroc_per_class(scores, member), [np.nan, np.nan, 1.0])
