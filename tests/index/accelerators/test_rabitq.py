"""Lists of one bit a dimension: estimates as faiss defines them, and rows as exact search finds them."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.accelerators import faiss_index, lists, rabitq
from retr.index.accelerators.config import HNSW, IVF
from retr.index.accelerators.rotation import Rotation, _signs
from retr.index.disk.lists_file import LANES
from retr.index.errors import IndexCorruptError
from retr.index.vectors import unit

ALL = IVF(lists=8, probes=8, refine=1000)


def some(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """Draw unit vectors around 6 centres that spread in 12 directions, and a little in all others."""
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    centres, directions = fixed.standard_normal((6, dim)), fixed.standard_normal((12, dim)) / 4
    near = rng.standard_normal((n, 12)) @ directions + 0.1 * rng.standard_normal((n, dim))
    return unit(centres[rng.integers(0, 6, n)] + near)


@pytest.fixture
def make(tmp_path):
    def make(vectors: np.ndarray, config: IVF = ALL):
        faiss_index.train(vectors, config, tmp_path / "lists.faiss", budget=1 << 28)
        return faiss_index.load(memoryview((tmp_path / "lists.faiss").read_bytes()), vectors)

    return make


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("dim", [1, 7, 24, 64, 100, 192, 512])
def test_all_lists_and_enough_refinement_find_what_exact_search_finds(make, dim, dtype):
    vectors = some(700, dim).astype(dtype)
    queries = some(9, dim, seed=1)
    found = make(vectors).search(queries, 5, ALL)
    products = queries.astype(np.float64) @ vectors.astype(np.float64).T
    best = np.sort(products, axis=1)[:, :-6:-1]
    np.testing.assert_array_equal(found.scores, best.astype(np.float32))
    np.testing.assert_array_equal(np.take_along_axis(products, found.rows, axis=1).astype(np.float32), found.scores)


@pytest.mark.parametrize("dim", [24, 100, 512])
def test_estimates_are_those_of_faiss_up_to_the_rounding_of_the_query(make, tmp_path, dim):
    vectors, query = some(1500, dim), some(1, dim, seed=1)
    accelerator = make(vectors, IVF(lists=16))
    index = faiss.read_index(str(tmp_path / "lists.faiss"))
    probed = faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=16))
    scores, rows = index.search(query, 1500, params=probed)
    theirs = np.empty(1500, np.float32)
    theirs[rows[0]] = scores[0]
    ours = np.empty(1500, np.float32)
    rotated = accelerator._rotation(query)[0]
    planes = np.empty((-(-dim // 64), lists._PLANES), np.uint64)
    lowest, step, total = lists._planes(rotated, planes, np.zeros(64 * len(planes), np.uint8))
    held = accelerator.lists
    facts, rows = (held.codes, held.factor, held.shift, held.ones), held.rows
    for centroid, start, size in zip(held.centroids, held.starts, held.sizes, strict=True):
        estimates = np.empty(size + LANES, np.float32)
        lists._estimate(planes, lowest, step, total, centroid @ rotated, start, size, *facts, estimates, 0)
        ours[rows[start : start + size]] = estimates[:size]
    lost = np.std(theirs - vectors @ query[0])
    assert np.std(ours - theirs) < 0.25 * lost
    assert abs(np.mean(ours - theirs)) < 0.25 * lost


def test_one_bit_a_dimension_keeps_the_best_among_the_refined(make):
    vectors, queries = some(5000, 256), some(100, 256, seed=1)
    exact = np.argsort(-queries @ vectors.T, axis=1)[:, :10]
    accelerator = make(vectors, IVF(lists=32))
    recalls = []
    for probes, refine in [(2, 1), (32, 1), (32, 4), (32, 16)]:
        rows = accelerator.search(queries, 10, IVF(probes=probes, refine=refine)).rows
        recalls.append(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact, strict=True)]))
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.9
    assert recalls[-1] > 0.97


def test_a_query_gets_the_same_answer_alone_in_a_batch_and_from_threads(make, monkeypatch):
    vectors, queries = some(3000, 96), some(40, 96, seed=1)
    config = IVF(probes=3, refine=2)
    monkeypatch.setattr(faiss_index, "threads", lambda: 3)
    together = make(vectors, IVF(lists=20)).search(queries, 10, config)
    monkeypatch.setattr(faiss_index, "threads", lambda: 1)
    one_thread = make(vectors, IVF(lists=20))
    for number in range(40):
        alone = one_thread.search(queries[number : number + 1], 10, config)
        np.testing.assert_array_equal(alone.rows[0], together.rows[number])
        np.testing.assert_array_equal(alone.scores[0], together.scores[number])


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1), k=st.integers(1, 60), seed=st.integers(0, 9))
def test_only_allowed_rows_are_found_and_all_of_them_if_need_be(allowing, share, k, seed):
    accelerator, vectors = allowing
    allowed = np.random.default_rng(seed).random(len(vectors)) < share
    found = accelerator.best_first(some(3, 40, seed=seed), k, reach=0.3, allowed=allowed)
    assert ((found.rows >= 0).sum(axis=1) == min(k, np.count_nonzero(allowed))).all()
    assert allowed[found.rows[found.rows >= 0]].all()
    assert np.isneginf(found.scores[found.rows < 0]).all()
    for rows in found.rows:
        assert len(set(rows[rows >= 0].tolist())) == np.count_nonzero(rows >= 0)


@pytest.fixture(scope="module")
def allowing(tmp_path_factory):
    path = tmp_path_factory.mktemp("lists") / "lists.faiss"
    vectors = some(900, 40).astype(np.float16)
    faiss_index.train(vectors, ALL, path, budget=1 << 28)
    return faiss_index.load(memoryview(path.read_bytes()), vectors), vectors


def test_equal_rows_far_outliers_and_an_empty_query_are_nothing_special(make):
    vectors = some(1000, 64)
    vectors[100:900] = vectors[0]
    accelerator = make(vectors)
    for query in (vectors[:1], vectors[950:951], -vectors[:1], np.zeros((1, 64), np.float32)):
        found = accelerator.search(np.ascontiguousarray(query), 10, IVF(probes=8, refine=4))
        assert len(set(found.rows[0].tolist())) == 10
        np.testing.assert_array_equal(found.scores[0], (vectors[found.rows[0]].astype(float) @ query[0]).astype("f4"))
    assert accelerator.search(vectors[950:951], 1, IVF(probes=1, refine=1)).rows[0, 0] == 950


def test_the_codes_of_centroids_say_which_are_worth_comparing():
    """Also where all lie to one side, and some farther out than others."""
    rng = np.random.default_rng(0)
    centroids = (rng.standard_normal((300, 128)) * rng.uniform(0.5, 2, (300, 1)) + 0.7).astype(np.float32)
    queries = (rng.standard_normal((50, 128)) + 0.7).astype(np.float32)
    near, offers = np.empty((50, 5), np.int64), np.empty((50, 5), np.float32)
    planes, estimates = np.empty((2, lists._PLANES), np.uint64), np.empty(300 + LANES, np.float32)
    work = centroids, rabitq._coded(centroids, centroids.mean(axis=0)), estimates, np.empty(33, np.int64)
    for query, mine, offered in zip(queries, near, offers, strict=True):
        lowest, step, total = lists._planes(query, planes, np.zeros(64 * len(planes), np.uint8))
        lists._nearest(query, planes, lowest, step, total, *work, np.empty(33, np.float32), mine, offered)
    products = queries @ centroids.T
    np.testing.assert_allclose(offers, np.take_along_axis(products, near, axis=1), rtol=1e-4)
    best = np.sort(products, axis=1)[:, :-6:-1]
    assert np.mean(offers >= best * (1 - 1e-4)) > 0.8


def test_a_better_row_is_not_lost_behind_equal_ones():
    values, picked = np.full(1000, 0.5, np.float32), np.empty(12, np.int64)
    values[[3, 990]] = 0.25, 0.5001
    assert lists._largest(values, 1000, 9, picked) == 12
    assert 990 in picked
    assert 3 not in picked


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=300), want=st.integers(1, 40))
def test_the_largest_are_picked(values, want):
    array, picked = np.array(values, np.float32), np.full(want + 4, -1, np.int64)
    m = lists._largest(array, len(array), want, picked)
    assert min(want, len(values)) <= m <= want + 4
    assert (np.diff(picked[:m]) > 0).all()
    kept = np.sort(array[picked[:m]])[::-1]
    np.testing.assert_allclose(kept[:want], np.sort(array)[::-1][:want], atol=1e-5)


def test_lists_that_name_other_rows_are_refused(tmp_path):
    vectors = some(500, 64)
    faiss_index.train(vectors, ALL, tmp_path / "lists.faiss", budget=1 << 28)
    index = faiss.read_index(str(tmp_path / "lists.faiss"))
    lists = faiss.downcast_index(index.index).invlists
    full = next(number for number in range(8) if lists.list_size(number))
    ids = faiss.rev_swig_ptr(lists.get_ids(full), lists.list_size(full))
    for wrong in (-1, 500):
        ids[0] = wrong
        with pytest.raises(IndexCorruptError, match="an accelerator cannot be read"):
            faiss_index.load(memoryview(faiss.serialize_index(index)), vectors)


def test_lengths_that_differ_are_kept_apart(make):
    """An index of products instead of cosines."""
    vectors = some(2000, 128) * np.random.default_rng(0).uniform(0.2, 5, (2000, 1)).astype(np.float32)
    queries = some(30, 128, seed=1)
    found = make(vectors).search(queries, 10, IVF(probes=8, refine=10)).rows
    exact = np.argsort(-queries @ vectors.T, axis=1)[:, :10]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)]) > 0.97


@pytest.mark.parametrize("dim", [24, 64, 192, 512, 1280])
def test_a_rotation_keeps_lengths_and_spreads_a_single_dimension(dim):
    rotation = Rotation(dim)
    matrix = rotation.matrix
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(dim), atol=1e-5)
    vectors = np.random.default_rng(0).standard_normal((5, dim)).astype(np.float32)
    np.testing.assert_allclose(rotation(vectors), vectors @ matrix.T, atol=1e-4)
    assert np.abs(matrix).max() < 6 / np.sqrt(dim)
    np.testing.assert_array_equal(Rotation(dim)(vectors[3:4])[0], rotation(vectors)[3])


@pytest.mark.parametrize(
    ("dim", "first"), [(64, [-0.125, -0.125]), (192, [-0.03125, -0.0625]), (24, [-0.239885, 0.206947])]
)
def test_a_rotation_is_the_same_in_every_version(dim, first):
    """Files hold codes of vectors rotated by it."""
    np.testing.assert_allclose(Rotation(dim).matrix[0, :2], first, atol=1e-6)


def test_a_file_of_another_rotation_is_refused(tmp_path):
    vectors = some(500, 64)
    index = faiss.index_factory(64, "RR64,IVF8,RaBitQ", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    data = memoryview(faiss.serialize_index(index))
    with pytest.raises(IndexCorruptError, match=r"older kind.*retr index tune"):
        faiss_index.load(data, vectors)


def test_a_setting_of_another_kind_is_refused(make):
    with pytest.raises(TypeError, match="HNSW"):
        make(some(500, 64)).search(some(1, 64), 5, HNSW())


@pytest.mark.parametrize("dim", [64, 384, 512, 1280])
def test_the_signs_of_a_rotation_are_those_that_numpy_draws(dim):
    """Accelerators on disk were rotated by them."""
    drawn = np.random.RandomState(dim).randint(0, 2, 2 * dim)
    np.testing.assert_array_equal(_signs(dim, 2 * dim), 2 * drawn - 1)
