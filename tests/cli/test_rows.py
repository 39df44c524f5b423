"""`retr index ls`: in order, as paths that other programs open, and as ids that other commands take."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile

import pyarrow as pa
import pytest
from fake_encoder import picture

CELLS = {"age": [41, None, 70, 41, 9], "name": ["b", "B", None, "é", "a"], "-odd": [5, 4, 3, 2, 1]}


@pytest.fixture
def placed_archive(tmp_path, monkeypatch):
    """Five pictures with odd names and columns, and their index, on a machine that knows where they lie."""
    from retr import Index

    names = ["a b.png", "-n.png", "c'd.png", "日本.png", "e\nf.png"]
    for number, name in enumerate(names):
        (tmp_path / "archive").mkdir(exist_ok=True)
        picture(number).save(tmp_path / "archive" / name)
    table = pa.table({"path": names, **CELLS, "tags": [["x"]] * 5})
    Index.build(tmp_path / "archive", tmp_path / "i.retr", metadata=table)
    return tmp_path / "archive", tmp_path / "i.retr"


def test_rows_come_in_the_order_of_columns(retr, placed_archive):
    _, index = placed_archive

    def column(name: str, sort: str, *more: object) -> list[object]:
        done = retr("index", "ls", "--sort", sort, "--json", "--index", index, *more)
        assert done.code == 0, done.err
        return [row[name] for row in done.json]

    assert column("age", "age") == [9, 41, 41, 70, None]
    assert column("age", "-age") == [70, 41, 41, 9, None]
    assert column("name", "-age,name") == [None, "b", "é", "a", "B"]
    assert column("-odd", "-odd") == [1, 2, 3, 4, 5]
    # of those that come first, not of the first ones
    assert column("age", "-age", "--limit", 2) == [70, 41]
    assert column("id", "age", "--columns", "id", "--where", "age > 40") == ["a b.png", "日本.png", "c'd.png"]
    assert "did you mean 'age'" in retr("index", "ls", "--sort", "-agee", "--index", index).error(2)
    assert "the column 'tags' holds lists" in retr("index", "ls", "--sort", "tags", "--index", index).error(2)


def test_paths_are_opened_by_any_program(placed_archive, tmp_path):
    """In a real pipe, from another folder."""
    archive, index = placed_archive
    target = tmp_path / "copies"
    target.mkdir()
    command = [sys.executable, "-m", "retr", "index", "ls", "--paths", "-0", "--index", str(index)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/") as process:
        subprocess.run(["xargs", "-0", "cp", "-t", str(target)], stdin=process.stdout, check=True)
    assert {file.name: file.read_bytes() for file in target.iterdir()} == {
        file.name: file.read_bytes() for file in archive.iterdir()
    }


def test_paths_of_hits_and_of_sets(retr, placed_archive):
    archive, index = placed_archive
    hits = retr("query", "--id", "a b.png", "-k", 2, "--json", "--index", index).json[0]["hits"]
    found = retr("query", "--id", "a b.png", "-k", 2, "--paths", "-0", "--index", index).out
    assert found == "".join(f"{archive / hit['path']}\0" for hit in hits)
    ids = retr("query", "--id", "a b.png", "-k", 4, "--where", "age > 0", "--ids", "--index", index).out
    assert retr("sets", "add", "mine", "-", "--index", index, stdin=ids.encode()).code == 0
    assert retr("sets", "show", "mine", "--ids", "--index", index).out == ids
    # ended by NUL, and as a shell of Windows hands them on
    for number, handed in enumerate((ids.replace("\n", "\0"), ids.replace("\n", "\r\n"))):
        assert retr("sets", "add", f"as {number}", "-", "--index", index, stdin=handed.encode()).code == 0
        assert retr("sets", "show", f"as {number}", "--ids", "--index", index).out == ids
    paths = retr("sets", "show", "mine", "--paths", "--index", index).out
    assert paths == "".join(f"{archive / name}\n" for name in ids.splitlines())


def test_frames_of_one_file_are_one_path(retr, tmp_path):
    from retr import Index

    first, *others = [picture(number) for number in range(3)]
    (tmp_path / "archive").mkdir()
    first.save(tmp_path / "archive/pages.tif", save_all=True, append_images=others)
    index = Index.build(tmp_path / "archive", tmp_path / "i.retr")
    assert len(index) == 3
    done = retr("index", "ls", "--paths", "--index", index.path)
    assert done.out == f"{tmp_path / 'archive/pages.tif'}\n"


def test_what_is_no_file_of_its_own_has_no_path(retr, tmp_path):
    from retr import Index

    picture(1).save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as container:
        container.write(tmp_path / "a.png", "a.png")
    Index.build(tmp_path / "some.zip", tmp_path / "i.retr")
    line = retr("index", "ls", "--paths", "--index", tmp_path / "i.retr").error(1)
    assert "the picture 'a.png' is not a file of its own; " in line
    assert retr("index", "ls", "--ids", "--index", tmp_path / "i.retr").out == "a.png\n"


def test_an_archive_that_is_not_here_is_said(retr, placed_archive, tmp_path, monkeypatch):
    _, index = placed_archive
    away = shutil.copytree(index, tmp_path / "elsewhere/i.retr")
    monkeypatch.setenv("RETR_STATE_DIR", os.fspath(tmp_path / "another machine"))
    line = retr("index", "ls", "--paths", "--index", away).error(1)
    assert "this machine does not know where the archive" in line
