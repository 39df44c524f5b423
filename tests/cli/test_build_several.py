"""``retr index build`` with several encoders: two indexes from one reading of the archive."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
import narrow
import test_pathology as pathology
import torch

from retr.index.store import Store


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    for number, picture in enumerate(narrow.pictures()):
        picture.save(folder / f"{number}.jpg")
    return folder


@pytest.fixture
def named(tmp_path):
    """Two stand-ins: a folder of timm's, which reads JPEGs reduced, and a file, which reads them in full."""
    (tmp_path / "virchow2").mkdir()
    name = pathology.write("virchow2", tmp_path / "virchow2")
    torch.save({"model": narrow.state("retfound-mae"), "epoch": 799}, tmp_path / "RETFound_mae.pth")
    return [
        f"timm:{name},weights={tmp_path / 'virchow2'}",
        f"retfound,weights={tmp_path / 'RETFound_mae.pth'},feature=cls",
    ]


def vectors(path):
    store = Store.open(path)
    ids = store.table(["id"])["id"].to_pylist()
    return dict(zip(ids, (one.tobytes() for one in store.vectors(store.live_rows())), strict=True))


def test_two_indexes_from_one_reading(retr, pictures, named, tmp_path):
    where = ["--device", "cpu", "--precision", "fp32"]
    both = [
        part
        for name, index in zip(named, "ab", strict=True)
        for part in ("--encoder", name, "--index", tmp_path / index)
    ]
    done = retr("index", "build", pictures, *both, *where)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == f"{tmp_path / 'a'} (timm:paige-ai/Virchow2):"
    assert done.out.count("3 rows (3 embedded)") == 2
    for name, index in zip(named, "ab", strict=True):
        alone = retr("index", "build", pictures, "--encoder", name, "--index", tmp_path / f"{index}.alone", *where)
        assert alone.code == 0, alone.err
        assert vectors(tmp_path / index) == vectors(tmp_path / f"{index}.alone")
        found = retr(
            "query", "--index", tmp_path / index, "--image", pictures / "1.jpg", "-k", 1, "--include-self", "--json"
        )
        assert found.code == 0, found.err
        assert "1.jpg" in found.out
    narrow.pictures()[0].rotate(90).save(pictures / "new.jpg")
    rows = retr("index", "build", pictures, *both, *where, "--json").json
    assert [(Path(row["index"]).name, row["embedded"], row["unchanged"]) for row in rows] == [("a", 1, 3), ("b", 1, 3)]
    assert rows[1]["encoder"] == "retfound"


def test_it_is_said_which_index_is_whose(retr, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    two = ["--encoder", "lite", "--encoder", "lite,quality=fast"]
    build = ["index", "build", pictures]
    assert "2 encoders and 1 indexes; give --index once for each --encoder" in retr(*build, *two).error(2)
    assert "2 encoders and 1 indexes" in retr(*build, *two, "--index", "a").error(2)
    assert "1 encoders and 2 indexes" in retr(*build, "--index", "a", "--index", "b").error(2)
    assert "are given one index" in retr(*build, *two, "--index", "a", "--index", "a").error(2)
    assert "are one folder" in retr(*build, *two, "--index", "a", "--index", "../" + tmp_path.name + "/a").error(2)
    given = ["--index", "a", "--index", "b"]
    assert "'weights' is an option of one encoder" in retr(*build, *two, *given, "--weights", "x.pth").error(2)
    assert "'quality' is an option of one encoder" in retr(*build, *two, *given, "-o", "quality=fast").error(2)
    assert "no option 'colour'" in retr(*build, *given, "--encoder", "lite", "--encoder", "lite,colour=red").error(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive"]


def test_the_environment_names_the_index_of_one_encoder(retr, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("RETR_INDEX", str(tmp_path / "with:colon"))
    assert retr("index", "build", pictures, "--encoder", "lite,quality=fast").code == 0
    assert len(Store.open(tmp_path / "with:colon")) == 3
    assert retr("query", "--id", "1.jpg", "-k", 1).code == 0
