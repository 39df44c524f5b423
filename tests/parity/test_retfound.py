"""RETFound in each of its files' forms, and a fine-tuned RetiZero, against their authors' code in a narrow size."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import narrow
import numpy as np
import pytest
import torch

from retr.index.errors import UsageError, WeightsError
from retr.retrieval.encoders.registry import load_encoder

if TYPE_CHECKING:
    from pathlib import Path

HERE = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("retfound")
    mae = {
        "model": narrow.state("retfound-mae"),
        "epoch": 799,
        "args": argparse.Namespace(model="mae_vit_large_patch16"),
    }
    dinov2 = {"teacher": narrow.state("retfound-dinov2")}
    tuned = {"model": narrow.state("retfound-finetuned"), "epoch": 3, "scaler": {}, "args": argparse.Namespace(lr=1)}
    held = {"mae": mae, "dinov2": dinov2, "finetuned": tuned}
    for name, checkpoint in held.items():
        torch.save(checkpoint, folder / f"RETFound_{name}.pth")
    return {name: folder / f"RETFound_{name}.pth" for name in held}


@pytest.mark.parametrize("form", ["mae", "dinov2"])
@pytest.mark.parametrize("feature", ["global_pool", "cls"])
@pytest.mark.parametrize("protocol", ["finetune", "latent"])
def test_published_files(form: str, feature: str, protocol: str, files: dict[str, Path]) -> None:
    encoder = load_encoder("retfound", weights=files[form], feature=feature, protocol=protocol, **HERE)
    narrow.check("retfound", encoder.encode_images(narrow.pictures()), f"{form}_{feature}_{protocol}")
    assert encoder.notes
    assert encoder.info.noncommercial
    side = {"mae": 14, "dinov2": 16}[form]
    assert encoder.patch_embeddings(narrow.pictures()[0]).shape == (side, side, 128)


def test_a_fine_tuned_file_has_its_own_norm(files: dict[str, Path]) -> None:
    encoder = load_encoder("retfound", weights=files["finetuned"], **HERE)
    narrow.check("retfound", encoder.encode_images(narrow.pictures()), "finetuned")
    with pytest.raises(UsageError, match="no norm for the CLS token; use feature=global_pool"):
        load_encoder("retfound", weights=files["finetuned"], feature="cls", **HERE)


def test_blocks_in_pieces_are_the_same_network(files: dict[str, Path], tmp_path: Path) -> None:
    state = narrow.state("retfound-dinov2")
    pieces = {
        key.replace("blocks.1.", "blocks.1.1.").replace("blocks.0.", "blocks.0.0."): v for key, v in state.items()
    }
    torch.save({"teacher": pieces}, tmp_path / "x.pth")
    whole, other = (load_encoder("retfound", weights=file, **HERE) for file in (files["dinov2"], tmp_path / "x.pth"))
    np.testing.assert_array_equal(*(one.encode_images(narrow.pictures()[:1]) for one in (whole, other)))


def test_a_picture_of_one_colour_is_no_number_trouble(files: dict[str, Path]) -> None:
    encoder = load_encoder("retfound", weights=files["mae"], protocol="latent", **HERE)
    assert np.isfinite(encoder.encode_images([np.full((9, 9, 3), 7, np.uint8)])).all()


@pytest.mark.parametrize("lost", ["blocks.1.attn.qkv.weight", "patch_embed.proj.weight", "cls_token"])
def test_files_that_do_not_fit_are_refused(lost: str, tmp_path: Path) -> None:
    state = narrow.state("retfound-mae")
    del state[lost]
    torch.save({"model": state}, tmp_path / "x.pth")
    with pytest.raises(WeightsError):
        load_encoder("retfound", weights=tmp_path / "x.pth", **HERE)
    torch.save({"model": narrow.state("retfound-mae") | {"surprise": torch.ones(1)}}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"1 unknown \(surprise"):
        load_encoder("retfound", weights=tmp_path / "x.pth", **HERE)


@pytest.mark.parametrize("feature", ["backbone", "retrieval"])
def test_a_fine_tuned_retizero(feature: str, tmp_path: Path) -> None:
    state = narrow.state("retizero-finetuned")
    torch.save({"epoch": 7, "state_dict": state, "mean_ACC": np.float64(0.9)}, tmp_path / "checkpoint.pth.tar")
    encoder = load_encoder("retizero", weights=tmp_path / "checkpoint.pth.tar", feature=feature, **HERE)
    narrow.check("retizero-finetuned", encoder.encode_images(narrow.pictures()), feature)
    with pytest.raises(UsageError, match="a fine-tuned RetiZero, without texts"):
        load_encoder("retizero", weights=tmp_path / "checkpoint.pth.tar", **HERE)
