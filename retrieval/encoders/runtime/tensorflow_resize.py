"""TensorFlow's bilinear resize (``tf.image.resize(..., antialias=False)``) without TensorFlow, to the last bit.

Each output pixel is the mean of the four input pixels around its centre, whatever the scale: a picture that is made
smaller is not smoothed first, so fine structure aliases. Models whose training data were made so are prepared so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def resize_bilinear(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """Resize 8-bit pixels ``(h, w, c)``: float32 ``(height, width, c)``, not rounded.

    >>> resize_bilinear(np.array([[[0], [100]]], dtype=np.uint8), 1, 4)[0, :, 0].tolist()
    [0.0, 25.0, 75.0, 100.0]
    """
    above, below, down = _neighbours(pixels.shape[0], height)
    left, right, across = _neighbours(pixels.shape[1], width)
    across, down = across[None, :, None], down[:, None, None]
    rows = []
    for which in (above, below):
        row = pixels[which].astype(np.float32)
        rows.append(row[:, left] + (row[:, right] - row[:, left]) * across)
    return rows[0] + (rows[1] - rows[0]) * down


def _neighbours(size: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return for each output place the input places before and after its centre, and how far it is between them."""
    scale = np.float32(size) / np.float32(wanted)
    at = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    before = np.floor(at)
    after = np.minimum(np.ceil(at), size - 1)
    return np.maximum(before, 0).astype(np.int64), after.astype(np.int64), at - before
