"""RETFound's image encoder: the ViT of a checkpoint, pooled as its authors pool it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import PIL.Image
import torch
from torch import nn

from retr.index.errors import UsageError
from retr.retrieval.encoders.base import limit_aspect
from retr.retrieval.encoders.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, table, to_bytes
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
from retr.retrieval.encoders.towers.vision import plain_vit
from retr.retrieval.encoders.weights.checkpoints import digest, load_state_dict, load_strictly
from retr.retrieval.encoders.weights.wrappers import unwrap

ensure_torchvision()
from torchvision import transforms  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.encoders.spec import Card

# The decoder of MAE, the mask of DINOv2, and the classifier of a fine-tuned file: no part of the encoder.
_DROPPED = ("decoder_", "mask_token", "head.", "dino_head.", "ibot_head.")
_DESCRIBED = {
    "finetune": "short side 256 bicubic, centre crop 224; /255; ImageNet mean and std",
    "latent": "224x224 bicubic (aspect not kept); /255; each channel of each picture to mean 0, variance 1",
}
_EPS = 1e-6


class RetFoundEncoder(TorchEncoder):
    """RETFound.

    Parameters
    ----------
    info, network, device, precision
        As in `TorchEncoder`; `info.options` holds the feature and the protocol.
    distilled
        Whether it is a DINOv2 file, whose pooling follows the final LayerNorm.
    """

    batch_size = 16

    def __init__(self, info: EncoderInfo, network: nn.Module, *, distilled: bool, device: str, precision: str) -> None:
        self.distilled, self.feature = distilled, info.options["feature"]
        self._crop = transforms.Compose(
            [transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224)]
        )
        self.table = table(IMAGENET_MEAN, IMAGENET_STD) if info.options["protocol"] == "finetune" else None
        super().__init__(info, network, device=device, precision=precision)

    def to_bytes(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Resize to 256 and crop, as the authors evaluate: uint8 ``(3, 224, 224)``."""
        return to_bytes(self._crop(limit_aspect(image)))

    def prepare(self, image: PIL.Image.Image) -> NDArray[np.float32]:
        """Prepare one RGB picture as the protocol does: float32 ``(3, 224, 224)``."""
        if self.table is not None:
            return super().prepare(image)
        pixels = np.asarray(image.resize((224, 224), PIL.Image.Resampling.BICUBIC)) / 255.0
        spread = pixels.std((0, 1))
        # a channel of one value is all mean: 0, where the authors' division gives no number
        scaled = (pixels - pixels.mean((0, 1))) / np.where(spread > 0, spread, 1)
        return np.ascontiguousarray(scaled.transpose(2, 0, 1), dtype=np.float32)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed pixels ``(n, 3, 224, 224)``: ``(n, 1024)``."""
        if self.feature == "cls" or not self.distilled:
            return cast("Tensor", self.network(pixels))
        return self._pooled(self._tokens(pixels)[:, 1:].mean(1))

    def patch_features(self, pixels: Tensor) -> Tensor:
        """Return the patch tokens, normed as the picture's vector is: ``(14, 14, 1024)``."""
        tokens = self._tokens(pixels)[0, 1:]
        if self.feature == "global_pool":
            tokens = self._pooled(tokens) if self.distilled else cast("Any", self.network).fc_norm(tokens)
        side = round(len(tokens) ** 0.5)
        return tokens.reshape(side, side, -1)

    def _tokens(self, pixels: Tensor) -> Tensor:
        return cast("Tensor", cast("Any", self.network).forward_features(pixels))

    def _pooled(self, mean: Tensor) -> Tensor:
        return nn.functional.layer_norm(mean, mean.shape[-1:], eps=_EPS)


def load_retfound(
    file: Path, card: Card, *, feature: str, protocol: str, device: str, precision: str
) -> RetFoundEncoder:
    """Read one of the published files, or a fine-tuned one, and build the encoder."""
    unwrapped = unwrap(load_state_dict(file), file=file.name)
    # self-distillation in pieces numbers its blocks twice; the second number counts them all
    state = {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", key): value for key, value in unwrapped.state.items()}
    state = {key: value for key, value in state.items() if not key.startswith(_DROPPED)}
    distilled = any(key.endswith(".ls1.gamma") for key in state)
    behind = feature == "global_pool" and not distilled
    if feature == "cls" and "norm.weight" not in state:
        raise UsageError(
            f"{file.name!r} was fine-tuned with global pooling and has no norm for the CLS token",
            hint="use feature=global_pool",
        )
    own: dict[str, Any] = {"global_pool": "avg", "fc_norm": True} if behind else {}
    vit = plain_vit(state, **own, **({"init_values": 1e-5} if distilled else {}))
    if behind:
        # the published files end with the norm of all tokens, which this pooling never runs
        norm = {name: state.pop(f"norm.{name}", None) for name in ("weight", "bias")}
        for name, value in zip(norm, (torch.ones, torch.zeros), strict=True):
            state.setdefault(f"fc_norm.{name}", value(vit.embed_dim))
    state["pos_embed"] = _places_for(vit.patch_embed.num_patches, state)
    load_strictly(vit, state, file=file.name)
    info = card.info(
        dim=vit.embed_dim,
        similarity="cosine",
        text=False,
        weights_sha256=digest(file),
        preprocessing=_DESCRIBED[protocol],
        options={"feature": feature, "protocol": protocol},
    )
    encoder = RetFoundEncoder(info, vit, distilled=distilled, device=device, precision=precision)
    encoder.notes += unwrapped.notes(file.name)
    return encoder


def _places_for(patches: int, state: Mapping[str, Tensor]) -> Tensor:
    """Bring the table of places to a number of patches as the authors do, where it was made for another."""
    places = state["pos_embed"]
    side, wanted = round((places.shape[1] - 1) ** 0.5), round(patches**0.5)
    if side == wanted:
        return places
    grid = places[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid, size=(wanted, wanted), mode="bicubic", align_corners=False)
    return torch.cat([places[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
