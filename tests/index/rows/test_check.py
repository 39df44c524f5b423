from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from retr.index.disk.current import publish
from retr.index.disk.files import reference
from retr.index.errors import IndexCorruptError
from retr.index.rows.check import Finding, check_path
from retr.index.store import Store


def full(make) -> Store:
    store = make(30, 20)
    with store.writer() as writer:
        writer.delete(np.array([1, 2]))
        writer.add_file("side", b"some bytes")
        return writer.commit()


def every_file(store: Store) -> list[str]:
    return ["CURRENT", store.manifest.file, *(ref.file for ref in store.manifest.refs())]


def test_a_healthy_index_has_no_findings(make):
    assert full(make).check() == []


def test_any_flipped_byte_is_found(make, tmp_path):
    store = full(make)
    rng = np.random.default_rng(0)
    for name in every_file(store):
        copy = tmp_path / "copy"
        shutil.copytree(store.path, copy)
        data = bytearray((copy / name).read_bytes())
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (copy / name).write_bytes(data)
        findings = check_path(copy)
        assert [finding.kind for finding in findings] == ["altered"]
        assert name in findings[0].message
        shutil.rmtree(copy)


@pytest.mark.parametrize("cut", [0, 1, -1])
def test_any_truncated_file_is_found(make, tmp_path, cut):
    store = full(make)
    for ref in store.manifest.refs():
        copy = tmp_path / "copy"
        shutil.copytree(store.path, copy)
        data = (copy / ref.file).read_bytes()
        (copy / ref.file).write_bytes(data[:cut])
        assert [(finding.kind, finding.file) for finding in check_path(copy)] == [("truncated", ref.file)]
        with pytest.raises(IndexCorruptError, match="retr index check"):
            Store.open(copy)
        shutil.rmtree(copy)


def test_any_missing_file_is_found(make, tmp_path):
    store = full(make)
    for ref in store.manifest.refs():
        copy = tmp_path / "copy"
        shutil.copytree(store.path, copy)
        (copy / ref.file).unlink()
        assert [(finding.kind, finding.file) for finding in check_path(copy)] == [("missing", ref.file)]
        with pytest.raises(IndexCorruptError, match="is missing"):
            Store.open(copy)
        shutil.rmtree(copy)


def test_a_foreign_file_is_found_and_left_alone(make):
    store = full(make)
    (store.path / "segments" / "notes.txt").write_text("mine")
    (store.path / "thumbs").mkdir()
    (store.path / "thumbs" / "a.png").write_text("mine")
    assert [(f.kind, f.file) for f in store.check()] == [
        ("foreign", "segments/notes.txt"),
        ("foreign", "thumbs/a.png"),
    ]
    with store.writer() as writer:
        writer.purge()
    assert (store.path / "thumbs" / "a.png").read_text() == "mine"


def test_what_an_interrupted_writer_left_is_no_finding_and_goes(make):
    store = full(make)
    left = store.path / "segments" / "00000099-0123abcd.parquet"
    left.write_bytes(b"half")
    assert store.check() == []
    with store.writer():
        pass
    assert not left.exists()


def test_damaged_rows_are_an_error_not_a_traceback(make):
    store = full(make)
    info = store.manifest.segments[0]
    path = store.path / info.table.file
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    path.write_bytes(data)
    with pytest.raises(IndexCorruptError, match=f"^'{info.table.file}' was changed after it was written; run `retr "):
        Store.open(store.path)
    # as its hash says, and still not readable
    table = reference(store.path, info.table.file)
    findings = with_first_segment(store, table=table)
    assert [(finding.kind, finding.file) for finding in findings] == [("misaligned", info.name)]
    with pytest.raises(
        IndexCorruptError, match=f"^'{info.table.file}' is not readable as Parquet; run `retr index check`$"
    ):
        Store.open(store.path)


def with_first_segment(store: Store, **changes) -> list[Finding]:
    """Check the index with another entry for its first segment, as a faulty writer would have committed it."""
    first, *others = store.manifest.segments
    segments = (dataclasses.replace(first, **changes), *others)
    publish(store.path, dataclasses.replace(store.manifest, version=store.version + 1, segments=segments))
    return check_path(store.path)


@pytest.mark.parametrize(
    ("deleted", "count"), [(None, 1), ([1, 2], 1), ([2, 1], 2), ([1, 1], 2), ([-1, 4], 2), ([4, 30], 2)]
)
def test_deletions_that_do_not_fit_are_found(make, deleted, count):
    store = make(30, 20)
    ref = None
    if deleted is not None:
        name = "segments/00000099-0123abcd.deleted.npy"
        np.save(store.path / name, np.array(deleted))
        ref = reference(store.path, name)
    name = store.manifest.segments[0].name
    (finding,) = with_first_segment(store, deleted=ref, n_deleted=count)
    assert (finding.kind, finding.file) == ("misaligned", name)
    assert "the deletions do not fit the segment" in finding.message or "hold 1 int64 numbers" in finding.message


def test_deletions_of_the_first_and_the_last_row_fit(make):
    store = make(30)
    np.save(store.path / "segments/00000099-0123abcd.deleted.npy", np.array([0, 29]))
    ref = reference(store.path, "segments/00000099-0123abcd.deleted.npy")
    assert with_first_segment(store, deleted=ref, n_deleted=2) == []


def test_a_table_of_another_length_is_found(make):
    store = make(30, 20)
    first, second = store.manifest.segments
    name = "segments/00000099-0123abcd.parquet"
    shutil.copy(store.path / second.table.file, store.path / name)
    (finding,) = with_first_segment(store, table=reference(store.path, name))
    assert (finding.kind, finding.file) == ("misaligned", first.name)
    assert "holds 20 rows instead of 30" in finding.message
    message = f"^'{name}' holds 20 rows instead of 30; run `retr index check`$"
    with pytest.raises(IndexCorruptError, match=message):
        Store.open(store.path).table()


def test_hashes_out_of_order_are_found(make):
    store = make(30)
    hashes, rows = np.load(store.path / store.manifest.segments[0].ids.file)
    name = "segments/00000099-0123abcd.ids.npy"
    order = np.arange(30)
    order[[10, 20]] = 20, 10
    np.save(store.path / name, np.stack([hashes[order], rows[order]]))
    assert with_first_segment(store, ids=reference(store.path, name)) == [
        Finding("misaligned", name, f"{name!r} does not find the ids of its segment")
    ]


def test_an_id_that_stands_twice_in_one_segment_is_found(make, monkeypatch):
    monkeypatch.setattr("retr.index.rows.writer.Writer._refuse_repeated", lambda writer, ids, hashes: None)
    store = make(3)
    twice = store.table(rows=np.array([2, 0, 2, 1]))
    with store.writer() as writer:
        writer.delete(np.arange(3))
        writer.append(twice, np.ones((4, 8)))
        store = writer.commit()
    file = store.manifest.segments[0].table.file
    assert store.check() == [Finding("misaligned", file, f"an id of {file!r} stands for two rows")]
    with store.writer() as writer:
        writer.delete(np.array([2]))
        assert writer.commit().check() == []


def test_hashes_that_do_not_find_the_ids_are_found(make, monkeypatch):
    monkeypatch.setattr("retr.index.rows.writer.id_hashes", lambda ids: np.arange(len(ids), dtype="<u8"))
    store = make(30)
    assert [(one.kind, one.file) for one in store.check()] == [("misaligned", store.manifest.segments[0].ids.file)]


def test_an_id_of_two_rows_is_found(make, monkeypatch):
    monkeypatch.setattr("retr.index.rows.writer.Writer._refuse_taken_ids", lambda writer: None)
    store = make(30)
    with store.writer() as writer:
        writer.append(store.table(rows=np.array([7])), np.ones((1, 8)))
        store = writer.commit()
    assert ["stands for two rows" in one.message for one in store.check()] == [True]
    with store.writer() as writer:
        writer.delete(np.array([7]))
        assert writer.commit().check() == []
