"""MedSigLIP's pictures are resized as TensorFlow does, and its network is transformers' SigLIP."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import narrow
import numpy as np
import pytest
import torch
from PIL import Image

from retr.index.errors import UsageError
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.runtime.tensorflow_resize import resize_bilinear
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
import transformers  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

HERE = {"device": "cpu", "precision": "fp32"}
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
# the published values, but for the size of the patches
PROCESSOR = {
    "image_processor_type": "SiglipImageProcessor",
    "size": {"height": 448, "width": 448},
    "resample": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "rescale_factor": 1 / 255,
}
EXPECTED = np.load(narrow.HERE / "expected" / "narrow" / "tensorflow_resize.npz")


@pytest.mark.parametrize("name", sorted(json.loads(str(EXPECTED["said"]))["sha256"]))
def test_the_resize_is_tensorflows_to_the_last_bit(name: str) -> None:
    picture = np.asarray(Image.open(narrow.HERE / "images" / name).convert("RGB"))
    got = resize_bilinear(picture, 448, 448).astype(np.uint8)
    np.testing.assert_array_equal(got[::16, ::16], EXPECTED[name.removesuffix(".png")])
    assert hashlib.sha256(got.tobytes()).hexdigest() == json.loads(str(EXPECTED["said"]))["sha256"][name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("medsiglip")
    torch.manual_seed(6)
    vision, text = SMALL | {"image_size": 448, "patch_size": 112}, SMALL | {"vocab_size": 20}
    model = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


def test_its_card_resizes_before_the_processor(folder: Path) -> None:
    encoder = load_encoder("hf:google/medsiglip-448", weights=folder, **HERE)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    resized = [
        Image.fromarray(resize_bilinear(np.asarray(picture), 448, 448).astype(np.uint8))
        for picture in narrow.pictures()
    ]
    with torch.no_grad():
        want = model.get_image_features(**processor(images=resized, return_tensors="pt")).pooler_output.numpy()
    np.testing.assert_allclose(encoder.encode_images(narrow.pictures()), want, atol=2e-6)
    assert encoder.info.preprocessing.startswith("TensorFlow's bilinear")
    assert encoder.info.draft_size is None
    # the processor alone smooths, and is another encoder
    plain = load_encoder("hf:google/medsiglip-448", weights=folder, resize="processor", **HERE)
    assert np.abs(plain.encode_images(narrow.pictures()) - want).max() > 1e-4
    assert plain.info.identity != encoder.info.identity
    named = load_encoder("hf:org/fine-tuned", weights=folder, resize="tensorflow", **HERE)
    np.testing.assert_array_equal(named.encode_images(narrow.pictures()), encoder.encode_images(narrow.pictures()))


def test_a_processor_that_crops_has_no_size_to_resize_to(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    crop = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 448}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | crop))
    with pytest.raises(UsageError, match="states no height and width to resize to"):
        load_encoder("hf:org/x", weights=tmp_path, resize="tensorflow", **HERE)
