"""BiomedCLIP's folder in small: the published configuration with a small timm ViT and a small BERT."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import narrow
import torch

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["adenocarcinoma histopathology", "a chest X-ray showing a pleural effusion"]
PREPROCESS = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}


def config(model: str, tokenizer: str) -> dict[str, Any]:
    """Return ``model_cfg`` with the names of the text side's model and tokenizer."""
    return {
        "embed_dim": 24,
        "vision_cfg": {
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
        },
        "text_cfg": {
            "hf_model_name": model,
            "hf_tokenizer_name": tokenizer,
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 64,
        },
    }


def write_text_model(folder: Path) -> Path:
    """Write the base BERT's folder: configuration and vocabulary."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    narrow.standin.save_text("pubmed", folder, max_position_embeddings=64, **sizes)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


def write(folder: Path, model: dict[str, Any], state: dict[str, torch.Tensor]) -> Path:
    """Write the folder as the hub has it."""
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": PREPROCESS}))
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    return folder
