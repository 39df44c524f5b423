"""Arrays as pictures: what their axes and samples mean is told by a rule, and whatever it leaves open is refused.

Axes: ``(h, w)``, ``(h, w, c)`` or ``(c, h, w)`` with 1, 3 (RGB) or 4 (RGB and alpha, which is dropped) channels.
An array whose first and last axis could both be the channels is refused.

Samples, by their type:

* ``uint8`` as they are; ``bool``: true is white;
* floats from 0 to 1 are black to white; floats that are whole numbers from 0 to 255 are taken as ``uint8``;
* ``uint16`` and ``int16``: grey is shown over the picture's own range, as a file of these samples is
  (`retr.retrieval.images.levels`); colour of ``uint16`` keeps its high byte;
* other integers must lie in 0 to 255 and are taken as ``uint8``.

Everything else (other floats, NaN, infinities, complex numbers) is refused with what is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retr.index.errors import ImageReadError
from retr.retrieval.images import raster
from retr.retrieval.images.picture import Picture, read_error
from retr.retrieval.images.samples import colour_to_8bit, grey_picture, layout_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.retrieval.images.picture import Reading

_CHANNELS = (1, 3, 4)
SHAPES = "(h, w), (h, w, c) or (c, h, w) with 1, 3 or 4 channels"
SAMPLES = (
    "give uint8, floats from 0 to 1, or whole numbers from 0 to 255; grey also as uint16 or int16, shown over its range"
)


def refused(name: str | None, what: str, hint: str | None = None) -> ImageReadError:
    """Make the error of a picture that the caller gave in a form that cannot be read."""
    who = "the picture" if name is None else repr(name)
    return ImageReadError(f"{who} {what}", reason="unsupported", hint=hint or f"give an array {SHAPES}")


def from_array(array: NDArray[Any], options: Reading) -> Picture:
    """Return the picture that an array shows; see the module's text for which arrays those are.

    Raises
    ------
    ImageReadError
        With reason "unsupported", "empty" or "too large".
    """
    name = options.name
    values = _channels_last(array, name)
    if values.size == 0:
        raise read_error("empty", name)
    height, width = values.shape[:2]
    if height * width > options.max_pixels:
        raise read_error("too large", name)
    kind, bytes_each = values.dtype.kind, values.dtype.itemsize
    if kind in "iu" and bytes_each == 2 and values.ndim == 2:
        native = values.astype(values.dtype.newbyteorder("="))
        image, notes, window = grey_picture(native, 16, options)
        mode = layout_name(native, 16, "L")
        return Picture(image=image, width=width, height=height, mode=mode, notes=notes, window=window)
    pixels = _deep_colour(values, name) if kind == "u" and bytes_each == 2 else _in_8_bit(values, name)
    return raster.from_pillow(Image.fromarray(np.ascontiguousarray(pixels)), options)


def _channels_last(array: NDArray[Any], name: str | None) -> NDArray[Any]:
    """Return the samples ``(h, w)``, ``(h, w, 3)`` or ``(h, w, 4)``."""
    shape = array.shape
    if array.ndim == 2:
        return array
    if array.ndim == 4:
        what = f"has the shape {shape}, which is several pictures"
        raise refused(name, what, "give one, or a list of queries: [Query.image(one) for one in batch]")
    if array.ndim != 3:
        raise refused(name, f"has the shape {shape}", f"wanted is {SHAPES}")
    first, last = shape[0] in _CHANNELS, shape[2] in _CHANNELS
    if max(shape[0], shape[2]) <= max(_CHANNELS):
        what = f"has the shape {shape}, whose channels may be the first or the last axis"
        raise refused(name, what, "give it as a PIL image, of (h, w, c): PIL.Image.fromarray(array)")
    if not first and not last:
        raise refused(name, f"has the shape {shape}", f"wanted is {SHAPES}")
    values = np.moveaxis(array, 0, 2) if first else array
    return values[..., 0] if values.shape[2] == 1 else values


def _in_8_bit(values: NDArray[Any], name: str | None) -> NDArray[np.uint8]:
    kind = values.dtype.kind
    if values.dtype == np.uint8:
        return values
    if kind == "b":
        return values * np.uint8(255)
    if kind not in "fiu":
        raise refused(name, f"has samples of the type {values.dtype}", SAMPLES)
    low, high = values.min(), values.max()  # NaN where there is one
    if not np.isfinite([low, high]).all():
        raise refused(name, "holds samples that are not finite", "replace NaN and infinities first")
    if kind == "f" and low >= 0 and high <= 1:
        return colour_to_8bit(values, 8)
    if low < 0 or high > 255:
        raise refused(name, f"has samples of the type {values.dtype} below 0 or above 255", SAMPLES)
    whole: NDArray[np.uint8] = values.astype(np.uint8)
    if kind == "f" and (whole != values).any():
        raise refused(name, f"has samples of the type {values.dtype} above 1 that are no whole numbers", SAMPLES)
    return whole


def _deep_colour(values: NDArray[Any], name: str | None) -> NDArray[np.uint8]:
    if 0 < values.max() <= 255:
        raise refused(name, "has colours of the type uint16 that are all below 256", "give them as uint8")
    return colour_to_8bit(values.astype(np.uint16), 16)
