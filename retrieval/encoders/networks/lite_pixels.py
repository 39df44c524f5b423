"""Preprocessing of `lite`, shared by its ONNX and torch networks; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import PIL.Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 224
MEAN, STD = 0.498, 0.502


def squash(image: PIL.Image.Image) -> NDArray[np.uint8]:
    """Squash one RGB picture to 224 x 224: uint8 ``(3, 224, 224)``."""
    small = image.resize((SIDE, SIDE), PIL.Image.Resampling.BILINEAR)
    return np.asarray(small).transpose(2, 0, 1)
