"""Merging keeps every live row beside its vector; a purge leaves no byte of a deleted one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retr.index.disk import compaction
from retr.index.disk.compaction import compact_runs, small_runs
from retr.index.disk.files import FileRef
from retr.index.disk.manifest import SegmentInfo

REF = FileRef("x", "0", 0)


def infos(*sizes: int, deleted: dict[int, int] | None = None) -> list[SegmentInfo]:
    return [
        SegmentInfo(str(i), rows, 1.0, REF, REF, REF, n_deleted=(deleted or {}).get(i, 0))
        for i, rows in enumerate(sizes)
    ]


def test_small_neighbours_of_one_tier_are_merged():
    assert small_runs(infos(*[10] * 31)) == []
    assert small_runs(infos(*[10] * 32)) == [range(32)]
    assert small_runs(infos(5000, *[10] * 40)) == [range(1, 41)]
    assert small_runs(infos(*[500_000] * 32)) == [range(i, i + 2) for i in range(0, 32, 2)]
    assert small_runs(infos(*[600_000] * 40)) == []


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
