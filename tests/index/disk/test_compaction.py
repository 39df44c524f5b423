"""Merging keeps every live row beside its vector; a purge leaves no byte of a deleted one."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retr.index.disk import compaction
from retr.index.disk.compaction import compact_runs, last_run
from retr.index.disk.files import FileRef
from retr.index.disk.manifest import SegmentInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

REF = FileRef("x", "0", 0)


def infos(*sizes: int, deleted: dict[int, int] | None = None) -> list[SegmentInfo]:
    return [
        SegmentInfo(str(i), rows, 1.0, REF, REF, REF, n_deleted=(deleted or {}).get(i, 0))
        for i, rows in enumerate(sizes)
    ]


def sizes_after(commits: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the sizes of the segments that commits of so many rows leave, and how many rows each commit rewrote."""
    sizes: list[int] = []
    rewritten = []
    for rows in commits:
        sizes.append(rows)
        runs = last_run(infos(*sizes), 1)
        rewritten.append(sum(sum(sizes[run.start : run.stop]) for run in runs))
        for run in runs:
            sizes[run.start : run.stop] = [sum(sizes[run.start : run.stop])]
    return sizes, rewritten


@pytest.mark.parametrize("rows", [1, 200, 5000])
@pytest.mark.parametrize("commits", [20, 31, 127, 500])
def test_equal_commits_leave_segments_that_halve(rows, commits):
    sizes, rewritten = sizes_after([rows] * commits)
    assert sum(sizes) == rows * commits
    small = [size for size in sizes if size <= compaction.MOST_ROWS // 2]
    assert all(a >= 2 * b for a, b in itertools.pairwise(small))
    assert len(sizes) <= 2 + sum(sizes) // (compaction.MOST_ROWS // 2) + math.log2(1 + rows * commits / 2048)
    assert max(rewritten) <= compaction.MOST_ROWS
    # each row is rewritten as often as the rows can double, and while there are few
    assert sum(rewritten) <= sum(sizes) * (math.log2(commits) + 1) + 2048 * commits


@given(st.lists(st.integers(1, 300_000), min_size=1, max_size=60))
def test_no_commit_rewrites_much_more_than_it_adds_or_leaves_many_segments(commits):
    sizes, rewritten = sizes_after(commits)
    assert sum(sizes) == sum(commits)
    for added, wrote in zip(commits, rewritten, strict=True):
        assert wrote <= min(compaction.SEGMENT_ROWS, max(compaction.MOST_ROWS, 4 * added))
    # of two neighbours the second is half as large at most, or both are more than a commit may make one of
    crowded = [(a, b) for a, b in itertools.pairwise(sizes) if a < 2 * b and a + b <= compaction.MOST_ROWS]
    assert not crowded


def test_what_a_commit_leaves_alone():
    assert last_run(infos(10, 10), 0) == []
    assert last_run(infos(10), 1) == []
    assert last_run(infos(5000, 10), 1) == []
    assert last_run(infos(5000, *[10] * 40), 1) == [range(1, 41)]
    assert last_run(infos(600_000, 600_000), 1) == []
    # a commit of several segments, and what follows on a deletion of most rows
    assert last_run(infos(10, 10, 10), 3) == [range(3)]
    assert last_run(infos(100_000, 5000, deleted={0: 95_000}), 1) == [range(2)]
    # accelerated segments stay, whatever their size
    accelerated = dataclasses.replace(infos(100)[0], accelerator=REF)
    assert last_run([accelerated, *infos(5000)], 1) == []
    assert last_run([*infos(10), accelerated, *infos(10, 10)], 1) == [range(2, 4)]
    assert last_run([*infos(10), accelerated], 1) == []


def test_compaction_leaves_large_clean_segments_alone():
    assert compact_runs(infos(700_000, 10, 20, 900_000)) == [range(1, 3)]
    assert compact_runs(infos(700_000, 10, deleted={0: 1})) == [range(2)]
    assert compact_runs(infos(10)) == []
    assert compact_runs(infos(10, deleted={0: 1})) == [range(1)]
    assert compact_runs([]) == []


def test_no_merged_segment_is_larger_than_the_cap(monkeypatch):
    monkeypatch.setattr(compaction, "SEGMENT_ROWS", 100)
    assert compact_runs(infos(*[40] * 5)) == [range(2), range(2, 4)]
    assert compact_runs(infos(49, 30, 21)) == [range(3)]
    assert compact_runs(infos(49, 49, 49, 49, 2)) == [range(2), range(2, 5)]
    assert compact_runs(infos(49, 45, 49, 45, 7)) == [range(2), range(2, 4)]
    assert compact_runs(infos(49, 49, 49, deleted={1: 47})) == [range(3)]
    assert compact_runs(infos(50, 20, 30)) == [range(1, 3)]


@pytest.mark.usefixtures("unmerged")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_compaction_changes_no_live_row(make, dtype):
    store = make(*[700] * 35, dtype=dtype)
    rng = np.random.default_rng(0)
    with store.writer() as writer:
        writer.delete(rng.choice(store.n_total, 3000, replace=False))
        writer.append(pa.table({"id": ["wide"], "extra": [1.5]}), np.ones((1, 8)))
        before = writer.commit()
        done = writer.compact()
        after = writer.store
    assert (done.rows, done.segments_after, len(after.segments), after.n_total) == (3000, 1, 1, len(before))
    assert after.table().equals(before.table())
    np.testing.assert_array_equal(after.vectors(), before.vectors(before.live_rows()))
    assert after.check() == []
    with after.writer() as writer:
        assert writer.compact().segments_before == 1
        assert writer.store.version == after.version


def test_deleting_everything_and_compacting_leaves_an_empty_index(make):
    store = make(30)
    with store.writer() as writer:
        writer.delete(np.arange(30))
        store = writer.commit()
        writer.compact()
        store = writer.store
    assert (len(store), store.n_total, store.check()) == (0, 0, [])


def bytes_of(path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_purge_leaves_no_byte_of_the_deleted_rows(make):
    store = make()
    rng = np.random.default_rng(1)
    n = 300
    ids = [f"ward/{rng.integers(10**12):012d}.png" for _ in range(n)]
    hashes = [rng.bytes(32).hex() for _ in range(n)]
    with store.writer() as writer:
        for start in range(0, n, 100):
            part = slice(start, start + 100)
            table = pa.table(
                {"id": ids[part], "path": ids[part], "sha256": hashes[part], "name": [f"N{i}" for i in ids[part]]}
            )
            writer.append(table, rng.standard_normal((100, 8)))
            writer.commit()
        gone = np.array([0, 7, 150, 299])
        vectors = writer.store.vectors(gone)
        # Everything that may speak of a row: the skipped record, notes, sidecars, an older version of a column.
        writer.record_skipped(pa.table({"path": [ids[7], "other.png"], "reason": ["truncated", "empty"]}))
        writer.note("outliers", [{"id": ids[150], "score": 0.1}])
        writer.note("setting", {"temperature": 1.5})
        writer.note("probe", {"file": "probe.npz"})
        writer.add_file("probe.npz", vectors.tobytes())
        writer.replace_columns(pa.table({"id": ids, "label": hashes}))
        writer.commit()
        writer.delete(gone)
        writer.commit()
        done = writer.purge()
        store = writer.store
    assert done.rows == 4
    assert done.skipped == 1
    assert set(done.dropped) == {"probe.npz", "outliers", "probe"}
    assert dict(store.manifest.extra) == {"setting": {"temperature": 1.5}}
    assert store.skipped().column("path").to_pylist() == ["other.png"]
    assert store.check() == []
    assert len(store) == n - 4
    # Parquet is compressed: what its readers can see is searched beside its raw bytes.
    read = {"table": repr(store.table().to_pydict()).encode(), "skipped": repr(store.skipped().to_pydict()).encode()}
    for row, vector in zip(gone.tolist(), vectors, strict=True):
        for needle in (ids[row].encode(), hashes[row].encode(), bytes.fromhex(hashes[row]), vector.tobytes()):
            for name, data in (bytes_of(store.path) | read).items():
                assert needle not in data, name


def test_a_row_deleted_and_compacted_before_a_purge_is_gone_too(make):
    store = make(30)
    vector = store.vectors(np.array([4])).tobytes()
    with store.writer() as writer:
        writer.delete(np.array([4]))
        writer.compact()
        writer.purge()
    assert not any(vector in data for data in bytes_of(store.path).values())
