"""Models by their hub name, from a hub cache made here: BiomedCLIP's form, and a transformers folder. No network."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from retr.index.errors import WeightsError
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

HERE = {"device": "cpu", "precision": "fp32"}
TEXTS = ["drusen near the macula", "optic disc"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *["drusen", "near", "the", "macula", "optic", "disc"]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(autouse=True)
def _offline(cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def add(cache, repository):
    """Make the cache's folder of a repository, as the hub's client would."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    return snapshot


@pytest.fixture(scope="module")
def biomed(cache):
    """A timm image tower, a BERT text tower and its own tokenizer: BiomedCLIP in small."""
    bert = add(cache, "org/bert")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **shape).save_pretrained(bert)
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": {
            "hf_model_name": "org/bert",
            "hf_tokenizer_name": "org/bert",
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 24,
        },
    }
    local = copy.deepcopy(config)
    local["text_cfg"] |= {"hf_model_name": str(bert), "hf_model_pretrained": False}
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(**local).eval()
    folder = add(cache, "org/biomed")
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    preprocess = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return model


@pytest.mark.parametrize("name", ["open_clip:hf-hub:org/biomed", "hf:org/biomed"])
def test_biomedclips_form_is_found_in_the_cache(biomed, pictures, name):
    encoder = load_encoder(name, **HERE)
    assert encoder.info.name == "open_clip:hf-hub:org/biomed"
    assert encoder.info.source == "https://huggingface.co/org/biomed"
    assert "shortest 224 bicubic (open_clip), /255, mean 0.48,0.46,0.41" in encoder.info.preprocessing
    transform = open_clip.image_transform(224, is_train=False, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))
    ids = torch.zeros(2, 24, dtype=torch.long)
    ids[0, :6] = torch.tensor([2, 5, 6, 7, 8, 3])
    ids[1, :4] = torch.tensor([2, 9, 10, 3])
    with torch.inference_mode():
        pixels = biomed.encode_image(torch.stack([transform(p) for p in pictures[:3]])).numpy()
        words = biomed.encode_text(ids).numpy()
    np.testing.assert_allclose(encoder.encode_images(pictures[:3]), pixels, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), words, atol=1e-5)
    assert encoder.patch_embeddings(pictures[0]) is None


def test_a_transformers_folder_is_found_in_the_cache(cache, pictures):
    folder = add(cache, "org/dino")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    transformers.Dinov2Model(transformers.Dinov2Config(**shape)).save_pretrained(folder)
    processor = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 28}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    assert load_encoder("hf:org/dino", **HERE).encode_images(pictures[:2]).shape == (2, 32)


@pytest.mark.parametrize("name", ["hf:org/absent", "open_clip:hf-hub:org/absent", "open_clip:ViT-B-32/laion2b_e16"])
def test_what_is_not_in_the_cache_says_where_to_get_it(name):
    with pytest.raises(WeightsError, match=r"(?s)not on this machine.*https://huggingface.co/"):
        load_encoder(name, **HERE)


def test_a_timm_model_by_its_hub_name(cache):
    import timm
    from safetensors.torch import save_file

    arguments = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2}
    torch.manual_seed(4)
    model = timm.create_model("vit_tiny_patch16_224", **arguments).eval()
    stated = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3} | {
        "interpolation": "bicubic",
        "crop_pct": 1.0,
    }
    config = {"architecture": "vit_tiny_patch16_224", "model_args": arguments, "pretrained_cfg": stated}
    for repository in ("org/vit", "timm/vit_tiny_patch16_224.augreg_in21k"):
        snapshot = add(cache, repository)
        (snapshot / "config.json").write_text(json.dumps(config))
        save_file(model.state_dict(), snapshot / "model.safetensors", {"format": "pt"})
    picture = np.full((32, 32, 3), 90, np.uint8)
    pixels = torch.full((1, 3, 32, 32), (90 / 255 - 0.5) / 0.5)
    with torch.no_grad():
        want = model.forward_head(model.forward_features(pixels), pre_logits=True).numpy()
    # a repository, and one of timm's own by the name that timm knows it under
    for name in ("timm:org/vit", "timm:vit_tiny_patch16_224.augreg_in21k"):
        np.testing.assert_allclose(load_encoder(name, **HERE).encode_images([picture]), want, atol=1e-5)


def test_a_published_file_without_a_folder_is_what_its_card_says(cache):
    """GPFM's repository holds one file and no configuration."""
    from retr.retrieval.encoders.systems import timm

    torch.save({"state_dict": {}}, add(cache, "majiabo/GPFM") / "GPFM.pth")
    source = timm._resolve("majiabo/GPFM", None, {}, {}, None)
    assert source.file == "GPFM.pth"
    assert source.architecture == "vit_large_patch14_dinov2"
    assert source.arguments == {"img_size": 224, "init_values": 1e-5}
    assert source.preprocess["interpolation"] == "bicubic"
    with pytest.raises(WeightsError, match="'timm' needs 'MahmoodLab/UNI', which is not on this machine"):
        timm._resolve("MahmoodLab/UNI", None, {}, {}, None)
