"""Reading one committed version: files that are gone, deleted rows, columns that do not exist."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retr.index.disk.current import read_current
from retr.index.errors import IndexCorruptError, UsageError
from retr.index.rows.snapshot import Snapshot
from retr.index.rows.writer import open_writer
from retr.index.store import Store


def test_a_missing_file_is_said(make):
    store = make(3, 4)
    (store.path / store.manifest.segments[1].vectors.file).unlink()
    with pytest.raises(IndexCorruptError, match=r"^a file is missing from the index; run `retr index check`$"):
        Store.open(store.path)


def test_opening_follows_a_commit_that_removed_what_it_was_about_to_read(make, monkeypatch):
    store = make(3, 4)
    with store.writer() as writer:
        writer.compact()
        newer = writer.commit()
    assert not (store.path / store.manifest.segments[0].table.file).exists()
    seen = iter([store.manifest])
    monkeypatch.setattr("retr.index.rows.snapshot.read_current", lambda path: next(seen, None) or read_current(path))
    assert Store.open(store.path).version == newer.version


def test_vectors_of_one_segment_are_a_memory_map(make):
    store = make(30)
    assert not store.vectors().flags.owndata
    assert not store.vectors().flags.writeable


def test_deleted_rows_are_gone_from_every_answer(make):
    store = make(30, 20)
    with store.writer() as writer:
        writer.delete(np.array([0, 31, 31, 49]))
        store = writer.commit()
        writer.delete(np.array([1]))
        store = writer.commit()
    assert (len(store), store.n_total) == (46, 50)
    assert np.flatnonzero(~store.alive()).tolist() == [0, 1, 31, 49]
    assert store.live_rows().tolist() == [row for row in range(50) if row not in {0, 1, 31, 49}]
    assert [rows.tolist() for rows in store.rows_with("patient", pa.array(["p0", "p7", "nobody"]))] == [
        [2, 3],
        [28, 29, 30],
        [],
    ]
    assert store.rows_of(["r0", "r31", "r2"]).tolist() == [-1, -1, 2]
    assert not {"r0", "r1", "r31", "r49"} & set(store.table(["id"]).column("id").to_pylist())
    assert not store.where("id is not null")[[0, 1, 31, 49]].any()
    assert 0 not in store.search(np.asarray(store.vectors(np.array([0]))), 46).rows
    with store.writer() as writer:
        for wrong in (-1, 50):
            with pytest.raises(IndexError, match="from 0 to 49"):
                writer.delete(np.array([wrong]))
        writer.delete([])
        writer.delete([2])
        assert writer.commit().rows_of(["r2"]).tolist() == [-1]


def test_unknown_columns_name_the_nearest(make):
    store = make(3)
    with pytest.raises(UsageError, match=r"no column 'aeg'; did you mean 'age'"):
        store.table(["aeg"])


def test_a_snapshot_reads_and_writes_what_a_store_does_but_does_not_search(make):
    store = make(5, 4)
    read = Snapshot.open(store.path)
    assert repr(read) == repr(store).replace("Store(", "Snapshot(")
    assert read.table().equals(store.table())
    np.testing.assert_array_equal(read.where("age > 3"), store.where("age > 3"))
    assert not hasattr(read, "search")
    with open_writer(Snapshot, store.path) as writer:
        writer.delete(np.array([0]))
        newer = writer.commit()
    assert type(newer) is type(read.newest()) is Snapshot
    assert (len(newer), newer.version) == (8, store.version + 1)


def test_what_a_writer_commits_is_searched_where_its_store_was(make):
    with make(3).writer() as writer:
        writer.store.place("auto")
        writer.note("a", 1)
        assert writer.preview().placement is writer.store.placement
        assert writer.commit().placement.device == "auto"
        assert Store.open(writer.store.path).placement.device == "cpu"
