from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retr.retrieval.encoders.sample_picture import picture
from retr.retrieval.encoders.verify import fingerprint, verify


class Recorded:
    """An encoder that answers with a given vector."""

    def __init__(self, info, vector):
        self.info, self.vector = info, vector

    def encode_images(self, items):
        return np.stack([self.vector for _ in items])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch, lite):
    monkeypatch.setenv("RETR_CACHE_DIR", str(tmp_path))


def test_the_picture_is_the_same_everywhere():
    import hashlib

    assert picture().size == (512, 512)
    assert hashlib.sha256(picture().tobytes()).hexdigest()[:16] == "f3c02565ed98e1b5"


def test_lite_matches_the_shipped_record(lite):
    found = verify(lite)
    assert found.outcome == "matches"
    assert found.record == "shipped"
    assert found.difference < 1e-4


def test_other_vectors_under_the_shipped_identity_differ(lite):
    vector = lite.encode_images([picture()])[0]
    assert verify(Recorded(lite.info, vector[::-1].copy())).outcome == "differs"
    assert verify(Recorded(lite.info, vector * 1.1)).outcome == "differs"


def test_without_a_record_one_is_made_and_then_compared_with(lite):
    info = replace(lite.info, weights_sha256="0" * 64)
    vector = lite.encode_images([picture()])[0]
    assert verify(Recorded(info, vector)).outcome == "recorded"
    assert verify(Recorded(info, vector + 1e-5)).outcome == "matches"
    again = verify(Recorded(info, vector[::-1].copy()))
    assert (again.outcome, again.record) == ("differs", "this machine")


def test_a_fingerprint_sees_a_permutation_and_a_sign():
    rng = np.random.default_rng(0)
    vector = rng.standard_normal(64).astype(np.float32)
    whole = fingerprint(vector)
    assert whole.distance(fingerprint(vector)) == 0
    swapped = vector[[1, 0, *range(2, 64)]]
    assert whole.distance(fingerprint(swapped)) > 0.01
    assert whole.distance(fingerprint(-vector)) > 0.5
    assert fingerprint(np.zeros(4, dtype=np.float32)).length == 0
