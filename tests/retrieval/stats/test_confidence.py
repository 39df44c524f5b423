"""Scaling, conformal sets and risk, on drawn numbers whose answer is known."""

from itertools import pairwise

import numpy as np
import pytest

from retr.retrieval.stats import confidence
from retr.retrieval.stats.confidence import Temperature, Votes, VoteScale
from retr.retrieval.stats.metrics import ece


def drawn(n=4000, c=5, seed=0):
    """Logits whose softmax is exactly the chance of each class."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, c)) * 1.5
    chance = confidence.softmax(logits)
    truth = (chance.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return logits, chance, truth


@pytest.mark.parametrize("factor", [0.01, 1.0, 30.0])
def test_temperature_undoes_a_wrong_scale(factor):
    logits, chance, truth = drawn()
    scaling = Temperature.fit(logits * factor, truth)
    assert scaling.temperature == pytest.approx(factor, rel=0.1)
    np.testing.assert_allclose(scaling.probabilities(logits * factor), chance, atol=0.05)
    assert ece(scaling.probabilities(logits * factor), truth) < 0.03


def test_the_best_class_is_right_as_often_as_it_says():
    """A score that is overconfident in a way no temperature undoes: the first class is half as probable as it says."""
    rng = np.random.default_rng(0)
    said = rng.uniform(0.4, 0.95, 4000)
    truth = np.where(rng.random(4000) < said / 2, 0, rng.integers(1, 4, 4000))
    logits = np.log(np.column_stack([said, *[(1 - said) / 3] * 3]))
    scaling = Temperature.fit(logits[:2000], truth[:2000])
    chance = scaling.probabilities(logits[2000:])
    np.testing.assert_allclose(chance.sum(axis=1), 1)
    assert (chance.argmax(axis=1) == logits[2000:].argmax(axis=1)).mean() > 0.99
    assert ece(Temperature().probabilities(logits[2000:]), truth[2000:]) > 0.2
    assert ece(chance, truth[2000:]) < 0.05


def test_the_correction_keeps_the_order_of_the_classes():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 6))
    plain = Temperature().probabilities(logits)
    for slope, offset in ((0.5, -1.0), (2.0, 1.0), (1.0, -3.0)):
        chance = Temperature(1.0, slope, offset).probabilities(logits)
        ranks = np.take_along_axis(chance, np.argsort(-plain, axis=1), axis=1)
        assert (np.diff(ranks, axis=1) <= 1e-12).all()
        np.testing.assert_allclose(chance.sum(axis=1), 1)


@pytest.mark.parametrize("gap", [1.0, 30.0, 50.0, 800.0])
def test_what_a_certain_class_gives_up_goes_to_the_others(gap):
    """However far the best is ahead: where the softmax rounds to 1 the others share as their own logits say."""
    logits = np.array([[gap, 0.0, -1.0]], np.float32)
    chance = Temperature(1.0, 1.0, -1.0).probabilities(logits)[0]
    assert chance.sum() == pytest.approx(1)
    assert chance[1] / chance[2] == pytest.approx(np.e)


def test_a_vote_is_a_weighted_share():
    votes = Votes(np.array([[0.9, 0.8, 0.5]]), np.array([[1, 0, 1]]), np.array([0.5, 0.25, 0.25]))
    weights = np.exp((np.array([0.9, 0.8, 0.5]) - 0.9) / 0.2)
    want = np.array([weights[1], weights[0] + weights[2], 0]) + 2 * votes.prior
    got = VoteScale(bandwidth=0.2, prior_weight=2).probabilities(votes)
    np.testing.assert_allclose(got, [want / want.sum()])


def test_without_neighbours_the_prior_answers():
    votes = Votes(np.full((1, 3), -np.inf), np.full((1, 3), -1), np.array([0.7, 0.3]))
    for scaling in (VoteScale(bandwidth=0.1), VoteScale()):
        np.testing.assert_allclose(scaling.probabilities(votes), [[0.7, 0.3]])


def test_uninformative_neighbours_are_fitted_away():
    rng = np.random.default_rng(0)
    prior = np.array([0.6, 0.3, 0.1])
    codes = rng.choice(3, size=(2000, 5), p=prior)
    truth = rng.choice(3, size=2000, p=prior)
    votes = Votes(np.sort(rng.random((2000, 5)))[:, ::-1], codes, prior)
    scaling = VoteScale.fit(votes, truth)
    assert ece(VoteScale().probabilities(votes), truth) > 0.15
    assert ece(scaling.probabilities(votes), truth) < 0.05


def test_risk_falls_with_coverage():
    _, chance, truth = drawn()
    curve = confidence.risk_coverage(chance, truth)
    assert [point["coverage"] for point in curve][-1] == 1
    assert curve[0]["risk"] < curve[-1]["risk"]
    assert curve[-1]["risk"] == pytest.approx((chance.argmax(axis=1) != truth).mean(), abs=1e-4)
    assert all(a["confidence"] >= b["confidence"] for a, b in pairwise(curve))
