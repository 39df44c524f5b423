"""Reference arrays of the pathology encoders: ``python tests/parity/make/pathology.py``.

The authors' code is timm itself, called as each model's card calls it; the arguments and transforms are read in
mahmoodlab/TRIDENT at a91fa8490e0210ebbbe58452c3babe009e0ab7ca, trident/patch_encoder_models/load.py (UNI, UNI2-h,
Virchow, Virchow2, H-optimus-0 and 1, H0-mini, GigaPath, GPFM, Kaiko, Lunit). Only the sizes are narrow.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import narrow
import torch

from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
import timm  # noqa: E402
from torchvision import transforms as T  # noqa: E402

SWIGLU = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}
SIZES = {"img_size": 56, "embed_dim": 48, "depth": 2, "num_heads": 3}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)
HOPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
MODELS = {
    "uni": ("vit_large_patch16_224", {"patch_size": 14, "init_values": 1e-5, "dynamic_img_size": True}),
    "uni2-h": (
        "vit_giant_patch14_224",
        {
            "init_values": 1e-5,
            "mlp_ratio": 2.66667 * 2,
            "no_embed_class": True,
            "reg_tokens": 8,
            "dynamic_img_size": True,
            **SWIGLU,
        },
    ),
    "virchow": ("vit_huge_patch14_224", {"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", **SWIGLU}),
    "virchow2": (
        "vit_huge_patch14_224",
        {"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", "reg_tokens": 4, **SWIGLU},
    ),
    "h-optimus": ("vit_giant_patch14_reg4_dinov2", {"init_values": 1e-5, "global_pool": "token", "mlp_ratio": 5.33334}),
    "h0-mini": (
        "vit_base_patch14_reg4_dinov2",
        {"init_values": 1e-5, "global_pool": "", "mlp_ratio": 5.33334, **SWIGLU},
    ),
    "gigapath": ("vit_giant_patch14_dinov2", {"patch_size": 14, "init_values": 1e-5, "mlp_ratio": 5.33334}),
    "gpfm": ("vit_large_patch14_dinov2", {"init_values": 1e-5}),
    "kaiko": ("vit_large_patch14_reg4_dinov2", {"init_values": 1e-5, "dynamic_img_size": True}),
    "lunit": ("vit_small_patch8_224", {"patch_size": 8}),
}
BICUBIC = T.InterpolationMode.BICUBIC


def transform(name: str) -> T.Compose:
    """Return the card's transform, of tiles of 56 pixels instead of 224."""
    resize = {
        "uni": [T.Resize(56)],
        "uni2-h": [T.Resize(56)],
        "h-optimus": [T.Resize(56)],
        "kaiko": [T.Resize(224), T.CenterCrop(224)],
        "gigapath": [T.Resize(64, interpolation=BICUBIC), T.CenterCrop(56)],
    }.get(name, [T.Resize(56, interpolation=BICUBIC)])
    mean, std = {"h-optimus": HOPTIMUS, "h0-mini": HOPTIMUS, "kaiko": HALF}.get(name, IMAGENET)
    return T.Compose([*resize, T.ToTensor(), T.Normalize(mean, std)])


def embed(name: str, output: torch.Tensor, prefix: int) -> torch.Tensor:
    """Take the embedding from the network's output, as the card does."""
    if name in {"virchow", "virchow2"}:
        return torch.cat([output[:, 0], output[:, prefix:].mean(1)], dim=-1)
    return output[:, 0] if name == "h0-mini" else output


for name, (architecture, arguments) in MODELS.items():
    model = timm.create_model(architecture, num_classes=0, **{**SIZES, **arguments})
    model.load_state_dict(narrow.record_keys(name, model.state_dict()), strict=True)
    model.eval()
    pixels = torch.stack([transform(name)(tile) for tile in narrow.tiles()])
    with torch.no_grad():
        vectors = embed(name, model(pixels), model.num_prefix_tokens)
    narrow.record(name, f"timm {timm.__version__}, {architecture}, as the model's card calls it", images=vectors)
