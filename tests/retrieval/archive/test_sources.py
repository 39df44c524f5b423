"""Listing an archive: order, what counts as a picture, and everything that can be wrong with an entry."""

from __future__ import annotations

import gzip
import io
import os
import socket
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from retr.index.errors import UsageError
from retr.retrieval.archive.folders import FolderSource, read_file
from retr.retrieval.archive.metadata import read_metadata
from retr.retrieval.archive.opening import open_source
from retr.retrieval.archive.sources import Item, Other, Skipped
from retr.retrieval.classify.classify import image_files
from retr.retrieval.regular_files import NotRegularError


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


# In a process of its own: what others allocate, or a first import, is none of the listing's.
LISTING = """
import sys, tracemalloc
from retr.retrieval.archive.folders import FolderSource
empty, full = map(FolderSource, sys.argv[1:])
sum(1 for entry in empty.entries())
tracemalloc.start()
count = sum(1 for entry in full.entries())
print(count, tracemalloc.get_traced_memory()[1])
"""


def test_a_huge_folder_is_held_by_its_names_alone(tmp_path):
    count = 5_000
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    for number in range(count):
        (tmp_path / "full" / f"picture_{number:09d}.png").touch()
    command = [sys.executable, "-c", LISTING, str(tmp_path / "empty"), str(tmp_path / "full")]
    listed_there, peak = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert listed_there == count
    assert peak < 400 * count


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
    assert listed(tmp_path) == [Skipped("pipe.png", "not a file")]


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


# -- what is no file -------------------------------------------------------------------------------------------------


@pytest.fixture
def not_files(tmp_path):
    """A folder with one picture and one of each thing that must not be opened."""
    folder = tmp_path / "archive"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe.zip")
    os.mkfifo(folder / "pipe.parquet")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.open(folder, os.O_RDONLY)  # the path of a socket may be 107 bytes long
        bound.bind(f"/proc/self/fd/{here}/socket.png")
        os.close(here)
    links = {
        "zero.png": "/dev/zero",
        "terminal": "/dev/tty",
        "memory.dcm": "/proc/self/mem",
        "version": "/proc/version",
    }
    for name, target in {**links, "processes": "/proc", "devices": "/sys"}.items():
        (folder / name).symlink_to(target)
    return folder


def test_what_is_no_file_is_recorded_and_never_opened(not_files, make_picture, monkeypatch):
    names = sorted(entry.name for entry in not_files.iterdir())
    make_picture(1).save(not_files / "seen.png")
    opened = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *more, **options: opened.append(str(path)) or real(path, *more, **options)
    )
    entries = listed(not_files)
    assert {entry.path for entry in entries if isinstance(entry, Item)} == {"seen.png"}
    assert {(entry.path, entry.reason) for entry in entries if isinstance(entry, Skipped)} == {
        (name, "not a file") for name in names
    }
    assert not opened


def test_a_list_records_what_is_no_file(not_files):
    names = sorted(entry.name for entry in not_files.iterdir() if not entry.is_dir())
    (not_files / "list.csv").write_text("path\n" + "\n".join(names) + "\n")
    entries = list(open_source(not_files / "list.csv").entries())
    assert [(entry.path, entry.reason) for entry in entries] == [(name, "not a file") for name in names]


def test_an_archive_or_a_table_that_is_a_pipe_is_an_error(not_files):
    with pytest.raises(UsageError, match="is a pipe, a socket or a device"):
        open_source(not_files / "pipe.zip")
    for name in ("pipe", "pipe.parquet", "zero.png"):
        with pytest.raises(UsageError, match="is not a regular file"):
            read_metadata(not_files / name, reserved=())


def test_a_file_that_becomes_a_pipe_after_it_was_looked_at_is_not_waited_for(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"x")
    regular = (tmp_path / "a.png").stat()
    (tmp_path / "a.png").unlink()
    os.mkfifo(tmp_path / "a.png")
    monkeypatch.setattr(os, "stat", lambda *_args, **_options: regular)
    with pytest.raises(NotRegularError):
        read_file(tmp_path / "a.png")


# -- names that promise nothing --------------------------------------------------------------------------------------


@pytest.fixture
def unnamed(make_picture) -> dict[str, bytes]:
    """Files of every format under names that do not tell: name to bytes."""

    def encoded(kind: str) -> bytes:
        stream = io.BytesIO()
        make_picture(1).save(stream, kind)
        return stream.getvalue()

    nibabel = pytest.importorskip("nibabel")
    volume = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)).to_bytes()
    data_set = b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + b"\x08\0\x08\0CS\x08\0ORIGINAL" + bytes(400)
    whole = bytes(128) + b"DICM" + data_set
    files = {f"noext_{kind.lower()}": encoded(kind) for kind in ("BMP", "PNG", "TIFF", "JPEG", "GIF", "WEBP", "PPM")}
    return files | {
        "IM0001": whole,
        "img.acr": data_set,  # without preamble
        "1.2.840.10008.7": whole,
        "scan.bin": whole,
        "vol": volume,
        "vol.gz": gzip.compress(volume),
        "stack.0007": imagecodecs.jpegls_encode(np.zeros((4, 5), np.uint8)),
        "photo.orf": b"IIRO\x08\0\0\0" + bytes(400),  # not read, but said so
    }


NOT_PICTURES = {
    "README": b"P5 is a group",
    "Makefile": b"all:\n",
    "notes.page": b"BMW builds cars",
    "x.gz": b"\x1f\x8b\x08",
}


def packed(folder: Path, kind: str, files: dict[str, bytes]) -> Path:
    if kind == "folder":
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return folder
    file = folder / f"archive.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return file
    with tarfile.open(file, "w:gz" if kind == "tar.gz" else "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


def test_pictures_that_are_asked_about_are_found_as_those_of_an_archive_are(tmp_path, unnamed, not_files):
    packed(not_files, "folder", unnamed | NOT_PICTURES)
    assert {file.name for file in image_files(not_files)} == set(unnamed)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_names_that_promise_nothing_are_looked_into(tmp_path, unnamed, kind):
    entries = list(open_source(packed(tmp_path, kind, unnamed | NOT_PICTURES)).entries())
    assert {entry.path for entry in entries if isinstance(entry, Item)} == set(unnamed)
    assert {entry.path for entry in entries if isinstance(entry, Other)} == set(NOT_PICTURES)
