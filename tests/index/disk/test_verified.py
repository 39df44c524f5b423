"""A file that this machine did not write is looked at once, and again when it is another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from retr.index.disk import verified
from retr.index.errors import IndexCorruptError
from retr.index.store import Store


@pytest.fixture
def looked(monkeypatch) -> list[str]:
    """The files that were hashed since the last `clear`; nothing is remembered by the process alone."""
    names: list[str] = []
    digest_of = verified.digest_of

    def counted(root, ref):
        names.append(ref.file)
        return digest_of(root, ref)

    monkeypatch.setattr(verified, "digest_of", counted)
    monkeypatch.setattr(verified, "_this_process", set())
    return names


def another_process() -> None:
    verified._this_process.clear()


def test_what_this_machine_wrote_is_not_read_again(make, looked):
    store = make(30, 20)
    with store.writer() as writer:
        writer.delete(np.array([1]))
        writer.add_file("side", b"bytes")
        writer.commit()
        writer.compact()
    another_process()
    assert len(Store.open(store.path)) == 49
    assert looked == []


def test_a_copy_is_looked_at_once(make, looked, tmp_path):
    store = make(30, 20)
    shutil.copytree(store.path, tmp_path / "copy")
    for expected in (sorted(ref.file for ref in store.manifest.refs()), [], []):
        looked.clear()
        another_process()
        Store.open(tmp_path / "copy")
        assert sorted(looked) == expected
    # and the original is still known
    Store.open(store.path)
    assert looked == []


def test_only_the_file_that_changed_is_looked_at_again(make, looked):
    store = make(30, 20)
    file = store.manifest.segments[1].vectors.file
    shutil.copy(store.path / file, store.path / "beside")
    Path(store.path / "beside").replace(store.path / file)
    another_process()
    Store.open(store.path)
    assert looked == [file]


@pytest.mark.parametrize("role", ["vectors", "table", "ids"])
def test_a_file_altered_in_place_with_its_times_kept_is_refused(make, looked, role):
    store = make(30)
    file = store.path / getattr(store.manifest.segments[0], role).file
    before, data = file.stat(), bytearray(file.read_bytes())
    data[-200] ^= 1
    with file.open("r+b") as stream:
        stream.write(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(IndexCorruptError, match=r"was changed after it was written; run `retr index check`$"):
        Store.open(store.path)
    # what was refused is not remembered
    another_process()
    with pytest.raises(IndexCorruptError, match="was changed"):
        Store.open(store.path)


def test_without_a_state_folder_a_process_looks_once(make, looked, tmp_path, monkeypatch):
    store = make(30)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RETR_STATE_DIR", str(tmp_path / "file"))
    another_process()
    Store.open(store.path)
    assert len(looked) == 3
    Store.open(store.path)
    assert len(looked) == 3


def test_a_memory_that_was_damaged_is_made_anew(make, looked):
    store = make(30)
    (memory,) = (Path(os.environ["RETR_STATE_DIR"]) / "verified").iterdir()
    memory.write_bytes(b"\xff\x00")
    another_process()
    Store.open(store.path)
    assert len(looked) == 3
    another_process()
    Store.open(store.path)
    assert len(looked) == 3


def test_a_state_folder_that_cannot_be_written_is_said_for_what_takes_long(make, looked, tmp_path, monkeypatch, caplog):
    store = make(30)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RETR_STATE_DIR", str(tmp_path / "file"))
    Store.open(store.path)
    assert not caplog.messages
    monkeypatch.setattr(verified, "_SHORT", 100)
    another_process()
    Store.open(store.path)
    assert len(caplog.messages) == 1
    assert "RETR_STATE_DIR" in caplog.text
    looked.clear()
    Store.open(store.path)
    assert (looked, len(caplog.messages)) == ([], 1)
