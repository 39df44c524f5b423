"""LVM-Med's two networks, with pixels at 224."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import PIL.Image

from retr.retrieval.encoders.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, table, to_bytes
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder
from retr.retrieval.encoders.towers.vision import ResNet50, last_map, pool, sam_names, sam_vit_base
from retr.retrieval.encoders.weights.checkpoints import digest, load_state_dict, load_strictly, uninitialised
from retr.retrieval.encoders.weights.wrappers import unwrap

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from retr.retrieval.encoders.spec import Card


class LvmMedEncoder(TorchEncoder):
    """LVM-Med in either architecture."""

    table = table(IMAGENET_MEAN, IMAGENET_STD)

    def to_bytes(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Resize to 224 x 224, aspect not kept: uint8 ``(3, 224, 224)``."""
        return to_bytes(image.resize((224, 224), PIL.Image.Resampling.BILINEAR))

    def forward(self, pixels: Tensor) -> Tensor:
        """Average the last map of pixels ``(n, 3, 224, 224)``: ``(n, dim)``."""
        return pool(self._map(pixels))

    def patch_features(self, pixels: Tensor) -> Tensor:
        """Return the last map, whose mean is the embedding: ``(h, w, dim)``."""
        return self._map(pixels)[0].permute(1, 2, 0)

    def _map(self, pixels: Tensor) -> Tensor:
        network: Any = self.network
        return cast("Tensor", network(pixels) if isinstance(network, ResNet50) else last_map(network, pixels)).float()


def load_lvm_med(file: Path, *, card: Card, arch: str, device: str, precision: str) -> LvmMedEncoder:
    """Read a checkpoint of one architecture and build the encoder."""
    unwrapped = unwrap(load_state_dict(file), file=file.name)
    state = unwrapped.state
    network: Any
    if arch == "resnet50":
        network = uninitialised(ResNet50)
        # a classifier on top is not part of the embedding
        load_strictly(network, state, file=file.name, dropped=["fc.weight", "fc.bias"])
    else:
        network = uninitialised(sam_vit_base)
        load_strictly(network, sam_names(state), file=file.name)
    info = card.info(
        dim=2048 if arch == "resnet50" else 768,
        similarity="cosine",
        text=False,
        weights_sha256=digest(file),
        preprocessing="224x224 bilinear (aspect not kept); /255; mean and std imagenet",
        options={"arch": arch},
    )
    encoder = LvmMedEncoder(info, network, device=device, precision=precision)
    encoder.notes += unwrapped.notes(file.name)
    return encoder
