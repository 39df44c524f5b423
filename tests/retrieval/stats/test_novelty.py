"""The fence of unlike pictures: what it states, on drawn archives whose truth is known, and by its own definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaincinv

from retr.retrieval.stats.novelty import RATE, _beta_quantile, fence


def patients(rng, n, most):
    """Scores of patients, who differ, some by far, and of their pictures; and the patient of each."""
    groups = np.repeat(np.arange(n), rng.integers(1, most + 1, n))
    person = 0.9 - 0.03 * rng.chisquare(2, n)
    return person[groups] - 0.005 * rng.chisquare(2, len(groups)), groups


@pytest.mark.parametrize("most", [1, 20])
@pytest.mark.parametrize("n", [20, 50, 99, 200, 520])
def test_new_patients_are_called_unlike_as_rarely_as_stated(n, most):
    rng = np.random.default_rng(n + most)
    future, owner = patients(rng, 20_000, most)
    share = np.bincount(owner)
    rates, kept = [], []
    for _ in range(200):
        found = fence(*patients(rng, n, most))
        below = np.bincount(owner, future < found.threshold) / share
        rates.append(below.mean())
        kept.append(rates[-1] <= found.high)
    assert found.rate == max(RATE, 1 / (n + 1))
    assert np.mean(rates) <= found.rate + 3 * np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) >= found.rate / 4
    assert np.mean(kept) >= 0.9


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=1, max_size=80),
    st.floats(0.01, 0.4),
)
@settings(deadline=None)
def test_it_is_what_its_definition_says(pairs, rate):
    nearest, groups = np.array([a / 30 for a, _ in pairs]), np.array([b for _, b in pairs])
    found = fence(nearest, groups, rate)
    names = np.unique(groups)
    asked = max(rate, 1 / (len(names) + 1))
    for score in (-1, *np.unique(nearest), 2):
        weight = sum((nearest[groups == name] <= score).mean() for name in names)
        unlike = 1 + weight <= asked * (len(names) + 1) + 1e-6
        # where there is room for all the archive's own, nothing lies above the highest of them
        assert (score < found.threshold) == (unlike and score < nearest.max())


def test_a_patient_of_many_pictures_is_one():
    rng = np.random.default_rng(0)
    groups = np.r_[np.arange(99), np.full(5000, 99)]
    nearest = np.r_[rng.uniform(0.8, 0.9, 99), np.full(5000, 0.5)]
    # its pictures are half of nothing: one patient of a hundred lies there
    assert fence(nearest, groups).threshold == 0.5
    assert fence(nearest, np.arange(len(groups))).threshold == 0.5
    assert fence(np.r_[nearest[:99], 0.5], np.arange(100), 0.02).threshold > 0.8


@given(a=st.floats(1, 1e4), b=st.floats(1, 1e5), share=st.floats(0.01, 0.99))
def test_the_quantile_of_a_beta_distribution_is_scipys(a, b, share):
    assert _beta_quantile(a, b, share) == pytest.approx(betaincinv(a, b, share), rel=1e-9)
