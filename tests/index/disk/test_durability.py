"""Killed writers, full disks, and readers that look on while everything changes."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from patience import until

from retr.index.disk import files
from retr.index.disk.sweep import others
from retr.index.errors import RetrError
from retr.index.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# For each line it reads, forks a writer (so that the imports are paid once) and says when that has ended. A writer
# prints its process number, then appends, deletes, notes and compacts for ever; after each commit it prints the
# version and the count of live ids.
WRITER = """
import os, sys, numpy as np, pyarrow as pa, retr.index.rows.writer
from retr.index.store import Store

pa.table({"id": ["x"]})  # pyarrow looks for pandas at its first table

def write(path, seed):
    rng = np.random.default_rng(seed)
    print(os.getpid(), flush=True)
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
                writer.purge() if version % 10 == 0 else writer.compact()
            # One write: an unbuffered print of two values can be killed between them.
            os.write(1, f"{writer.store.version} {len(writer.store)}\\n".encode())

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        write(sys.argv[1], int(line))
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


class Writers:
    """Starts writers that can be killed, one after another."""

    def __init__(self, store: Store) -> None:
        command = [sys.executable, "-c", WRITER, str(store.path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._pid = 0

    def start(self, seed: int) -> None:
        """Start a writer and wait for its first commit."""
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        self._pid = int(self._process.stdout.readline())
        self._process.stdout.readline()

    def kill(self) -> list[tuple[int, ...]]:
        """Kill it; give the versions and counts it had printed since its first commit."""
        os.kill(self._pid, signal.SIGKILL)
        self._pid = 0
        return [tuple(map(int, line.split())) for line in iter(self._process.stdout.readline, "ended\n")]

    def close(self) -> None:
        if self._pid:
            self.kill()
        self._process.communicate()


@pytest.fixture
def writers() -> Iterator[Callable[[Store], Writers]]:
    with contextlib.ExitStack() as stack:
        yield lambda store: stack.enter_context(contextlib.closing(Writers(store)))


def test_a_writer_killed_at_any_instant_leaves_the_last_commit(make, writers):
    store = make()
    rng = random.Random(1)
    writer_of = writers(store)
    for attempt in range(12):
        before = Store.open(store.path)
        writer_of.start(attempt)
        time.sleep(rng.random() * 0.3)
        printed = writer_of.kill()
        after = Store.open(store.path)
        # A purge that was killed before its last old file was removed is said, until the next writer.
        assert {finding.kind for finding in after.check()} <= {"unpurged"}
        assert after.version > before.version
        if printed:
            assert after.version >= printed[-1][0]
            if after.version == printed[-1][0]:
                assert len(after) == printed[-1][1]
        # Every row stands beside its own vector: the writer shifted each by its version.
        table = after.table(["id", "version"], after.live_rows())
        assert all(i.startswith(f"{v}-") for i, v in zip(*table.to_pydict().values(), strict=True))
        with after.writer() as writer:
            assert others(store.path, writer.store.manifest) == ([], [])
            assert writer.store.check() == []


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
        writer.purge()
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


def test_readers_open_while_a_writer_commits_and_sweeps(make, writers):
    store = make()
    writer = writers(store)
    writer.start(7)
    versions = set()

    def looked() -> int:
        snapshot = Store.open(store.path)
        versions.add(snapshot.version)
        assert snapshot.table().num_rows == len(snapshot)
        assert snapshot.vectors().shape[0] == snapshot.n_total
        return len(versions)

    until(lambda: looked() > 10, every=0)


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


@pytest.mark.parametrize(
    ("act", "doing"),
    [
        (lambda writer: writer.replace_columns(pa.table({"id": ["r1"], "age": [3]})), "replacing columns"),
        (
            lambda writer: writer.record_skipped(pa.table({"path": ["x"], "reason": ["empty"]})),
            "recording what was skipped",
        ),
        (lambda writer: writer.add_file("side", b"x"), "writing 'side'"),
        (lambda writer: writer.accelerate(0, lambda path: path.write_bytes(b"x")), "writing an accelerator"),
        (lambda writer: [writer.note("a", 1), writer.commit()], "committing"),
        (lambda writer: writer.compact(), "compacting"),
    ],
)
def test_the_error_says_what_the_disk_refused(make, monkeypatch, act, doing):
    store = make(3)
    with store.writer() as writer:
        writer.delete([0])
        store = writer.commit()
        monkeypatch.setattr(files.os, "fsync", FullDisk(0))
        with pytest.raises(RetrError, match=f"no space left on the disk while {doing}; "):
            act(writer)
    assert (Store.open(store.path).version, store.check()) == (store.version, [])
    with pytest.raises(RetrError, match="no space left on the disk while making the index; "):
        make(name="other")


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
    done = subprocess.run([sys.executable, "-c", SMALL, str(store.path)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("no space left on the disk" in line and "last commit" in line for line in lines)
    after = Store.open(store.path)
    assert after.table(["id"]).column("id").to_pylist() == ["r0", "r1", "r2", "r3", "r4", "after"]
    assert after.check() == []
    assert others(store.path, after.manifest) == ([], [])
