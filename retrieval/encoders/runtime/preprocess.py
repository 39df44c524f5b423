"""Preprocess RGB pictures, in the float32 arithmetic of torchvision's transforms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import WeightsError
from retr.retrieval.encoders.base import limit_aspect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import PIL.Image
    from numpy.typing import NDArray

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


def table(mean: Sequence[float], std: Sequence[float], scale: float | None = None) -> NDArray[np.float32]:
    """Return what becomes of each 8-bit value in each channel: float32 ``(3, 256)``.

    ``scale`` multiplies in float64, as transformers does; without it values are divided by 255 in float32.
    """
    if not (np.isfinite([*mean, *std]).all() and min(std) > 0):
        raise WeightsError(
            f"pictures cannot be normalised by a mean of {_line(mean)} and a std of {_line(std)}",
            hint="state what the weights were trained with",
        )
    values = np.empty((3, 256, 1), np.float32)
    if scale is None:
        values[:] = np.arange(256, dtype=np.float32)[:, None]
        values /= np.float32(255)
    else:
        np.multiply(np.arange(256)[:, None], np.float64(scale), out=values, dtype=np.float64, casting="same_kind")
    return _normalise(values, mean, std)[..., 0]


def to_bytes(image: PIL.Image.Image) -> NDArray[np.uint8]:
    """Return the values of an 8-bit RGB picture: uint8 ``(3, h, w)``, in one array of its own."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def look_up(values: NDArray[np.uint8], of: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put 8-bit values ``(3, h, w)`` through a `table`: float32 of the same shape."""
    pixels = np.empty(values.shape, dtype=np.float32)
    for channel in range(len(values)):
        np.take(of[channel], values[channel], out=pixels[channel], mode="clip")
    return pixels


def to_unit(image: PIL.Image.Image) -> NDArray[np.float32]:
    """Scale an 8-bit RGB picture to 0..1: float32 ``(3, h, w)``, in one array of its own."""
    pixels = np.empty((3, image.height, image.width), dtype=np.float32)
    np.copyto(pixels, np.asarray(image).transpose(2, 0, 1))
    pixels /= np.float32(255)
    return pixels


def _normalise(pixels: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Normalise in place."""
    pixels -= np.asarray(mean, dtype=np.float32)[:, None, None]
    pixels /= np.asarray(std, dtype=np.float32)[:, None, None]
    return pixels


@dataclass(frozen=True)
class ShortSideCrop:
    """Short side to a size, centre crop, scale, normalise: transformers' ``BitImageProcessor`` and its like.

    Attributes
    ----------
    side
        Length of the short side after the resize; the long one is truncated.
    height, width
        Of the centre crop, at most `side`.
    resample
        PIL's filter.
    scale
        Factor on the 8-bit values.
    mean, std
        One value a channel, after the scaling.
    """

    side: int
    height: int
    width: int
    resample: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: str) -> ShortSideCrop:
        """Read a ``preprocessor_config.json``.

        Raises
        ------
        WeightsError
            If a value is absent, or asks for another kind of preprocessing: nothing is guessed.
        """
        try:
            steps = [config[f"do_{step}"] for step in ("resize", "center_crop", "rescale", "normalize")]
            made = cls(
                side=int(config["size"]["shortest_edge"]),
                height=int(config["crop_size"]["height"]),
                width=int(config["crop_size"]["width"]),
                resample=int(config["resample"]),
                scale=float(config["rescale_factor"]),
                mean=tuple(map(float, config["image_mean"])),
                std=tuple(map(float, config["image_std"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                f"{file} does not say how pictures are prepared: {error}", hint="get the file as its authors publish it"
            ) from error
        if not all(steps) or max(made.height, made.width) > made.side or len(made.mean) != 3 or len(made.std) != 3:
            raise WeightsError(
                f"{file} asks for another preprocessing than short side, centre crop, scale and normalise",
                hint="get the file as its authors publish it",
            )
        return made

    def table(self) -> NDArray[np.float32]:
        """Return what becomes of each 8-bit value; see `table`."""
        return table(self.mean, self.std, self.scale)

    def __call__(self, image: PIL.Image.Image) -> NDArray[np.float32]:
        """Prepare an RGB picture: float32 ``(3, height, width)``."""
        return look_up(self.to_bytes(image), self.table())

    def to_bytes(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Resize and crop an RGB picture: uint8 ``(3, height, width)``."""
        image = limit_aspect(image)
        short, long = sorted(image.size)
        stretched = int(self.side * long / short)
        size = (self.side, stretched) if image.width <= image.height else (stretched, self.side)
        left, top = (size[0] - self.width) // 2, (size[1] - self.height) // 2
        return to_bytes(image.resize(size, self.resample).crop((left, top, left + self.width, top + self.height)))

    def __str__(self) -> str:
        filters = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
        return (
            f"short side to {self.side} ({filters.get(self.resample, self.resample)}), centre crop {self.height}x"
            f"{self.width}; x{self.scale:.6g}; mean {_line(self.mean)} std {_line(self.std)}"
        )


def _line(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
