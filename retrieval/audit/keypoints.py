"""Keypoints of a picture (SIFT), by which a crop or a turned copy is found again.

A picture is looked at with its longer side at most 320 pixels, after local equalisation (CLAHE), and only inside the
field: not within 7 pixels of the dark surround of a fundus photograph, of the corners of a turned copy or of the edge.
Descriptors are compared by their square roots (RootSIFT; Arandjelovic and Zisserman 2012).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from retr.index.machine.extras import needed

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 320
# Of 255: darker is no part of the field.
_DARK = 12
_BORDER = 7
# SIFT's own threshold finds too little in what retinas and lungs show; this one is of the difference of Gaussians.
_CONTRAST = 0.02 / 3
_CELLS, _ANGLES = 4, 8


@dataclass(frozen=True)
class Keypoints:
    """Where a picture has structure, and how it looks there.

    Attributes
    ----------
    points
        complex64 ``(n,)``: x + iy in pixels of the picture at 320.
    descriptors
        uint8 ``(n, 128)``.
    width
        Of the picture at 320.
    """

    points: NDArray[np.complex64]
    descriptors: NDArray[np.uint8]
    width: int

    def roots(self) -> NDArray[np.float32]:
        """Return the descriptors as RootSIFT: float32 ``(n, 128)``, unit vectors."""
        values = self.descriptors.astype(np.float32)
        return np.asarray(np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1)), dtype=np.float32)

    def mirrored(self) -> Keypoints:
        """Return about what the mirrored picture has: cells from right to left, gradients of opposite angle."""
        cells = self.descriptors.reshape(-1, _CELLS, _CELLS, _ANGLES)
        flipped = cells[:, :, ::-1, -np.arange(_ANGLES) % _ANGLES].reshape(len(cells), -1)
        points = (self.width - 1 - self.points.real + 1j * self.points.imag).astype(np.complex64)
        return Keypoints(points, flipped, self.width)


@dataclass(frozen=True)
class Detail:
    """What a picture shows finer than 4 pixels at 320: float32 ``(h, w)``, and where its field is, bool ``(h, w)``."""

    fine: NDArray[np.float32]
    field: NDArray[np.bool_]

    def mirrored(self) -> Detail:
        """Return that of the mirrored picture."""
        return Detail(self.fine[:, ::-1], self.field[:, ::-1])


def require_library() -> None:
    """Raise MissingExtraError unless the library that finds keypoints is installed."""
    with needed():
        import skimage  # noqa: F401


def find_keypoints(image: Image.Image) -> Keypoints:
    """Find a picture's keypoints; none in one without structure."""
    from skimage.feature import SIFT

    even, field = _even(image)
    sift = SIFT(c_dog=_CONTRAST)
    width = even.shape[1]
    none = Keypoints(np.empty(0, np.complex64), np.empty((0, _CELLS * _CELLS * _ANGLES), np.uint8), width)
    if not field.any():
        return none
    try:
        sift.detect_and_extract(even)
    except RuntimeError:  # it finds nothing
        return none
    y, x = sift.positions.T
    at = np.clip(np.rint([y, x]).astype(np.int64), 0, np.array(even.shape)[:, None] - 1)
    inside = field[at[0], at[1]]
    return Keypoints((x + 1j * y)[inside].astype(np.complex64), sift.descriptors[inside], width)


def find_detail(image: Image.Image) -> Detail:
    """Return what a picture shows beside its broad light and shade."""
    with needed():
        from scipy.ndimage import gaussian_filter

    even, field = _even(image)
    return Detail(even - gaussian_filter(even, 4), field)


def _even(image: Image.Image) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a picture in grey at 320 pixels, equalised, and its field without the border."""
    with needed():
        from scipy import ndimage
    from skimage.exposure import equalize_adapthist

    small = image.convert("L")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    grey = np.asarray(small)
    field = ndimage.binary_fill_holes(ndimage.gaussian_filter(grey.astype(np.float32), 2) > _DARK)
    even = equalize_adapthist(grey) if grey.max() > grey.min() else np.zeros(grey.shape)
    return even.astype(np.float32), ndimage.binary_erosion(field, iterations=_BORDER)
