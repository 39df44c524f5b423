"""Reference arrays of RETFound: ``python tests/parity/make/retfound.py CLONE``.

CLONE is rmaphoh/RETFound_MAE at 897d71c8c9b1d0ca1984370d4c4352722017b80a: models_vit.py (the MAE network), the
evaluation transform of util/datasets.py, util/pos_embed.py, and latent_feature.ipynb (the DINOv2 pooling and the
pixels of its features). The DINOv2 network is timm's, built as models_vit.py builds it but narrow.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, sys.argv[1])
sys.path.insert(0, str(Path(__file__).parents[1]))
import narrow
import numpy as np
import torch
from torch import nn

from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
import models_vit  # noqa: E402
import timm  # noqa: E402
from util.datasets import build_transform  # noqa: E402
from util.pos_embed import interpolate_pos_embed  # noqa: E402

REFERENCE = "rmaphoh/RETFound_MAE 897d71c models_vit.py, util/datasets.py, util/pos_embed.py, latent_feature.ipynb"
MAE = {"patch_size": 16, "embed_dim": 128, "depth": 2, "num_heads": 2, "mlp_ratio": 4, "qkv_bias": True}
NORM = partial(nn.LayerNorm, eps=1e-6)


def mae(*, global_pool: bool) -> torch.nn.Module:
    """Build their MAE network."""
    return models_vit.VisionTransformer(img_size=224, num_classes=5, global_pool=global_pool, norm_layer=NORM, **MAE)


def latent(picture: object) -> torch.Tensor:
    """Make the notebook's pixels."""
    img = np.array(picture.resize((224, 224))) / 255.0
    for channel in range(3):
        img[..., channel] = (img[..., channel] - img[..., channel].mean()) / img[..., channel].std()
    return torch.tensor(img).permute(2, 0, 1).float()


evaluate = build_transform("test", SimpleNamespace(input_size=224))
pixels = {
    "finetune": torch.stack([evaluate(picture) for picture in narrow.pictures()]),
    "latent": torch.stack([latent(picture) for picture in narrow.pictures()]),
}
arrays = {}

# what a pre-training saves: the encoder with its norm, the decoder, the mask token
encoder = {key: value for key, value in mae(global_pool=False).state_dict().items() if not key.startswith("head.")}
decoder = {
    "mask_token": torch.empty(1, 1, 32),
    "decoder_pos_embed": torch.empty(1, 197, 32),
    "decoder_embed.weight": torch.empty(32, 128),
    "decoder_embed.bias": torch.empty(32),
    "decoder_norm.weight": torch.empty(32),
    "decoder_norm.bias": torch.empty(32),
    "decoder_pred.weight": torch.empty(768, 32),
    "decoder_pred.bias": torch.empty(768),
}
state = narrow.record_keys("retfound-mae", {**encoder, **decoder})
for pooled in (True, False):
    model = mae(global_pool=pooled)
    model.load_state_dict(state, strict=False)
    model.eval()
    for protocol, batch in pixels.items():
        with torch.no_grad():
            feature = "global_pool" if pooled else "cls"
            arrays[f"mae_{feature}_{protocol}"] = model.forward_features(batch).reshape(3, -1)

# a fine-tuned one, with its own norm behind the pooling and a classifier
model = mae(global_pool=True)
model.load_state_dict(narrow.record_keys("retfound-finetuned", model.state_dict()), strict=True)
model.eval()
with torch.no_grad():
    arrays["finetuned"] = model.forward_features(pixels["finetune"]).reshape(3, -1)

# DINOv2: a table of places for pictures of 518 pixels, which their loading brings to 224
sizes = {"embed_dim": 128, "depth": 2, "num_heads": 2, "init_values": 1e-5, "num_classes": 5}
published = timm.create_model("vit_large_patch14_dinov2", img_size=518, **sizes)
keys = {f"backbone.{key}": value for key, value in published.state_dict().items() if not key.startswith("head.")}
keys["backbone.mask_token"] = torch.empty(1, 128)
keys["dino_head.last_layer.weight"] = torch.empty(64, 16)
state = {key.replace("backbone.", ""): value for key, value in narrow.record_keys("retfound-dinov2", keys).items()}
model = timm.create_model("vit_large_patch14_dinov2", img_size=224, **sizes)
interpolate_pos_embed(model, state)
model.load_state_dict(state, strict=False)
model.eval()
with torch.no_grad():
    for protocol, batch in pixels.items():
        tokens = model.forward_features(batch)
        arrays[f"dinov2_global_pool_{protocol}"] = nn.LayerNorm(128, eps=1e-6)(tokens[:, 1:].mean(dim=1))
        arrays[f"dinov2_cls_{protocol}"] = model.forward_head(tokens, pre_logits=True)

narrow.record("retfound", REFERENCE, **arrays)
