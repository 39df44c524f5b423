from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.errors import UsageError
from retr.index.vectors import unit
from retr.retrieval.transforms.whitening import Whitening, fit


def features(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Unit vectors far from the origin whose directions differ in variance, as a network's do."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)) * np.geomspace(1, 0.01, d) @ np.linalg.qr(rng.normal(size=(d, d)))[0] + 0.3
    return unit(rows).astype(np.float16)


def plainly(rows: np.ndarray, asked: np.ndarray, dim: int, power: float, floor: float) -> np.ndarray:
    """The formula, as it is written down in a textbook."""
    rows, asked = rows.astype(np.float64), asked.astype(np.float64)
    spread, axes = np.linalg.eigh(np.cov(rows.T, bias=True))
    spread, axes = spread[::-1][:dim], axes[:, ::-1][:, :dim]
    return unit((asked - rows.mean(0)) @ axes / (spread + floor * spread[0]) ** (power / 2))


@pytest.mark.parametrize("n", [200, 30], ids=["more rows than numbers", "fewer"])
@pytest.mark.parametrize(("power", "floor"), [(0, 1e-3), (0.5, 1e-3), (0.75, 1e-2), (1, 1e-3)])
def test_it_is_the_textbooks(n, power, floor):
    rows, others = features(n, 48), features(20, 48, seed=1)
    found = fit(rows, dim=16, power=power, floor=floor)
    expected = plainly(rows, others, 16, power, floor)
    np.testing.assert_allclose(found(others) @ found(others).T, expected @ expected.T, atol=2e-4)


def test_full_power_makes_the_variances_equal_and_none_keeps_them():
    rows = features(300, 24)
    for power, ratio in ((1.0, 1.0), (0.0, None)):
        found = fit(rows, dim=8, power=power, floor=0)
        placed = (rows.astype(np.float64) - found.mean) @ found.weights
        spread = placed.var(axis=0)
        assert (np.diff(spread) <= 1e-6 * spread[0]).all()
        if ratio:
            np.testing.assert_allclose(spread, spread[0], rtol=1e-3)


@given(st.integers(1, 70), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_vector_has_the_same_bits_alone_and_in_any_batch_and_order(n, seed):
    found = fit(features(90, 64), dim=40)
    asked = features(n, 64, seed)
    together = found(asked)
    assert together.dtype == np.float32
    np.testing.assert_array_equal(np.concatenate([found(row[None]) for row in asked]), together)
    order = np.random.default_rng(seed).permutation(n)
    np.testing.assert_array_equal(found(asked[order]), together[order])
    np.testing.assert_array_equal(found(np.asfortranarray(asked)), together)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_the_numbers_depend_neither_on_the_order_of_rows_nor_on_the_threads():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_whitening import features;"
        "from retr.retrieval.transforms.whitening import fit;"
        "f = fit(features(900, 200), dim=64); print(f.sha256, f(features(9, 200, 1)).tobytes().hex()[:99])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "5")
    }
    assert len(said) == 1
    rows = features(900, 200)
    shuffled = rows[np.random.default_rng(3).permutation(900)]
    assert fit(rows, dim=64).sha256 == fit(shuffled, dim=64).sha256


def test_every_sum_is_exact():
    """What the bits of a batch rest on: an integer computation gives the same sums."""
    found = fit(features(400, 96), dim=30, power=1)
    rows = features(5, 96, 7)
    whole = [[int(v * 2**24) for v in row] for row in rows.astype(np.float64)]
    weights = [[int(v * 2**26) for v in row] for row in found.weights]
    assert (np.square(found.weights).sum(0) <= 1).all()
    products = rows.astype(np.float64) @ found.weights
    middle = [int(v * 2**24) for v in found.mean]
    assert (found.mean * 2**24 == middle).all()
    for i, row in enumerate(whole):
        for j in range(found.dim):
            exact = sum(a * b[j] for a, b in zip(row, weights, strict=True))
            assert exact == int(products[i, j] * 2**50)


@pytest.mark.parametrize(("n", "d", "dim", "expected"), [(100, 32, 256, 31), (10, 32, 256, 9), (100, 32, 5, 5)])
def test_no_more_directions_than_rows_can_tell_and_always_fewer_than_numbers(n, d, dim, expected):
    assert fit(features(n, d), dim=dim).dim == expected


def test_repeated_rows_are_no_directions_of_their_own():
    assert fit(np.repeat(features(5, 32), 9, axis=0), dim=20).dim == 4
    assert fit(np.repeat(features(4, 32), 3, axis=0), dim=20).dim == 3


def test_a_row_in_the_middle_stays_zero_and_no_rows_give_none():
    found = Whitening(np.array([0.5, 0.0]), np.array([[1.0], [0.0]]))
    assert found(np.array([[0.5, 0.25]], np.float16)).tolist() == [[0.0]]
    assert found(np.empty((0, 2), np.float16)).shape == (0, 1)


def test_equal_rows_are_refused():
    for n in (1, 40):
        with pytest.raises(UsageError):
            fit(np.repeat(features(1, 32), n, axis=0))
