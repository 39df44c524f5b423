"""The network of `lite` as it is shipped: ONNX graphs over one file of numbers (`lite_export` writes them)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retr.index.errors import WeightsError
from retr.retrieval.encoders.networks.lite_pixels import STRIDES, regions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Of the checkpoint that the graphs were made from.
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FOLDER = Path(__file__).parents[1] / "lite"
PROVENANCE, WEIGHTS = "provenance.json", "weights.bin"


def graph_file(output: str, folder: Path = FOLDER) -> Path:
    """Return the graph of ``"last"``, ``"layers"`` or ``"places"``, after a look at whether it is as it was shipped.

    Raises
    ------
    WeightsError
        It, or the file with its numbers, is missing, cut short or another.
    """
    graph = f"{output}.onnx"
    try:
        expected = json.loads((folder / PROVENANCE).read_bytes())["sha256"]
        found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (graph, WEIGHTS)}
    except (OSError, ValueError, KeyError, TypeError):
        expected, found = {}, {graph: "", WEIGHTS: ""}
    if changed := [name for name, digest in found.items() if expected.get(name) != digest]:
        raise WeightsError(
            f"the file {changed[0]!r} of the encoder 'lite' is not as it was shipped",
            hint="install retr again: `pip install --force-reinstall --no-deps retr`",
        )
    return folder / graph


def graph_inputs(output: str, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Return what a graph is given for pixels uint8 ``(n, 3, side, side)``, by the names of its inputs."""
    areas = regions(pixels.shape[-1]) if output == "layers" else ()
    return {"pixels": pixels, **{f"regions{stride}": area for stride, area in zip(STRIDES, areas, strict=False)}}
