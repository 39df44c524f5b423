"""A test picture drawn by code: the same bytes on every machine, integer arithmetic only.

It looks like a retinal photograph (a bright disc on black, a brighter spot, dark branching lines, grain), so
that a network's activations on it are ordinary ones.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import PIL.Image

_SIDE = 512


@lru_cache(maxsize=1)
def picture() -> PIL.Image.Image:
    """Draw the picture: RGB, 512 x 512.

    >>> picture().size, picture().getpixel((256, 256)) != picture().getpixel((0, 0))
    ((512, 512), True)
    """
    y, x = np.mgrid[:_SIDE, :_SIDE].astype(np.int64)
    from_centre = (x - 256) ** 2 + (y - 256) ** 2
    from_spot = (x - 370) ** 2 + (y - 240) ** 2
    grain = (x * 7919 + y * 104729 + x * y * 31) % 17 - 8
    red = 210 - from_centre * 90 // 240**2 + grain
    green = 110 - from_centre * 60 // 240**2 + grain
    blue = 60 - from_centre * 40 // 240**2 + grain
    for spread in (-3, -1, 1, 3):  # vessels: parabolas that leave the spot
        line = np.abs((y - 240) * 120 - spread * (370 - x) ** 2 // 8) < 300 + 2 * np.abs(370 - x)
        red, green = np.where(line, red - 50, red), np.where(line, green - 45, green)
    glow = np.maximum(0, 90 - from_spot * 90 // 45**2)
    canvas = np.stack([red + glow // 2, green + glow, blue + glow], axis=-1)
    canvas[from_centre > 240**2] = 4
    return PIL.Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
