"""Search of regions against a brute-force oracle: ties, conditions, groups, deletions, segments and shards."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.disk.side_data import Change, Kind, register
from retr.index.encoder import EncoderInfo
from retr.index.errors import UsageError
from retr.index.region_search import search_regions
from retr.index.search_options import RankOptions
from retr.index.store import Store

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
ENCODER = EncoderInfo(
    name="made", dim=3, similarity="cosine", modality="none", text=False, weights_sha256="0" * 64, preprocessing="none"
)


class Parts(Kind):
    name = "test-parts"

    def checks(self, snapshot):
        return {}

    def stale(self, snapshot):
        return ()

    def purge(self, snapshot, gone):
        return Change()


register(Parts())


def make(path, rng, n, per_row, shards):
    store = Store.create(path, encoder=ENCODER, shards=shards)
    # few distinct vectors: many rows and regions tie
    lines = rng.choice([-127, 0, 64, 127], (n, per_row * 3)).astype(np.int8)
    names = rng.permutation(n)
    table = pa.table(
        {
            "id": [f"r{number:02}" for number in names],
            "patient": [None if number % 5 == 0 else f"p{number % 4}" for number in names],
            "age": [int(number) for number in names],
        }
    )
    with store.writer() as writer:
        writer.add_array("parts", Parts(), dtype="int8", dim=per_row * 3)
        writer.commit()
        half = n // 2
        for some in (slice(0, half), slice(half, n)):
            part = table.slice(some.start, some.stop - some.start)
            writer.append(part, rng.standard_normal((part.num_rows, 3)), arrays={"parts": lines[some]})
            writer.commit()
        live = writer.store.live_rows()
        writer.delete(live[rng.random(len(live)) < 0.15])
        return writer.commit()


def oracle(store, query, options, exclude):
    """Score every row by hand: its best region, the first of several."""
    asked = np.asarray(query, np.float64)
    asked = (asked / math.sqrt(float((asked * asked).sum()))).astype(np.float32)
    table = store.table(rows=np.arange(store.n_total)).to_pylist()
    lines = store.array("parts")
    found = []
    for number, row in enumerate(table):
        old_enough = options.where is None or row["age"] >= 8
        if not store.alive()[number] or number in exclude or not old_enough:
            continue
        scores = []
        for vector in lines[number].reshape(-1, 3).astype(float):
            length = math.sqrt(sum(one * one for one in vector))
            product = sum(one * float(two) for one, two in zip(vector, asked, strict=True))
            scores.append(np.float32(product / length if length else 0.0))
        best = max(scores)
        if options.min_score is None or best >= options.min_score:
            found.append((-best, row["id"], row["patient"], number, scores.index(best)))
    answer, seen = [], set()
    for score, _, patient, number, region in sorted(found, key=lambda one: one[:2]):
        if options.one_per is not None and patient is not None and patient in seen:
            continue
        seen.add(patient)
        answer.append((number, -score, region))
    return answer[: options.k]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 30),
    per_row=st.integers(1, 4),
    shards=st.sampled_from([1, 1, 3]),
    k=st.integers(1, 12),
    where=st.sampled_from([None, "age >= 8"]),
    one_per=st.sampled_from([None, "patient"]),
    min_score=st.sampled_from([None, 0.5]),
)
def test_equals_the_oracle(seed, n, per_row, shards, k, where, one_per, min_score):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        store = make(f"{folder}/x", rng, n, per_row, shards)
        queries = rng.choice([-1.0, 0.5, 1.0, 2.0], (3, 3)).astype(np.float32)
        exclude = [np.flatnonzero(rng.random(store.n_total) < 0.1) for _ in queries]
        options = RankOptions(k=k, where=where, one_per=one_per, min_score=min_score)
        got = search_regions(store, "parts", queries, options, exclude=exclude)
        alone = search_regions(store, "parts", queries[1:2], options, exclude=exclude[1:2])
        assert alone.found.rows[0].tolist() == got.found.rows[1].tolist()
        assert alone.found.scores[0].tobytes() == got.found.scores[1].tobytes()
        for number, query in enumerate(queries):
            expected = oracle(store, query, options, set(exclude[number].tolist()))
            rows = got.found.rows[number]
            here = rows >= 0
            assert rows[here].tolist() == [one[0] for one in expected]
            assert got.found.scores[number][here] == pytest.approx([one[1] for one in expected], abs=1e-6)
            assert got.regions[number][here].tolist() == [one[2] for one in expected]
            assert (got.regions[number][~here] == -1).all()


def test_what_is_close_is_told_apart(tmp_path):
    # differences far below the error of float32 products
    store = Store.create(tmp_path / "x", encoder=ENCODER)
    lines = np.array([[127, 126, 125], [127, 126, 124], [126, 125, 124]], np.int8)
    with store.writer() as writer:
        writer.add_array("parts", Parts(), dtype="int8", dim=3)
        writer.append(pa.table({"id": ["a", "b", "c"]}), np.eye(3), arrays={"parts": lines})
        store = writer.commit()
    asked = np.float32([[126.5, 125.5, 124.5]])
    got = search_regions(store, "parts", asked, RankOptions(k=1))
    exact = [float(np.dot(asked[0].astype(float), one) / np.linalg.norm(one.astype(float))) for one in lines]
    assert got.found.rows[0, 0] == int(np.argmax(exact))


@pytest.mark.parametrize(
    ("options", "said"),
    [(RankOptions(k=0), "k must be at least 1"), (RankOptions(effort=3), "no effort")],
)
def test_what_cannot_be_meant_is_refused(tmp_path, options, said):
    store = make(tmp_path / "x", np.random.default_rng(0), 6, 2, 1)
    with pytest.raises(UsageError, match=said):
        search_regions(store, "parts", np.ones((1, 3), np.float32), options)
    with pytest.raises(UsageError, match="shape"):
        search_regions(store, "parts", np.ones((1, 4), np.float32), RankOptions())
