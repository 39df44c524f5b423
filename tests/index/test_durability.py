"""Killed writers, full disks, and readers that look on while everything changes."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest

from retr.index import files
from retr.index.errors import RetrError
from retr.index.store import Store
from retr.index.sweep import others

# Appends, deletes, notes and compacts for ever; after each commit it prints the version and the live ids' count.
WRITER = """
import sys, numpy as np, pyarrow as pa
from retr.index.store import Store
path, seed = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(seed)
with Store.open(path).writer() as writer:
    while True:
        version = writer.store.version
        n = int(rng.integers(1, 40))
        ids = [f"{version}-{i}" for i in range(n)]
        writer.append(pa.table({"id": ids, "version": [version] * n}), rng.standard_normal((n, 8)) + version)
        live = writer.store.live_rows()
        if len(live) > 60:
            writer.delete(rng.choice(live, len(live) // 3, replace=False))
        writer.note("last", version)
        writer.add_file("side", str(version).encode())
        writer.commit()
        if version % 5 == 0:
            writer.compact(purge=version % 10 == 0)
        print(writer.store.version, len(writer.store), flush=True)
"""


def test_a_writer_killed_at_any_instant_leaves_the_last_commit(make):
    store = make()
    rng = random.Random(1)
    for attempt in range(12):
        before = Store.open(store.path)
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.path), str(attempt)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().split("\n")
        process.wait()
        process.stdout.close()
        after = Store.open(store.path)
        assert after.check() == []
        assert after.version > before.version
        printed = [tuple(map(int, line.split())) for line in lines if line.count(" ") == 1 and line]
        if printed:
            assert after.version >= printed[-1][0]
            if after.version == printed[-1][0]:
                assert len(after) == printed[-1][1]
        # Every row stands beside its own vector: the writer shifted each by its version.
        table = after.table(["id", "version"], after.live_rows())
        assert all(i.startswith(f"{v}-") for i, v in zip(*table.to_pydict().values(), strict=True))
        with after.writer() as writer:
            assert others(store.path, writer.store.manifest) == ([], [])


def test_a_reader_keeps_its_snapshot(make):
    store = make(30, 20)
    first = Store.open(store.path)
    lazy = Store.open(store.path)
    table, vectors = first.table(), first.vectors().copy()
    with store.writer() as writer:
        writer.add_file("side", b"1")
        writer.record_skipped(pa.table({"path": ["x"], "reason": ["empty"]}))
        second = writer.commit()
        writer.delete(np.arange(25))
        writer.remove_file("side")
        writer.commit()
        writer.compact(purge=True)
        writer.append(pa.table({"id": ["later"]}), np.ones((1, 8)))
        writer.commit()
    # `lazy` had read nothing but the manifest when its files were removed.
    assert not any((store.path / ref.file).exists() for ref in lazy.manifest.refs())
    assert lazy.table().equals(table)
    np.testing.assert_array_equal(lazy.vectors(), vectors)
    assert lazy.rows_of(["r3", "later"]).tolist() == [3, -1]
    assert lazy.where("age < 10").sum() == 9
    assert lazy.search(vectors[:1], 50).rows.min() >= 0
    assert second.file("side") == b"1"
    assert second.skipped().num_rows == 1
    assert len(Store.open(store.path)) == 26


def test_readers_open_while_a_writer_commits_and_sweeps(make):
    store = make()
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(store.path), "7"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        versions = set()
        until = time.monotonic() + 2
        while time.monotonic() < until:
            snapshot = Store.open(store.path)
            versions.add(snapshot.version)
            assert snapshot.table().num_rows == len(snapshot)
            assert snapshot.vectors().shape[0] == snapshot.n_total
        assert len(versions) > 2
    finally:
        process.kill()
        process.communicate()


class FullDisk:
    """Stands in for `os.fsync`: the disk is full from a given call on."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, descriptor: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("after", range(12))
def test_a_disk_that_fills_up_at_any_flush_keeps_the_last_commit(make, monkeypatch, after):
    store = make(30)
    before = store.table()
    with store.writer() as writer:
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "fsync", FullDisk(after))
            try:
                writer.append(pa.table({"id": ["new"]}), np.ones((1, 8)))
                writer.delete(np.array([3]))
                writer.add_file("side", b"x")
                writer.commit()
                failed = False
            except RetrError as error:
                assert "no space left on the disk" in str(error)
                failed = True
        seen = Store.open(store.path)
        if failed:
            # The very last flush comes after CURRENT was replaced: then the commit may stand already.
            assert seen.version in {store.version, store.version + 1}
        if seen.version == store.version:
            assert seen.table().equals(before)
        assert seen.check() == []
    again = Store.open(store.path)
    assert others(store.path, again.manifest) == ([], [])
    with again.writer() as writer:
        writer.note("works", True)
        assert writer.commit().check() == []


SMALL = """
import resource, signal, sys, numpy as np, pyarrow as pa
from retr.index.store import Store
from retr.index.errors import RetrError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store.open(sys.argv[1])
with store.writer() as writer:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    for attempt in range(2):
        try:
            for i in range(20):
                ids = [f"{attempt}-{i}-{j}" for j in range(1000)]
                writer.append(pa.table({"id": ids}), np.random.default_rng(i).standard_normal((1000, 8)))
            writer.commit()
            print("committed")
        except RetrError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    writer.append(pa.table({"id": ["after"]}), np.ones((1, 8)))
    writer.commit()
"""


def test_a_write_the_system_refuses_is_one_clear_error(make):
    """The kernel refuses to let a file grow, in the middle of writing a segment, twice; then the writer goes on."""
    store = make(5)
    done = subprocess.run(
        [sys.executable, "-c", SMALL, str(store.path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("no space left on the disk" in line and "last commit" in line for line in lines)
    after = Store.open(store.path)
    assert after.table(["id"]).column("id").to_pylist() == ["r0", "r1", "r2", "r3", "r4", "after"]
    assert after.check() == []
    assert others(store.path, after.manifest) == ([], [])
