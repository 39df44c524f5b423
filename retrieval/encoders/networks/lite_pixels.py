"""What `lite` can be set to, and what its ONNX and torch networks are given; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image

from retr.index.errors import UsageError
from retr.index.vectors import unit
from retr.retrieval.encoders.options import check_choice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SIDE = 224  # what the network was trained at
MEAN, STD = 0.498, 0.502
DIMS = {"last": 1280, "layers": 2232}
VIEWS = ("plain", "mirrored")
#: Of the half side: a fundus photograph has the macula or the disc inside, an X-ray the mediastinum.
CENTRE = 0.45
#: How many pixels of the picture are one of a map, for the maps that `layers` looks at.
STRIDES = (8, 16, 32)
#: Pixels of the longer side of a picture whose places are compared: a lesion then covers several.
PLACES_SIDE = 448
# The network halves a picture five times; its statistics need a few places to be taken over, and a GPU's memory ends.
_STEP, _LEAST, _MOST = 32, 128, 640


@dataclass(frozen=True)
class LiteSettings:
    """What decides a vector of `lite`, beside the weights.

    Attributes
    ----------
    feature
        ``"last"``, the mean of the last map, or ``"layers"``, statistics of the last five stages.
    resolution
        Pixels of a side that the picture is squashed to.
    view
        ``"plain"``, or ``"mirrored"``: the mean of the unit vectors of the picture and its mirror image.
    """

    feature: str = "last"
    resolution: int = SIDE
    view: str = "plain"

    def __post_init__(self) -> None:
        if self.feature not in DIMS:
            raise UsageError(f"encoder 'lite' has no feature {self.feature!r}", hint=f"use {' or '.join(DIMS)}")
        check_choice("view", self.view, VIEWS)
        # from the command line and from a record anything may come
        if self.resolution not in range(_LEAST, _MOST + 1, _STEP):
            raise UsageError(
                f"the resolution of 'lite' is a multiple of {_STEP} from {_LEAST} to {_MOST}, got: {self.resolution!r}",
                hint="its qualities use 224 and 320",
            )

    @classmethod
    def of(cls, options: Mapping[str, object]) -> LiteSettings:
        """Return the settings that an `EncoderInfo` records by `options`."""
        return cls(**{name: options[name] for name in ("feature", "resolution", "view") if name in options})  # type: ignore[arg-type]

    @property
    def options(self) -> dict[str, str | int]:
        """What is recorded: where it is not what `lite` had before it could be set."""
        before = LiteSettings()
        chosen: dict[str, str | int] = {"feature": self.feature, "resolution": self.resolution, "view": self.view}
        return {name: value for name, value in chosen.items() if value != getattr(before, name)}

    def squash(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Squash one RGB picture to the resolution: uint8 ``(3, side, side)``."""
        small = image.resize((self.resolution, self.resolution), PIL.Image.Resampling.BILINEAR)
        return np.asarray(small).transpose(2, 0, 1)


#: What `quality` stands for. "fast" is what an index is of that records no settings.
QUALITIES = {
    "fast": LiteSettings(),
    "standard": LiteSettings("layers", 320),
    "high": LiteSettings("layers", 320, "mirrored"),
}
#: What `lite` has unless it is told otherwise, or an index recorded other settings.
DEFAULT = "standard"


@cache
def regions(side: int) -> tuple[NDArray[np.float32], ...]:
    """Return what counts as the centre of a map and as the ring around it, for each of `STRIDES`.

    Of a picture of ``side`` pixels: float32 ``(2, side / stride, side / stride)`` each, 1 inside and 0 outside.
    """
    found = []
    for stride in STRIDES:
        n = side // stride
        along = np.square((np.arange(n, dtype=np.float32) - (n - 1) / 2) / (n / 2))
        # 1 at the middle of an edge
        radius = np.sqrt(along[:, None] + along)
        found.append(np.stack([radius < CENTRE, (radius >= CENTRE) & (radius < 1)]).astype(np.float32))
    return tuple(found)


def scaled(image: PIL.Image.Image) -> NDArray[np.uint8]:
    """Scale one RGB picture to `PLACES_SIDE` in its own shape: uint8 ``(3, h, w)``, multiples of 32."""
    longer = max(image.size)
    size = [max(2, round(PLACES_SIDE * side / longer / _STEP)) * _STEP for side in image.size]
    small = image.convert("RGB").resize((size[0], size[1]), PIL.Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def both_views(plain: NDArray[np.float32], mirrored: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the unit vectors ``(n, d)`` of pictures and of their mirror images."""
    return (unit(plain) + unit(mirrored)) / np.float32(2)
