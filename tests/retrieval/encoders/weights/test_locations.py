from __future__ import annotations

from dataclasses import replace

import pytest

from retr.index.encoder import EncoderInfo
from retr.retrieval.encoders.weights.locations import recall_files, remember_files

INFO = EncoderInfo("toy", 8, "cosine", "anything", False, "0" * 64, "none", options={"feature": "retrieval"})


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("RETR_STATE_DIR", str(tmp_path / "state"))


def test_paths_are_remembered_under_the_identity(tmp_path):
    file = tmp_path / "model.pth"
    file.write_bytes(b"x")
    remember_files(INFO, {"weights": file, "feature": "retrieval", "device": "cpu", "mean": 0.5, "text_model": None})
    assert recall_files(INFO) == {"weights": str(file)}
    assert recall_files(replace(INFO, precision="bf16")) == {"weights": str(file)}
    assert recall_files(replace(INFO, weights_sha256="1" * 64)) == {}
    assert recall_files(replace(INFO, options={})) == {}


def test_what_is_gone_is_not_offered(tmp_path):
    file = tmp_path / "model.pth"
    file.write_bytes(b"x")
    remember_files(INFO, {"weights": file})
    file.unlink()
    assert recall_files(INFO) == {}


def test_a_relative_path_holds_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "model.pth").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    remember_files(INFO, {"weights": "model.pth"})
    monkeypatch.chdir("/")
    assert recall_files(INFO) == {"weights": str(tmp_path / "model.pth")}


def test_nothing_given_leaves_no_file(tmp_path):
    remember_files(INFO, {"device": "cpu"})
    assert not (tmp_path / "state").exists()
