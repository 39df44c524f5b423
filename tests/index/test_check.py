from __future__ import annotations

import shutil

import numpy as np
import pytest

from retr.index.check import check_path
from retr.index.errors import IndexCorruptError
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
        writer.compact(purge=True)
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
    damaged = Store.open(store.path)
    with pytest.raises(IndexCorruptError, match="retr index check"):
        damaged.table()


def test_hashes_that_do_not_find_the_ids_are_found(make, monkeypatch):
    monkeypatch.setattr("retr.index.writer.id_hashes", lambda ids: np.arange(len(ids), dtype="<u8"))
    store = make(30)
    assert [(one.kind, one.file) for one in store.check()] == [("misaligned", store.manifest.segments[0].ids.file)]


def test_an_id_of_two_rows_is_found(make, monkeypatch):
    monkeypatch.setattr("retr.index.writer.Writer._refuse_taken_ids", lambda writer: None)
    store = make(30)
    with store.writer() as writer:
        writer.append(store.table(rows=np.array([7])), np.ones((1, 8)))
        store = writer.commit()
    assert ["stands for two rows" in one.message for one in store.check()] == [True]
    with store.writer() as writer:
        writer.delete(np.array([7]))
        assert writer.commit().check() == []
