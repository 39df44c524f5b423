"""FLAIR's image encoder: canvas, ResNet-50 and projection head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from retr.retrieval.encoders.runtime.preprocess import to_unit
from retr.retrieval.encoders.towers.fundus import FundusEncoder, TextSide, logit_factor, projection, take_scale
from retr.retrieval.encoders.towers.vision import ResNet50, pool
from retr.retrieval.encoders.weights.checkpoints import (
    digest,
    load_state_dict,
    load_strictly,
    split_state,
    uninitialised,
)
from retr.retrieval.encoders.weights.untrusted import config_digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import PIL.Image
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.encoders.spec import Card
    from retr.retrieval.encoders.weights.checkpoints import WeightFile


class FlairEncoder(FundusEncoder):
    """FLAIR.

    Parameters
    ----------
    info, network, **rest
        As in `FundusEncoder`.
    side
        Of the square canvas, in pixels.
    """

    text_feature = "projected"

    def __init__(self, info: EncoderInfo, network: nn.Module, *, side: int, **rest: Any) -> None:
        self.side = side
        super().__init__(info, network, **rest)

    def prepare(self, image: PIL.Image.Image) -> NDArray[np.float32]:
        """Fit a picture into the top left of a black canvas: float32 ``(3, side, side)`` in 0..1."""
        pixels = to_unit(image)
        # the authors' arithmetic: a float scale, truncated sizes; a thin picture keeps one pixel
        scale = max(image.height, image.width) / self.side
        size = max(int(image.height / scale), 1), max(int(image.width / scale), 1)
        if size != (image.height, image.width):  # to its own size it would be the same to the last bit
            pixels = torch.nn.functional.interpolate(
                torch.from_numpy(pixels)[None], size=size, mode="bilinear", align_corners=False, antialias=True
            )[0].numpy()
        if size == (self.side, self.side):
            return pixels
        canvas = np.zeros((3, self.side, self.side), dtype=np.float32)
        canvas[:, : size[0], : size[1]] = pixels
        return canvas

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed pixels ``(n, 3, side, side)``: ``(n, 512)`` unit vectors, or 2048 plain features."""
        return self.project(pool(self.network(pixels)))

    def patch_features(self, pixels: Tensor) -> Tensor:
        """Embed the patches of the last map as if each were a picture: ``(h, w, dim)``."""
        return self.project(self.network(pixels)[0].permute(1, 2, 0))


def load_flair(
    file: Path,
    text_model: Path | None,
    *,
    card: Card,
    text_file: WeightFile,
    config: Mapping[str, Any],
    feature: str,
    together: bool,
    template: str | None,
    device: str,
    precision: str,
) -> FlairEncoder:
    """Read a checkpoint in either form and build the encoder; `config` is as the hub form's ``config.json``."""
    state = load_state_dict(file)
    trunk_state, head_state, text_state, rest = split_state(
        state, "vision_model.model.", "vision_model.projection_head_vision.", "text_model."
    )
    trunk, head = uninitialised(ResNet50), projection(head_state, "projection.weight", norm=config["norm_features"])
    load_strictly(trunk, trunk_state, file=file.name)
    load_strictly(head, head_state, file=file.name)
    scale = logit_factor(take_scale(rest, file.name))
    backbone = feature == "backbone"
    text = TextSide(
        text_state,
        text_model,
        wanted=text_file,
        encoder=card.name,
        file=file.name,
        caption=template or config["caption"],
        together=together,
        norm=config["norm_features"],
    )
    side = int(config["image_size"])
    info = card.info(
        dim=head.projection.in_features if backbone else head.projection.out_features,
        similarity="cosine",
        text=not backbone,
        weights_sha256=digest(file),
        config_sha256=config_digest(dict(config)),
        text_sha256=None if backbone else text.digest(),
        preprocessing=f"/255; longer side to {side} (float bilinear, antialias); zero pad right and bottom to square",
        options={"feature": feature},
        logit_scale=None if backbone else scale,
    )
    return FlairEncoder(
        info,
        trunk,
        side=side,
        head=None if backbone else head,
        text=None if backbone else text,
        device=device,
        precision=precision,
    )
