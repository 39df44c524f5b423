"""An index in shards answers as the same rows in one folder do: ids, and scores to the bit."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.encoder import EncoderInfo
from retr.index.store import Store

DIM = 6
WHERE = (None, "age < 3", "age is null or kind = 'a'", "patient in ('p1', 'p2', 'p9')", "age > 99")


@st.composite
def archives(draw):
    """Return commits of rows, many of them alike, deletions after each, and a number of shards."""
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    commits, at = [], 0
    for size in [draw(st.integers(1, 40)), *draw(st.lists(st.integers(0, 30), max_size=2))]:
        table = pa.table(
            {
                "id": [f"r{rng.integers(10)}-{i}" for i in range(at, at + size)],
                "patient": pa.array(
                    [None if (p := rng.integers(12)) > 9 else f"p{p}" for _ in range(size)], pa.string()
                ),
                "kind": pa.array([str(rng.choice(["a", "b"])) for _ in range(size)], pa.string()),
                "age": pa.array([None if (a := int(rng.integers(7))) > 5 else a for _ in range(size)], pa.int64()),
            }
        )
        # few directions: scores tie all over
        commits.append((table, rng.integers(-1, 2, (size, DIM)).astype(np.float32) + rng.choice([0, 1e-3])))
        at += size
    return commits, draw(st.integers(2, 5)), seed


def built(path: Path, commits, seed: int, shards: int, **how) -> Store:
    rng = np.random.default_rng(seed)
    store = Store.create(path, group="patient", shards=shards, **how)
    with store.writer() as writer:
        for table, vectors in commits:
            writer.append(table, vectors)
            store = writer.commit()
            ids = sorted(store.table(["id"])["id"].to_pylist())
            some = [name for name in ids if rng.random() < 0.1]
            writer.delete(store.rows_of(some))
            store = writer.commit()
    return store


def same_answers(one: Store, other: Store, seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries = rng.integers(-1, 2, (4, DIM)).astype(np.float32)
    ids = sorted(one.table(["id"])["id"].to_pylist())
    left_out = [[name for name in ids if rng.random() < 0.2] for _ in queries]
    for where in WHERE:
        for k, one_per, min_score in ((1, None, None), (7, None, 0.1), (5, "patient", None), (200, "kind", None)):
            for exclude in (False, True):
                found = []
                for store in (one, other):
                    rest = (
                        {
                            "exclude": [store.rows_of(names) for names in left_out],
                            "exclude_same": {"patient": ["p1", None, "p3", "nobody"]},
                        }
                        if exclude
                        else {}
                    )
                    got = store.search(queries, k, where=where, one_per=one_per, min_score=min_score, **rest)
                    held = [store.ids(rows[rows >= 0]) for rows in got.rows]
                    found.append((held, got.scores.tobytes(), got.exact))
                assert found[0] == found[1]


@given(archives(), st.sampled_from(["cosine", "dot"]), st.sampled_from(["float32", "float16"]))
@settings(max_examples=5, deadline=None)
def test_answers_are_the_same_to_the_bit(archive, similarity, dtype):
    commits, shards, seed = archive
    with tempfile.TemporaryDirectory() as folder:
        info = EncoderInfo("fake", DIM, similarity, "none", text=False, weights_sha256="0" * 64, preprocessing="none")
        how = {"encoder": info, "dtype": dtype}
        one = built(Path(folder) / "one", commits, seed, 1, **how)
        other = built(Path(folder) / "shards", commits, seed, shards, **how)
        assert other.manifest.shards == shards
        assert one.table().sort_by("id").equals(other.table().sort_by("id"))
        same_answers(one, other, seed)
        # and once the rows have moved
        shutil.copytree(one.path, f"{folder}/again")
        again = Store.open(f"{folder}/again")
        with again.writer() as writer:
            writer.shard(shards)
            again = writer.commit()
        same_answers(one, again, seed)
