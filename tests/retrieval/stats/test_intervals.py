"""Intervals: by patient, as wide as theory says, and holding the truth where few patients make it hard."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from retr.retrieval.stats.intervals import FEWEST, MOST_BLOCKS, group_codes, jackknife_intervals, mean_interval


def test_a_row_without_a_group_is_its_own_group():
    assert group_codes(["a", None, "a", None], 4).tolist() == [0, 1, 0, 2]
    assert group_codes(None, 3).tolist() == [0, 1, 2]


def test_rows_of_one_patient_count_once():
    """Every row repeated nine times within its patient: the interval must not shrink."""
    values = np.random.default_rng(1).random(40)
    once = mean_interval(values, np.arange(40))
    repeated = mean_interval(np.repeat(values, 9), np.repeat(np.arange(40), 9))
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), abs=0.003)
    assert (repeated.n, repeated.groups) == (360, 40)
    alone = mean_interval(np.repeat(values, 9), np.arange(360))
    assert alone.high - alone.low < 0.5 * (once.high - once.low)


def test_many_patients_have_the_width_of_the_mean_of_a_normal_sample():
    values = np.clip(np.random.default_rng(2).normal(0.5, 0.1, size=1000), 0, 1)
    estimate = mean_interval(values, np.arange(1000))
    by_t = stats.t.interval(0.95, 999, values.mean(), values.std(ddof=1) / np.sqrt(1000))
    assert (estimate.low, estimate.high) == pytest.approx(by_t, abs=0.001)


def test_the_macro_mean_weighs_classes_not_rows():
    values = np.array([1.0, 1.0, 1.0, 0.0])
    member = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]], bool)
    assert mean_interval(values, np.arange(4), member=member).value == 0.5


def by_rows(values, codes, member=None):
    """Return the interval of the mean, found by computing it anew without each patient."""

    def mean(rows):
        if member is None:
            return {"mean": float(values[rows].mean())}
        with np.errstate(invalid="ignore"):
            return {"mean": float(np.nanmean((values[rows] @ member[rows]) / member[rows].sum(axis=0)))}

    return jackknife_intervals(mean, codes, member=None if member is None else {"mean": member})["mean"]


@pytest.mark.parametrize("macro", [False, True])
def test_a_mean_is_jackknifed_by_its_sums_as_by_its_rows(macro):
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 25, 90)
    values = (rng.random(90) < rng.random(25)[codes]).astype(float)
    member = np.eye(3, dtype=bool)[rng.integers(0, 3, 25)[codes]] if macro else None
    one, other = mean_interval(values, codes, member=member), by_rows(values, codes, member)
    assert one.value == pytest.approx(other.value)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.01 if macro else 1e-9)


def test_very_many_patients_are_left_out_in_blocks():
    rng = np.random.default_rng(4)
    codes = np.repeat(np.arange(5 * MOST_BLOCKS), 2)
    values = (rng.random(len(codes)) < rng.beta(2, 2, 5 * MOST_BLOCKS)[codes]).astype(float)
    one, other = mean_interval(values, codes), by_rows(values, codes)
    assert other.high - other.low == pytest.approx(one.high - one.low, rel=0.15)


def test_undefined_values_are_left_out_and_few_groups_have_no_interval():
    estimate = mean_interval(np.array([np.nan, 0.5, 0.7]), np.array([0, 1, 1]))
    assert (estimate.value, estimate.n, estimate.groups) == (pytest.approx(0.6), 2, 1)
    assert np.isnan(estimate.low)
    assert f"{estimate:.2f}" == "0.60"
    assert estimate.to_json() == {"value": estimate.value, "low": None, "high": None, "n": 2, "groups": 1}
    assert np.isnan(mean_interval(np.array([np.nan]), np.array([0])).value)
    assert np.isnan(mean_interval(np.ones(8), np.arange(8) % (FEWEST - 1)).low)
    assert not np.isnan(mean_interval(np.ones(8), np.arange(8) % FEWEST).low)
    for groups in (1, FEWEST - 1):
        assert np.isnan(by_rows(np.arange(8) / 8, np.arange(8) % groups).low)


def test_what_rests_on_one_patient_has_no_interval():
    """Without it there is nothing to measure: the spread over patients is not known."""
    values, codes = np.array([1.0, 0.0, 0.0, 0.0, 0.0]), np.arange(5)

    def first(rows):
        return {"first": float(values[rows].max()) if 0 in rows else float("nan")}

    assert np.isnan(jackknife_intervals(first, codes)["first"].low)
    of_none = {"mean": np.zeros((5, 2), bool)}
    assert np.isnan(jackknife_intervals(lambda rows: {"mean": values[rows].mean()}, codes, member=of_none)["mean"].low)


@pytest.mark.parametrize("n", [5, 10, 30, 200])
@pytest.mark.parametrize("rows", [1, 3])
def test_where_patients_are_trials_the_truth_is_held_in_93_of_100(n, rows):
    """Also of many rows a patient: patients, not rows, are what was drawn. No simulation: the binomial distribution."""
    codes = np.repeat(np.arange(n), rows)
    found = [mean_interval((codes < right).astype(float), codes) for right in range(n + 1)]
    low, high = np.array([(one.low, one.high) for one in found]).T
    for mean in np.linspace(0.02, 0.98, 49):
        held = stats.binom.pmf(np.arange(n + 1), n, mean)[(low <= mean) & (mean <= high)].sum()
        assert held >= 0.93
        assert held < 0.98 or n < 200
    for right, one in enumerate(found):
        wilson = stats.binomtest(right, n).proportion_ci(0.95, "wilson")
        assert (one.low, one.high) == pytest.approx((wilson.low, wilson.high), abs=2.5 / n)


@pytest.mark.parametrize("groups", [40, 600])
def test_what_cannot_reach_1_is_as_sure_as_what_can(groups):
    """One neighbour is at most one of hundreds of relevant rows: a patient that was not met would find no more."""
    rng = np.random.default_rng(5)
    codes = np.repeat(np.arange(groups), 2)
    relevant = rng.choice([150, 200, 400], len(codes))
    hits = rng.random(len(codes)) < 0.5
    values = hits / relevant
    found = mean_interval(values, codes, highest=1 / relevant)
    sums = np.bincount(codes, values) / 2
    low, high = stats.t.interval(0.95, groups - 1, sums.mean(), stats.sem(sums))
    assert found.high - found.low == pytest.approx(high - low, rel=0.15)
    assert found.low <= found.value <= found.high < (1 / relevant).mean()
    all_found = mean_interval(1 / relevant, codes, highest=1 / relevant)
    assert all_found.high == pytest.approx(all_found.value)
    assert all_found.low < all_found.value
    none = mean_interval(np.zeros(len(codes)), codes, highest=1 / relevant)
    assert 0 == none.low == none.value < none.high < 0.01


def test_a_scale_changes_nothing_but_the_scale():
    rng = np.random.default_rng(6)
    values, codes, member = rng.random(60), rng.integers(0, 20, 60), np.eye(3, dtype=bool)[rng.integers(0, 3, 60)]
    for classes in (None, member):
        one = mean_interval(values, codes, member=classes)
        other = mean_interval(values / 500, codes, member=classes, highest=np.full(60, 1 / 500))
        limits = 500 * other.value, 500 * other.low, 500 * other.high
        assert limits == pytest.approx((one.value, one.low, one.high))


def test_where_nothing_can_be_found_there_is_no_interval():
    found = mean_interval(np.zeros(9), np.arange(9), highest=np.zeros(9))
    assert found.value == 0
    assert np.isnan(found.low)


@pytest.mark.parametrize("n", [5, 20, 300])
def test_where_all_are_right_patients_that_were_not_met_are_allowed_for(n):
    """With unequal numbers of pictures, too: never surer than the rule of three is of patients of equal weight."""
    codes = np.repeat(np.arange(n), 1 + np.arange(n) % 2)
    found = mean_interval(np.ones(len(codes)), codes)
    assert found.high == 1
    assert found.low < 1 - 2.5 / n
    assert found.low > 1 - 6.5 / n


@given(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from([0.0, 0.2, 0.5, 1.0])), min_size=1, max_size=40),
    st.integers(0, 2**16),
)
def test_intervals_are_sane_whatever_comes(rows, seed):
    codes, values = (np.array(part) for part in zip(*rows, strict=True))
    values, codes = values.astype(float), codes.astype(np.int64)
    one = mean_interval(values, codes)
    if one.groups < FEWEST:
        assert np.isnan(one.low)
        assert np.isnan(one.high)
        return
    assert 0 <= one.low <= one.value <= one.high <= 1
    order = np.random.default_rng(seed).permutation(len(values))
    shuffled = mean_interval(values[order], 7 + 3 * codes[order])
    assert (shuffled.low, shuffled.high) == pytest.approx((one.low, one.high))
    wrong = mean_interval(1 - values, codes)
    assert (1 - wrong.high, 1 - wrong.low) == pytest.approx((one.low, one.high))
    most = np.random.default_rng(seed).choice([0.01, 0.5, 1.0], len(values))
    small = mean_interval(values * most, codes, highest=most)
    assert 0 <= small.low <= small.value <= small.high <= most.mean() * (1 + 1e-12)


def patients(rng, groups, sizes, mean, together):
    """Draw right and wrong answers of patients whose own rates differ (beta, intra-patient correlation)."""
    counts = np.exp(rng.uniform(0, np.log(sizes[1] + 1), groups)).astype(int) if sizes[0] < sizes[1] else sizes[0]
    a, b = mean * (1 - together) / together, (1 - mean) * (1 - together) / together
    codes = np.repeat(np.arange(groups), counts)
    return (rng.random(len(codes)) < rng.beta(a, b, groups)[codes]).astype(float), codes


def percentile(values, codes, seed):
    """Return the interval of the percentile bootstrap over patients."""
    groups = codes.max() + 1
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=200)
    means = (drawn @ np.bincount(codes, values)) / (drawn @ np.bincount(codes))
    return np.quantile(means, [0.025, 0.975])


@pytest.mark.parametrize(
    ("groups", "sizes", "mean", "together", "before"),
    [
        (3, (20, 20), 0.7, 0.3, 0.85),
        (15, (1, 1), 0.9, 1e-9, 0.85),
        (20, (1, 1), 0.95, 1e-9, 0.70),
        (10, (200, 200), 0.98, 0.3, 0.80),
        (30, (1, 200), 0.9, 0.9, 0.85),
    ],
)
def test_shares_hold_the_truth_where_the_percentile_bootstrap_does_not(groups, sizes, mean, together, before):
    rng = np.random.default_rng(groups)
    held, plain = 0, 0
    for number in range(300):
        values, codes = patients(rng, groups, sizes, mean, together)
        found, (low, high) = mean_interval(values, codes), percentile(values, codes, number)
        held += found.low <= mean <= found.high
        plain += low <= mean <= high
    assert held >= 0.93 * 300
    assert plain < before * 300


@pytest.mark.parametrize(("groups", "rare"), [(12, 0.5), (60, 0.06)])
def test_areas_under_the_curve_hold_the_truth(groups, rare):
    """Scores of two normal classes one deviation apart: AUROC 0.7602. Two pictures a patient, effects of patients."""
    rng = np.random.default_rng(8)
    held = drawn = 0
    for _ in range(80):
        codes = np.repeat(np.arange(groups), 2)
        truth = (rng.random(groups) < rare)[codes]
        scores = truth + np.sqrt(0.6) * rng.normal(size=groups)[codes] + np.sqrt(0.4) * rng.normal(size=len(codes))

        def area(rows, truth=truth, scores=scores):
            positive, ranks = truth[rows], stats.rankdata(scores[rows])
            p, n = positive.sum(), (~positive).sum()
            return {"auroc": float((ranks[positive].sum() - p * (p + 1) / 2) / (p * n)) if p and n else np.nan}

        both = {"auroc": np.stack([truth, ~truth], axis=1)}
        found = jackknife_intervals(area, codes, member=both)["auroc"]
        if not np.isnan(found.low):
            drawn += 1
            held += found.low <= stats.norm.cdf(np.sqrt(0.5)) <= found.high
    assert drawn > 50
    assert held >= 0.93 * drawn
