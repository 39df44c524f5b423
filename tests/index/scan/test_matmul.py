"""Products of queries and vectors stay within their error bound."""

from __future__ import annotations

import numpy as np
import pytest

from retr.index.scan import matmul
from retr.index.types import Block


def exact_unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_fast_product_keeps_its_bound(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(matmul, "has_fast_bfloat16", lambda: True)
    rng = np.random.default_rng(12)
    for dim in (1, 7, 64, 700):
        vectors = exact_unit(rng.standard_normal((300, dim)))
        queries = exact_unit(rng.standard_normal((16, dim)))
        truth = vectors.astype(np.float64) @ queries.astype(np.float64).T
        for fast in (True, False):
            product = matmul.choose_product(16, dim, fast=fast)
            assert np.abs(product.multiply(queries, vectors) - truth).max() <= product.error


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_loop_for_a_few_queries_keeps_its_bound(monkeypatch, dtype, threads):
    monkeypatch.setattr(matmul, "threads", lambda: threads)
    monkeypatch.setattr(matmul, "_VALUES_PER_THREAD", 1000)
    rng = np.random.default_rng(12)
    for dim in (1, 7, 64, 700):
        vectors = exact_unit(rng.standard_normal((303, dim))).astype(dtype)
        for n in (1, 2, 5, 24):
            queries = exact_unit(rng.standard_normal((n, dim)))
            product = matmul.choose_product(n, dim, rows=1 << 40)
            assert product.multiply is matmul._looped
            scores = product.multiply(queries, vectors)
            assert scores.shape == (303, n)
            truth = vectors.astype(np.float64) @ queries.astype(np.float64).T
            assert np.abs(scores - truth).max() <= product.error
    assert matmul.choose_product(25, 64, rows=1 << 40).multiply is matmul._float32
    assert matmul.choose_product(1, 64, rows=100).multiply is matmul._float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_loop_over_some_rows_keeps_all_that_may_be_the_best(dtype):
    """Whatever their order, and also where many score the same; vectors are copied where they are few."""
    rng = np.random.default_rng(12)
    for dim, repeated in ((1, False), (33, False), (33, True)):
        vectors = exact_unit(rng.standard_normal((400, dim))).astype(dtype)
        if repeated:
            vectors[50:350] = vectors[50]
        query = exact_unit(rng.standard_normal((1, dim)))
        product = matmul.choose_product(1, dim, rows=1 << 40)
        assert product.best_of is matmul.best_of
        off = 2 * product.error
        for m in (0, 1, 3, 200, 400):
            rows = rng.permutation(400)[:m]
            truth = vectors[rows].astype(np.float64) @ query[0].astype(np.float64)
            for k in (1, 3, 150, 400):
                kept, wide = matmul.best_of(query[0], Block(vectors, 0), rows, k, off)
                assert kept.tolist() == [row for row in rows.tolist() if row in set(kept.tolist())]
                worst = np.sort(truth)[-k] if m >= k else -np.inf
                must, may = truth >= worst, truth >= worst - 2 * off
                assert set(rows[must]) <= set(kept.tolist()) <= set(rows[may])
                if wide is None:
                    assert len(kept) > k
                else:
                    np.testing.assert_array_equal(wide, vectors[kept].astype(np.float64))


def test_the_loop_is_loaded_once_a_process_has_read_enough(monkeypatch):
    monkeypatch.setattr(matmul, "loaded", lambda: False)
    monkeypatch.setattr(matmul, "_READ", [0])
    rows = matmul._MIN_VALUES_UNLOADED // 64 // 4
    products = [matmul.choose_product(1, 64, rows=rows).multiply for _ in range(4)]
    assert products == [matmul._float32] * 3 + [matmul._looped]
    # what is too small for it counts nothing
    monkeypatch.setattr(matmul, "_READ", [0])
    small = [matmul.choose_product(1, 64, rows=100).multiply for _ in range(10)]
    assert small == [matmul._float32] * 10
    assert matmul._READ == [0]


def test_every_finite_half_is_widened_to_the_same_number():
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    values = values[np.isfinite(values)]
    wide = matmul.widened(values[:, None], np.empty((len(values), 1), np.int32))[:, 0]
    np.testing.assert_array_equal(wide.view(np.int32), values.astype(np.float32).view(np.int32))
