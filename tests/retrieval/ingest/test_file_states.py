"""Size and mtime are no identity: what this machine has read, it knows by inode and ctime too."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from retr.index.machine.state import state_folder
from retr.index.store import Store
from retr.retrieval.ingest import file_states
from retr.retrieval.ingest.build import add, build
from retr.retrieval.ingest.file_states import FileStates

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def index(tmp_path):
    return tmp_path / "index"


@pytest.fixture
def bitmaps(tmp_path, make_picture):
    """Three uncompressed pictures of one size and one time."""
    folder = tmp_path / "archive"
    folder.mkdir()
    for number, name in enumerate("abc"):
        make_picture(number).save(folder / f"{name}.bmp")
        os.utime(folder / f"{name}.bmp", (1e9, 1e9))
    return folder


def swap(folder: Path) -> None:
    """Let two files change places with their times."""
    (folder / "a.bmp").rename(folder / "x")
    (folder / "b.bmp").rename(folder / "a.bmp")
    (folder / "x").rename(folder / "b.bmp")


def hashes(index: Path) -> dict[str, str]:
    table = Store.open(index).table(["id", "sha256"])
    return dict(zip(table["id"].to_pylist(), table["sha256"].to_pylist(), strict=True))


def vectors_fit(index: Path, encoder, pictures: dict[str, bytes]) -> None:
    store = Store.open(index)
    for row, vector in zip(store.table().to_pylist(), store.vectors(store.live_rows()), strict=True):
        expected = encoder.encode_images([pictures[row["id"]]])[0]
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)


def test_a_swap_that_keeps_size_and_time_is_noticed_and_embeds_nothing(bitmaps, index, fake_encoder):
    build(bitmaps, index, fake_encoder)
    before = hashes(index)
    swap(bitmaps)
    report = build(bitmaps, index, fake_encoder)
    assert (report.changed, report.reused, report.unchanged, report.embedded) == (2, 2, 1, 0)
    assert hashes(index) == {**before, "a.bmp": before["b.bmp"], "b.bmp": before["a.bmp"]}
    vectors_fit(index, fake_encoder, {file.name: file.read_bytes() for file in bitmaps.iterdir()})
    assert build(bitmaps, index, fake_encoder).unchanged == 3


def test_new_bytes_under_the_old_time_are_embedded(bitmaps, index, fake_encoder, make_picture):
    build(bitmaps, index, fake_encoder)
    make_picture(9).save(bitmaps / "a.bmp")  # the inode stays
    os.utime(bitmaps / "a.bmp", (1e9, 1e9))
    report = build(bitmaps, index, fake_encoder)
    assert (report.changed, report.embedded, report.unchanged) == (1, 1, 2)


def test_another_inode_or_ctime_with_the_same_bytes_costs_a_hash_and_writes_nothing(bitmaps, index, fake_encoder):
    build(bitmaps, index, fake_encoder)
    version = Store.open(index).version
    shutil.copy2(bitmaps / "a.bmp", bitmaps / "x")
    (bitmaps / "x").replace(bitmaps / "a.bmp")
    (bitmaps / "b.bmp").chmod(0o600)
    report = build(bitmaps, index, fake_encoder)
    assert (report.unchanged, report.rehashed, report.embedded, report.reused) == (3, 2, 0, 0)
    assert Store.open(index).version == version
    assert build(bitmaps, index, fake_encoder).rehashed == 0


def test_a_machine_that_does_not_know_the_index_reads_all_files_once(
    bitmaps, index, fake_encoder, tmp_path, monkeypatch
):
    build(bitmaps, index, fake_encoder)
    swap(bitmaps)
    monkeypatch.setenv("RETR_STATE_DIR", str(tmp_path / "another"))
    report = build(bitmaps, index, fake_encoder)
    assert (report.changed, report.unchanged, report.rehashed, report.embedded) == (2, 1, 1, 0)
    assert build(bitmaps, index, fake_encoder).rehashed == 0


def test_rehash_reads_all_and_no_rehash_none(bitmaps, index, fake_encoder, monkeypatch, tmp_path):
    build(bitmaps, index, fake_encoder)
    assert build(bitmaps, index, fake_encoder, rehash=True).rehashed == 3
    monkeypatch.setenv("RETR_STATE_DIR", str(tmp_path / "another"))
    report = build(bitmaps, index, fake_encoder, rehash=False)
    assert (report.unchanged, report.rehashed) == (3, 0)
    # what was trusted is remembered as it was
    assert build(bitmaps, index, fake_encoder).rehashed == 0
    swap(bitmaps)
    assert build(bitmaps, index, fake_encoder, rehash=False).unchanged == 3


def test_rehash_notices_what_no_stamp_shows(bitmaps, index, fake_encoder, monkeypatch):
    monkeypatch.setattr("retr.retrieval.archive.folders.stamp_of", lambda _info: "always the same")
    build(bitmaps, index, fake_encoder)
    swap(bitmaps)
    assert build(bitmaps, index, fake_encoder).unchanged == 3
    assert build(bitmaps, index, fake_encoder, rehash=True).changed == 2


def test_an_index_put_back_from_a_copy_is_compared_again(bitmaps, index, fake_encoder, tmp_path):
    build(bitmaps, index, fake_encoder)
    shutil.copytree(index, tmp_path / "copy")
    swap(bitmaps)
    build(bitmaps, index, fake_encoder)
    after = hashes(index)
    shutil.rmtree(index)
    shutil.copytree(tmp_path / "copy", index)
    assert build(bitmaps, index, fake_encoder).changed == 2
    assert hashes(index) == after


def container(file: Path, pictures: dict[str, bytes]) -> None:
    if file.suffix == ".zip":
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in pictures.items():
                archive.writestr(zipfile.ZipInfo(name), data)
    else:
        with tarfile.open(file, "w:gz" if file.suffix == ".gz" else "w") as archive:
            for name, data in pictures.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    os.utime(file, (1e9, 1e9))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("inside", [True, False], ids=["in a folder", "alone"])
def test_a_container_written_again_with_the_old_time(tmp_path, index, fake_encoder, bitmaps, name, inside):
    a, b = (bitmaps / "a.bmp").read_bytes(), (bitmaps / "b.bmp").read_bytes()
    shards = tmp_path / "shards"
    shards.mkdir()
    archive = shards if inside else shards / name
    container(shards / name, {"x.bmp": a, "y.bmp": b})
    build(archive, index, fake_encoder)
    assert build(archive, index, fake_encoder).rehashed == 0
    container(shards / name, {"x.bmp": b, "y.bmp": a})
    report = build(archive, index, fake_encoder)
    assert (report.changed, report.embedded) == (2, 0)
    prefix = f"{name}::" if inside else ""
    vectors_fit(index, fake_encoder, {f"{prefix}x.bmp": b, f"{prefix}y.bmp": a})


def test_lists_and_further_sources_are_watched_too(bitmaps, index, fake_encoder, tmp_path):
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"archive/{name}.bmp\n" for name in "abc"))
    build(tmp_path / "list.csv", index, fake_encoder)
    other = tmp_path / "other"
    shutil.copytree(bitmaps, other)
    add(other, index, fake_encoder, name="site2")
    swap(bitmaps)
    swap(other)
    assert build(tmp_path / "list.csv", index, fake_encoder).changed == 2
    assert add(other, index, fake_encoder, name="site2").changed == 2


def test_a_killed_build_remembers_what_it_committed(bitmaps, index, fake_encoder):
    class Killed(BaseException):
        pass

    def stop(*_args: object) -> None:
        raise Killed

    with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileStates, "settle", stop)
        build(bitmaps, index, fake_encoder)
    report = build(bitmaps, index, fake_encoder)
    assert (report.unchanged, report.rehashed) == (3, 0)


def test_a_state_folder_that_cannot_be_written_is_said(bitmaps, index, fake_encoder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RETR_STATE_DIR", str(tmp_path / "file"))
    assert any("state folder cannot be written" in note for note in build(bitmaps, index, fake_encoder).notes)
    assert build(bitmaps, index, fake_encoder).rehashed == 3


def test_a_torn_file_of_states_and_one_of_another_kind_are_no_harm():
    states = FileStates("uuid", "")
    assert not states.any
    for number in range(file_states._APPENDED + 3):
        states.note(f"{number}.png", "1:2", 7)
    file = state_folder() / "files" / "uuid.u64"
    assert file.stat().st_size == 8 * file_states._APPENDED
    with file.open("ab") as stream:
        stream.write(b"torn")
    again = FileStates("uuid", "")
    assert again.any
    assert again.knows("5.png", "1:2", 7)
    assert not again.knows("5.png", "1:3", 7)
    assert not again.knows("5.png", "1:2", 8)
    assert not FileStates("uuid", "site2").knows("5.png", "1:2", 7)
    assert again.settle()
    assert file.stat().st_size == 8
