"""Convert decoded samples of any type and depth to an RGB picture.

Pillow holds no pixel deeper than 8 bit but for grey; arrays from tifffile and imagecodecs become pictures here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retr.retrieval.images.levels import grey_to_8bit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.retrieval.images.picture import Reading

# Rows are worked on in blocks of about this many samples
_BLOCK = 1 << 20


class UnknownMeaningError(Exception):
    """What the samples mean is not known: the file is of a kind that cannot be read."""


def grey_picture(
    values: NDArray[Any], bits: int, options: Reading, flipped: float | None = None
) -> tuple[Image.Image, dict[str, str], tuple[float, float] | None]:
    """Return a grey picture as RGB, the note on how it was scaled, and the window that it is shown through.

    Parameters
    ----------
    values
        ``(h, w)``, integer or float.
    bits
        Significant bits of an unsigned sample: up to 8 are shown over the range that they can have, deeper, signed and
        float samples over the range that the picture has, or that of a window that is asked for.
    flipped
        Of values that were turned round, because their file has white at the lowest: what a value and the file's own
        add up to. Windows are of the file's.
    """
    if values.dtype.kind in "ub" and bits <= 8:
        return Image.fromarray(_widened(values, bits)).convert("RGB"), {}, None

    def of_file(window: tuple[float, float] | None) -> tuple[float, float] | None:
        return window if window is None or flipped is None else (flipped - window[0], window[1])

    shown, window = grey_to_8bit(values, options.grey16, of_file(options.window))
    by = options.grey16 if options.window is None else "window"
    return Image.fromarray(shown).convert("RGB"), {"grey": f"scaled to 8 bit by {by}"}, of_file(window)


def colour_to_8bit(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Return colour in 8 bit: the high byte of deeper samples, floats from 0 to 1 times 255.

    Parameters
    ----------
    values
        ``(h, w, n)``, unsigned or float.
    bits
        Significant bits of an unsigned sample.

    Raises
    ------
    UnknownMeaningError
        The samples are signed, or floats beyond 0 to 1: nothing says which value is white.
    """
    if values.dtype.kind == "f":
        if not (values.size and values.min() >= 0 and values.max() <= 1):
            raise UnknownMeaningError
        return _by_blocks(values, lambda block: np.rint(block.astype(np.float64) * 255))
    if values.dtype.kind not in "ub":
        raise UnknownMeaningError
    return _widened(values, bits) if bits <= 8 else _by_blocks(values, lambda block: block >> (bits - 8))


def without_alpha(colour: NDArray[Any], alpha: NDArray[Any], white: float) -> NDArray[Any]:
    """Undo the product of colour and alpha ("associated" alpha); where alpha is 0 nothing is known and black stays.

    Parameters
    ----------
    colour, alpha
        ``(h, w, n)`` or ``(h, w)``, and ``(h, w)``.
    white
        The value of full alpha.
    """
    out = np.empty_like(colour)
    rows = max(1, _BLOCK // max(1, colour[0].size))
    for start in range(0, len(colour), rows):
        part = slice(start, start + rows)
        block, share = colour[part].astype(np.float64), alpha[part].astype(np.float64)
        if colour.ndim == 3:
            share = share[..., None]
        out[part] = np.minimum(np.divide(block * white, share, out=np.zeros_like(block), where=share > 0), white)
    return out


def layout_name(values: NDArray[Any], bits: int, kind: str) -> str:
    """Return a name of a pixel layout in Pillow's manner: ``"L"``, ``"I;16"``, ``"F"``, ``"RGB;16"``.

    >>> layout_name(np.zeros((1, 1), np.int8), 8, "L"), layout_name(np.zeros((1, 1), np.uint16), 12, "L")
    ('L;8S', 'I;16')
    """
    size = 8 * values.dtype.itemsize
    signed = {"i": "S", "f": "F"}.get(values.dtype.kind, "")
    if kind == "L" and (size, signed) in {(32, "S"), (32, "F")}:
        return "I" if signed == "S" else "F"
    name = kind if kind != "L" or bits <= 8 else "F" if signed == "F" else "I"
    return name if bits <= 8 and not signed else f"{name};{size}{signed}"


def _widened(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Spread samples of up to 8 bits over 0 to 255."""
    if bits == 8:
        return values.astype(np.uint8, copy=False)
    most = (1 << bits) - 1
    table = ((np.arange(256) & most) * 255 + most // 2) // most
    return table.astype(np.uint8)[values.astype(np.uint8)]


def _by_blocks(values: NDArray[Any], change: Any) -> NDArray[np.uint8]:
    out = np.empty(values.shape, np.uint8)
    rows = max(1, _BLOCK // max(1, values[0].size))
    for start in range(0, len(values), rows):
        out[start : start + rows] = change(values[start : start + rows])
    return out
