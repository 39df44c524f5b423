"""The scan of an exact search drops no row that it does not say, and scores are the same however they are computed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.scan import exact, matmul
from retr.index.types import Block


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_scan_keeps_the_best_and_bounds_what_it_dropped(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    total = data.draw(st.integers(1, 3000), label="rows")
    n, want = data.draw(st.integers(1, 4), label="queries"), data.draw(st.integers(1, 40), label="want")
    vectors = rng.standard_normal((total, 3)).astype(np.float32)
    queries = rng.standard_normal((n, 3)).astype(np.float32)
    share = data.draw(st.sampled_from([None, 0.8, 0.1, 0.0]), label="share")
    allowed = None if share is None else rng.random(total) < share
    exclude = [
        np.sort(rng.choice(total, min(total, 9), replace=False)) if i % 2 else np.empty(0, np.int64) for i in range(n)
    ]
    cut = data.draw(st.integers(0, total), label="cut")
    blocks = [Block(vectors[:cut], 0), Block(vectors[cut:], cut)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_BLOCK_SCORES", data.draw(st.sampled_from([200, 10**6]), label="block"))
        patch.setattr(exact, "_BLOCK_BYTES", data.draw(st.sampled_from([1, 10**6]), label="bytes"))
        product = matmul.choose_product(n, 3, rows=data.draw(st.sampled_from([0, 1 << 27]), label="rows"), fast=False)
        few = None if share != 0.1 else np.flatnonzero(allowed)
        if few is not None and product.apart is not None:
            each = zip(queries, exclude, strict=True)
            scans = [exact._best_apart(blocks, query, few, gone, want, product.apart) for query, gone in each]
        else:
            scans = exact.scan(blocks, queries, allowed, few, exclude, want, product)
    for query, excluded, found in zip(queries, exclude, scans, strict=True):
        scores = vectors @ query
        mine = np.ones(total, bool) if allowed is None else allowed.copy()
        mine[excluded] = False
        best = np.flatnonzero(mine)[np.argsort(-scores[mine])]
        assert set(found.rows.tolist()) == set(best[:want].tolist())
        np.testing.assert_allclose(found.scores, scores[found.rows], atol=1e-5)
        dropped = best[want:]
        assert found.bound == (pytest.approx(scores[dropped[0]], abs=1e-5) if len(dropped) else -np.inf)


@pytest.mark.parametrize("n_blocks", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_scores_do_not_depend_on_the_pieces_they_are_computed_in(monkeypatch, n_blocks, dtype):
    rng = np.random.default_rng(9)
    vectors = rng.standard_normal((30, 6)).astype(dtype)
    blocks = [Block(vectors[i::1][: 30 // n_blocks], i) for i in range(0, 30, 30 // n_blocks)]
    rows = rng.integers(-1, 30, (5, 11))
    for values in (10**6, 60, 20, 1):
        # others each time: what was not written must not be right by chance
        queries = rng.standard_normal((5, 6)).astype(np.float32)
        truth = (vectors.astype(np.float64)[rows] * queries[:, None]).sum(axis=2)
        truth[rows < 0] = -np.inf
        monkeypatch.setattr(exact, "_RESCORE_VALUES", values)
        scores = exact.rescore(blocks, queries, rows, cosine=False)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, truth, rtol=1e-6)
