"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import threading

import pytest

from retr.index.machine import whole_file
from retr.index.machine.whole_file import write_first, write_if_possible, write_output, write_whole


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_a_failure_leaves_the_old_bytes_and_no_draft(tmp_path, monkeypatch, durable):
    path = tmp_path / "x"
    write_whole(path, b"old", durable=durable)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new", durable=durable)
    assert (path.read_bytes(), left_in(tmp_path)) == (b"old", ["x"])


def test_a_draft_that_was_left_is_no_way_to_another_file(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    (tmp_path / "draft").symlink_to(other)
    write_whole(tmp_path / "x", b"new", draft=tmp_path / "draft")
    assert (other.read_bytes(), left_in(tmp_path)) == (b"precious", ["other", "x"])


def test_a_reader_beside_writers_sees_one_of_the_contents(tmp_path):
    path, seen = tmp_path / "x", set()
    wanted = {bytes([number]) * 100_000 for number in range(4)}
    write_whole(path, min(wanted))
    threads = [
        threading.Thread(target=lambda data=data: [write_whole(path, data) for _ in range(25)]) for data in wanted
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.add(path.read_bytes())
    assert seen <= wanted
    assert left_in(tmp_path) == ["x"]


def test_of_several_first_writers_one_wins(tmp_path):
    path = tmp_path / "key"
    threads = [
        threading.Thread(target=write_first, args=(path, bytes([65 + n])), kwargs={"mode": 0o600}) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = path.read_bytes()
    write_first(path, b"late")
    assert (path.read_bytes(), left_in(tmp_path)) == (won, ["key"])
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert not write_if_possible(tmp_path / "file" / "x", b"data")
    assert write_if_possible(tmp_path / "new" / "x", b"data")


class TestOutput:
    """Files that a user named."""

    def test_a_link_and_a_pipe_are_written_into(self, tmp_path):
        (tmp_path / "target").write_bytes(b"old")
        (tmp_path / "link").symlink_to("target")
        write_output(tmp_path / "link", b"new")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "target").read_bytes() == b"new"
        os.mkfifo(tmp_path / "pipe")
        read = []
        reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
        reader.start()
        write_output(tmp_path / "pipe", b"new")
        reader.join()
        assert read == [b"new"]

    def test_permissions_stay(self, tmp_path):
        (tmp_path / "x").write_bytes(b"old")
        (tmp_path / "x").chmod(0o664)
        write_output(tmp_path / "x", b"new")
        assert ((tmp_path / "x").read_bytes(), (tmp_path / "x").stat().st_mode & 0o777) == (b"new", 0o664)

    def test_a_file_that_cannot_be_replaced_is_written_into(self, tmp_path, monkeypatch):
        path = tmp_path / "x"
        path.write_bytes(b"old")

        def mounted(*_, **__):
            raise OSError(16, "Device or resource busy", str(tmp_path / ".x.draft"))

        monkeypatch.setattr(whole_file, "write_whole", mounted)
        write_output(path, b"new")
        assert path.read_bytes() == b"new"

    def test_an_error_names_the_file_that_was_asked_for(self, tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            write_output(tmp_path / "none" / "x.html", b"new")
        assert caught.value.filename == str(tmp_path / "none" / "x.html")

    def test_a_folder_is_no_file(self, tmp_path):
        with pytest.raises(IsADirectoryError):
            write_output(tmp_path, b"new")
