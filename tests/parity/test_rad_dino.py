"""RAD-DINO against its authors' own code; its preprocessing comes from its files or not at all."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from expected_arrays import Expected
from PIL import Image
from safetensors.numpy import load_file, save_file

from retr.index.errors import NoTextSideError, WeightsError
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.runtime.preprocess import ShortSideCrop
from retr.retrieval.images import read_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXPECTED = Expected("rad_dino")
PROCESSOR = {
    "crop_size": {"height": 518, "width": 518},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5307, 0.5307, 0.5307],
    "image_std": [0.2583, 0.2583, 0.2583],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 518},
}


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("rad_dino")


@pytest.fixture(scope="module")
def rad_dino(folder: Path) -> Any:
    return load_encoder("rad-dino", weights=str(folder), device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def images(rad_dino: Any) -> np.ndarray:
    return rad_dino.encode_images(EXPECTED.images)


def test_pixels(rad_dino: Any) -> None:
    pixels = [rad_dino.prepare(read_image(path).image) for path in EXPECTED.images]
    assert EXPECTED.check_pixels("pixels", np.stack(pixels)) == 4


def test_cls(images: np.ndarray) -> None:
    EXPECTED.check("cls_768", images)
    unit = images / np.linalg.norm(images, axis=1, keepdims=True)
    EXPECTED.check("cls_cosine", unit @ unit.T)


def test_patches(rad_dino: Any, folder: Path) -> None:
    encoder = load_encoder("rad-dino", weights=str(folder), feature="patches", device="cpu", precision="fp32")
    vectors = encoder.encode_images(EXPECTED.images)
    EXPECTED.check("patch_mean_768", vectors)
    patches = rad_dino.patch_embeddings(read_image(EXPECTED.images[1]).image)
    assert patches.shape == (37, 37, 768)
    np.testing.assert_allclose(patches.mean((0, 1)), vectors[1], atol=1e-4)
    with pytest.raises(NoTextSideError):
        rad_dino.encode_texts(["effusion"])


def test_odd_pictures(rad_dino: Any, check_odd_pictures: Callable[..., None]) -> None:
    check_odd_pictures(rad_dino)


def test_bfloat16_keeps_the_vectors(folder: Path, images: np.ndarray) -> None:
    lowered = load_encoder("rad-dino", weights=str(folder), device="cpu", precision="bf16")
    got = lowered.encode_images(EXPECTED.images[:2])
    cosines = (got * images[:2]).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(images[:2], axis=1)
    assert cosines.min() > 0.999 or lowered.notes


def test_files_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(folder / name, tmp_path)
    with pytest.raises(WeightsError, match=r"no model\.safetensors"):
        load_encoder("rad-dino", weights=tmp_path)
    state = load_file(folder / "model.safetensors")
    bias = state.pop("encoder.layer.3.attention.attention.query.bias")
    save_file(state | {"extra.weight": bias}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 missing .*1 unknown \(extra\.weight\)"):
        load_encoder("rad-dino", weights=tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"no preprocessor_config\.json"):
        load_encoder("rad-dino", weights=tmp_path)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (518, 518), (37, 300), (1200, 1199), (519, 2000)])
@pytest.mark.parametrize("side", [518, 224])
def test_crop_is_the_slow_processors(size: tuple[int, int], side: int) -> None:
    """Pixel for pixel what transformers' PIL processor gives for the same configuration."""
    from retr.retrieval.encoders.torchvision_import import ensure_torchvision

    ensure_torchvision()
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    config = PROCESSOR | {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)).resize(size)
    want = BitImageProcessorPil(**config)(picture, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(ShortSideCrop.from_config(config, "x")(picture), want)


@pytest.mark.parametrize("change", [{"image_mean": None}, {"do_center_crop": False}, {"size": {"height": 518}}])
def test_unknown_preprocessing_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=r"p\.json"):
        ShortSideCrop.from_config(json.loads(json.dumps(PROCESSOR | change)), "p.json")
