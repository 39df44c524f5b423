"""Intervals: seeded, by patient, and as wide as theory says."""

import numpy as np
import pytest

from retr.index.errors import UsageError
from retr.retrieval.stats.bootstrap import group_codes, intervals, mean_interval


def test_a_row_without_a_group_is_its_own_group():
    assert group_codes(["a", None, "a", None], 4).tolist() == [0, 1, 0, 2]
    assert group_codes(None, 3).tolist() == [0, 1, 2]


def test_the_seed_decides_the_interval():
    values, codes = np.random.default_rng(0).random(50), np.arange(50)
    same = [mean_interval(values, codes, seed=7) for _ in range(2)]
    assert same[0] == same[1]
    assert mean_interval(values, codes, seed=8) != same[0]


def test_rows_of_one_patient_count_once():
    """Every row repeated nine times within its patient: the interval must not shrink."""
    values = np.random.default_rng(1).random(40)
    once = mean_interval(values, np.arange(40))
    repeated = mean_interval(np.repeat(values, 9), np.repeat(np.arange(40), 9))
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))
    assert (repeated.n, repeated.groups) == (360, 40)
    alone = mean_interval(np.repeat(values, 9), np.arange(360))
    assert alone.high - alone.low < 0.5 * (once.high - once.low)


def test_the_width_is_that_of_the_mean_of_a_normal_sample():
    values = np.random.default_rng(2).normal(size=200)
    estimate = mean_interval(values, np.arange(200), resamples=4000)
    width = 2 * 1.972 * values.std(ddof=1) / np.sqrt(200)
    assert estimate.high - estimate.low == pytest.approx(width, rel=0.06)
    assert estimate.low < estimate.value < estimate.high


def test_the_macro_mean_weighs_classes_not_rows():
    values = np.array([1.0, 1.0, 1.0, 0.0])
    member = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]], bool)
    assert mean_interval(values, np.arange(4), member=member).value == 0.5


def test_any_statistic_agrees_with_the_mean():
    values, codes = np.random.default_rng(3).random(60), np.repeat(np.arange(20), 3)
    by_rows = intervals(lambda rows: {"mean": float(values[rows].mean())}, codes, resamples=500)["mean"]
    by_sums = mean_interval(values, codes, resamples=500)
    assert (by_rows.value, by_rows.low, by_rows.high) == pytest.approx((by_sums.value, by_sums.low, by_sums.high))


def test_undefined_values_are_left_out_and_one_group_has_no_interval():
    estimate = mean_interval(np.array([np.nan, 0.5, 0.7]), np.array([0, 1, 1]))
    assert (estimate.value, estimate.n, estimate.groups) == (pytest.approx(0.6), 2, 1)
    assert np.isnan(estimate.low)
    assert f"{estimate:.2f}" == "0.60"
    assert estimate.to_json() == {"value": estimate.value, "low": None, "high": None, "n": 2, "groups": 1}
    assert np.isnan(mean_interval(np.array([np.nan]), np.array([0])).value)


def test_no_resamples_is_an_error():
    with pytest.raises(UsageError, match="got: 0"):
        mean_interval(np.ones(3), np.arange(3), resamples=0)
