"""The simulation behind the claim on sets: its exact coverage against images drawn, and what it refuses."""

import numpy as np
import pytest

from retr.benchmarks import conformal

ARCHIVE = conformal.Archive(12, (1, 50), (0.7, 0.3), 0.5)


def test_the_coverage_of_a_threshold_is_that_of_drawn_patients():
    rng = np.random.default_rng(0)
    many = conformal.Archive(20_000, (1, 5), (0.7, 0.3), 0.5)
    own, groups = many.draw(rng)
    for threshold in (0.3, 0.6):
        drawn = np.mean(np.bincount(groups, own >= threshold) / np.bincount(groups))
        assert many.coverage(threshold) == pytest.approx(drawn, abs=0.015)
    assert many.coverage(0.0) == 1


def test_counting_patients_keeps_the_promise_and_counting_images_does_not():
    found = conformal.fixed(np.random.default_rng(1), ARCHIVE, 0.2, 300)
    coverage, error = found["counting patients"]
    assert 0.8 - 3 * error <= coverage <= 0.8 + 2 / 13 + 3 * error
    assert found["counting images"][0] < 0.7
    few = conformal.Archive(8, (1,), (1.0,))
    assert conformal.fixed(np.random.default_rng(1), few, 0.1, 3)["counting patients"] == "refused"


def test_learned_scores_are_asked_with_new_patients():
    found = conformal.learned(np.random.default_rng(2), 15, 0.2, 1)
    for way in ("probe", "neighbours"):
        assert 0.5 < found[way]["new patients"][0] <= 1
        assert 0.5 < found[way]["stated"][0] <= 1
