"""The rows of an index in shards: what lies on the disk, and that a commit over them is seen whole or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from retr.index.disk import journal
from retr.index.disk.current import read_current
from retr.index.disk.manifest import Manifest
from retr.index.disk.sweep import others
from retr.index.errors import FormatVersionError, IndexCorruptError, UsageError
from retr.index.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def live_ids(store: Store) -> list[str]:
    return sorted(store.table(["id"]).column("id").to_pylist())


def test_a_shard_is_an_ordinary_index(make):
    store = make(30, 20, shards=3)
    manifest = store.manifest
    assert (manifest.format_version, manifest.shards, len(store)) == (3, 3, 50)
    assert json.loads((store.path / manifest.file).read_text())["segments"] == []
    seen = []
    for folder in manifest.folders:
        shard = Store.open(store.path / folder)
        assert (shard.manifest.format_version, shard.check(), shard.manifest.encoder) == (1, [], manifest.encoder)
        seen += live_ids(shard)
    assert sorted(seen) == live_ids(store)
    assert store.check() == []
    # who is told of the whole opens the same
    again = Store.open(store.path)
    assert again.table().sort_by("id").equals(store.table().sort_by("id"))


def test_a_shard_is_changed_with_its_index_alone(make):
    store = make(20, shards=2)
    shard = Store.open(store.path / "shards/0001")
    with pytest.raises(UsageError, match="a shard of an index"), shard.writer():
        pass
    with pytest.raises(UsageError, match="a shard of an index"), journal.held(shard.path):
        pass
    assert store.check() == []


@pytest.mark.parametrize("shards", [0, -1, 1025, True, 2.0, "3"])
def test_a_number_that_is_none_of_shards_is_refused(make, tmp_path, shards):
    with pytest.raises(UsageError, match="from 1 to 1024 shards"):
        make(shards=shards, name="new")
    assert not (tmp_path / "new").exists()


def test_one_shard_is_an_index_without(make):
    store = make(10, shards=1)
    assert (store.manifest.shards, store.manifest.format_version) == (0, 1)
    assert not (store.path / "shards").exists()


def test_an_older_reader_says_that_it_cannot_read_it(make, monkeypatch):
    text = make(10, shards=2).manifest.to_bytes()
    monkeypatch.setattr("retr.index.disk.manifest.FORMAT_VERSIONS", (1, 2))
    with pytest.raises(FormatVersionError, match="format version 3"):
        Manifest.from_bytes(text)


def test_what_a_shard_lacks_is_found(make, tmp_path):
    path = make(40, shards=3).path

    def damaged(name: str, act: Callable[[Path], object]) -> Path:
        copy = tmp_path / name
        shutil.copytree(path, copy)
        act(copy)
        return copy

    def other_vectors(copy: Path) -> None:
        next((copy / "shards/0001/segments").glob("*[0-9a-f].npy")).write_bytes(b"x")

    def other_manifest(copy: Path) -> None:
        file = next((copy / "shards/0002/manifests").glob("*.json"))
        file.write_text(file.read_text().replace('"patient"', '"study"'))

    def no_manifest(copy: Path) -> None:
        next((copy / "shards/0000/manifests").glob("*.json")).unlink()

    def elsewhere(copy: Path) -> None:
        shutil.move(copy / "shards/0001", tmp_path / "taken")
        (copy / "shards/0001").symlink_to(tmp_path / "taken")

    def swapped(copy: Path) -> None:
        # every file as it was written, in the wrong shard
        a, b = copy / "shards/0000", copy / "shards/0001"
        a.rename(copy / "x")
        b.rename(a)
        (copy / "x").rename(b)

    for number, act in enumerate([other_vectors, other_manifest, no_manifest, elsewhere, swapped]):
        copy = damaged(f"damaged-{number}", act)
        with pytest.raises(IndexCorruptError):
            Store.open(copy)
    foreign = damaged("foreign", lambda copy: (copy / "shards/0000/mine.txt").write_text("x"))
    assert [finding.file for finding in Store.open(foreign).check()] == ["shards/0000/mine.txt"]


def test_a_manifest_of_another_index_is_no_shard(make, tmp_path):
    one, other = make(20, shards=2), make(20, shards=2, name="other")
    manifest, theirs = read_current(one.path), read_current(other.path)
    ref = theirs.shard_files[1]
    shutil.copy(other.path / ref.file, one.path / ref.file)
    import dataclasses

    from retr.index.disk import shards

    wrong = dataclasses.replace(manifest, segments=(), shard_files=(manifest.shard_files[0], ref))
    with pytest.raises(IndexCorruptError, match="shard 1"):
        shards.assembled(one.path, wrong)
    with pytest.raises(ValueError, match="order"):
        dataclasses.replace(manifest, shard_files=manifest.shard_files[::-1]).require_sense()


# Forks a child for each number on its command line's second argument, which kills itself at that call to the system.
KILLED = """
import os, shutil, signal, sys
import numpy as np, pyarrow as pa
import retr.index.rows.writer
from retr.index.store import Store

pa.table({"id": ["x"]})
base, out, act, step = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

def change(path):
    store = Store.open(path)
    with store.writer() as writer:
        if act == "append":
            # a patient moves to another shard in the same commit
            table = store.table(["id"]).append_column("patient", pa.array(["moved"] * len(store)))
            writer.replace_columns(table.slice(0, 12))
            writer.append(pa.table({"id": [f"n{i}" for i in range(9)]}), np.eye(9, 8) + 1)
            writer.delete(store.live_rows()[:3])
            writer.note("last", 1)
            writer.commit()
        elif act == "purge":
            writer.delete(store.live_rows()[:5])
            writer.purge()
        else:
            writer.shard(int(act))
            writer.commit()

def counted(limit, write):
    left = [limit]
    def wrap(name):
        real = getattr(os, name)
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        setattr(os, name, call)
    for name in ("fsync", "replace", "unlink", "mkdir", "rmdir"):
        wrap(name)

limit = 1
while True:
    path = f"{out}/{limit}"
    shutil.copytree(base, path)
    child = os.fork()
    if child == 0:
        counted(limit, sys.argv)
        change(path)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    limit += step
print(limit)
"""


@pytest.mark.parametrize(("act", "step"), [("append", 31), ("purge", 37), ("1", 23), ("4", 37)])
def test_a_writer_killed_at_any_call_leaves_one_commit_or_the_other(make, tmp_path, act, step):
    store = make(12, 12, shards=2)
    before = live_ids(store)
    command = [sys.executable, "-c", KILLED, str(store.path), str(tmp_path), act, str(step)]
    last = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    after = live_ids(Store.open(tmp_path / str(last)))
    assert last > 20
    seen = set()
    for number in range(1, last + 1, step):
        path = tmp_path / str(number)
        opened = Store.open(path)
        seen.add(tuple(live_ids(opened)))
        assert live_ids(opened) in (before, after)
        assert opened.manifest.shards in {2, 0 if act == "1" else int(act) if act.isdigit() else 2}
        kinds = {finding.kind for finding in opened.check()}
        assert kinds <= {"unpurged"}, number
        with opened.writer() as writer:
            # the next writer clears away what is left, and mends what a shard alone opens as
            assert others(path, writer.store.manifest) == ([], [])
            for folder in writer.store.manifest.folders:
                assert Store.open(path / folder).check() == []
            writer.append(pa.table({"id": ["late"]}), np.ones((1, 8)))
            assert len(writer.commit()) == len(opened) + 1
    assert len(seen) == (1 if before == after else 2)
