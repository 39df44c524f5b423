"""Questions without conditions go a shorter way, with the same answers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from retr.index import plan
from retr.index.accelerators.approximate import Bound
from retr.index.accelerators.config import IVF
from retr.index.encoder import EncoderInfo
from retr.index.errors import UsageError
from retr.index.store import Store
from retr.index.tune import tune


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_what_is_asked_most_is_answered_as_everything_is(tmp_path, similarity, monkeypatch):
    """Also where rows tie, and where too few are found."""
    monkeypatch.setattr("retr.index.accelerators.faiss_index.MIN_ROWS", 100)
    monkeypatch.setattr("retr.index.tune.MIN_ROWS", 100)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((800, 24)).astype(np.float32)
    vectors[100:160] = vectors[100]
    info = EncoderInfo("fake", 24, similarity, "none", text=False, weights_sha256="0", preprocessing="none")
    with Store.create(tmp_path / "index", encoder=info).writer() as writer:
        writer.append(pa.table({"id": [f"{row:03d}" for row in rng.permutation(800)]}), vectors)
        writer.commit()
        tune(writer, recall=0.5, kinds=[IVF(lists=32)])
        store = writer.store
    store.plan.config = IVF(probes=2, refine=2)
    store.plan.promises = replace(store.plan.promises, bound=Bound(math.inf))
    queries = np.concatenate([vectors[95:105], -vectors[:5], rng.standard_normal((30, 24)).astype(np.float32)])
    for k in (1, 3, 10, 11):
        for some in (queries, queries[:1], queries[7:8]):
            found = store.search(some, k), store.search(some, k, exclude=[np.empty(0, np.int64)] * len(some))
            with monkeypatch.context() as patch:
                patch.setattr(plan, "_shortly", lambda *_: None)
                truth = store.search(some, k)
            for one in found:
                np.testing.assert_array_equal(one.rows, truth.rows)
                np.testing.assert_array_equal(one.scores, truth.scores)
                assert (one.exact, one.note) == (truth.exact, truth.note)
    with pytest.raises(UsageError, match="one entry for each"):
        store.search(queries, 3, exclude=[])
