"""Read the picture of a query: one of a file's several, as the rows of the index were read."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retr.index.errors import ImageReadError, RetrError
from retr.index.machine.home import home
from retr.retrieval.read_options import FRAME, ReadOptions

if TYPE_CHECKING:
    from PIL.Image import Image

    from retr.index.encoder import EncoderInfo
    from retr.index.store import Store
    from retr.retrieval.query import Query

_PLAIN = ReadOptions()


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
                found.append(picture_of(store, part.value).image)
            elif part.kind == "image":
                read = one_picture(part.value, store.manifest.encoder, BuildNotes.of(store).reading)
                found.append(read_image(read).image)
    return found


def one_picture(image: Any, info: EncoderInfo, reading: ReadOptions = _PLAIN) -> Any:
    """Return a picture to ask with as its encoder takes it, read as the rows it is compared with were.

    Parameters
    ----------
    image
        The picture of a ``scan.dcm#3`` is read here; what the encoder reads the same way comes back as it is.
    info
        The encoder's.
    reading
        How the files of the index were read.

    Raises
    ------
    ImageReadError
        The file has no such picture, or cannot be read.
    """
    file, frame = split_frame(image)
    is_path = isinstance(file, str | Path)
    if frame is None and (reading == _PLAIN or not (is_path or isinstance(file, bytes))):
        return image
    from retr.retrieval.images import read_image, read_images

    name = str(file) if is_path else None
    how: Any = {
        **reading.by_name(),
        "frames": 1,
        "slices": "all",
        "draft_size": info.draft_size,
        "grey16": info.grey16,
        "name": name,
    }
    if frame is None:
        return read_image(file, **{**how, "slices": reading.slices}).image
    single = False
    for suffix, picture in read_images(file, **how):
        single = not suffix
        if suffix == frame:
            return picture.image
    what = f"the file {str(file)!r} has no picture {frame!r}"
    hint = f"it holds one picture: leave {frame!r} out" if single else "the pictures of a file count from #1"
    raise ImageReadError(what, reason="not found", hint=hint)
