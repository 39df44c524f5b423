"""Pathology's timm models, in their folders' layout, against timm as their cards call it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import narrow
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from retr.retrieval.encoders.registry import load_encoder

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"img_size": 56, "embed_dim": 48, "depth": 2, "num_heads": 3}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
HOPTIMUS = {"mean": [0.707223, 0.578729, 0.703617], "std": [0.211883, 0.230117, 0.177517]}
# what the folder's config.json adds to the sizes; the rest is the card's
OWN: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "uni": ("MahmoodLab/UNI", "vit_large_patch16_224", {"patch_size": 14}, {"interpolation": "bilinear"}),
    "uni2-h": ("MahmoodLab/UNI2-h", "vit_giant_patch14_224", {}, {"interpolation": "bilinear"}),
    "virchow": ("paige-ai/Virchow", "vit_huge_patch14_224", {}, {}),
    "virchow2": ("paige-ai/Virchow2", "vit_huge_patch14_224", {}, {}),
    # its card states the transform, against the folder's
    "h-optimus": (
        "bioptimus/H-optimus-0",
        "vit_giant_patch14_reg4_dinov2",
        {"mlp_ratio": 5.33334},
        {**IMAGENET, "crop_pct": 0.5},
    ),
    "h0-mini": ("bioptimus/H0-mini", "vit_base_patch14_reg4_dinov2", {"mlp_ratio": 5.33334}, HOPTIMUS),
    "gigapath": ("prov-gigapath/prov-gigapath", "vit_giant_patch14_dinov2", {"patch_size": 14}, {}),
    "gpfm": ("majiabo/GPFM", "vit_large_patch14_dinov2", {}, {}),
    "kaiko": (
        "1aurent/vit_large_patch14_reg4_dinov2.kaiko_ai_towards_large_pathology_fms",
        "vit_large_patch14_reg4_dinov2",
        {"init_values": 1e-5},
        {"input_size": [3, 224, 224], "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3},
    ),
    "lunit": ("1aurent/vit_small_patch8_224.lunit_dino", "vit_small_patch8_224", {}, {}),
}


def write(name: str, folder: Path, **changes: Any) -> str:
    """Write a model's folder; return the model's name on the hub."""
    repository, architecture, arguments, pretrained = OWN[name]
    folder.mkdir(exist_ok=True)
    config = {
        "architecture": architecture,
        "num_classes": 0,
        "model_args": SIZES | arguments,
        "pretrained_cfg": {
            "input_size": [3, 56, 56],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "fixed_input_size": True,
        }
        | IMAGENET
        | pretrained,
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    state = narrow.state(name)
    if name == "gpfm":
        torch.save({"state_dict": state}, folder / "GPFM.pth")
    elif name in {"h0-mini", "lunit"}:
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    else:
        torch.save(state, folder / "pytorch_model.bin")
    return repository


def test_hibou_is_its_authors_code(tmp_path: Path) -> None:
    """The file that the authors' loader takes, of DINOv2's names; pictures of any shape are squashed."""
    config = {"model_args": SIZES, "architecture": "vit_base_patch14_reg4_dinov2"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(narrow.state("hibou"), tmp_path / "hibou-b.pth")
    encoder = load_encoder("timm:histai/hibou-b", weights=tmp_path, device="cpu", precision="fp32")
    narrow.check("hibou", encoder.encode_images(narrow.pictures()))


@pytest.mark.parametrize("name", OWN)
def test_vectors_are_those_of_the_card(name: str, tmp_path: Path) -> None:
    repository = write(name, tmp_path)
    encoder = load_encoder(f"timm:{repository}", weights=tmp_path, device="cpu", precision="fp32")
    narrow.check(name, encoder.encode_images(narrow.tiles()))
    assert encoder.info.licence != "the checkpoint's"
    assert encoder.info.modality == "pathology"
    assert encoder.info.source.endswith(repository)


def test_poolings_are_those_of_the_tokens(tmp_path: Path) -> None:
    repository = write("virchow2", tmp_path)
    vectors = {}
    for pooling in ("cls", "mean", "cls+mean"):
        encoder = load_encoder(f"timm:{repository}", weights=tmp_path, pooling=pooling, device="cpu", precision="fp32")
        vectors[pooling] = encoder.encode_images(narrow.tiles())
        assert encoder.info.options == {"pooling": pooling}
    np.testing.assert_array_equal(np.hstack([vectors["cls"], vectors["mean"]]), vectors["cls+mean"])
    narrow.check("virchow2", vectors["cls+mean"])
