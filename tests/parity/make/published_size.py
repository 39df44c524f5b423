"""Compare encoders with their authors' code in the published size: ``python .../published_size.py RETFOUND``.

RETFOUND is a clone of rmaphoh/RETFound_MAE (see retfound.py). Checkpoints of a gigabyte and more are made, compared and
deleted one after the other (at most 9 GB of memory); the differences go to ``expected/narrow/published_size.json``.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, sys.argv[1])
sys.path.insert(0, str(Path(__file__).parents[1]))
import narrow
import numpy as np
import torch
from torch import nn

from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
import timm  # noqa: E402
from torchvision import transforms as T  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

SWIGLU = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}
IMAGENET = T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BICUBIC = T.InterpolationMode.BICUBIC
UNI2 = {"patch_size": 14, "depth": 24, "num_heads": 24, "embed_dim": 1536, "mlp_ratio": 2.66667 * 2}
# name: architecture, what the card hands to timm, its transform
MODELS: dict[str, tuple[str, dict[str, Any], list[Any]]] = {
    "MahmoodLab/UNI": ("vit_large_patch16_224", {"init_values": 1e-5}, [T.Resize(224), T.ToTensor(), IMAGENET]),
    "MahmoodLab/UNI2-h": (
        "vit_giant_patch14_224",
        UNI2 | {"init_values": 1e-5, "no_embed_class": True, "reg_tokens": 8} | SWIGLU,
        [T.Resize(224), T.ToTensor(), IMAGENET],
    ),
    "paige-ai/Virchow2": (
        "vit_huge_patch14_224",
        {"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", "reg_tokens": 4} | SWIGLU,
        [T.Resize(224, interpolation=BICUBIC), T.ToTensor(), IMAGENET],
    ),
}
found: dict[str, Any] = {}


def compare(name: str, model: nn.Module, embed: Callable[[nn.Module], Any], save: Any, load: Any) -> None:
    """Fill a network with values, compute the reference, and compare with the encoder that reads its file."""
    started = time.monotonic()
    state = narrow.fill({key: tuple(value.shape) for key, value in model.state_dict().items()}, name)
    model.load_state_dict(state, strict=True)
    with torch.no_grad():
        want = embed(model.eval()).numpy()
    parameters = sum(value.numel() for value in state.values())
    del model
    with tempfile.TemporaryDirectory() as scratch:
        file = save(Path(scratch), state)
        del state
        gc.collect()
        got = load(file)
    want, got = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (want, got))
    difference = float(np.abs(got.astype(np.float64) - want).max())
    apart = float(np.abs(want[0] - want[1]).max())
    found[name] = {"parameters": parameters, "largest_difference": difference, "pictures_apart": apart}
    sys.stderr.write(f"{name} {found[name]} {time.monotonic() - started:.0f} s\n")
    assert difference <= narrow.TOLERANCE < apart


def plain(folder: Path, state: dict[str, torch.Tensor]) -> Path:
    """Save a state dict alone."""
    torch.save(state, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


for name, (architecture, arguments, transform) in MODELS.items():
    network = timm.create_model(architecture, num_classes=0, img_size=224, **arguments)
    prefix = network.num_prefix_tokens
    pixels = torch.stack([T.Compose(transform)(tile) for tile in narrow.tiles()[:2]])

    def embedded(model: nn.Module, pixels: torch.Tensor = pixels, prefix: int = prefix) -> torch.Tensor:
        """Take the embedding as the card does."""
        output = model(pixels)
        return output if output.ndim == 2 else torch.cat([output[:, 0], output[:, prefix:].mean(1)], dim=-1)

    def ours(file: Path, name: str = name) -> np.ndarray:
        """Embed with the encoder of that name."""
        encoder = load_encoder(f"timm:{name}", weights=file, device="cpu", precision="fp32")
        return encoder.encode_images(narrow.tiles()[:2])

    compare(name, network, embedded, plain, ours)
    del network

import models_vit  # noqa: E402

network = models_vit.RETFound_mae(img_size=224, num_classes=5, global_pool=True)

transform = T.Compose([T.Resize(256, interpolation=BICUBIC), T.CenterCrop(224), T.ToTensor(), IMAGENET])
pixels = torch.stack([transform(picture) for picture in narrow.pictures()[:2]])


def tuned(folder: Path, state: dict[str, torch.Tensor]) -> Path:
    """Save a fine-tuned file as their engine does."""
    torch.save({"model": state, "epoch": 1}, folder / "RETFound.pth")
    return folder / "RETFound.pth"


compare(
    "retfound (MAE, fine-tuned)",
    network,
    lambda model: model.forward_features(pixels).reshape(2, -1),
    tuned,
    lambda file: load_encoder("retfound", weights=file, device="cpu", precision="fp32").encode_images(
        narrow.pictures()[:2]
    ),
)
result = {"reference": f"timm {timm.__version__}; rmaphoh/RETFound_MAE 897d71c", "encoders": found}
(narrow.HERE / "expected" / "narrow" / "published_size.json").write_text(json.dumps(result, indent=2) + "\n")
