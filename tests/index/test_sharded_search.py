"""An index in shards answers as the same rows in one folder do: ids, and scores to the bit."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards_standin import Shards

from retr.index import fan_out
from retr.index.disk.manifest import IDENTIFIERS
from retr.index.encoder import EncoderInfo
from retr.index.errors import RetrError, UsageError
from retr.index.machine.hash_key import fingerprint, keyed_hash, load_hash_key
from retr.index.rows.placing import shard_of
from retr.index.search_options import RankOptions
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


def held_elsewhere(store: Store) -> Store:
    """Another snapshot of a store, whose shards answer by themselves."""
    far = Store.open(store.path)
    far.remote = Shards(store.path)
    return far


def same_one_by_one(one: Store, whole: Store, seed: int) -> None:
    """Each shard opened alone, and their answers merged."""
    rng = np.random.default_rng(seed)
    queries = rng.integers(-1, 2, (4, DIM)).astype(np.float32)
    ids = sorted(one.table(["id"])["id"].to_pylist())
    exclude = [[name for name in ids if rng.random() < 0.2] for _ in queries]
    same = {"patient": ["p1", None, "p3", "nobody"]}
    shards = [fan_out.open_shard(whole.path, number, version=whole.version) for number in range(whole.manifest.shards)]
    for where in WHERE:
        for k, one_per, min_score in ((1, None, None), (7, None, 0.1), (5, "patient", None), (3, "kind", None)):
            asked = RankOptions(k=k, where=where, one_per=one_per, min_score=min_score)
            found = one.search(queries, asked, exclude=[one.rows_of(names) for names in exclude], exclude_same=same)
            parts = [fan_out.answer(shard, queries, asked, exclude=exclude, exclude_same=same) for shard in shards]
            merged = fan_out.merge(parts, k)
            assert merged.ids == [one.ids(rows[rows >= 0]) for rows in found.rows]
            wanted = [scores[rows >= 0].tobytes() for rows, scores in zip(found.rows, found.scores, strict=True)]
            assert [scores.tobytes() for scores in merged.scores] == wanted


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
        same_one_by_one(one, other, seed)
        same_answers(one, held_elsewhere(other), seed)
        # and once the rows have moved
        shutil.copytree(one.path, f"{folder}/again")
        again = Store.open(f"{folder}/again")
        with again.writer() as writer:
            writer.shard(shards)
            again = writer.commit()
        same_answers(one, again, seed)


def test_shards_answer_for_one_version(make):
    store = make(30, shards=2)
    first = fan_out.open_shard(store.path, 0)
    with store.writer() as writer:
        writer.delete(np.array([0]))
        store = writer.commit()
    with pytest.raises(RetrError, match=f"is of version {store.version}, asked for was {store.version - 1}"):
        fan_out.open_shard(store.path, 1, version=store.version - 1)
    parts = [fan_out.answer(shard, np.ones((1, 8), np.float32), RankOptions(k=3)) for shard in (first, first)]
    later = fan_out.answer(fan_out.open_shard(store.path, 1), np.ones((1, 8), np.float32), RankOptions(k=3))
    with pytest.raises(RetrError, match="for the versions"):
        fan_out.merge([parts[0], later], 3)
    for number in (-1, 2):
        with pytest.raises(UsageError, match="has 2 shards"):
            fan_out.open_shard(store.path, number)
    assert len(fan_out.open_shard(make(5, name="one").path, 0)) == 5


def test_a_shard_knows_which_columns_the_whole_holds_hashed(tmp_path):
    digest = keyed_hash(load_hash_key(), "P7")
    info = EncoderInfo("fake", DIM, "cosine", "none", text=False, weights_sha256="0" * 64, preprocessing="none")
    store = Store.create(tmp_path / "i", encoder=info, shards=2)
    # spread by id here: one person lies in one shard by the name, in the other by its hash
    here, there = ([name for name in "abcdefghij" if shard_of(name, 2) == number] for number in range(2))
    table = pa.table({"id": [*here[:2], *there[:2]], "patient": ["P7", "P8", digest, "P9"]})
    with store.writer() as writer:
        writer.note(IDENTIFIERS, {"key": fingerprint(load_hash_key()), "columns": ["patient"]})
        writer.set_group(None)
        writer.append(table, np.eye(4, DIM))
        store = writer.commit()
    shards = [fan_out.open_shard(store.path, number) for number in range(2)]
    query = np.ones((1, DIM), np.float32)
    for asked in (RankOptions(k=4, one_per="patient"), RankOptions(k=4, where=f"patient = '{digest}'")):
        whole = store.search(query, asked)
        merged = fan_out.merge([fan_out.answer(shard, query, asked) for shard in shards], 4)
        assert merged.ids == [store.ids(whole.rows[0][whole.rows[0] >= 0])]
