"""Paired differences: the interval is that of the difference, and holds the truth as often as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retr.retrieval.stats.intervals import FEWEST, mean_interval
from retr.retrieval.stats.paired import paired_difference


def drawn(rng, patients, eyes, shares, alike):
    """Two right-or-wrong answers a row, alike within a row and a patient."""
    from scipy.stats import norm

    common = np.sqrt(alike) * (0.7 * rng.normal(size=(patients, 1)) + np.sqrt(0.51) * rng.normal(size=(patients, eyes)))
    own = rng.normal(size=(2, patients, eyes)) * np.sqrt(1 - alike)
    answers = [(common + one < norm.ppf(share)).astype(float).ravel() for one, share in zip(own, shares, strict=True)]
    return *answers, np.repeat(np.arange(patients), eyes)


@pytest.mark.parametrize(
    ("patients", "eyes", "shares", "alike"),
    [(40, 2, (0.6, 0.7), 0.8), (100, 2, (0.5, 0.5), 0.5), (100, 2, (0.9, 0.95), 0.9)],
)
def test_the_interval_holds_the_truth_as_often_as_it_says(patients, eyes, shares, alike):
    rng = np.random.default_rng(3)
    held = []
    for _ in range(200):
        found = paired_difference(*drawn(rng, patients, eyes, shares, alike))
        held.append(found.low <= shares[1] - shares[0] <= found.high)
    assert np.mean(held) >= 0.925


def test_it_tells_apart_what_overlapping_intervals_do_not():
    rng = np.random.default_rng(0)
    first, second, codes = drawn(rng, 200, 2, (0.55, 0.64), 0.97)
    apart = paired_difference(first, second, codes)
    one, other = mean_interval(first, codes), mean_interval(second, codes)
    assert one.high > other.low
    assert apart.low > 0


def test_rows_of_one_patient_are_no_evidence_of_their_own():
    rng = np.random.default_rng(1)
    first, second, _ = drawn(rng, 30, 1, (0.5, 0.6), 0.5)
    once = paired_difference(first, second, np.arange(30))
    often = paired_difference(np.repeat(first, 8), np.repeat(second, 8), np.repeat(np.arange(30), 8))
    assert often.high - often.low > 0.7 * (once.high - once.low)


def test_encoders_that_never_differ_are_not_proved_to_be_equal():
    same = np.tile([1.0, 0.0], 20)
    found = paired_difference(same, same, np.arange(40))
    assert found.value == 0
    assert found.low < -0.05
    assert found.high > 0.05


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=30),
    st.booleans(),
)
def test_turned_round_it_is_the_opposite(rows, by_class):
    first, second, codes = (np.array(part) for part in zip(*rows, strict=True))
    member = np.eye(2, dtype=bool)[np.arange(len(rows)) % 2] if by_class else None
    one = paired_difference(first, second, codes, member=member)
    other = paired_difference(second, first, codes, member=member)
    assert one.value == pytest.approx(-other.value, abs=1e-12)
    if one.groups < FEWEST:
        assert np.isnan([one.low, one.high]).all()
        return
    assert [one.low, one.high] == pytest.approx([-other.high, -other.low], abs=1e-9, nan_ok=True)
    assert np.isnan(one.low) or -1 <= one.low <= one.value + 1e-12 <= one.high + 2e-12 <= 1 + 3e-12
