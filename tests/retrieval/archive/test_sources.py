"""Listing an archive: order, what counts as a picture, and everything that can be wrong with an entry."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from retr.index.errors import UsageError
from retr.retrieval.archive.folders import FolderSource, read_file
from retr.retrieval.archive.opening import open_source
from retr.retrieval.archive.sources import Item, Other, Skipped


def listed(folder, **options):
    return list(FolderSource(folder, **options).entries())


def test_entries_come_in_the_order_of_their_paths(tmp_path, make_picture):
    for name in ("b.png", "a/z.png", "a-b/c.png", "a.png", "a/y/x.png", "Z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        make_picture(1).save(tmp_path / name)
    paths = [entry.path for entry in listed(tmp_path)]
    assert paths == sorted(paths)
    assert len(paths) == 6


def test_an_item_knows_size_and_mtime(tmp_path, make_picture):
    make_picture(1).save(tmp_path / "a.png")
    os.utime(tmp_path / "a.png", (1_700_000_000.25, 1_700_000_000.25))
    (item,) = listed(tmp_path)
    assert item == Item("a.png", (tmp_path / "a.png").stat().st_size, 1_700_000_000.25)


def test_a_huge_folder_is_held_by_its_names_alone(tmp_path):
    count = 5_000
    for number in range(count):
        (tmp_path / f"picture_{number:09d}.png").touch()
    tracemalloc.start()
    try:
        assert sum(isinstance(entry, Item) for entry in FolderSource(tmp_path).entries()) == count
        assert tracemalloc.get_traced_memory()[1] < 400 * count
    finally:
        tracemalloc.stop()


def test_other_files_are_neither_pictures_nor_failures(tmp_path, make_picture):
    (tmp_path / "labels.csv").write_text("path,label\n")
    (tmp_path / "notes").write_text("a text without a suffix")
    (tmp_path / "BMW").write_text("BMW is a car maker")
    make_picture(1).save(tmp_path / "IM0001", "PNG")
    entries = listed(tmp_path)
    assert {entry.path for entry in entries if isinstance(entry, Other)} == {"labels.csv", "notes", "BMW"}
    assert {entry.path for entry in entries if isinstance(entry, Item)} == {"IM0001"}


def test_hidden_entries_and_the_index_are_left_out(tmp_path, make_picture):
    for name in (".hidden.png", ".retr/a.png", "fundus.retr/a.png", "seen.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_picture(1).save(tmp_path / name)
    assert [entry.path for entry in listed(tmp_path, leave_out=(tmp_path / "fundus.retr",))] == ["seen.png"]


def test_an_index_in_the_archive_is_left_out(tmp_path, fake_encoder):
    from retr.index.store import Store

    Store.create(tmp_path / "other.retr", encoder=fake_encoder.info)
    assert listed(tmp_path) == []


def test_links_are_followed_and_bad_ones_recorded(tmp_path, make_picture):
    (tmp_path / "real").mkdir()
    make_picture(1).save(tmp_path / "real" / "a.png")
    (tmp_path / "copy").symlink_to("real")
    (tmp_path / "broken.png").symlink_to("nowhere.png")
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "real" / "up").symlink_to("..")
    entries = {entry.path: entry for entry in listed(tmp_path)}
    assert isinstance(entries["copy/a.png"], Item)
    reasons = {path: entry.reason for path, entry in entries.items() if isinstance(entry, Skipped)}
    assert reasons == {
        "broken.png": "broken link",
        "self.png": "link loop",
        "real/up": "link loop",
        "copy/up": "link loop",
    }


def test_a_named_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert listed(tmp_path) == [Other("pipe.png")]


def test_a_name_that_is_not_utf8_is_recorded(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"x")
    assert listed(tmp_path) == [Skipped("\\xff.png", "name is not UTF-8")]


def test_a_folder_that_cannot_be_listed_is_recorded(tmp_path, make_picture, monkeypatch):
    (tmp_path / "closed").mkdir()
    make_picture(1).save(tmp_path / "open.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    # the tests may run as root, to whom nothing is closed
    monkeypatch.setattr(os, "scandir", refuse)
    closed, item = listed(tmp_path)
    assert closed == Skipped("closed", "no permission")
    assert item.path == "open.png"


def test_folders_nested_deeper_than_the_call_limit(tmp_path, make_picture):
    deep, here = 1100, Path.cwd()
    try:
        os.chdir(tmp_path)
        for _ in range(deep):
            Path("d").mkdir()
            os.chdir("d")
        make_picture(1).save("a.png")
        (item,) = listed(tmp_path)
        # taken down here: pytest's own clean-up would meet the call limit
        Path("a.png").unlink()
        for _ in range(deep):
            os.chdir("..")
            Path("d").rmdir()
    finally:
        os.chdir(here)
    assert item.path == "d/" * deep + "a.png"


def test_a_file_that_says_nothing_of_itself_counts_when_it_is_named(tmp_path, make_picture):
    make_picture(1).save(tmp_path / "picture.unknown", "PNG")
    source = open_source(tmp_path / "picture.unknown")
    (item,) = source.entries()
    assert item.path == "picture.unknown"
    assert source.read("picture.unknown")[0] == (tmp_path / "picture.unknown").read_bytes()


@pytest.mark.parametrize("name", ["missing", "missing/deeper"])
def test_an_archive_that_is_not_there(tmp_path, name):
    with pytest.raises(UsageError, match=r"does not exist; give"):
        open_source(tmp_path / name)


def test_reading_tells_the_state_of_the_bytes_it_gives(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"1234")
    os.utime(file, (5.0, 5.0))
    assert read_file(file) == (b"1234", 4, 5.0)
