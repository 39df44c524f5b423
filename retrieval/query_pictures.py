"""Read the picture of a query: one of a file's several, as the rows of the index were read."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from retr.index.errors import ImageReadError, RetrError, UsageError
from retr.index.machine.home import home
from retr.retrieval.read_options import FRAME, ReadOptions

if TYPE_CHECKING:
    from PIL.Image import Image

    from retr.index.encoder import EncoderInfo
    from retr.index.store import Store
    from retr.retrieval.images import Picture
    from retr.retrieval.query import Query

_PLAIN = ReadOptions()
#: Left, top, width and height of a part of a picture, in pixels, or all of them as shares of at most 1.
Region: TypeAlias = tuple[float, float, float, float]


def split_frame(image: Any) -> tuple[Any, str | None]:
    """Part a path such as ``scan.dcm#3`` into the file and the picture in it, where no file has the whole name."""
    if isinstance(image, str | Path):
        image = home(image)
        match = FRAME.search(str(image))
        if match and not Path(image).exists() and Path(str(image)[: match.start()]).is_file():
            return Path(str(image)[: match.start()]), match[0]
    return image, None


def asked_pictures(store: Store, query: Query) -> list[Image]:
    """Return the pictures that a query asks with, its rows' too, in full; what is not here is left out."""
    from retr.retrieval.archive.provenance import BuildNotes
    from retr.retrieval.archive.row_pictures import picture_of
    from retr.retrieval.images import read_image

    found = []
    for part in query.parts:
        with suppress(RetrError, OSError):
            if part.kind == "id":
                found.append(_part(picture_of(store, part.value), part.region))
            elif part.kind == "image":
                read = one_picture(part.value, store.manifest.encoder, BuildNotes.of(store).reading, part.region)
                found.append(read_image(read).image)
    return found


def one_picture(image: Any, info: EncoderInfo, reading: ReadOptions = _PLAIN, region: Region | None = None) -> Any:
    """Return a picture to ask with as its encoder takes it, read as the rows it is compared with were.

    Parameters
    ----------
    image
        The picture of a ``scan.dcm#3`` is read here; what the encoder reads the same way comes back as it is.
    info
        The encoder's.
    reading
        How the files of the index were read.
    region
        The part of it that is meant, as `Picture.region` takes one.

    Raises
    ------
    ImageReadError
        The file has no such picture, or cannot be read.
    UsageError
        The region does not lie within the picture.
    """
    file, frame = split_frame(image)
    is_path = isinstance(file, str | Path)
    if region is None and frame is None and (reading == _PLAIN or not (is_path or isinstance(file, bytes))):
        return image
    from retr.retrieval.images import read_image, read_images

    name = str(file) if is_path else None
    how: Any = {
        **reading.by_name(),
        "frames": 1,
        "slices": "all",
        # of a region all pixels are wanted
        "draft_size": info.draft_size if region is None else None,
        "grey16": info.grey16,
        "name": name,
    }
    if frame is None:
        return _part(read_image(file, **{**how, "slices": reading.slices}), region)
    single = False
    for suffix, picture in read_images(file, **how):
        single = not suffix
        if suffix == frame:
            return _part(picture, region)
    what = f"the file {str(file)!r} has no picture {frame!r}"
    hint = f"it holds one picture: leave {frame!r} out" if single else "the pictures of a file count from #1"
    raise ImageReadError(what, reason="not found", hint=hint)


def _part(picture: Picture, region: Region | None) -> Image:
    return picture.image if region is None else picture.region(*region).image


def as_region(value: Any) -> Region:
    """Return four numbers that can be a part of some picture, given as a sequence or with commas between them."""
    try:
        numbers = tuple(float(one) for one in (value.split(",") if isinstance(value, str) else value))
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    shown = ",".join(f"{one:g}" for one in numbers) or repr(value)
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        hint = "for example 120,80,64,64, or 0.2,0.1,0.1,0.1 as shares"
        raise UsageError(f"a region is four numbers x,y,w,h, got: {shown}", hint=hint)
    left, top, width, height = numbers
    shares = max(numbers) <= 1
    if min(left, top) < 0 or min(width, height) <= 0 or (shares and max(left + width, top + height) > 1 + 1e-9):
        raise UsageError(
            f"a region is x,y,w,h within the picture, in pixels or all from 0 to 1, none of it empty, got: {shown}",
            hint="x and y count from the upper left corner; from 0 to 1 are shares of width and height",
        )
    return left, top, width, height
