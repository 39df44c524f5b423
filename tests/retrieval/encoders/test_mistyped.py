"""A path that is not there, or not what it should be, ends in one line, whichever encoder and option it is given to."""

from __future__ import annotations

import pytest

from retr.index.errors import RetrError, UsageError, WeightsError
from retr.retrieval.encoders.registry import load_encoder, specs

NAMED = {"hf": "hf:org/x", "open_clip": "open_clip:ViT-B-32", "timm": "timm:org/x"}


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("RETR_WEIGHTS", raising=False)


@pytest.mark.parametrize("name", sorted(specs()[0].keys() - {"lite"}))
@pytest.mark.parametrize("kind", ["nowhere", "below a file", "empty folder", "a text", "too long"])
def test_weights_that_are_not_there(name, kind, tmp_path):
    (tmp_path / "note.txt").write_text("no weights")
    (tmp_path / "empty").mkdir()
    place = {
        "nowhere": tmp_path / "nowhere",
        "below a file": tmp_path / "note.txt" / "x",
        "empty folder": tmp_path / "empty",
        "a text": tmp_path / "note.txt",
        "too long": tmp_path / ("x" * 300),
    }[kind]
    with pytest.raises((WeightsError, UsageError)) as refused:
        load_encoder(NAMED.get(name, name), weights=place)
    assert "\n" not in str(refused.value)
    if kind == "nowhere":
        assert f"at {str(place)!r}" in str(refused.value)


@pytest.mark.parametrize("family", ["hf", "timm"])
@pytest.mark.parametrize(
    "name",
    [
        "./nowhere",
        "../nowhere",
        "org/..",
        "x" * 300,
        "/nowhere/x",
        "nowhere/",
        "a/b/c",
        "~/nowhere",
        "a\\b",
        "/" + "x" * 300,
    ],
)
def test_a_name_that_can_only_be_a_folder(family, name):
    with pytest.raises(RetrError, match="no folder at ") as refused:
        load_encoder(f"{family}:{name}")
    assert repr(name)[1:40].rstrip("'") in str(refused.value)


@pytest.mark.parametrize("family", ["hf", "timm"])
def test_a_file_where_a_folder_is_due(family, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"x")
    with pytest.raises(
        WeightsError, match=r"is a file, where .* takes the name of a model or a folder; name the folder"
    ):
        load_encoder(f"{family}:{tmp_path / 'x.safetensors'}")


@pytest.mark.parametrize("family", ["hf", "timm", "open_clip"])
@pytest.mark.parametrize("name", ["org/na\nme", "a\0b", "a\tb", "x" * 5000])
def test_what_is_no_name(family, name):
    with pytest.raises(RetrError, match="no encoder named ") as refused:
        load_encoder(f"{family}:{name}")
    assert len(str(refused.value)) < 300
    assert str(refused.value).isprintable()
