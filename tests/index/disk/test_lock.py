from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from patience import LONG

from retr.index.errors import IndexLockedError
from retr.index.store import Store

HOLDER = """
import sys, time
from retr.index.store import Store
with Store.open(sys.argv[1]).writer():
    print("held", flush=True)
    time.sleep(600)
"""
FORKER = """
import os, sys, time
from retr.index.store import Store
with Store.open(sys.argv[1]).writer():
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(600)
        os._exit(0)
    time.sleep(600)
"""


def start(code: str, store: Store) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, "-c", code, str(store.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline()


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_second_writer_is_told_who_holds_the_lock(make):
    store = make(3)
    process, _ = start(HOLDER, store)
    try:
        with pytest.raises(IndexLockedError, match=rf"pid {process.pid} on .+ since \d{{4}}-\d\d-\d\dT"):
            with store.writer():
                pass
        assert len(Store.open(store.path)) == 3
    finally:
        stop(process)
    with store.writer() as writer:
        writer.note("free", True)
        writer.commit()


def test_two_writers_of_one_process_exclude_each_other(make):
    store = make(3)
    with store.writer():
        with pytest.raises(IndexLockedError, match=f"pid {os.getpid()}"), store.writer():
            pass
        with pytest.raises(IndexLockedError), store.writer():
            pass
    with store.writer():
        pass


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[]", b'{"pid": 1}'])
def test_a_holder_whose_name_cannot_be_read_still_holds_the_lock(make, text):
    store = make(3)
    with store.writer():
        (store.path / "lock").write_bytes(text)
        with (
            pytest.raises(IndexLockedError, match=r"\(its name is not known\); wait until it has ended"),
            store.writer(),
        ):
            pass


def test_a_forked_child_does_not_keep_a_dead_writers_lock(make):
    store = make(3)
    process, child = start(FORKER, store)
    stop(process)
    try:
        with store.writer():
            pass
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_a_writer_works_on_the_newest_version(make):
    old = make(3)
    with old.writer() as writer:
        writer.note("a", 1)
        writer.commit()
    with old.writer() as writer:
        assert writer.store.version == old.version + 1


def test_contending_writers_lose_no_commit(make):
    store = make()
    code = """
import sys, time
from retr.index.store import Store
from retr.index.errors import IndexLockedError
path, name = sys.argv[1:]
done = 0
while done < 5:
    try:
        with Store.open(path).writer() as writer:
            writer.note(f"{name}-{done}", True)
            writer.commit()
            done += 1
    except IndexLockedError:
        time.sleep(0.002)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(store.path), name]) for name in "abc"]
    assert [process.wait(timeout=LONG) for process in processes] == [0, 0, 0]
    assert len(Store.open(store.path).manifest.extra) == 15
