"""From an RGB picture to a network's pixels, in the float32 arithmetic that torchvision's transforms use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import PIL.Image
    from numpy.typing import NDArray

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


def to_pixels(image: PIL.Image.Image, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Scale to 0..1 and normalise.

    Parameters
    ----------
    image
        8-bit RGB.
    mean, std
        One value a channel.

    Returns
    -------
    NDArray[np.float32]
        Shape ``(3, h, w)``.
    """
    pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    pixels -= np.asarray(mean, dtype=np.float32)[:, None, None]
    pixels /= np.asarray(std, dtype=np.float32)[:, None, None]
    return np.ascontiguousarray(pixels)
