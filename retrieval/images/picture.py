"""The result of reading a file: an upright 8-bit RGB picture, or an error with a reason from a fixed list.

Encoders receive the same kind of picture whichever format it came from. A reader that cannot give one raises
`ImageReadError`, whose ``reason`` is a key of `REASONS` and whose message holds no path, no header value and
no text of the decoding library: only the name the caller gave.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, get_args

from PIL import Image

from retr.index.errors import ImageReadError, UsageError
from retr.index.options import Option
from retr.retrieval.images.levels import Grey16
from retr.retrieval.read_options import ReadKeywords, ReadOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


# reason -> (what is said of the picture, what to do about it)
_TEXTS: dict[str, tuple[str, str]] = {
    "empty": ("has no bytes", "copy it again from where it came"),
    "not an image": ("is not an image retr knows", "see docs/formats.md for what can be read"),
    "truncated": ("is cut short", "copy it again from where it came"),
    "damaged": ("is damaged: its content contradicts its own header", "copy it again from where it came"),
    "too large": (
        "has more pixels than the limit",
        "raise it with the environment variable RETR_MAX_PIXELS if the file is trusted",
    ),
    "unsupported": ("is of a kind that cannot be read", "convert it to PNG"),
    "missing": ("does not exist", "check the path"),
    "not a file": ("is not a regular file", "give the path of a picture"),
    "no permission": ("may not be read by this user", "change its permissions"),
    "broken link": ("is a link to a file that does not exist", "restore the file or remove the link"),
    "link loop": ("is a link that leads back to itself", "remove the link"),
    "unreadable": ("could not be read from the disk", "check the disk or the network share"),
    "burned-in annotation": (
        "says that text is burned into its pixels, which may name the patient",
        "allow burned-in annotations if that is meant",
    ),
    "no pixels": ("holds no picture", "give a file with pixel data"),
    "no slice chosen": ("holds no slice of those that were asked for", "ask for all slices if it is meant"),
    "not what was asked for": (
        "is another one than the archive was asked for",
        "ask whoever looks after the archive why it gives it",
    ),
    "no such frame": ("has no such frame or slice", "frames and slices count from 1"),
    "missing extra": (
        "is of a kind that needs an optional package",
        'install it with `pip install "retr[dicom]"`',
    ),
}

REASONS: tuple[str, ...] = tuple(_TEXTS)

# 8192 x 6144, a 50-megapixel camera. Made-up files of that size take less than 1 GB and 10 s in every format
# (benchmarks/bombs.py).
MAX_PIXELS = 50_331_648


_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# A longer pixel is a mistake in the header.
MAX_ASPECT = 10.0


@dataclass(frozen=True)
class Origin:
    """Which file a picture is of.

    Attributes
    ----------
    sha256
        Of the file's bytes; ``None`` of a part of it, or where there is no file.
    stated
        ``patient``, ``study`` and ``series`` as a DICOM header states them, unhashed: for comparing alone, never shown.
    """

    sha256: str | None
    stated: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Picture:
    """One picture, ready for an encoder.

    Attributes
    ----------
    image
        Mode ``RGB``, 8 bit, upright (EXIF orientation applied). It may be smaller than the original when a
        reduced JPEG decode was asked for. Treat it as read-only: it can be the caller's own object.
    width, height
        Size of the upright original, before any reduced decode.
    mode
        Pillow's name of the original's pixel layout (``"L"``, ``"RGB"``, ``"I;16"``, ...).
    notes
        What a reader decided and a person may want to know, e.g. ``{"window": "percentile 0.5-99.5"}``.
    columns
        Metadata columns from the file's header, allow-listed by the reader.
    origin
        Which file it is of, where `retr.read_picture` read it.
    frame, frames
        Which of a DICOM file's frames, a volume's slices or a TIFF's pages it is, from 1, and how many there are.
    window
        Centre and width of the grey values that are shown from black to white, after the modality transform; ``None``
        of colour, of grey of up to 8 bit outside DICOM and NIfTI, and of a picture shown through a lookup table.

    Examples
    --------
    >>> from retr import read_picture
    >>> import numpy as np
    >>> picture = read_picture(np.zeros((40, 60), np.uint8))
    >>> picture.image.mode, picture.width, picture.height, picture.mode
    ('RGB', 60, 40, 'L')
    """

    image: Image.Image
    width: int
    height: int
    mode: str
    notes: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None
    frame: int = 1
    frames: int = 1
    window: tuple[float, float] | None = None

    def crop(self, left: float, top: float, width: float, height: float) -> Picture:
        """Return a part of the picture, of the same patient, given as shares of its width and height.

        Raises
        ------
        UsageError
            The part is empty or not within the picture.

        Examples
        --------
        >>> from retr import read_picture
        >>> import numpy as np
        >>> picture = read_picture(np.zeros((40, 60), np.uint8))
        >>> picture.crop(0.5, 0, 0.5, 0.25).image.size
        (30, 10)
        """
        part = self.image.crop(pixel_box((left, top, width, height), self.image.size))
        origin = None if self.origin is None else replace(self.origin, sha256=None)
        return replace(self, image=part, width=part.width, height=part.height, origin=origin)

    def region(self, left: float, top: float, width: float, height: float) -> Picture:
        """Return a part of the picture, given as `crop` takes it, or in pixels where a number is above 1.

        Raises
        ------
        UsageError
            The part is empty or not within the picture.

        Examples
        --------
        >>> from retr import read_picture
        >>> import numpy as np
        >>> picture = read_picture(np.zeros((40, 60), np.uint8))
        >>> picture.region(30, 0, 30, 10).image.size, picture.region(0.5, 0, 0.5, 0.25).image.size
        ((30, 10), (30, 10))
        """
        given = (left, top, width, height)
        if max(given) <= 1:
            return self.crop(*given)
        box = (left, top, left + width, top + height)
        size = (self.width, self.height)
        if not (width > 0 and height > 0 and min(box) >= 0 and box[2] <= size[0] and box[3] <= size[1]):
            shown = ",".join(f"{number:g}" for number in given)
            raise UsageError(
                f"a region is x,y,w,h within the picture of {size[0]} x {size[1]} pixels, got: {shown}",
                hint="x and y count from the upper left corner; numbers of at most 1 are shares of width and height",
            )
        return self.crop(left / size[0], top / size[1], width / size[0], height / size[1])


def pixel_box(shares: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom in pixels of a part given as left, top, width and height in shares.

    >>> pixel_box((0.5, 0, 0.5, 0.25), (60, 40))
    (30, 0, 60, 10)

    Raises
    ------
    UsageError
        The part is empty or not within the picture.
    """
    left, top, width, height = shares
    box = (left, top, left + width, top + height)
    if not (width > 0 and height > 0 and min(box) >= 0 and max(box) <= 1 + 1e-9):
        raise UsageError(f"a part of a picture is its left, top, width and height from 0 to 1, got: {shares}")
    x, y, right, bottom = (round(share * side) for share, side in zip(box, size * 2, strict=True))
    # the narrowest part is one pixel, the last where it begins at the edge
    x, y = min(x, size[0] - 1), min(y, size[1] - 1)
    return x, y, min(max(right, x + 1), size[0]), min(max(bottom, y + 1), size[1])


def max_pixels_allowed() -> int:
    """Return the limit on width x height: ``RETR_MAX_PIXELS`` where set, else `MAX_PIXELS`."""
    value = os.environ.get("RETR_MAX_PIXELS")
    if value is None:
        return MAX_PIXELS
    if not value.isdecimal() or int(value) == 0:
        raise UsageError(
            f"RETR_MAX_PIXELS must be a positive whole number, got: {value!r}",
            hint=f"unset it for the default of {MAX_PIXELS}",
        )
    return int(value)


@dataclass(frozen=True, kw_only=True)
class Reading(ReadOptions):
    """How to read one file: what the user decides, and what the encoder and the caller need."""

    draft_size: Annotated[
        int | None,
        Option(
            "JPEGs may be decoded at 1/2, 1/4 or 1/8 of their size as long as the shorter side keeps so many pixels.",
            "Twice the encoder's input size moves embeddings by less than 0.001 in cosine. ``None``: in full.",
        ),
    ] = None
    grey16: Annotated[
        Grey16,
        Option(
            "How grey deeper than 8 bit is scaled, see `retr.retrieval.images.levels`.",
            "DICOM and NIfTI go by their own windows instead, and all by ``window``.",
        ),
    ] = "minmax"
    frame: Annotated[
        int | None,
        Option(
            "Of DICOM frames, NIfTI slices and TIFF pages this one alone, counted from 1.",
            "``frames`` says nothing then.",
        ),
    ] = None
    window: Annotated[
        tuple[float, float] | None,
        Option(
            "Centre and width of the grey values to show from black to white; of DICOM, NIfTI and deep grey.",
            "``None``: as the file says, or as ``grey16``. A picture for an encoder is read without it.",
        ),
    ] = None
    max_pixels: Annotated[
        int,
        Option(
            "Limit on width x height, against decompression bombs.",
            "By default ``RETR_MAX_PIXELS``, or 50,331,648.",
        ),
    ] = field(default_factory=max_pixels_allowed)
    hash_key: Annotated[
        bytes | None,
        Option(
            "With it, DICOM pictures carry keyed hashes of patient, study and series among their columns.",
            "See `retr.index.machine.hash_key`.",
        ),
    ] = None
    name: Annotated[
        str | None,
        Option('What errors call the picture. Without it they say "the picture": a path may hold a patient\'s name.'),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and not (all(map(math.isfinite, self.window)) and self.window[1] > 0):
            raise UsageError(f"a window is a centre and a width above 0, got: {self.window!r}")
        for argument in ("draft_size", "max_pixels", "frame"):
            value = getattr(self, argument)
            if value is not None and value < 1:
                raise UsageError(f"{argument} must be at least 1, got: {value!r}")
        if self.grey16 not in get_args(Grey16):
            raise UsageError(f"grey16 must be one of {list(get_args(Grey16))}, got: {self.grey16!r}")

    @property
    def reduced_to(self) -> int | None:
        """The shorter side to which a JPEG may be reduced, ``None`` where it is decoded in full."""
        return None if self.exact_decode else self.draft_size

    def chosen(self, count: int) -> Iterator[tuple[int, str]]:
        """Return (0-based position, suffix of the id) of the pictures to read of a file with ``count``."""
        if self.frame is not None:
            if self.frame > count:
                raise read_error("no such frame", self.name)
            positions = range(self.frame - 1, self.frame)
        else:
            positions = range(0, count, self.frames) if self.frames else range(min(count, 1))
        return ((position, f"#{position + 1}" if count > 1 else "") for position in positions)


class ReadingKeywords(ReadKeywords, total=False):
    """The fields of `Reading` by name."""

    draft_size: int | None
    grey16: Grey16
    frame: int | None
    window: tuple[float, float] | None
    max_pixels: int
    hash_key: bytes | None
    name: str | None


def read_error(reason: str, name: str | None) -> ImageReadError:
    """Make the error of one of the `REASONS` for the picture the caller calls ``name``."""
    text, hint = _TEXTS[reason]
    who = "the picture" if name is None else repr(name)
    return ImageReadError(f"{who} {text}", reason=reason, hint=hint)


def turned(image: Image.Image, orientation: Any) -> Image.Image:
    """Return a picture upright, by EXIF's number of its orientation; by any other value as it is."""
    method = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def made_square(image: Image.Image, across: float, down: float, max_pixels: int) -> Image.Image:
    """Enlarge the direction in which pixels are longer, so that shapes are those of the body.

    Parameters
    ----------
    across, down
        Width and height of one pixel, in any unit. A picture whose pixels would be impossibly long (ratio
        above 10) or that would grow over ``max_pixels`` comes back as it is.
    """
    width, height = image.size
    if not (across > 0 and down > 0 and 1 / MAX_ASPECT <= down / across <= MAX_ASPECT):
        return image
    size = (width, round(height * down / across)) if down > across else (round(width * across / down), height)
    if size == image.size or size[0] * size[1] > max_pixels:
        return image
    return image.resize(size, Image.Resampling.BILINEAR)
