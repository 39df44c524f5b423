"""LVM-Med against its authors' own code, and its ViT against another implementation of SAM's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import standin
import torch
from expected_arrays import Expected
from PIL import Image

from retr.index.errors import NoTextSideError, WeightsError
from retr.retrieval.encoders.registry import find_spec, load_encoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXPECTED = Expected("lvm_med")
ARCHITECTURES = {"resnet50": ("lvmmed_resnet.torch", "resnet_2048"), "vit-b": ("lvmmed_vit.pth", "vit_768")}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def arch(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("lvm_med")


@pytest.fixture(scope="module")
def encoder(folder: Path, arch: str) -> Any:
    weights = str(folder / ARCHITECTURES[arch][0])
    return load_encoder("lvm-med", weights=weights, arch=arch, device="cpu", precision="fp32")


def test_the_card_says_the_size_of_the_default(encoder: Any, arch: str) -> None:
    assert (encoder.size()[0] == find_spec("lvm-med")[0].card.parameters) == (arch == "resnet50")


def test_pixels(encoder: Any) -> None:
    pixels = [encoder.prepare(Image.open(path).convert("RGB")) for path in EXPECTED.images]
    assert EXPECTED.check_pixels("pixels", np.stack(pixels)) == 4


def test_image_vectors(encoder: Any, arch: str) -> None:
    EXPECTED.check(ARCHITECTURES[arch][1], encoder.encode_images(EXPECTED.images))


def test_patches_average_to_the_vector(encoder: Any, arch: str) -> None:
    patches = encoder.patch_embeddings(Image.open(EXPECTED.images[0]).convert("RGB"))
    assert patches.shape[:2] == ((7, 7) if arch == "resnet50" else (14, 14))
    vector = encoder.encode_images(EXPECTED.images[:1])[0]
    np.testing.assert_allclose(patches.mean((0, 1)), vector, atol=1e-4)


def test_images_only(encoder: Any) -> None:
    with pytest.raises(NoTextSideError):
        encoder.encode_texts(["tumour"])
    assert encoder.info.noncommercial


def test_odd_pictures(encoder: Any, check_odd_pictures: Callable[..., None]) -> None:
    check_odd_pictures(encoder)


def test_bfloat16_keeps_the_vectors(encoder: Any, folder: Path, arch: str) -> None:
    weights = str(folder / ARCHITECTURES[arch][0])
    lowered = load_encoder("lvm-med", weights=weights, arch=arch, device="cpu", precision="bf16")
    exact, got = (one.encode_images(EXPECTED.images[:2]) for one in (encoder, lowered))
    cosines = (exact * got).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(got, axis=1)
    assert cosines.min() > 0.999


def test_the_vit_is_sams(folder: Path) -> None:
    """The same weights in transformers' SAM, which was written apart from timm's, at another size of input."""
    ensure_torchvision()
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    from retr.retrieval.encoders.towers.vision import last_map

    ours = load_encoder("lvm-med", weights=str(folder / "lvmmed_vit.pth"), arch="vit-b", device="cpu", precision="fp32")
    config = SamVisionConfig(use_abs_pos=False, image_size=1024, attn_implementation="eager")
    theirs = SamVisionEncoder(config).eval()
    state = torch.load(folder / "lvmmed_vit.pth", weights_only=True)
    names = {
        r"^patch_embed\.proj\.": "patch_embed.projection.",
        r"^blocks\.(\d+)\.norm([12])\.": r"layers.\1.layer_norm\2.",
        r"^blocks\.": "layers.",
        r"^neck\.0\.": "neck.conv1.",
        r"^neck\.1\.": "neck.layer_norm1.",
        r"^neck\.2\.": "neck.conv2.",
        r"^neck\.3\.": "neck.layer_norm2.",
    }
    for pattern, name in names.items():
        state = {re.sub(pattern, name, key): value for key, value in state.items()}
    theirs.load_state_dict(state)
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, 320, 320)
    kept: list[torch.Tensor] = []
    theirs.layers[-1].register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    theirs.patch_embed.image_size = (320, 320)
    with torch.inference_mode():
        theirs(pixels)
        got = last_map(ours.network, pixels)
    want = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
    torch.testing.assert_close(got, want.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    state = standin.part("lvm_med_resnet", 0)
    file = tmp_path / "lvmmed_resnet.torch"
    torch.save(state | {"fc.weight": torch.zeros(4, 2048), "fc.bias": torch.zeros(4)}, file)
    load_encoder("lvm-med", weights=file, device="cpu", precision="fp32")
    with pytest.raises(WeightsError, match="missing"):
        load_encoder("lvm-med", weights=file, arch="vit-b")
    torch.save(state | {"encoder.layer.0.weight": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match=r"1 unknown \(encoder\.layer\.0\.weight\)"):
        load_encoder("lvm-med", weights=file)
