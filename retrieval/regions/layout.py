"""Which parts of a picture have vectors of their own: boxes as shares of its width and height, the same for every row.

``grid`` lays nine windows of half the picture's size over it, which overlap by half. ``multiscale`` divides it into 4
halves, 9 thirds and 16 quarters. The vectors are kept as int8 and cost at most four times what the rows themselves do:
levels that would cost more are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from retr.index.errors import UsageError
from retr.index.json_fields import Fields, stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from retr.index.rows.snapshot import Snapshot

#: Ways to divide a picture.
Division: TypeAlias = Literal["grid", "multiscale"]
DIVISIONS: tuple[str, ...] = get_args(Division)
#: Left, top, width and height, as shares.
Box: TypeAlias = tuple[float, float, float, float]
NOTE = "regions"
#: The regions' vectors where they are compared with questions, behind the index's transform.
REGIONS = "regions"
#: The regions' vectors as the encoder gives them.
OWN_REGIONS = "region_features"
#: So many times the bytes of a row its regions may have.
MOST = 4
# Bytes of a row beside its vectors: the hash of its id twice, and at least the hash of its file, its id and numbers.
_BESIDE = 144


@dataclass(frozen=True)
class Layout:
    """The regions of every row of an index.

    Attributes
    ----------
    division
        How pictures are divided.
    boxes
        The regions, in their order.
    kept
        Whether the encoder's own vectors of regions stay beside those behind the transform, so that another transform
        can be put behind them.
    """

    division: str
    boxes: tuple[Box, ...]
    kept: bool

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form."""
        return {"division": self.division, "boxes": [list(box) for box in self.boxes], "kept": self.kept}

    @classmethod
    def of(cls, snapshot: Snapshot) -> Layout | None:
        """Read the note of an index; ``None`` where it has no regions."""
        if NOTE not in snapshot.manifest.extra:
            return None
        with stored("the note of regions", "`retr index regions` reads the pictures again"):
            noted = Fields(snapshot.manifest.extra[NOTE])
            boxes = tuple(_box(one) for one in snapshot.manifest.extra[NOTE].get("boxes", ()))
            if not boxes:
                raise ValueError("no boxes")
            return cls(noted.text("division"), boxes, noted.flag("kept"))

    def pixels(self, number: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return a region as left, top, width and height in pixels of a picture ``(width, height)``."""
        from retr.retrieval.images.picture import pixel_box

        left, top, right, bottom = pixel_box(self.boxes[number], size)
        return left, top, right - left, bottom - top

    def crops(self, image: Image) -> list[Image]:
        """Return the regions of a picture."""
        from retr.retrieval.images.picture import pixel_box

        return [image.crop(pixel_box(box, image.size)) for box in self.boxes]


def require_division(division: object) -> None:
    """Raise `UsageError` for no way to divide a picture."""
    if division == "patches":
        raise UsageError(
            "regions are crops that the encoder embeds, not its patches: those know of the whole picture",
            hint="give grid or multiscale",
        )
    if division not in DIVISIONS:
        raise UsageError(f"regions are one of {', '.join(DIVISIONS)}, got: {division!r}")


def choose(division: str, *, own_dim: int, dim: int | None, vector_bytes: int) -> Layout:
    """Return the regions of a new index.

    Parameters
    ----------
    own_dim
        Numbers of the encoder's own vectors.
    dim
        Numbers of the vectors behind the transform that the index is to have; ``None`` where it is to have none.
    vector_bytes
        Bytes of a number of the vectors that are searched.
    """
    require_division(division)
    searched = own_dim if dim is None else dim
    # with a transform the encoder's own vectors are kept as float16
    row = searched * vector_bytes + (0 if dim is None else 2 * own_dim) + _BESIDE
    boxes: list[Box] = []
    for level in _levels(division):
        if boxes and (len(boxes) + len(level)) * searched > MOST * row:
            break
        boxes += level
    kept = dim is None or len(boxes) * (searched + own_dim) <= MOST * row
    return Layout(division, tuple(boxes), kept)


def _levels(division: str) -> list[list[Box]]:
    if division == "grid":
        quarters = [_window(x / 4, y / 4, 0.5) for y in (0, 2) for x in (0, 2)]
        between = [_window(x / 4, y / 4, 0.5) for y in range(3) for x in range(3) if x == 1 or y == 1]
        return [quarters, between]
    return [[_window(x / n, y / n, 1 / n) for y in range(n) for x in range(n)] for n in (2, 3, 4)]


def _window(left: float, top: float, side: float) -> Box:
    return left, top, side, side


def _box(value: object) -> Box:
    numbers: Sequence[Any] = value if isinstance(value, list) else ()
    if len(numbers) != 4 or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers):
        raise ValueError("a box is four numbers")
    left, top, width, height = map(float, numbers)
    inside = min(left, top) >= 0 and max(left + width, top + height) <= 1 + 1e-9
    if not (inside and width > 0 and height > 0 and np.isfinite([left, top, width, height]).all()):
        raise ValueError("a box lies outside")
    return left, top, width, height
