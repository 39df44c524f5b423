"""Export the checked EfficientNet-Lite0 checkpoint to ONNX: all that `lite` needs torch for on a CPU.

Input ``pixels`` uint8 ``(n, 3, 224, 224)``, or of another side; output ``features`` float32 ``(n, 1280)`` and ``map``
float32 ``(n, 1280, 7, 7)``, whose mean over the patches is ``features``; for the feature ``layers`` only ``features``
float32 ``(n, 2232)``. A graph of its own, for who compares places, gives only ``map`` ``(n, 40, h / 8, w / 8)`` of
pictures of any shape.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from retr.index.errors import WeightsError
from retr.retrieval.encoders.networks.lite import load_network
from retr.retrieval.encoders.networks.lite_pixels import SIDE
from retr.retrieval.encoders.sample_picture import picture
from retr.retrieval.ignored_warnings import ignoring

if TYPE_CHECKING:
    import PIL.Image
    from numpy.typing import NDArray

_TOLERANCE = 1e-4


def export_onnx(path: Path, output: str = "last", side: int = SIDE) -> bytes:
    """Export a checkpoint and check the graph against torch on the built-in picture and its quarters.

    Raises
    ------
    WeightsError
        If what ONNX Runtime gives differs from torch's by more than 1e-4 (of its largest value, where that is above 1).
    """
    import onnxruntime

    module = load_network(path, output)
    outputs = {"last": ["features", "map"], "layers": ["features"]}.get(output, ["map"])
    whole = picture()
    boxes = [(0, 0, 512, 512), (0, 0, 256, 256), (256, 0, 512, 256), (256, 256, 512, 512)]
    pixels = np.stack([_pixels(whole.resize((side, side), box=box)) for box in boxes])
    axes = {name: {0: "n"} | ({2: "h", 3: "w"} if output == "places" else {}) for name in ("pixels", *outputs)}
    with (
        torch.inference_mode(),
        ignoring(DeprecationWarning),
        tempfile.TemporaryDirectory() as folder,
    ):
        target = Path(folder) / "lite0.onnx"
        # The newer exporter needs onnxscript and gains nothing for a plain convolutional network.
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
    # activations of a middle stage are large; features are about one
    largest = max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(session.run(outputs[:1], {"pixels": pixels})[0] - expected).max()) / largest
    if not difference <= _TOLERANCE:
        raise WeightsError(
            f"ONNX Runtime {onnxruntime.__version__} differs from torch by {difference:.1e} on the test "
            f"picture, {_TOLERANCE:.0e} is allowed",
            hint="install the versions of the constraints file",
        )
    return graph


def _pixels(image: PIL.Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image).transpose(2, 0, 1)
