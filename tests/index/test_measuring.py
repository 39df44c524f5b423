"""Questions in the place of new pictures: no rows, and as far from the index as its patients are from each other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retr.index.encoder import EncoderInfo
from retr.index.measuring import row_questions, unseen_questions
from retr.index.store import Store


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("group", ["patient", None])
def test_unseen_questions_are_no_rows_and_lie_as_patients_do(tmp_path, similarity, group):
    """Of each patient there are four pictures, all but the same."""
    rng = np.random.default_rng(0)
    patients = rng.standard_normal((300, 8)) @ rng.standard_normal((8, 24))
    vectors = np.repeat(patients, 4, axis=0) + 0.001 * rng.standard_normal((1200, 24))
    info = EncoderInfo("fake", 24, similarity, "none", text=False, weights_sha256="0", preprocessing="none")
    store = Store.create(tmp_path / "index", encoder=info)
    with store.writer() as writer:
        ids = [f"{row:04d}" for row in range(1200)]
        writer.append(pa.table({"id": ids, "patient": [f"p{row // 4}" for row in range(1200)]}), vectors)
        if group:
            writer.set_group(group)
        writer.commit()
        writer.delete(np.arange(100))
        store = writer.commit()
    rows = row_questions(store)
    unseen = unseen_questions(store, rows)
    assert unseen.vectors.shape == rows.vectors.shape
    assert unseen.vectors.dtype == np.float32
    stored = np.asarray(store.vectors(store.live_rows()), np.float64)
    apart = np.sqrt(np.square(unseen.vectors[:, None] - stored).sum(axis=2).min(axis=1))
    between = np.sqrt(np.square(rows.vectors[:, None] - stored[::4]).sum(axis=2))
    between = np.where(between < 0.1 * np.median(between), np.inf, between).min(axis=1)
    # new pictures are not as near as a patient's other pictures, nor farther than other patients
    assert 0.2 * np.median(between) < np.median(apart) < 3 * np.median(between)
    if similarity == "cosine":
        np.testing.assert_allclose(np.linalg.norm(unseen.vectors, axis=1), 1, rtol=1e-5)
    for query, kth, exclude in zip(unseen.vectors[:20], unseen.kth, unseen.exclude, strict=False):
        scores = np.asarray(store.vectors(), np.float64) @ query
        scores[:100] = scores[exclude] = -np.inf
        assert np.sort(scores)[-10] == pytest.approx(kth, abs=1e-4)
