"""`retr.toml`: what counts before what, that nothing is passed over, and what `retr config` says of it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

ROW = "glaucoma/05_g.jpg"


@pytest.fixture
def beside(hrf_copy) -> Path:
    return hrf_copy.parent / "retr.toml"


@pytest.fixture
def users() -> Path:
    file = Path(os.environ["XDG_CONFIG_HOME"]) / "retr/retr.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def test_a_flag_goes_before_the_file_beside_the_index_and_that_before_the_users(retr, hrf_copy, beside, users):
    asked = ("query", "--id", ROW, "--index", hrf_copy)
    users.write_text('k = 2\ncolumns = ["folder"]\n')
    assert retr(*asked).out.splitlines()[0].split() == ["rank", "score", "id", "folder"]
    assert len(retr(*asked).out.splitlines()) == 3
    beside.write_text('k = 4\nexclude_same = ["label"]\n')
    found = retr(*asked, "--json").json[0]["hits"]
    assert len(found) == 4
    assert "glaucoma" not in {hit["label"] for hit in found}
    assert len(retr(*asked, "-k", 1).out.splitlines()) == 2
    # the columns of a table are not those of a program's output
    assert {"label", "sha256"} <= found[0].keys()
    said = {row["key"]: (row["value"], row["from"]) for row in retr("config", "--json", "--index", hrf_copy).json}
    assert said["k"] == (4, str(beside))
    assert said["columns"] == (["folder"], str(users))
    assert said["device"] == ("auto", "default")


def test_the_index_that_is_found_has_its_file_too(retr, hrf_copy, tmp_path, monkeypatch):
    shutil.copytree(hrf_copy, tmp_path / "project/.retr")
    (tmp_path / "project/deep").mkdir()
    (tmp_path / "project/retr.toml").write_text("k = 3\n")
    monkeypatch.chdir(tmp_path / "project/deep")
    assert len(retr("query", "--id", ROW).out.splitlines()) == 4
    monkeypatch.setenv("RETR_INDEX", str(hrf_copy))
    assert len(retr("query", "--id", ROW).out.splitlines()) == 6


def test_the_encoder_is_of_a_new_index(retr, hrf_copy, beside, archive, tmp_path):
    beside.write_text('encoder = "litee"\n')
    line = retr("index", "build", archive, "--index", tmp_path / "new.retr").error(1)
    assert f"no encoder named 'litee'; did you mean 'lite'?; encoder is set in {str(beside)!r}" in line
    assert not (tmp_path / "new.retr/CURRENT").exists()
    # this one has its own
    done = retr("index", "add", archive / "healthy", "--name", "more", "--index", hrf_copy)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('encodr = "lite"', "unknown key 'encodr' in 'FILE'; did you mean 'encoder'?"),
        ("[query]\nk = 3", "unknown key 'query' in 'FILE'; known are encoder, device"),
        ('where = "age > 60"', "unknown key 'where' in 'FILE'; "),
        ("k = true", "'k' in 'FILE' must be a whole number from 1, got: True"),
        ('k = "5"', "'k' in 'FILE' must be a whole number from 1, got: '5'"),
        ("k = 0", "'k' in 'FILE' must be a whole number from 1, got: 0"),
        ('columns = "label"', "'columns' in 'FILE' must be a list of texts, got: 'label'"),
        ('columns = ["label", 3]', "'columns' in 'FILE' must be a list of texts"),
        ("columns = []", "'columns' in 'FILE' must be a list of texts, got: []"),
        ('device = ""', "'device' in 'FILE' must be a text, got: ''"),
        ("k == 3", "'FILE' is no TOML: "),
        ("\xff", "'FILE' is no TOML: it is not UTF-8"),
        ("#" * 70_000, "'FILE' is no TOML"),
    ],
)
def test_what_cannot_be_meant_is_one_line(retr, hrf_copy, beside, text, said):
    beside.write_bytes(text.encode("latin-1"))
    for command in (("query", "--id", ROW), ("config",)):
        line = retr(*command, "--index", hrf_copy).error(2)
        assert said.replace("FILE", str(beside)) in line
    # what reads no setting is not stopped by it
    assert retr("index", "group", "--help").code == 0


def test_an_error_that_a_setting_causes_names_its_file(retr, hrf_copy, beside):
    for text, value in (
        ('exclude_same = ["patent"]', "patent"),
        ('columns = ["laterality"]', "laterality"),
        ('columns = ["label,laterality"]', "laterality"),
        ('link = "https://pacs/{stuy}"', "stuy"),
        ('link = "https://pacs"', "names no study"),
    ):
        beside.write_text(text)
        line = retr("query", "--id", ROW, "--index", hrf_copy).error(2)
        assert value in line
        assert line.endswith(f"is set in {str(beside)!r}")
    # of a value that the command line gives it says nothing
    assert "is set in" not in retr("query", "--id", ROW, "--columns", "nothing", "--index", hrf_copy).error(2)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "not a file"),
        (Path.mkdir, ""),
        (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
        (lambda path: path.symlink_to(path.name), ""),
    ],
)
def test_settings_that_are_there_and_cannot_be_read_are_an_error(retr, hrf_copy, beside, make, reason):
    make(beside)
    for command in (("query", "--id", ROW), ("config",)):
        line = retr(*command, "--index", hrf_copy).error(2)
        assert f"the settings in {str(beside)!r} cannot be read: {reason}" in line


def test_a_label_that_is_set_need_not_be_given(retr, hrf_copy, beside):
    assert "--label" in retr("calibrate", "--index", hrf_copy).error(2)
    beside.write_text('label = "label"\n')
    done = retr("eval", "retrieval", "-k", "1", "--json", "--index", hrf_copy)
    assert done.code == 0, done.err
    assert json.loads(done.out.splitlines()[0])
