"""RetiZero's image encoder: pixels at 224, the ViT-L with its LoRA folded in, and the features taken from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import PIL.Image

from retr.index.errors import UsageError, WeightsError
from retr.retrieval.encoders.runtime.preprocess import HALF, IMAGENET_MEAN, IMAGENET_STD, table, to_bytes
from retr.retrieval.encoders.towers.fundus import FundusEncoder, TextSide, logit_factor, projection, take_scale
from retr.retrieval.encoders.towers.vision import fold_lora, last_map, plain_vit, pool
from retr.retrieval.encoders.weights.checkpoints import (
    digest,
    load_state_dict,
    load_strictly,
    split_state,
    uninitialised,
)
from retr.retrieval.encoders.weights.wrappers import unwrap

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from timm.models.vision_transformer import VisionTransformer
    from torch import Tensor, nn

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.encoders.spec import Card
    from retr.retrieval.encoders.weights.checkpoints import WeightFile
    from retr.retrieval.encoders.weights.wrappers import Unwrapped

_FINE_TUNED = "img_encoder."
_PIXELS = "224x224 bilinear (aspect not kept); /255; mean and std {}"
_NORMALISATION = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "0.5": (HALF, HALF)}


class RetiZeroEncoder(FundusEncoder):
    """RetiZero.

    Parameters
    ----------
    info, network, **rest
        As in `FundusEncoder`; `info.options` holds the feature and the normalisation.
    """

    batch_size = 16
    text_feature = "zero-shot"

    def __init__(self, info: EncoderInfo, network: nn.Module, **rest: Any) -> None:
        self.feature = info.options["feature"]
        self.table = table(*_NORMALISATION[str(info.options["normalisation"])])
        super().__init__(info, network, **rest)

    def to_bytes(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Resize to 224 x 224, aspect not kept: uint8 ``(3, 224, 224)``."""
        return to_bytes(image.resize((224, 224), PIL.Image.Resampling.BILINEAR))

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed pixels ``(n, 3, 224, 224)``: ``(n, 512)`` unit vectors, or 1024 plain features."""
        if self.feature == "retrieval":
            return pool(last_map(self.network, pixels).float())
        return self.project(self.network(pixels))

    def patch_features(self, pixels: Tensor) -> Tensor:
        """Embed the 14 x 14 patch tokens as the picture is embedded: ``(14, 14, dim)``."""
        tokens = last_map(self.network, pixels)[0].permute(1, 2, 0)
        if self.feature == "retrieval":
            return tokens
        return self.project(self.network.norm(tokens))  # type: ignore[operator]


def load_retizero(
    file: Path,
    text_model: Path | None,
    *,
    card: Card,
    text_file: WeightFile,
    feature: str,
    normalisation: str,
    together: bool,
    caption: str,
    device: str,
    precision: str,
) -> RetiZeroEncoder:
    """Read ``RetiZero.pth`` and build the encoder."""
    unwrapped = unwrap(load_state_dict(file), file=file.name)
    if any(key.startswith(_FINE_TUNED) for key in unwrapped.state):
        return _fine_tuned(
            unwrapped, file, card, feature=feature, normalisation=normalisation, device=device, precision=precision
        )
    vit_state, head_state, text_state, rest = split_state(
        unwrapped.state, "vision_model.model.lora_vit.", "vision_model.projection_head_vision.", "text_model."
    )
    vit, head = _vit(vit_state, file), projection(head_state, "projection.weight", norm=True)
    load_strictly(head, head_state, file=file.name)
    scale = logit_factor(take_scale(rest, file.name))
    projected = feature == "zero-shot"
    text = TextSide(
        text_state,
        text_model,
        wanted=text_file,
        encoder=card.name,
        file=file.name,
        caption=caption,
        together=together,
    )
    info = card.info(
        dim=head.projection.out_features if projected else head.projection.in_features,
        similarity="cosine",
        text=projected,
        weights_sha256=digest(file),
        text_sha256=text.digest() if projected else None,
        preprocessing=_PIXELS.format(normalisation),
        options={"feature": feature, "normalisation": normalisation},
        logit_scale=scale if projected else None,
    )
    encoder = RetiZeroEncoder(
        info,
        vit,
        head=head if projected else None,
        text=text if projected else None,
        device=device,
        precision=precision,
    )
    encoder.notes += unwrapped.notes(file.name)
    return encoder


def _fine_tuned(
    unwrapped: Unwrapped, file: Path, card: Card, *, feature: str, normalisation: str, device: str, precision: str
) -> RetiZeroEncoder:
    """Build the encoder from what the authors' fine-tuning saves: the ViT, and a classifier that is left out."""
    if feature == "zero-shot":
        raise UsageError(
            f"{file.name!r} is a fine-tuned RetiZero, without texts and without the projection beside them",
            hint="use --set feature=backbone (what its classifier reads) or feature=retrieval",
        )
    vit_state, _, rest = split_state(unwrapped.state, f"{_FINE_TUNED}lora_vit.", "classifier.")
    if rest:
        raise WeightsError(
            f"{file.name!r} does not fit a fine-tuned RetiZero: unknown {min(rest)!r}", hint="is it the right file?"
        )
    vit = _vit(vit_state, file)
    info = card.info(
        dim=vit.embed_dim,
        similarity="cosine",
        text=False,
        weights_sha256=digest(file),
        preprocessing=_PIXELS.format(normalisation),
        options={"feature": feature, "normalisation": normalisation},
    )
    encoder = RetiZeroEncoder(info, vit, head=None, text=None, device=device, precision=precision)
    encoder.notes += unwrapped.notes(file.name)
    return encoder


def _vit(state: Mapping[str, Tensor], file: Path) -> VisionTransformer:
    """Build the ViT of a checkpoint, its LoRA folded."""
    folded = fold_lora(state)
    vit = uninitialised(lambda: plain_vit(folded))
    load_strictly(vit, folded, file=file.name)
    return vit
