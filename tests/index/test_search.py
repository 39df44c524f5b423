"""Exact search against a brute-force oracle, over whatever makes top-k wrong: ties, duplicates, groups, filters."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.encoder import EncoderInfo
from retr.index.errors import FilterError, UsageError
from retr.index.scan import exact, matmul
from retr.index.store import Store

# Every commit flushes to the disk; in memory that costs nothing.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def oracle(store, query, k, allowed, excluded, same, one_per, min_score):
    """Score every row in float64, round to float32, and do by hand what is asked."""
    table = store.table(rows=np.arange(store.n_total)).to_pylist()
    ranked = []
    vectors = store.vectors().astype(np.float64)
    query = query.astype(np.float64)
    if store.manifest.encoder.similarity == "cosine":
        norm = np.sqrt((query * query).sum())
        query = (query / norm if norm else query).astype(np.float32).astype(np.float64)
    for number, row in enumerate(table):
        if not store.alive()[number] or not allowed[number] or number in excluded:
            continue
        if any(value is not None and row[column] == value for column, value in same.items()):
            continue
        score = np.float32((vectors[number] * query).sum())
        if store.manifest.encoder.similarity == "cosine":
            score = np.clip(score, np.float32(-1), np.float32(1))
        if min_score is None or score >= min_score:
            ranked.append((-float(score), row["id"], number, row[one_per] if one_per else None))
    best = []
    seen = set()
    for score, _, number, group in sorted(ranked):
        if group is None or group not in seen:
            best.append((number, np.float32(-score)))
            seen.add(group)
    return best[:k]


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_the_oracle_agrees(data):
    n = data.draw(st.integers(0, 60), label="rows")
    dim = data.draw(st.sampled_from([1, 2, 3, 17]), label="dim")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    # Few distinct vectors and small whole numbers: duplicates and exact ties everywhere.
    pool = rng.integers(-2, 3, (data.draw(st.integers(1, 12), label="distinct"), dim)).astype(np.float32)
    if data.draw(st.booleans(), label="near ties"):
        pool = pool + rng.integers(-1, 2, pool.shape).astype(np.float32) * np.float32(2**-22)
    vectors = pool[rng.integers(0, len(pool), n)]
    groups = data.draw(st.integers(1, 10), label="groups")
    table = pa.table(
        {
            "id": [f"{name:03d}" for name in rng.permutation(n)],
            "patient": pa.array([None if g == 0 else f"p{g}" for g in rng.integers(0, groups + 1, n)], pa.string()),
            "n": pa.array(rng.integers(0, 5, n), pa.int64()),
        }
    )
    info = EncoderInfo(
        "fake",
        dim,
        data.draw(st.sampled_from(["cosine", "dot"]), label="similarity"),
        "none",
        text=False,
        weights_sha256="0",
        preprocessing="none",
    )
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        store = Store.create(
            Path(folder) / "i", encoder=info, dtype=data.draw(st.sampled_from(["float32", "float16"]), label="dtype")
        )
        cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3), label="cuts"))
        with store.writer() as writer:
            for start, stop in zip([0, *cuts], [*cuts, n], strict=True):
                writer.append(table.slice(start, stop - start), vectors[start:stop])
                writer.commit()
            gone = np.flatnonzero(rng.random(writer.store.n_total) < data.draw(st.sampled_from([0, 0.3]), label="gone"))
            writer.delete(gone)
            store = writer.commit()
        total = store.n_total
        if total == 0:
            return
        queries = np.concatenate([pool[:2], rng.standard_normal((2, dim)).astype(np.float32)])
        k = data.draw(st.integers(1, n + 5), label="k")
        threshold = data.draw(st.sampled_from([None, 0, 3]), label="where")
        mask = rng.random(total) < 0.5 if data.draw(st.booleans(), label="mask") else None
        exclude = [rng.integers(0, total, 3) for _ in queries] if data.draw(st.booleans(), label="exclude") else None
        same = [None, "p1", "p2", "nobody"][: len(queries)] if data.draw(st.booleans(), label="same") else None
        one_per = data.draw(st.sampled_from([None, "patient", "n"]), label="one_per") if total else None
        min_score = data.draw(st.sampled_from([None, 0.0, 0.5]), label="min_score")
        found = store.search(
            queries,
            k,
            where=None if threshold is None else f"n > {threshold}",
            mask=mask,
            exclude=exclude,
            exclude_same=None if same is None else {"patient": same[: len(queries)]},
            one_per=one_per,
            min_score=min_score,
        )
        values = np.array(store.table(["n"], np.arange(total)).column("n").to_pylist(), int)
        allowed = np.ones(total, bool) if threshold is None else values > threshold
        allowed &= True if mask is None else mask
        assert (found.exact, found.note) == (True, None)
        for i, query in enumerate(queries):
            expected = oracle(
                store,
                query,
                k,
                allowed,
                set() if exclude is None else set(exclude[i].tolist()),
                {} if same is None else {"patient": same[i]},
                one_per,
                min_score,
            )
            kept = found.rows[i] >= 0
            assert list(zip(found.rows[i][kept].tolist(), found.scores[i][kept], strict=True)) == expected
            assert np.isneginf(found.scores[i][~kept]).all()


def big(tmp_path, vectors, dtype="float32", **columns):
    dim = vectors.shape[1]
    info = EncoderInfo("fake", dim, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    store = Store.create(tmp_path / "big", encoder=info, dtype=dtype)
    table = pa.table({"id": [f"{i:06d}" for i in range(len(vectors))], **columns})
    with store.writer() as writer:
        half = len(vectors) // 2
        writer.append(table.slice(0, half), vectors[:half])
        writer.commit()
        writer.append(table.slice(half), vectors[half:])
        return writer.commit()


def test_a_query_gets_the_same_answer_alone_and_in_any_batch(tmp_path):
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((20, 96))
    # Copies, and neighbours closer than float32 products can tell apart.
    vectors = centres[rng.integers(0, 20, 5000)] + 1e-7 * rng.standard_normal((5000, 96))
    store = big(tmp_path, vectors)
    queries = np.concatenate([centres[:7], rng.standard_normal((90, 96))]).astype(np.float32)
    together = store.search(queries, 20)
    for batch in (1, 7, 32):
        for start in range(0, len(queries), batch):
            part = store.search(queries[start : start + batch], 20)
            np.testing.assert_array_equal(part.rows, together.rows[start : start + batch])
            np.testing.assert_array_equal(part.scores, together.scores[start : start + batch])


def test_identical_rows_tie_and_go_by_id(tmp_path):
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((3000, 64))
    copies = rng.choice(3000, 700, replace=False)
    vectors[copies] = vectors[copies[0]]
    store = big(tmp_path, vectors)
    found = store.search(vectors[copies[:1]].astype(np.float32), 650)
    assert found.rows[0].tolist() == sorted(copies.tolist())[:650]
    assert len(set(found.scores[0].tolist())) == 1


def test_one_giant_group_does_not_hide_the_others(tmp_path):
    rng = np.random.default_rng(5)
    query = np.zeros(16)
    query[0] = 1
    vectors = rng.standard_normal((4000, 16))
    vectors[:3900] = query + 0.01 * rng.standard_normal((3900, 16))
    store = big(tmp_path, vectors, patient=["giant"] * 3900 + [f"p{i}" for i in range(100)])
    found = store.search(query[None].astype(np.float32), 101, one_per="patient")
    patients = store.table(["patient"], found.rows[0]).column("patient").to_pylist()
    assert len(set(patients)) == 101
    assert patients[0] == "giant"
    without = store.search(query[None].astype(np.float32), 100, exclude_same={"patient": ["giant"]})
    assert (without.rows >= 3900).all()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.6, 1.0])
def test_filters_of_any_share_give_k(tmp_path, share):
    rng = np.random.default_rng(6)
    vectors = rng.standard_normal((6000, 24))
    store = big(tmp_path, vectors)
    mask = rng.random(6000) < share
    found = store.search(vectors[:3].astype(np.float32), 10, mask=mask)
    scores = store.vectors() @ exact_unit(vectors[:3]).T
    scores[~mask] = -np.inf
    for i in range(3):
        expected = np.argsort(-scores[:, i])[: min(10, mask.sum())]
        assert found.rows[i][found.rows[i] >= 0].tolist() == expected.tolist()


def exact_unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_scores_of_cosine_stay_within_one(tmp_path):
    vectors = np.random.default_rng(7).standard_normal((500, 33))
    store = big(tmp_path, vectors)
    scores = store.search(np.asarray(store.vectors()), 1).scores
    assert scores.max() <= 1
    np.testing.assert_allclose(scores, 1, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be at least 1, got: 0"),
        ({"mask": np.ones(3, bool)}, r"mask must be bool \(30,\)"),
        ({"mask": np.ones(30, int)}, "mask must be bool"),
        ({"exclude": []}, "exclude needs one entry for each of the 1 queries, got 0"),
        ({"exclude_same": {"patient": []}}, "needs one entry for each"),
        ({"exclude_same": {"ward": ["x"]}}, "no column 'ward'"),
        ({"exclude_same": {"age": ["x"]}}, "'x' is no value of the column 'age', which is"),
        ({"one_per": "patiet"}, "did you mean 'patient'"),
    ],
)
def test_mistakes_are_named(make, options, message):
    store = make(30)
    with pytest.raises(UsageError, match=message):
        store.search(np.ones((1, 8), np.float32), **{"k": 3, **options})


def test_queries_that_do_not_fit_are_refused(make):
    store = make(30)
    with pytest.raises(UsageError, match=r"\(n, 8\), got \(1, 9\)"):
        store.search(np.ones((1, 9), np.float32), 1)
    with pytest.raises(UsageError, match=r"^a query vector holds a value that is not a finite number$"):
        store.search(np.full((1, 8), np.inf, np.float32), 1)
    with pytest.raises(FilterError):
        store.search(np.ones((1, 8), np.float32), 1, where="nope = 1")
    assert store.search(np.empty((0, 8), np.float32), 3).rows.shape == (0, 3)


@pytest.mark.parametrize("shards", [1, 2])
def test_an_index_that_was_emptied_answers_with_nothing(make, shards):
    store = make(3, shards=shards)
    with store.writer() as writer:
        writer.delete(np.arange(3))
        writer.compact()
    store = store.newest()
    assert store.n_total == 0
    for options in ({}, {"where": "id = 'r1'"}, {"where": "id is null", "exact": True}, {"one_per": "id"}):
        for queries in (1, 2):
            found = store.search(np.ones((queries, 8), np.float32), 3, **options)
            assert (found.rows.tolist(), found.exact) == ([[-1]] * queries, True)


def test_queries_are_taken_as_float32(make):
    store = make(200, similarity="dot")
    queries = np.random.default_rng(1).standard_normal((4, 8))
    found, rounded = (store.search(given, 200) for given in (queries, queries.astype(np.float32)))
    np.testing.assert_array_equal(found.scores, rounded.scores)


def test_the_scan_drops_nothing_it_did_not_say(monkeypatch, tmp_path):
    """With tiny blocks every merge and every cut of the scan is exercised."""
    monkeypatch.setattr(exact, "_BLOCK_SCORES", 1)
    monkeypatch.setattr(exact, "_BLOCK_BYTES", 1)
    rng = np.random.default_rng(8)
    vectors = rng.standard_normal((9000, 5))
    store = big(tmp_path, vectors)
    found = store.search(vectors[:2].astype(np.float32), 50)
    scores = store.vectors() @ exact_unit(vectors[:2]).T
    for i in range(2):
        assert set(found.rows[i].tolist()) == set(np.argsort(-scores[:, i])[:50].tolist())


@pytest.mark.parametrize("spread", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_fast_product_changes_no_answer(monkeypatch, tmp_path, spread, dtype):
    """Tight clusters, loose ones, and no clusters at all, where the coarse scores cannot tell and are given up."""
    pytest.importorskip("torch")
    monkeypatch.setattr(matmul, "has_fast_bfloat16", lambda: True)
    rng = np.random.default_rng(11)
    centres = rng.standard_normal((30, 48))
    vectors = centres[rng.integers(0, 30, 4000)] + spread * rng.standard_normal((4000, 48))
    store = big(tmp_path, vectors, dtype=dtype)
    queries = (centres + 0.1 * spread * rng.standard_normal((30, 48))).astype(np.float32)
    kinds = []
    choose = matmul.choose_product

    def spy(n, dim, **how):
        chosen = choose(n, dim, **how)
        kinds.append(chosen.multiply)
        return chosen

    monkeypatch.setattr(exact, "choose_product", spy)
    fast = store.search(queries, 10)
    assert kinds[0] is not matmul._float32
    for i in range(30):
        plain = store.search(queries[i : i + 1], 10)
        np.testing.assert_array_equal(fast.rows[i], plain.rows[0])
        np.testing.assert_array_equal(fast.scores[i], plain.scores[0])
    assert kinds[-1] is matmul._float32


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("looped", [True, False])
def test_the_loop_and_numpy_give_the_same_answer(monkeypatch, tmp_path, dtype, looped):
    """With filters, exclusions, ties and few rows left."""
    least = 0 if looped else 1 << 40
    monkeypatch.setattr(matmul, "_MIN_VALUES", least)
    monkeypatch.setattr(matmul, "_MIN_VALUES_UNLOADED", least)
    rng = np.random.default_rng(13)
    vectors = rng.standard_normal((3000, 40))
    vectors[100:140] = vectors[0]
    store = big(tmp_path, vectors, dtype=dtype, patient=[f"p{i % 50}" for i in range(3000)])
    queries = vectors[[0, 7, 9]].astype(np.float32)
    masks = [None, rng.random(3000) < 0.5, np.arange(3000) < 15, np.arange(3000) >= 2990]
    for mask in masks:
        for options in ({"k": 10}, {"k": 10, "one_per": "patient"}, {"k": 30, "min_score": 0.3}):
            for excluded in (None, [np.array([0, 3, 2995]), np.arange(1600), np.empty(0, np.int64)]):
                found = store.search(queries, mask=mask, exclude=excluded, **options)
                for i in range(3):
                    allowed = np.ones(3000, bool) if mask is None else mask
                    forbidden = set() if excluded is None else set(excluded[i].tolist())
                    group, least = options.get("one_per"), options.get("min_score")
                    expected = oracle(store, queries[i], options["k"], allowed, forbidden, {}, group, least)
                    kept = found.rows[i] >= 0
                    assert list(zip(found.rows[i][kept].tolist(), found.scores[i][kept], strict=True)) == expected
    assert store.search(np.repeat(queries, 4, axis=0), 10).rows[::4].tolist() == store.search(queries, 10).rows.tolist()
