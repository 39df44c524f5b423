"""The journal: durable at once, never torn, taken in by the next commit, and read whole by whoever looks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retr import IndexCorruptError, RetrError
from retr.index.disk import journal
from retr.index.disk.journal import JOURNAL, Entry, Lines
from retr.retrieval.sets.sets import entries_of
from retr.sample import sample_index

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(), one, max_size=3),
    max_leaves=6,
)


def write(root, number, do="label"):
    with journal.held(root) as held:
        return held.append("anna", do, {"set": "s", "rows": [], "label": f"l{number}"})


@pytest.fixture
def root():
    return sample_index().path


@given(data=st.dictionaries(st.text(), JSON, max_size=3), author=st.text(), cut=st.integers(0, 400))
def test_lines_come_back_and_a_torn_one_hides_none_before_it(data, author, cut):
    try:
        line = Entry(3, "t", author, "x", data).to_line()
    except UnicodeEncodeError:
        return
    first = Entry(2, "t", "anna", "x", {}).to_line()
    found = Lines.of(first + line[: min(cut, len(line) - 1)])
    assert [entry.number for entry in found.entries] == [2]
    assert not found.damaged
    assert Lines.of(first + line).entries[1:] in [(Entry(3, "t", author, "x", data),), ()]


@pytest.mark.parametrize("part", [1, 40, -1])
def test_what_a_killed_process_left_gives_way_to_the_next_entry(root, part):
    write(root, 1)
    whole = (root / JOURNAL).read_bytes()
    (root / JOURNAL).write_bytes(whole + whole[:part])
    assert [entry.number for entry in entries_of(root)] == [1]
    assert write(root, 2).number == 2
    assert [entry.data["label"] for entry in entries_of(root)] == ["l1", "l2"]
    assert len((root / JOURNAL).read_bytes().splitlines()) == 2


def test_a_torn_end_longer_than_what_is_read_at_once_is_cut(root):
    write(root, 1)
    with (root / JOURNAL).open("ab") as file:
        file.write(b"x" * 300_000)
    assert write(root, 2).number == 2
    assert (root / JOURNAL).stat().st_size < 1000


def test_a_line_that_was_changed_hides_no_other_and_is_found(root):
    index = sample_index()
    for number in range(3):
        write(index.path, number)
    lines = (index.path / JOURNAL).read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"l1", b"l7")
    (index.path / JOURNAL).write_bytes(b"".join(lines))
    assert [entry.number for entry in entries_of(index.path)] == [1, 3]
    assert [(one.kind, one.file, one.message) for one in index.check()] == [
        ("altered", JOURNAL, "line 2 of 'journal.jsonl' was changed")
    ]
    index.set_group(None)
    # the commit took the others in, and what it could not read it left
    assert (index.path / JOURNAL).read_bytes() == lines[1]
    assert [entry.number for entry in entries_of(index.path)] == [1, 3]
    assert write(index.path, 4).number == 4


def test_a_commit_takes_entries_in_once_however_it_ends(monkeypatch):
    index = sample_index()
    write(index.path, 1)

    def fails(*_, **__):
        raise OSError(5, "no")

    with monkeypatch.context() as patch:
        patch.setattr(journal.LockedJournal, "cut", fails)
        index.set_group(None)
    assert (index.path / JOURNAL).stat().st_size
    assert [entry.number for entry in entries_of(index.path)] == [1]
    write(index.path, 2)
    index.set_group("patient")
    assert (index.path / JOURNAL).read_bytes() == b""
    assert [entry.number for entry in entries_of(index.path)] == [1, 2]
    assert write(index.path, 3).number == 3
    assert index.check() == []


def test_saving_does_not_wait_for_a_writer(root):
    index = sample_index()
    with index.store.writer() as writer:
        write(index.path, 1)
        assert len(entries_of(index.path)) == 1
        writer.delete(np.array([0]))
        writer.commit()
        write(index.path, 2)
    assert [entry.number for entry in entries_of(index.path)] == [1, 2]


def test_rows_are_committed_whatever_the_journal_is(root, caplog):
    index = sample_index()
    (index.path / JOURNAL).symlink_to("/dev/null")
    index.delete(ids=[next(iter(index))])
    assert len(index) == 23
    assert "is not taken in" in caplog.text
    with pytest.raises(IndexCorruptError, match="is a link"):
        write(index.path, 1)
    with pytest.raises(IndexCorruptError, match="is a link"):
        index.delete(ids=[next(iter(index))], purge=True)
    assert [one.kind for one in index.check()] == ["unreadable"]


def test_a_folder_that_cannot_be_written_is_one_line(root):
    root.chmod(0o555)
    code = (
        "import os;from pathlib import Path;from retr.index.disk import journal\n"
        "os.getuid() or os.seteuid(65534)\n"
        "try:\n with journal.held(Path('.')) as held: held.append('a', 'x', {})\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    root.chmod(0o755)
    assert done.stdout.startswith("RetrError the disk failed while opening 'journal.lock': Permission denied")
    assert done.stdout.count("\n") == 1


def test_a_full_disk_leaves_no_part_of_an_entry(root, monkeypatch):
    write(root, 1)
    real, calls = os.write, []

    def full(file, data):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(file, bytes(data)[:20])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RetrError, match="no space left"):
            write(root, 2)
    assert (root / JOURNAL).read_bytes().count(b"\n") == 1
    assert (root / JOURNAL).read_bytes().endswith(b"\n")


def test_threads_and_commits_at_once_lose_nothing():
    index = sample_index()
    failed = []

    def work(many):
        try:
            for number in range(many):
                write(index.path, number)
        except RetrError as error:  # pragma: no cover - what the test is for
            failed.append(error)

    threads = [threading.Thread(target=work, args=(40,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    group = "label"
    seen = 0
    while any(thread.is_alive() for thread in threads):
        index.set_group(group)
        group = "patient" if group == "label" else "label"
        numbers = [entry.number for entry in entries_of(index.path)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= seen
        seen = len(numbers)
    assert not failed
    assert [entry.number for entry in entries_of(index.path)] == list(range(1, 121))
