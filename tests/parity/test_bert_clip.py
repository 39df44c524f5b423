"""RET-CLIP and UniMed-CLIP against their authors' code, in a narrow size and in their files' layouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bert_clip_folder
import narrow
import pytest
import torch

from retr.index.errors import NoTextSideError, WeightsError
from retr.retrieval.encoders.registry import load_encoder

if TYPE_CHECKING:
    from pathlib import Path

HERE = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bert-clip")
    bert_clip_folder.write_text_model(root / "roberta", chinese=True)
    bert_clip_folder.write_text_model(root / "bert", chinese=False)
    for name in ("ret-clip", "unimed-clip"):
        state = {f"module.{key}": value for key, value in narrow.state(name).items()}
        torch.save({"epoch": 3, "name": "x", "state_dict": state, "optimizer": {}}, root / f"{name}.pt")
    return root


@pytest.mark.parametrize("feature", ["image", "left", "right"])
def test_ret_clip(feature: str, root: Path) -> None:
    encoder = load_encoder(
        "ret-clip", weights=root / "ret-clip.pt", text_model=root / "roberta", feature=feature, **HERE
    )
    narrow.check("ret-clip", encoder.encode_images(narrow.pictures()), feature)
    assert encoder.info.text == (feature != "image")
    if feature == "image":
        with pytest.raises(NoTextSideError, match="use feature=left"):
            encoder.encode_texts(["x"])
        return
    narrow.check("ret-clip", encoder.encode_texts(bert_clip_folder.CHINESE), f"{feature}_texts")
    assert encoder.text_lengths(["视" * 90]) == [(92, 52)]


def test_unimed_clip(root: Path) -> None:
    encoder = load_encoder("unimed-clip", weights=root / "unimed-clip.pt", text_model=root / "bert", **HERE)
    narrow.check("unimed-clip", encoder.encode_images(narrow.pictures()))
    narrow.check("unimed-clip", encoder.encode_texts(bert_clip_folder.ENGLISH), "texts")
    assert encoder.notes == ["'unimed-clip.pt': took 'state_dict', 'module.' off the names in it"]


def test_odd_pictures(root: Path, check_odd_pictures) -> None:
    check_odd_pictures(load_encoder("ret-clip", weights=root / "ret-clip.pt", **HERE))


@pytest.mark.parametrize("lost", ["visual.proj", "logit_scale_left", "visual.ln_pre.weight", "visual.conv1.weight"])
def test_files_that_do_not_fit_are_refused(lost: str, tmp_path: Path) -> None:
    state = narrow.state("ret-clip")
    torch.save({key: value for key, value in state.items() if key != lost}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=lost.removeprefix("visual.")):
        load_encoder("ret-clip", weights=tmp_path / "x.pt", **HERE)
    torch.save(state | {"surprise": torch.ones(1)}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="'surprise'"):
        load_encoder("ret-clip", weights=tmp_path / "x.pt", **HERE)
