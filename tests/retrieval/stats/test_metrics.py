"""Ranking metrics against ranx, classification metrics against scikit-learn's own call signatures."""

import itertools

import numpy as np
import pytest
from sklearn import metrics as sk

from retr.index.errors import UsageError
from retr.retrieval.stats import metrics
from retr.retrieval.stats.confidence import class_log_odds


@pytest.fixture
def ranking():
    """40 queries, 12 places, relevance at random; some queries have relevant rows that were not found."""
    rng = np.random.default_rng(3)
    hits = rng.random((40, 12)) < 0.3
    return hits, hits.sum(axis=1) + rng.integers(1, 4, 40)


def test_ranking_metrics_of_three_queries_worked_by_hand():
    hits = np.array([[True, False, True, False], [False, False, False, True], [False] * 4])
    relevant = np.array([2, 1, 3])
    log = np.log2
    expected = [
        (metrics.precision_at(hits, 1), [1, 0, 0]),
        (metrics.precision_at(hits, 3), [2 / 3, 0, 0]),
        (metrics.any_hit_at(hits, 3), [1, 0, 0]),
        (metrics.any_hit_at(hits, 4), [1, 1, 0]),
        (metrics.recall_at(hits, 1, relevant), [1 / 2, 0, 0]),
        (metrics.recall_at(hits, 4, relevant), [1, 1, 0]),
        (metrics.average_precision_at(hits, 1, relevant), [1 / 2, 0, 0]),
        (metrics.average_precision_at(hits, 4, relevant), [(1 + 2 / 3) / 2, 1 / 4, 0]),
        (metrics.ndcg_at(hits, 1, relevant), [1, 0, 0]),
        (metrics.ndcg_at(hits, 4, relevant), [(1 + 1 / log(4)) / (1 + 1 / log(3)), 1 / log(5), 0]),
        (metrics.ndcg_at(~hits, 2, np.array([3, 9, 9])), [1 / log(3) / (1 + 1 / log(3)), 1, 1]),
        (metrics.reciprocal_rank(hits), [1, 1 / 4, 0]),
    ]
    for got, values in expected:
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, values, atol=1e-12)


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
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "macro_f1": sk.f1_score(truth, predicted, average="macro"),
        "kappa": sk.cohen_kappa_score(truth, predicted),
        "auroc": sk.roc_auc_score(truth, probabilities, multi_class="ovr"),
        "ece": metrics.ece(probabilities, truth),
    }
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-9), name


def test_classes_that_do_not_occur_or_are_never_answered():
    """Averages run over the classes of the truth; grades keep their distance; what has no value is nan, unwarned."""
    truth = np.array([0, 0, 1, 1, 3])
    predicted = np.array([0, 2, 1, 0, 1])
    got = metrics.classification(np.eye(4)[predicted], truth, topk=(1, 4))
    assert got["balanced_accuracy"] == pytest.approx(np.mean([1 / 2, 1 / 2, 0]))
    assert got["macro_f1"] == pytest.approx(np.mean([1 / 2, 1 / 2, 0]))
    shares = np.array([[np.mean(side == c) for c in range(4)] for side in (truth, predicted)])
    by_chance = (shares[0] * shares[1]).sum()
    assert got["kappa"] == pytest.approx((2 / 5 - by_chance) / (1 - by_chance))
    assert "kappa_quadratic" not in got, "classes have no order unless one is declared"
    assert "top4" not in got, "all classes fit into four: it says nothing"
    assert metrics.quadratic_kappa([0, 3, 1], [0, 3, 3], 4) == pytest.approx(1 - (4 / 3) / (36 / 9))
    one = metrics.classification(np.eye(4)[predicted], np.zeros(5, int), topk=(1,))
    assert np.isnan(one["auroc"])
    assert np.isnan(metrics.quadratic_kappa(np.ones(3, int), np.ones(3, int), 4))
    assert np.isnan(metrics.kappa(np.ones(3, int), np.ones(3, int)))


def test_quadratic_kappa_goes_by_the_declared_grades():
    """Alphabetical codes 0, 1, 2 are mild, none, severe; a fourth grade, moderate, does not occur."""
    import sklearn.metrics as sk

    grades = np.array([1, 0, 3])
    rng = np.random.default_rng(4)
    truth, predicted = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    got = metrics.classification(np.eye(3)[predicted], truth, topk=(1,), grades=grades)
    expected = sk.cohen_kappa_score(grades[truth], grades[predicted], weights="quadratic", labels=range(4))
    assert got["kappa_quadratic"] == pytest.approx(expected)
    assert got["kappa"] == pytest.approx(sk.cohen_kappa_score(truth, predicted))
    alphabetical = sk.cohen_kappa_score(truth, predicted, weights="quadratic")
    assert abs(expected - alphabetical) > 0.001


def test_two_classes_have_one_auroc_whichever_is_called_positive():
    import sklearn.metrics as sk

    rng = np.random.default_rng(5)
    truth, score = rng.integers(0, 2, 50), rng.random(50)
    got = metrics.classification(np.stack([1 - score, score], axis=1), truth, topk=(1,))
    assert got["auroc"] == pytest.approx(sk.roc_auc_score(truth, score))
    assert got["auroc"] == pytest.approx(sk.roc_auc_score(1 - truth, 1 - score))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_counts_the_true_class_among_the_k_most_probable(k):
    probabilities = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.1, 0.2]])
    # places of the true classes: second, fourth, third
    assert metrics.top_k_accuracy(probabilities, [1, 0, 3], k) == pytest.approx((k - 1) / 3)


def test_reliability_bins_are_open_on_the_left():
    # a probability rounded to just above 1 counts in the last bin
    scores = [0.0, 0.1, 0.25, 0.3, 0.9, 1.0, 1 + 1e-9]
    bins = metrics.reliability(scores, [False, True, True, False, True, True, False], bins=4)
    np.testing.assert_array_equal(bins.edges, [0, 0.25, 0.5, 0.75, 1])
    assert bins.count.tolist() == [3, 1, 0, 3]
    np.testing.assert_allclose(bins.confidence, [0.35 / 3, 0.3, np.nan, 2.9 / 3])
    np.testing.assert_allclose(bins.accuracy, [2 / 3, 0, np.nan, 2 / 3])
    assert len(metrics.reliability(scores, np.ones(7)).count) == 15
    assert metrics.ece([0.05, 0.066], [False, True]) == pytest.approx(0.5 - 0.058)
    assert np.isnan(metrics.ece([], []))


def test_expected_calibration_error_of_one_bin_and_of_perfect_answers(answers):
    probabilities, truth = answers
    right = probabilities.argmax(axis=1) == truth
    assert metrics.ece(probabilities, truth, bins=1) == pytest.approx(
        abs(probabilities.max(axis=1).mean() - right.mean())
    )
    assert metrics.ece(np.eye(4)[truth], truth) == 0
    assert metrics.ece(np.full(10, 0.9), np.array([True] * 6 + [False] * 4)) == pytest.approx(0.3)


@pytest.mark.parametrize("metric", [metrics.auroc_per_class, metrics.auprc_per_class])
def test_a_class_that_never_or_always_occurs_has_no_curve(metric):
    member = np.array([[True, False, True], [True, False, False]])
    scores = np.array([[0.1, 0.2, 0.9], [0.3, 0.1, 0.2]])
    np.testing.assert_array_equal(metric(scores, member), [np.nan, np.nan, 1.0])


def test_areas_of_each_class_are_scikit_learns():
    rng = np.random.default_rng(6)
    scores, member = rng.random((50, 3)), rng.random((50, 3)) < 0.4
    np.testing.assert_allclose(metrics.auroc_per_class(scores, member), sk.roc_auc_score(member, scores, average=None))
    average = sk.average_precision_score(member, scores, average=None)
    np.testing.assert_allclose(metrics.auprc_per_class(scores, member), average)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_ties_in_the_top_k_count_their_expected_value_after_the_answer(k):
    """Against every order of the classes that keeps higher scores before lower ones and the answer first."""
    scores = np.array([0.2, 0.4, 0.2, 0.4, 0.4, 0.1])
    orders = [
        order
        for order in itertools.permutations(range(6))
        if order[0] == scores.argmax() and (np.diff(scores[list(order)]) <= 0).all()
    ]
    for truth in range(6):
        expected = np.mean([truth in order[:k] for order in orders])
        assert metrics.in_top_k(scores[None], [truth], k) == pytest.approx(expected)
    assert metrics.top_k_accuracy(np.ones((3, 4)), [0, 1, 2], 1) == pytest.approx(1 / 3), "the answer is the first"


def test_a_class_that_nobody_votes_for_is_in_no_top_five():
    votes = np.array([[0.0, 0.0, 0.6, 0.4, 0.0, 0.0, 0.0]] * 7)
    np.testing.assert_array_equal(metrics.in_top_k(votes, np.arange(7), 5), [0, 0, 1, 1, 0, 0, 0])
    logits = votes - 1  # of any sign: here the five places are filled
    assert metrics.in_top_k(logits, np.arange(7), 5).sum() == pytest.approx(5)


def test_classes_that_tie_in_logits_tie_in_log_odds():
    """Two classes of one prompt: the first is answered, and the other has the place behind it."""
    rng = np.random.default_rng(0)
    for classes in (2, 3, 6):
        logits = rng.normal(size=(2000, classes)) * rng.choice([0.01, 1, 300], (2000, 1))
        two = rng.permuted(np.tile(np.arange(classes), (2000, 1)), axis=1)[:, :2]
        np.put_along_axis(logits, two, logits.max(axis=1, keepdims=True) + rng.choice([1, 40], (2000, 1)), axis=1)
        odds = class_log_odds(logits)
        tied = np.take_along_axis(odds, two, axis=1)
        np.testing.assert_array_equal(tied[:, 0], tied[:, 1])
        np.testing.assert_array_equal(odds.argmax(axis=1), logits.argmax(axis=1))
        np.testing.assert_array_equal(metrics.in_top_k(odds, two.min(axis=1), 1), 1)
        np.testing.assert_array_equal(metrics.in_top_k(odds, two.max(axis=1), 2), 1)


def test_a_calibrated_model_is_as_far_off_as_chance_alone():
    rng = np.random.default_rng(0)
    found, chance, off = [], [], []
    for _ in range(60):
        patient = np.repeat(np.arange(40), 4)
        confidence = rng.choice([0.55, 0.7, 0.85], 40)[patient]
        right = rng.random(160) < confidence
        found.append(metrics.ece(confidence, right))
        chance.append(metrics.ece_by_chance(confidence, right, np.arange(160)))
        off.append(metrics.ece(np.minimum(confidence + 0.3, 1), right))
    assert min(found) > 0
    assert np.mean(chance) == pytest.approx(np.mean(found), rel=0.15)
    assert min(off) > 2 * max(chance)
    whole = np.repeat(rng.random(40) < 0.7, 4)
    one = np.full(160, 0.7)
    assert metrics.ece_by_chance(one, whole, patient) > 1.6 * metrics.ece_by_chance(one, whole, np.arange(160))
    assert np.isnan(metrics.ece_by_chance([], [], np.array([], int)))
