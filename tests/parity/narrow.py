"""Checkpoints of published layouts in a narrow size, and what their authors' code gives for them.

``keys/narrow/NAME.tsv`` lists the tensors of a network that the authors' own code built with fewer and narrower
layers; the values follow from the names and a seed (`standin.tensor`). ``expected/narrow/NAME.npz`` holds what that
code gave. ``make/*.py`` rebuild both; each says which public code it ran.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import standin  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

TOLERANCE = 5e-5
# standin's recipe knows these under other names
_LAYER_SCALE = re.compile(r"\.(gamma|gamma_[12]|layer_scale_parameter|ls[12]\.gamma)$")


def fill(shapes: Mapping[str, tuple[int, ...]], name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Give every tensor of a list its values."""
    return {
        key: standin.tensor(f"{seed}.{name}", _LAYER_SCALE.sub(".lambda1", key), tuple(shape))
        for key, shape in shapes.items()
    }


def state(name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Build the tensors of ``keys/narrow/NAME.tsv``."""
    lines = [line.split("\t") for line in (HERE / "keys" / "narrow" / f"{name}.tsv").read_text().splitlines()]
    return fill({key: tuple(int(n) for n in shape.split(",") if n) for key, shape in lines}, name, seed)


def record_keys(name: str, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Write the list of a network's tensors, and return their values."""
    lines = [f"{key}\t{','.join(map(str, value.shape))}" for key, value in tensors.items()]
    (HERE / "keys" / "narrow" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return state(name)


def record(name: str, reference: str, **arrays: Any) -> None:
    """Write what the authors' code gave, and where that code is."""
    kept = {key: np.asarray(value, dtype=np.float32) for key, value in arrays.items()}
    np.savez(HERE / "expected" / "narrow" / f"{name}.npz", reference=np.array(json.dumps(reference)), **kept)


def check(name: str, got: np.ndarray, array: str = "images", *, normalised: bool = True) -> float:
    """Compare vectors, made unit ones, with the authors'; return the largest difference."""
    want = np.load(HERE / "expected" / "narrow" / f"{name}.npz")[array]
    assert got.shape == want.shape, (name, array, got.shape, want.shape)
    if normalised:
        got, want = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (got, want))
    difference = float(np.abs(got.astype(np.float64) - want).max())
    assert difference <= TOLERANCE, f"{name} {array}: largest difference {difference:.3g}"
    # two pictures, or texts, with one vector would agree with anything
    assert np.abs(got[0] - got[1]).max() > 20 * TOLERANCE, f"{name} {array}: tells nothing apart"
    return difference


def pictures() -> list[Image.Image]:
    """Return three RGB pictures that are wider or higher than the other way."""
    names = ("fundus0_rgb_1013x787.png", "fundus1_rgb_431x563.png", "cxr1_rgb_533x463.png")
    return [Image.open(HERE / "images" / name).convert("RGB") for name in names]


def tiles() -> list[Image.Image]:
    """Return square pictures, as pathology's tiles are."""
    return [
        picture.crop((40, 40, 40 + side, 40 + side)) for picture, side in zip(pictures(), (224, 300, 97), strict=True)
    ]
