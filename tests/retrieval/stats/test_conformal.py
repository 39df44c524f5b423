"""Thresholds in which each patient counts once: against the definition in fractions, and by simulation."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.errors import UsageError
from retr.retrieval.stats import conformal

LEVELS = st.one_of(
    st.sampled_from([Fraction(1, 10), Fraction(1, 20), Fraction(1, 5), Fraction(1, 3), Fraction(3, 10)]),
    st.fractions(Fraction(1, 40), Fraction(39, 40), max_denominator=1000),
)
# few distinct probabilities, so that many tie
IMAGES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 8)), min_size=1, max_size=60)


def by_definition(own, groups, alpha):
    """The 1 - alpha quantile of the scores -p, each of weight 1 / (n_g (G + 1)), with the rest at infinity."""
    sizes = {g: groups.count(g) for g in groups}
    for p in sorted(set(own), reverse=True):
        reached = sum(Fraction(1, sizes[g] * (len(sizes) + 1)) for q, g in zip(own, groups, strict=True) if q >= p)
        if reached >= 1 - alpha:
            return p
    return 0.0


@settings(max_examples=200, deadline=None)
@given(IMAGES, LEVELS)
def test_the_threshold_is_the_weighted_quantile(images, alpha):
    own, groups = [(1 + p) / 14 for p, _ in images], [g for _, g in images]
    got = conformal.threshold(np.array(own), np.array(groups), float(alpha))
    assert got == by_definition(own, groups, alpha)


@settings(max_examples=100, deadline=None)
@given(IMAGES, LEVELS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_neither_order_nor_copies_of_a_patients_images_count(images, alpha, copies, random):
    own, groups = np.array([(1 + p) / 14 for p, _ in images]), np.array([g for _, g in images])
    want = conformal.threshold(own, groups, float(alpha))
    order = random.sample(range(len(own)), len(own))
    assert conformal.threshold(own[order], groups[order], float(alpha)) == want
    again = np.concatenate([np.arange(len(own)), *[np.flatnonzero(groups == groups[0])] * copies])
    assert conformal.threshold(own[again], 100 - groups[again], float(alpha)) == want


@settings(max_examples=100, deadline=None)
@given(LEVELS)
def test_so_many_patients_are_needed_and_no_fewer(alpha):
    need = max(ceil(1 / alpha) - 1, 1)
    assert conformal.groups_needed(float(alpha)) == need
    own = np.random.default_rng(0).uniform(0.1, 1, 3 * need)
    groups = np.repeat(np.arange(need), 3)
    assert conformal.threshold(own, groups, float(alpha)) >= own.min()
    if need > 1:
        assert conformal.threshold(own[3:], groups[3:], float(alpha)) == 0


def test_an_alpha_beyond_all_counts_needs_more_than_there_are():
    for alpha in (1e-9, 1e-300, 5e-324):
        assert conformal.groups_needed(alpha) > 10**8
        assert conformal.threshold(np.ones(4), np.arange(4), alpha) == 0


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 1.5, float("nan")])
def test_a_level_lies_between_0_and_1(alpha):
    with pytest.raises(UsageError, match="between 0 and 1"):
        conformal.threshold(np.ones(3), np.arange(3), alpha)


def test_the_threshold_by_hand():
    own = np.arange(1, 10) / 10
    assert conformal.threshold(own, np.arange(9), 0.2) == pytest.approx(0.2)  # of 10 at most two may fall below
    assert conformal.threshold(own, np.arange(9), 0.1) == pytest.approx(0.1)
    assert conformal.threshold(own, np.arange(9), 0.05) == 0
    # nine patients, one of them with 900 poor images: it is one of nine
    many, groups = np.concatenate([own[1:], np.full(900, 0.01)]), np.concatenate([np.arange(8), np.full(900, 8)])
    assert conformal.threshold(many, groups, 0.2) == pytest.approx(0.2)


def test_a_class_with_too_few_patients_is_in_every_set():
    own, truth = np.linspace(0.3, 0.9, 40), np.repeat([0, 1], [30, 10])
    groups = np.concatenate([np.arange(30), np.arange(8), [0, 1]])
    found = conformal.class_thresholds(own, truth, groups, 3, 0.1)
    assert found[0] == conformal.threshold(own[:30], groups[:30], 0.1) > 0
    assert found[1:].tolist() == [0, 0]
    sets = conformal.prediction_sets(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), found)
    assert sets.tolist() == [[False, True, True], [True, True, True]]


def draw(rng, sizes, easy_when_many=False):
    """Probabilities of the true class: each patient is as easy as it is, the more so with many images."""
    ease = rng.normal(size=len(sizes)) + (2 * np.log(sizes) if easy_when_many else 0)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return 1 / (1 + np.exp(-ease[groups] - rng.normal(size=len(groups)) * 0.5)), groups


@pytest.mark.parametrize("easy_when_many", [False, True])
@pytest.mark.parametrize("alpha", [0.1, 0.25])
def test_new_patients_are_covered_as_promised(alpha, easy_when_many):
    """10 patients of 1 or 100 images: an image of a new patient, against the promise and the theorem's upper bound."""
    rng, covered = np.random.default_rng(3), []
    for _ in range(1500):
        own, groups = draw(rng, rng.choice([1, 100], 11), easy_when_many)
        new = groups == 10
        covered.append((own[new] >= conformal.threshold(own[~new], groups[~new], alpha)).mean())
    error = np.std(covered) / len(covered) ** 0.5
    assert 1 - alpha - 3 * error <= np.mean(covered) <= 1 - alpha + 2 / 11 + 3 * error


def test_by_class_each_class_is_covered():
    """Two classes, one of them hard: one threshold leaves it out, one a class does not."""
    rng, one, each = np.random.default_rng(5), [], []
    for _ in range(600):
        truth = np.repeat(rng.integers(0, 5, 121) == 0, 2).astype(int)  # a fifth are of the hard class
        own, groups = draw(rng, np.full(121, 2))
        own = own ** (1 + 2 * truth)
        truth[-2:], own[-2:] = 1, own[-2:] ** (3 if truth[-1] == 0 else 1)  # the new patient is of the hard class
        old = groups < 120
        limits = conformal.class_thresholds(own[old], truth[old], groups[old], 2, 0.1)
        each.append((own[~old] >= limits[1]).mean())
        one.append((own[~old] >= conformal.threshold(own[old], groups[old], 0.1)).mean())
    assert np.mean(each) >= 0.9 - 3 * np.std(each) / 600**0.5
    assert np.mean(one) < 0.8


def test_a_mean_over_patients():
    assert conformal.group_mean(np.array([]), np.array([], np.int64)) is None
    values, groups = np.array([1.0, 0, 0, 0, 1]), np.array([3, 5, 5, 5, 5])
    assert conformal.group_mean(values, groups) == pytest.approx((1 + 1 / 4) / 2)
    assert conformal.weights(groups).sum() == pytest.approx(1)
