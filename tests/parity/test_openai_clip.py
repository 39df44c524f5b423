"""CheXzero and EyeCLIP against their authors' code, in a narrow size and in their files' layouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import narrow
import numpy as np
import pytest
import torch

from retr.index.errors import WeightsError
from retr.retrieval.encoders.registry import load_encoder

if TYPE_CHECKING:
    from pathlib import Path

HERE = {"device": "cpu", "precision": "fp32"}
TEXTS = ["no pleural effusion", "Retinal photograph showing drusen, left eye."]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clip")
    torch.save(narrow.state("chexzero"), folder / "best_64_5e-05_original_22000_0.864.pt")
    trained = {"model_state_dict": narrow.state("eyeclip"), "optimizer_state_dict": {"state": {}}, "epoch": 9}
    torch.save(trained, folder / "eyeclip_visual_new.pt")
    return {"chexzero": folder, "eyeclip": folder / "eyeclip_visual_new.pt"}


@pytest.mark.parametrize("name", ["chexzero", "eyeclip"])
def test_pictures_and_texts(name: str, files: dict[str, Path]) -> None:
    encoder = load_encoder(name, weights=files[name], **HERE)
    narrow.check(name, encoder.encode_images(narrow.pictures()))
    narrow.check(name, encoder.encode_texts(TEXTS), "texts")
    assert encoder.text_lengths(["no pleural effusion", "eye " * 100]) == [(7, 7), (102, 77)]
    assert encoder.info.logit_scale == pytest.approx(1 / 0.07)
    assert bool(encoder.notes) == (name == "eyeclip")


def test_odd_pictures(files: dict[str, Path], check_odd_pictures) -> None:
    for name, file in files.items():
        check_odd_pictures(load_encoder(name, weights=file, **HERE))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    state = narrow.state("chexzero")
    torch.save(state | {"visual.decoder.mask_token": torch.ones(1)}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"1 unknown \(visual.decoder.mask_token"):
        load_encoder("chexzero", weights=tmp_path / "x.pt", **HERE)
    for lost in ("visual.conv1.weight", "text_projection", "visual.proj"):
        torch.save({key: value for key, value in state.items() if key != lost}, tmp_path / "x.pt")
        with pytest.raises(WeightsError, match=lost):
            load_encoder("chexzero", weights=tmp_path / "x.pt", **HERE)


def test_a_text_finds_the_same_pictures_as_by_hand(files: dict[str, Path]) -> None:
    encoder = load_encoder("eyeclip", weights=files["eyeclip"], **HERE)
    logits = encoder.similarity_logits(encoder.encode_images(narrow.pictures()), encoder.encode_texts(TEXTS))
    assert logits.shape == (3, 2)
    assert np.abs(logits).max() <= encoder.info.logit_scale * (1 + 1e-5)
