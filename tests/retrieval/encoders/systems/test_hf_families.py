"""Families of transformers beside those of `test_hf`: the vectors are what the library's own call gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from retr.index.errors import UsageError, WeightsError
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
import transformers  # noqa: E402

HERE = {"device": "cpu", "precision": "fp32"}
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
IMAGE = {"image_size": 32, "patch_size": 16}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "disc", "grey"]
TEXTS = ["a red disc", "grey"]
PROCESSOR = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2} | {
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.3] * 3,
}
TEXT = SMALL | {"vocab_size": len(WORDS), "max_position_embeddings": 16, "pad_token_id": 0, "eos_token_id": 3}
CONFIGS = {
    "vit": lambda: transformers.ViTConfig(**SMALL, **IMAGE),
    "swin": lambda: transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    ),
    "convnext": lambda: transformers.ConvNextConfig(hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1], num_stages=4),
    "beit": lambda: transformers.BeitConfig(**SMALL, **IMAGE, use_mean_pooling=True, use_relative_position_bias=True),
    "beit-cls": lambda: transformers.BeitConfig(**SMALL, **IMAGE, use_mean_pooling=False),
    "metaclip_2": lambda: transformers.MetaClip2Config(
        vision_config=SMALL | IMAGE, text_config=TEXT, projection_dim=24
    ),
    "chinese_clip": lambda: transformers.ChineseCLIPConfig(
        vision_config=SMALL | IMAGE, text_config=TEXT, projection_dim=24
    ),
}


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(2)
    return [Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((50, 40)) for _ in range(2)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name, config in CONFIGS.items():
        folder = tmp_path_factory.mktemp(name)
        torch.manual_seed(4)
        model = transformers.AutoModel.from_config(config()).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
        (folder / "vocab.txt").write_text("\n".join(WORDS))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
        made[name] = (folder, model)
    return made


def pixels(folder, pictures):
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    return processor(images=pictures, return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("family", CONFIGS)
def test_pictures(family, folders, pictures):
    folder, model = folders[family]
    encoder = load_encoder("hf:org/x", weights=folder, **HERE)
    with torch.no_grad():
        if hasattr(model, "get_image_features"):
            want = model.get_image_features(pixel_values=pixels(folder, pictures)).pooler_output
        else:
            output = model(pixel_values=pixels(folder, pictures))
            want = output.last_hidden_state[:, 0] if family == "vit" else output.pooler_output
    assert encoder.info.dim == want.shape[1]
    np.testing.assert_allclose(encoder.encode_images(pictures), want.numpy(), atol=2e-6)


@pytest.mark.parametrize("family", ["metaclip_2", "chinese_clip"])
def test_texts(family, folders):
    folder, model = folders[family]
    encoder = load_encoder("hf:org/x", weights=folder, **HERE)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        want = model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), want.pooler_output.numpy(), atol=5e-6)


def test_pooling_of_both(folders, pictures):
    folder, _ = folders["vit"]
    parts = [
        load_encoder("hf:org/x", weights=folder, pooling=pooling, **HERE).encode_images(pictures)
        for pooling in ("cls", "mean", "cls+mean")
    ]
    np.testing.assert_array_equal(np.hstack(parts[:2]), parts[2])
    with pytest.raises(UsageError, match="one way only"):
        load_encoder("hf:org/x", weights=folders["swin"][0], pooling="mean", **HERE)


def test_phikon_is_its_cls_token(folders, pictures):
    """Owkin's folder holds a ViT without a pooler."""
    folder, model = folders["vit"]
    encoder = load_encoder("hf:owkin/phikon", weights=folder, **HERE)
    with torch.no_grad():
        want = model(pixel_values=pixels(folder, pictures)).last_hidden_state[:, 0]
    np.testing.assert_allclose(encoder.encode_images(pictures), want.numpy(), atol=2e-6)
    assert (encoder.info.modality, encoder.info.noncommercial) == ("pathology", True)


def test_midnight_is_cls_and_mean_of_its_cards_transform(tmp_path, pictures):
    """Its card states torchvision's transform, which rounds a crop otherwise than transformers."""
    from torchvision import transforms

    torch.manual_seed(5)
    config = transformers.Dinov2Config(**SMALL, image_size=224, patch_size=56, use_swiglu_ffn=True)
    model = transformers.AutoModel.from_config(config).eval()
    model.save_pretrained(tmp_path)
    encoder = load_encoder("hf:kaiko-ai/midnight", weights=tmp_path, **HERE)
    half = (0.5, 0.5, 0.5)
    steps = [
        transforms.Resize(224),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(half, half),
    ]
    with torch.no_grad():
        tokens = model(torch.stack([transforms.Compose(steps)(picture) for picture in pictures])).last_hidden_state
        want = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=-1)
    np.testing.assert_allclose(encoder.encode_images(pictures), want.numpy(), atol=2e-6)
    assert encoder.info.dim == 64
    assert encoder.info.licence == "MIT"


def test_hibous_hub_folder_is_refused(folders, tmp_path):
    """Its code is its own, and no folder's code is run."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2", "auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(WeightsError, match="names code of its own"):
        load_encoder("hf:histai/hibou-L", weights=tmp_path, **HERE)
