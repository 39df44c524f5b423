"""Every error a user can cause ends in one line that says what, which value, and what to do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from retr.cli import _errors
from retr.index.errors import RetrError, UsageError

HRF = Path(__file__).parents[2] / "examples/hrf45"


def test_a_missing_index(retr, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RETR_INDEX", raising=False)
    assert "retr index build" in retr("query", "--id", "x").error(1)
    line = retr("index", "info", "--index", tmp_path / "nowhere").error(1)
    assert "nowhere" in line


def test_an_empty_folder_leaves_no_index(retr, tmp_path):
    (tmp_path / "empty").mkdir()
    line = retr("index", "build", tmp_path / "empty", "--index", tmp_path / "x.retr").error(2)
    assert "empty" in line
    assert not (tmp_path / "x.retr").exists()


def test_a_folder_that_is_not_there(retr, tmp_path):
    line = retr("index", "build", tmp_path / "gone", "--index", tmp_path / "x.retr").error(2)
    assert "gone" in line


def test_what_cannot_be_built_is_refused_before_the_encoder_is_loaded(retr, hrf_copy, tmp_path, monkeypatch):
    def load(*_, **__):
        raise AssertionError("an encoder was loaded")

    monkeypatch.setattr("retr.retrieval.encoders.registry.load_encoder", load)
    build = ("index", "build", "--index", tmp_path / "x.retr")
    assert "'gone' does not exist" in retr(*build, "gone").error(2)
    assert "'gone' does not exist" in retr("index", "add", "gone", "--index", hrf_copy).error(2)
    assert "'gone.csv' does not exist" in retr(*build, HRF, "--metadata", "gone.csv").error(2)
    labels = ("--metadata", HRF / "labels.csv")
    assert "no column 'nothing'; the columns are id, path" in retr(*build, HRF, *labels, "--group", "nothing").error(2)
    # a column that DICOM files bring, which an archive of JPEGs does not
    assert "no column 'patient'" in retr(*build, HRF, *labels, "--group", "patient").error(2)
    assert not (tmp_path / "x.retr").exists()


@pytest.mark.parametrize("k", ["0", "-3"])
def test_k_below_one(retr, hrf_index, k):
    assert k in retr("query", "--id", "healthy/01_h.jpg", "-k", k, "--index", hrf_index).error(2)


def test_k_that_is_no_number(retr, hrf_index):
    assert "'five'" in retr("query", "--id", "healthy/01_h.jpg", "-k", "five", "--index", hrf_index).error(2)


def test_an_image_that_is_a_text_file(retr, hrf_index, tmp_path):
    (tmp_path / "note.png").write_text("this is no picture")
    line = retr("query", "--image", tmp_path / "note.png", "--index", hrf_index).error(1)
    assert "note.png" in line


def test_an_image_that_is_not_there(retr, hrf_index, tmp_path):
    assert "gone.png" in retr("query", "--image", tmp_path / "gone.png", "--index", hrf_index).error(1)


def test_where_with_an_unknown_column_suggests_the_nearest(retr, hrf_index):
    line = retr("query", "--id", "healthy/01_h.jpg", "--where", "lable = 'healthy'", "--index", hrf_index).error(2)
    assert "'lable'" in line
    assert "label" in line.replace("lable", "")


def test_where_that_cannot_be_read_points_at_the_place(retr, hrf_index):
    line = retr("query", "--id", "healthy/01_h.jpg", "--where", "label = ", "--index", hrf_index).error(2)
    assert "column 8" in line


def test_an_unknown_id(retr, hrf_index):
    assert "'nobody.png'" in retr("query", "--id", "nobody.png", "--index", hrf_index).error(2)
    assert "'nobody.png'" in retr("show", "nobody.png", "--index", hrf_index).error(2)


def test_an_unknown_encoder_suggests_the_nearest(retr, tmp_path):
    line = retr("index", "build", HRF, "--index", tmp_path / "x.retr", "--encoder", "lites").error(1)
    assert "'lites'" in line
    assert "'lite'" in line


def test_an_encoder_option_that_does_not_exist(retr, tmp_path):
    line = retr("index", "build", HRF, "--index", tmp_path / "x.retr", "--set", "colour=red").error(2)
    assert "'colour'" in line


@pytest.mark.parametrize("option", [("--device", "tpu"), ("--precision", "fp12")])
def test_a_wrong_option_value(retr, tmp_path, option):
    line = retr("index", "build", HRF, "--index", tmp_path / "x.retr", *option).error(2)
    assert repr(option[1]) in line
    assert not (tmp_path / "x.retr").exists()


def test_a_search_on_a_gpu_that_is_not_there(retr, hrf_index, monkeypatch):
    monkeypatch.setattr("retr.index.gpu.devices.count", lambda: 0)
    for command in (("query", "--id", "healthy/01_h.jpg"), ("eval", "retrieval", "--label", "label")):
        line = retr(*command, "--device", "cuda", "--index", hrf_index).error(2)
        assert "sees a GPU" in line
        assert retr(*command, "--index", hrf_index).code == 0


def test_an_unknown_option_and_an_unknown_command(retr):
    assert "--colour" in retr("query", "--colour", "red").error(2)
    assert "frobnicate" in retr("frobnicate").error(2)


def test_two_forms_of_output(retr, hrf_index):
    line = retr("query", "--id", "healthy/01_h.jpg", "--json", "--csv", "--index", hrf_index).error(2)
    assert "--json" in line


def test_nothing_asked(retr, hrf_index):
    assert "--image" in retr("query", "--index", hrf_index).error(2)


def test_text_for_an_encoder_that_has_images_only(retr, hrf_index):
    assert "'lite'" in retr("query", "--text", "drusen", "--index", hrf_index).error(1)


def test_exclude_same_needs_a_known_value(retr, hrf_index):
    """A patient that was not excluded in silence is the worst answer."""
    image = HRF / "healthy/01_h.jpg"
    line = retr("query", "--image", image, "--exclude-same", "patient", "--index", hrf_index).error(2)
    assert "'patient'" in line


def test_a_batch_line_that_is_no_json_is_named(retr, hrf_index):
    done = retr("query", "--batch", "-", "--index", hrf_index, stdin=b'{"id": "healthy/01_h.jpg"}\nnonsense\n')
    assert "line 2" in done.error(2)


def test_an_index_built_with_another_encoder(retr, hrf_copy):
    line = retr("index", "build", HRF, "--index", hrf_copy, "--encoder", "flair").error(1)
    assert "'lite'" in line
    assert "'flair'" in line


def test_a_damaged_index_is_found_and_named(retr, hrf_copy):
    vectors = next(hrf_copy.rglob("*.npy"))
    data = bytearray(vectors.read_bytes())
    data[-7] ^= 1
    vectors.chmod(0o644)
    vectors.write_bytes(data)
    done = retr("index", "check", "--index", hrf_copy)
    assert done.code == 1
    assert vectors.name in done.out


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RetrError("it broke", hint="mend it"), 1, "it broke; mend it"),
        (UsageError("no such value: 3"), 2, "no such value: 3"),
        (UsageError("no column 'a  b\u2028\u00a0c'\n  of\r\nthese"), 2, "no column 'a  b\\u2028\u00a0c' of these"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "x.csv"), 1, "permission denied: 'x.csv'"),
        (MemoryError(), 1, "out of memory"),
        (typer.Abort(), 1, "nothing was changed"),
        (KeyboardInterrupt(), 130, "what was committed is kept"),
        (ZeroDivisionError("a fault of ours\nin two lines"), 1, "RETR_TRACEBACK=1"),
    ],
)
def test_every_exception_becomes_one_line(capsys, monkeypatch, error, code, words):
    monkeypatch.delenv("RETR_TRACEBACK", raising=False)

    def fail() -> None:
        raise error

    assert _errors.run(fail) == code
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_error(hrf_index):
    command = f"{sys.executable} -m retr index ls --json --index {hrf_index} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_a_pipe_where_a_file_is_meant_is_not_waited_for(retr, hrf_index, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    query = ("query", "--index", hrf_index)
    for asked in (("--image", pipe), ("--image", "/dev/zero"), ("--batch", pipe)):
        assert "is not a regular file" in retr(*query, *asked).error(2 if asked[0] == "--batch" else 1)
    picture = next((HRF / "healthy").iterdir())
    asked = ("classify", "--image", picture, "--index", hrf_index, "--labels", pipe)
    assert "is not a regular file" in retr(*asked).error(2)
    assert "is a pipe" in retr("index", "build", pipe, "--index", tmp_path / "x.retr").error(2)


@pytest.mark.parametrize(
    "command",
    [
        ("query", "--id", "x", "--where", "a = 1", "--where", "b = 2"),
        ("index", "ls", "--where", "a = 1", "--where=b = 2"),
        ("classify", "--patient", "P1", "--patient", "P2", "--by", "label", "--image", "x.png"),
        ("query", "--id", "x", "--one-per", "patient", "--one-per", "eye"),
        ("eval", "probe", "--label", "x", "--queries", "a = 1", "--where", "a = 1", "--queries", "b = 2"),
    ],
)
def test_a_second_condition_is_not_taken_for_the_only_one(retr, command):
    assert "is given 2 times, and only the last would count" in retr(*command).error(2)


def test_options_that_may_repeat_still_do(retr, tmp_path):
    twice = ("--exclude-same", "a=1", "--exclude-same", "a=2", "-k", "1", "-k", "2", "--json", "--json")
    assert "no index" in retr("query", "--id", "x", "--id", "y", *twice, "--index", tmp_path / "none").error(1)
