"""Many small commits leave few segments, which answer as one build does; who reads an older version sees no change."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.disk import compaction, sidetable
from retr.index.encoder import EncoderInfo
from retr.index.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

ENCODER = EncoderInfo("fake", 8, "cosine", "none", text=False, weights_sha256="0" * 64, preprocessing="none")
QUERIES = np.random.default_rng(99).standard_normal((4, 8)).astype(np.float32)


def table(keys: Sequence[tuple[int, int]]) -> pa.Table:
    """Return the rows of some numbers, each in one of its editions."""
    return pa.table(
        {
            "id": [f"r{number:03d}" for number, _ in keys],
            "edition": [edition for _, edition in keys],
            "sex": [("F", "M", None)[(number + edition) % 3] for number, edition in keys],
            "patient": [f"p{number // 3}" for number, _ in keys],
        }
    )


def vectors(keys: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return vectors of which many are equal, so that answers have ties."""
    return np.stack([np.random.default_rng((number % 7, edition % 2)).standard_normal(8) for number, edition in keys])


def answers(store: Store) -> list[object]:
    """Return what the live rows are, and what some questions find of them, by id."""
    found: list[object] = [store.table().to_pylist(), store.vectors(store.live_rows()).tobytes()]
    for options in ({}, {"where": "sex = 'F'"}, {"where": "edition = 1"}, {"one_per": "patient"}):
        near = store.search(QUERIES, 9, **options)
        found += [[store.ids(rows[rows >= 0]) for rows in near.rows], near.scores.tobytes()]
    return found


def in_one(root: Path, keys: Sequence[tuple[int, int]]) -> Store:
    store = Store.create(root, encoder=ENCODER, group="patient")
    with store.writer() as writer:
        if keys:
            writer.append(table(keys), vectors(keys))
        return writer.commit()


# What one commit does: how many rows it adds, which of those that are there it updates, and which it deletes.
CHANGES = st.tuples(
    st.integers(0, 30), st.sets(st.integers(0, 60), max_size=8), st.sets(st.integers(0, 60), max_size=8)
)


@settings(max_examples=10, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=7), st.sampled_from([1, 8, 2048]), st.sampled_from([20, 1 << 17]))
def test_any_commits_answer_as_one_build(changes, few, most):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(compaction, "FEW_ROWS", few)
        patch.setattr(compaction, "MOST_ROWS", most)
        patch.setattr(sidetable, "MIN_ROWS", 20)
        keys: list[tuple[int, int]] = []
        readers: list[tuple[Store, list[object]]] = []
        store = Store.create(Path(folder) / "many", encoder=ENCODER, group="patient")
        at = 0
        for edition, (n, updated, deleted) in enumerate(changes):
            new = [(number, edition) for number in range(at, at + n)]
            at += n
            again = [(number, edition) for number, _ in keys if number in updated - deleted]
            gone = {number for number, _ in keys if number in updated | deleted}
            with store.writer() as writer:
                writer.delete(writer.store.rows_of([f"r{number:03d}" for number in sorted(gone)]))
                if again or new:
                    writer.append(table(again + new), vectors(again + new))
                writer.commit()
            keys = [key for key in keys if key[0] not in gone] + again + new
            store = Store.open(store.path)
            if edition % 4 == 1 and keys:
                readers.append((store, answers(store)))
        one = in_one(Path(folder) / "one", keys)
        assert len(one) == len(store) == len(keys)
        assert store.check() == []
        if keys:
            assert answers(store) == answers(one)
        for reader, saw in readers:
            assert answers(reader) == saw
        if few == 2048 and most > 20:
            assert len(store.segments) <= 1 + sum(not n and not updated for n, updated, _ in changes)


def test_a_commit_beside_an_accelerator_leaves_it_and_few_segments(make):
    store = make(300)
    with store.writer() as writer:
        writer.accelerate(0, lambda path: path.write_bytes(b"not asked in this test"))
        first = writer.commit().manifest.segments[0]
    keys = [(number, 0) for number in range(1000, 1050)]
    for start in range(0, 50, 10):
        with store.writer() as writer:
            part = table(keys[start : start + 10])
            writer.append(part, vectors(keys[start : start + 10]))
            store = writer.commit()
    assert store.manifest.segments[0] == first
    assert [info.rows for info in store.manifest.segments] == [300, 50]


# Adds ten rows a commit until there are 150, from wherever an earlier one was killed.
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_merging import Store, compaction, sidetable, table, vectors
compaction.FEW_ROWS, sidetable.MIN_ROWS = 20, 50
with Store.open(Path(sys.argv[1])).writer() as writer:
    print("open", flush=True)
    while (at := len(writer.store)) < 150:
        keys = [(number, 0) for number in range(at, at + 10)]
        writer.append(table(keys), vectors(keys))
        writer.commit()
"""


def test_a_build_killed_at_any_instant_and_continued_is_the_same(tmp_path):
    store = in_one(tmp_path / "many", [])
    command = [sys.executable, "-c", WRITER, str(store.path), str(Path(__file__).parent)]
    for attempt in itertools.count():
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            if attempt < 2:
                time.sleep(0.03 + 0.1 * attempt)
                process.kill()
            process.wait()
        store = Store.open(store.path)
        assert len(store) % 10 == 0
        if attempt < 2:
            assert store.table(["id"])["id"].to_pylist() == [f"r{number:03d}" for number in range(len(store))]
        else:
            break
    keys = [(number, 0) for number in range(150)]
    assert answers(store) == answers(in_one(tmp_path / "one", keys))
    assert store.check() == []
    # 15 = 8 + 4 + 2 + 1 commits
    assert [info.rows for info in store.manifest.segments] == [80, 40, 20, 10]
