"""What a writer commits is read back; what does not fit is refused and leaves nothing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retr.index.errors import RetrError, UsageError
from retr.index.store import Store

CREATED = pa.table({"id": ["a", "b"], "n": [1, 2]})
UNIT = np.eye(2, 8)


def test_what_was_written_comes_back(make):
    store = make(30, 20)
    assert (len(store), len(store.segments), store.version) == (50, 2, 3)
    assert store.table(["age"]).column("age").to_pylist() == [None if i % 7 == 3 else i for i in range(50)]
    picked = np.array([44, 2, 2, 31])
    assert store.table(["id", "sex"], picked).to_pydict() == {
        "id": ["r44", "r2", "r2", "r31"],
        "sex": [None, None, None, "M"],
    }
    np.testing.assert_allclose(np.linalg.norm(store.vectors(), axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(store.vectors(picked), store.vectors()[picked])
    assert store.rows_of(["r44", "nobody", "r0"]).tolist() == [44, -1, 0]
    assert store.table(["sex", "id"], np.array([30])).to_pydict() == {"sex": ["F"], "id": ["r30"]}
    nothing = np.empty(0, np.int64)
    assert store.table(["age"], nothing).schema == store.schema.empty_table().select(["age"]).schema
    assert store.rows_of([]).tolist() == []
    assert (store.table(rows=nothing).num_rows, store.vectors(nothing).shape) == (0, (0, 8))
    for wrong in (-1, 50):
        for read in (store.vectors, lambda rows: store.table(["id"], rows)):
            with pytest.raises(IndexError, match="from 0 to 49"):
                read(np.array([3, wrong]))


def test_any_tool_reads_the_files(make):
    store = make(30)
    info = store.manifest.segments[0]
    np.testing.assert_array_equal(np.load(store.path / info.vectors.file), store.vectors())
    assert pq.read_table(store.path / info.table.file).equals(store.table())


def test_dot_products_are_stored_as_they_come(make):
    store = make(5, similarity="dot")
    expected = np.stack([np.random.default_rng(i).standard_normal(8) for i in range(5)]).astype(np.float32)
    np.testing.assert_array_equal(store.vectors(), expected)


def test_half_precision_stores_half_the_bytes(make):
    store = make(30, dtype="float16")
    assert store.vectors().dtype == np.float16
    best = store.search(np.asarray(store.vectors()[:4], np.float32), 1)
    assert best.rows[:, 0].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(best.scores, 1, atol=2e-3)


def test_half_precision_refuses_what_it_cannot_hold(make):
    store = make(dtype="float16", similarity="dot")
    with store.writer() as writer, pytest.raises(UsageError, match="float16 cannot hold"):
        writer.append(CREATED, UNIT * 1e6)


def test_new_columns_widen_the_schema(make):
    store = make(3)
    with store.writer() as writer:
        writer.append(pa.table({"id": ["x"], "age": [1.5], "note": ["new"]}), UNIT[:1])
        store = writer.commit()
    assert store.table(["note"], np.array([1, 0])).to_pydict() == {"note": [None, None]}
    assert store.table(["age", "note"]).to_pydict() == {"age": [0.0, 1.0, 2.0, 1.5], "note": [None] * 3 + ["new"]}
    assert store.check() == []


def test_a_column_cannot_change_its_type(make):
    store = make(3)
    with store.writer() as writer, pytest.raises(UsageError, match=r"'age' holds 'int64'.* 'string'"):
        writer.append(pa.table({"id": ["x"], "age": ["old"]}), UNIT[:1])


@pytest.mark.parametrize(
    ("table", "vectors", "message"),
    [
        (CREATED, UNIT[:1], r"shape \(2, 8\), got \(1, 8\)"),
        (CREATED, np.full((2, 8), np.nan), "'a' is not finite"),
        (pa.table({"n": [1, 2]}), UNIT, "needs the column 'id'"),
        (pa.table({"id": [1, 2]}), UNIT, "must be text"),
        (pa.table({"id": ["a", None]}), UNIT, "empty entry"),
        (pa.table({"id": ["a", "a"]}), UNIT, "'a' is added twice"),
        (pa.table({"id": ["a", "b"], "s": [{"x": 1}, {"x": 2}]}), UNIT, "'s' has the type"),
    ],
)
def test_rows_that_do_not_fit_are_refused(make, table, vectors, message):
    store = make(3)
    with store.writer() as writer:
        with pytest.raises(UsageError, match=message):
            writer.append(table, vectors)
        assert writer.commit().version == store.version


@pytest.mark.usefixtures("unmerged")
def test_an_id_is_unique_among_live_rows(make):
    store = make(3)
    again = pa.table({"id": ["r1"]})
    with store.writer() as writer:
        writer.append(again, UNIT[:1])
        with pytest.raises(UsageError, match="'r1' is in the index already"):
            writer.commit()
        writer.delete(np.array([1]))
        writer.append(again, UNIT[:1])
        store = writer.commit()
    assert store.rows_of(["r1"]).tolist() == [3]
    assert len(store) == 3
    assert store.check() == []


def named(start: int, stop: int) -> pa.Table:
    return pa.table({"id": [f"r{i}" for i in range(start, stop)]})


@pytest.mark.usefixtures("unmerged")
def test_an_id_is_unique_over_the_segments_of_one_commit(make, monkeypatch):
    monkeypatch.setattr("retr.index.rows.writer.SEGMENT_ROWS", 4)
    store = make(3)
    with store.writer() as writer:
        for start in range(10, 30, 4):
            writer.append(named(start, start + 4), np.ones((4, 8)))
        for repeated in (11, 28):
            with pytest.raises(UsageError, match=f"'r{repeated}' is added twice"):
                writer.append(named(repeated, repeated + 1), UNIT[:1])
        store = writer.commit()
        assert len(store.segments) > 4
        writer.append(named(40, 44), np.ones((4, 8)))
        writer.append(named(20, 21), UNIT[:1])
        with pytest.raises(UsageError, match="'r20' is in the index already"):
            writer.commit()
    assert (len(Store.open(store.path)), store.check()) == (23, [])


def test_ids_of_one_hash_are_told_apart(make, monkeypatch):
    for module in ("disk.segments", "disk.segment_writer", "rows.snapshot", "rows.writer", "rows.check"):
        monkeypatch.setattr(f"retr.index.{module}.id_hashes", lambda ids: np.zeros(len(ids), "<u8"))
    monkeypatch.setattr("retr.index.rows.writer.SEGMENT_ROWS", 4)
    store = make(3, 4)
    with store.writer() as writer:
        for start in (10, 14, 18):
            writer.append(named(start, start + 4), np.ones((4, 8)))
        with pytest.raises(UsageError, match="'r12' is added twice"):
            writer.append(named(12, 13), UNIT[:1])
        store = writer.commit()
        writer.append(named(5, 6), UNIT[:1])
        with pytest.raises(UsageError, match="'r5' is in the index already"):
            writer.commit()
    assert store.rows_of(["r0", "r21", "r9", "r5"]).tolist() == [0, 18, -1, 5]
    assert store.check() == []


def test_replaced_columns_match_on_the_id(make):
    store = make(30, 20)
    with store.writer() as writer:
        writer.append(pa.table({"id": ["new"]}), UNIT[:1])
        writer.replace_columns(
            pa.table({"id": ["new", "r3", "gone"], "age": ["old", "young", "x"], "flag": [True] * 3})
        )
        store = writer.commit()
    ages = dict(zip(*store.table(["id", "age"]).to_pydict().values(), strict=True))
    assert (ages["new"], ages["r3"], ages["r4"]) == ("old", "young", None)
    assert store.where("flag").sum() == 2
    assert store.check() == []


def test_notes_files_groups_and_the_skipped_record(make):
    store = make(3)
    with store.writer() as writer:
        writer.note("mine", {"recall": 0.99})
        writer.add_file("probe.npz", b"first")
        writer.add_file("probe.npz", b"second")
        writer.set_group("patient")
        writer.record_skipped(pa.table({"path": ["a.png"], "reason": ["empty"], "size": [0]}))
        store = writer.commit()
    store = Store.open(store.path)
    assert store.manifest.extra["mine"] == {"recall": 0.99}
    assert store.file("probe.npz") == b"second"
    assert store.manifest.group == "patient"
    assert store.skipped().to_pylist() == [{"path": "a.png", "reason": "empty", "size": 0}]
    assert store.manifest.n_skipped == 1
    assert store.check() == []
    with store.writer() as writer:
        writer.note("mine", None)
        writer.remove_file("probe.npz")
        writer.record_skipped(store.skipped().slice(0, 0))
        store = writer.commit()
        with pytest.raises(UsageError, match=r"'\.\./x'"):
            writer.add_file("../x", b"")
        with pytest.raises(UsageError, match="'ward'"):
            writer.set_group("ward")
    assert (dict(store.manifest.extra), dict(store.manifest.files), store.manifest.n_skipped) == ({}, {}, 0)
    assert store.skipped().to_pydict() == {"path": [], "reason": []}


def test_nothing_to_commit_makes_no_version(make):
    store = make(3)
    with store.writer() as writer:
        assert writer.commit().version == store.version


def test_what_was_not_committed_leaves_nothing(make):
    store = make(3)
    before = sorted(path for path in store.path.rglob("*"))
    with store.writer() as writer:
        writer.append(CREATED, UNIT)
        writer.add_file("x", b"1")
    assert sorted(path for path in store.path.rglob("*")) == before


def ones(rows: int) -> np.ndarray:
    return np.ones((rows, 8))


@pytest.mark.parametrize("shards", [1, 3])
def test_one_commit_of_many_is_whole_or_not_there(make, shards):
    before = make(20)
    if shards > 1:
        with before.writer() as writer:
            writer.shard(shards)
            before = writer.commit()
    files = sorted(before.path.rglob("*"))
    with before.writer() as writer:
        with writer.as_one():
            pass
        with pytest.raises(ZeroDivisionError), writer.as_one():
            writer.append(named(20, 30), ones(10))
            writer.commit()
            _ = 1 / 0
        assert sorted(before.path.rglob("*")) == files
        # a change that is refused takes those before it along, though whoever asked for it goes on
        with pytest.raises(RetrError, match="was given up"), writer.as_one():
            writer.append(named(20, 30), ones(10))
            writer.commit()
            writer.append(named(19, 20), ones(1))
            with pytest.raises(UsageError, match="is in the index already"):
                writer.commit()
        assert sorted(before.path.rglob("*")) == files
        assert len(writer.store) == 20
        with writer.as_one():
            for start in (20, 40, 60):
                writer.append(named(start, start + 20), ones(20))
                assert len(writer.commit()) == start + 20
                writer.note("so far", start)
                writer.commit()
                assert Store.open(before.path).version == before.version
            writer.delete(writer.store.rows_of(["r5", "r25"]))
            writer.commit()
        after = Store.open(before.path)
        assert writer.store.version == after.version == before.version + 1
        assert (len(after), after.manifest.extra["so far"]) == (78, 60)
        # and on
        writer.append(named(80, 81), ones(1))
        assert writer.commit().version == after.version + 1
    after = Store.open(before.path)
    assert after.check() == []
    assert set(after.table()["id"].to_pylist()) == {f"r{number}" for number in range(81)} - {"r5", "r25"}
