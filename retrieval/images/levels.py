"""Map deep pixels to 8 bits.

Pillow turns 16-bit grey into RGB by clipping at 255, which makes a chest X-ray white. Here the values are
scaled first, in float64 and with truncation, as the published preprocessing of chest X-ray encoders does:

* ``"minmax"``: ``(x - min) / (max - min) * 255`` over the picture's own range; a constant picture becomes
  black;
* ``"max"``: ``x / max * 255``; a picture without positive values becomes black.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Grey16 = Literal["minmax", "max"]

# Rows are scaled in blocks of about this many pixels: a float64 copy of a whole large picture would be eight
# times its 8-bit size.
_BLOCK = 1 << 20


def scale_to_8bit(pixels: NDArray[Any], how: Grey16 = "minmax") -> NDArray[np.uint8]:
    """Scale grey values of any integer or float type to 8 bit.

    Parameters
    ----------
    pixels
        ``(h, w)``, integer or float; not-a-number counts as the lowest value, infinities as the extremes.
    how
        ``"minmax"`` or ``"max"``, see the module's text.

    Returns
    -------
    uint8 ``(h, w)``

    Examples
    --------
    >>> import numpy as np
    >>> scale_to_8bit(np.array([[100, 200, 300]], dtype=np.uint16)).tolist()
    [[0, 127, 255]]
    >>> scale_to_8bit(np.array([[100, 200, 300]], dtype=np.uint16), "max").tolist()
    [[85, 170, 255]]
    """
    return grey_to_8bit(pixels, how)[0]


def grey_to_8bit(
    pixels: NDArray[Any], how: Grey16 = "minmax", window: tuple[float, float] | None = None
) -> tuple[NDArray[np.uint8], tuple[float, float] | None]:
    """Scale grey values as `scale_to_8bit` does, or through a window (its centre and width), and say which it was.

    Returns
    -------
    uint8 ``(h, w)``, and centre and width of the values that are shown from black to white; ``None`` where all are one.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.array([[100, 200, 300]], dtype=np.uint16)
    >>> [(shown.tolist(), window) for shown, window in (grey_to_8bit(values), grey_to_8bit(values, window=(150, 100)))]
    [([[0, 127, 255]], (200.0, 200.0)), ([[0, 255, 255]], (150, 100))]
    """
    if window is not None:
        return stretch_to_8bit(pixels, window[0] - window[1] / 2, window[0] + window[1] / 2), window
    base = 0.0
    if how == "minmax" and pixels.dtype.kind in "iu" and pixels.dtype.itemsize == 8 and pixels.size:
        # neighbouring large integers are one float64: the lowest is taken off before they become floats
        base = float(pixels.min())
        pixels = pixels.astype(np.uint64) - pixels.min().astype(np.uint64)
    low, high = finite_range(pixels)
    if how == "max":
        low = 0.0
    shown = None if not high > low else (base + (low + high) / 2, high - low)
    return stretch_to_8bit(pixels, low, high), shown


def stretch_to_8bit(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Map ``low`` to 0 and ``high`` to 255, clip outside, truncate; ``high <= low`` gives black.

    Parameters
    ----------
    pixels
        ``(h, w)``, integer or float.

    Returns
    -------
    uint8 ``(h, w)``
    """
    out = np.zeros(pixels.shape, dtype=np.uint8)
    if not high > low:
        return out
    rows = max(1, _BLOCK // max(1, pixels.shape[1]))
    for start in range(0, pixels.shape[0], rows):
        block = pixels[start : start + rows].astype(np.float64)
        if pixels.dtype.kind == "f":
            block = np.nan_to_num(block, copy=False, nan=low, posinf=high, neginf=low)
        np.clip(block, low, high, out=block)
        block -= low
        block /= high - low
        block *= 255
        out[start : start + rows] = block
    return out


def finite_range(pixels: NDArray[Any]) -> tuple[float, float]:
    """Return the lowest and highest finite value, ``(0, 0)`` where there is none."""
    if pixels.size == 0:
        return 0.0, 0.0
    if pixels.dtype.kind != "f":
        return float(pixels.min()), float(pixels.max())
    low, high = np.inf, -np.inf
    rows = max(1, _BLOCK // max(1, pixels[0].size))
    for start in range(0, pixels.shape[0], rows):
        block = pixels[start : start + rows]
        finite = np.isfinite(block)
        low = min(low, float(block.min(where=finite, initial=np.inf)))
        high = max(high, float(block.max(where=finite, initial=-np.inf)))
    return (low, high) if low <= high else (0.0, 0.0)
