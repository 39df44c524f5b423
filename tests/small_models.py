"""Model folders in small, of transformers and of open_clip, saved as their libraries save them."""

from __future__ import annotations

import json

import torch

from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
import open_clip  # noqa: E402
import transformers  # noqa: E402

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "disc"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 32},
    "crop_size": {"height": 32, "width": 32},
    "resample": 3,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.3] * 3,
}


def tokenizer(folder):
    """A BERT's, of eight words."""
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))


def make(root):
    """Write ``hf`` (a CLIP of transformers), ``clip`` (BiomedCLIP's form) and ``bert`` (its text side)."""
    torch.manual_seed(0)
    hf = root / "hf"
    vision = SMALL | {"image_size": 32, "patch_size": 16}
    text = SMALL | {"vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 3, "pad_token_id": 0}
    transformers.CLIPModel(
        transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)
    ).save_pretrained(hf)
    (hf / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    tokenizer(hf)
    clip = root / "clip"
    clip.mkdir()
    bert = root / "bert"
    transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **SMALL).save_pretrained(bert)
    tokenizer(bert)
    model = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"hf_model_name": "org/bert", "hf_tokenizer_name": "org/bert", "hf_proj_type": "mlp"}
        | {"hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 24},
    }
    local = json.loads(json.dumps(model))
    local["text_cfg"] |= {"hf_model_name": str(bert), "hf_model_pretrained": False}
    torch.save(open_clip.CustomTextCLIP(**local).state_dict(), clip / "open_clip_pytorch_model.bin")
    stated = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (clip / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": stated}))
