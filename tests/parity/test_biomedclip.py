"""BiomedCLIP's stand-in, in its folder's layout, against open_clip as its card calls it; and CLIPs that are folders."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import biomedclip_folder
import narrow
import numpy as np
import pytest
import torch

from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
import open_clip  # noqa: E402
import transformers  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

HERE = {"device": "cpu", "precision": "fp32"}
NAME = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
BERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
STATED = {"image_mean": biomedclip_folder.PREPROCESS["mean"], "image_std": biomedclip_folder.PREPROCESS["std"]}
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.mark.parametrize("name", [f"open_clip:hf-hub:{NAME}", f"hf:{NAME}"])
def test_biomedclip(name: str, tmp_path: Path) -> None:
    bert = biomedclip_folder.write_text_model(tmp_path / "bert")
    folder = biomedclip_folder.write(
        tmp_path / "model", biomedclip_folder.config(BERT, BERT), narrow.state("biomedclip")
    )
    encoder = load_encoder(name, weights=folder, text_model=bert, **HERE)
    narrow.check("biomedclip", encoder.encode_images(narrow.pictures()))
    narrow.check("biomedclip", encoder.encode_texts(biomedclip_folder.TEXTS), "texts")
    assert encoder.info.licence == "MIT"


@pytest.mark.parametrize("name", ["flaviagiammarino/pubmed-clip-vit-base-patch32", "vinid/plip", "suinleelab/monet"])
def test_clips_of_transformers_have_cards(name: str, tmp_path: Path) -> None:
    """Their folders are transformers' CLIP, whose own call is the reference."""
    torch.manual_seed(7)
    vision = SMALL | {"image_size": 32, "patch_size": 16}
    text = SMALL | {"vocab_size": 20, "max_position_embeddings": 16, "eos_token_id": 3}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    processor = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "resample": 3}
    processor |= {"crop_size": {"height": 32, "width": 32}} | STATED
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    encoder = load_encoder(f"hf:{name}", weights=tmp_path, **HERE)
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    with torch.no_grad():
        want = model.get_image_features(**theirs(images=narrow.pictures(), return_tensors="pt")).pooler_output
    np.testing.assert_allclose(encoder.encode_images(narrow.pictures()), want.numpy(), atol=2e-6)
    assert encoder.info.modality in {"radiology", "pathology", "dermatology"}


@pytest.mark.parametrize("name", ["wisdomik/QuiltNet-B-32", "redlessone/DermLIP_ViT-B-16"])
def test_clips_of_open_clip_have_cards(name: str, tmp_path: Path) -> None:
    """Their folders are open_clip's, whose own call is the reference."""
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(8)
    biomedclip_folder.write(tmp_path, config, open_clip.CLIP(**config).state_dict())
    encoder = load_encoder(f"open_clip:hf-hub:{name}", weights=tmp_path, **HERE)
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    with torch.no_grad():
        images = model.eval().encode_image(torch.stack([preprocess(picture) for picture in narrow.pictures()]))
        texts = model.encode_text(tokenizer(biomedclip_folder.TEXTS))
    np.testing.assert_allclose(encoder.encode_images(narrow.pictures()), images.numpy(), atol=2e-6)
    np.testing.assert_allclose(encoder.encode_texts(biomedclip_folder.TEXTS), texts.numpy(), atol=2e-6)
    assert encoder.info.modality in {"pathology", "dermatology"}
