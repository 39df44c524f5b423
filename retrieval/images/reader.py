"""One door for every source and format: finds out what it is, by content, and calls the reader for it."""

from __future__ import annotations

import errno
import io
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from retr.index.errors import UsageError
from retr.retrieval.images import raster
from retr.retrieval.images.levels import check_grey16
from retr.retrieval.images.picture import Picture, max_pixels_allowed, read_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.ImageFile import ImageFile

    from retr.retrieval.images.levels import Grey16

Source = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray[Any, np.dtype[Any]]


def read_image(
    source: Source,
    *,
    draft_size: int | None = None,
    grey16: Grey16 = "minmax",
    max_pixels: int | None = None,
    name: str | None = None,
) -> Picture:
    """Read one picture; of a file with several, the first.

    Safe to call from several threads.

    Parameters
    ----------
    source
        A path, the bytes of a file, a binary stream, a PIL image, or an array: uint8 ``(h, w)``, ``(h, w,
        3)`` or ``(h, w, 4)``, or uint16 ``(h, w)``.
    draft_size
        JPEGs may be decoded at 1/2, 1/4 or 1/8 of their size as long as the shorter side keeps this many
        pixels. Twice the encoder's input size moves embeddings by less than 0.001 in cosine. ``None``: always
        in full.
    grey16
        How grey deeper than 8 bit is scaled, see `retr.retrieval.images.levels`.
    max_pixels
        Limit on width x height, against decompression bombs; ``RETR_MAX_PIXELS`` or 89,478,485 by default.
    name
        What errors call the picture. Without it they say "the picture": a path may hold a patient's name.

    Raises
    ------
    ImageReadError
        With one of `retr.retrieval.images.REASONS`.

    Examples
    --------
    >>> import numpy as np
    >>> picture = read_image(np.zeros((40, 60), dtype=np.uint8))
    >>> picture.image.mode, picture.image.size, picture.mode
    ('RGB', (60, 40), 'L')
    """
    limit = _checked(draft_size, grey16, max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source, grey16=grey16, max_pixels=limit, name=name)
    if isinstance(source, Image.Image):
        return raster.from_pillow(source, grey16=grey16, max_pixels=limit, name=name)
    with _opened(source, name) as (stream, prefix):
        plugin = _plugin(prefix, name)
        return raster.read_raster(
            stream, plugin, draft_size=draft_size, grey16=grey16, max_pixels=limit, name=name
        )


def read_images(
    source: Source,
    *,
    every: int = 1,
    draft_size: int | None = None,
    grey16: Grey16 = "minmax",
    max_pixels: int | None = None,
    name: str | None = None,
) -> Iterator[tuple[str, Picture]]:
    """Read every nth picture of a file.

    Parameters
    ----------
    every
        Take the first picture and then every nth.
    source, draft_size, grey16, max_pixels, name
        As in `read_image`.

    Yields
    ------
    tuple
        ``("", picture)`` for a file of one picture, else ``("#1", picture)``, ``("#2", picture)``, ...: pages
        and frames count from 1, as DICOM counts them. Only the first frame of a GIF is read.

    Raises
    ------
    ImageReadError
        With one of `retr.retrieval.images.REASONS`; pictures before the damage have been given by then.
    """
    if every < 1:
        raise UsageError(f"every must be at least 1, got: {every!r}", hint="1 takes all pictures of a file")
    limit = _checked(draft_size, grey16, max_pixels)
    if isinstance(source, (np.ndarray, Image.Image)):
        yield "", read_image(source, grey16=grey16, max_pixels=limit, name=name)
        return
    with _opened(source, name) as (stream, prefix):
        plugin = _plugin(prefix, name)
        if raster.has_pages(plugin):
            yield from raster.read_pages(stream, every=every, grey16=grey16, max_pixels=limit, name=name)
        else:
            yield (
                "",
                raster.read_raster(
                    stream, plugin, draft_size=draft_size, grey16=grey16, max_pixels=limit, name=name
                ),
            )


def _checked(draft_size: int | None, grey16: Grey16, max_pixels: int | None) -> int:
    """Refuse options that cannot be meant; give the limit on pixels."""
    if draft_size is not None and draft_size < 1:
        raise UsageError(f"draft_size must be at least 1, got: {draft_size!r}", hint="None decodes in full")
    check_grey16(grey16)
    return max_pixels_allowed() if max_pixels is None else max_pixels


def _plugin(prefix: bytes, name: str | None) -> type[ImageFile]:
    plugin = raster.plugin_for(prefix)
    if plugin is not None:
        return plugin
    if prefix[4:8] == b"ftyp":  # the ISO media container: HEIC, AVIF, MP4
        raise read_error("unsupported", name)
    raise read_error("not an image", name)


def _from_array(
    array: np.ndarray[Any, np.dtype[Any]], *, grey16: Grey16, max_pixels: int, name: str | None
) -> Picture:
    grey = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    colour = array.ndim == 3 and array.shape[2] in {3, 4} and array.dtype == np.uint8
    if not (grey or colour):
        raise read_error("unsupported", name)
    if array.size == 0:
        raise read_error("empty", name)
    image = Image.fromarray(np.ascontiguousarray(array))
    return raster.from_pillow(image, grey16=grey16, max_pixels=max_pixels, name=name)


@contextmanager
def _opened(
    source: str | os.PathLike[str] | bytes | BinaryIO, name: str | None
) -> Iterator[tuple[BinaryIO, bytes]]:
    """Give a seekable stream at its beginning, and the first bytes of it."""
    if isinstance(source, (str, os.PathLike)):
        with _open_file(Path(source), name) as stream:
            yield stream, _prefix(stream, name)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        stream = io.BytesIO(source)
        yield stream, _prefix(stream, name)
    else:
        # a pipe cannot be sought in, and a caller's file may not stand at its beginning
        stream = io.BytesIO(source.read())
        yield stream, _prefix(stream, name)


def _open_file(path: Path, name: str | None) -> BinaryIO:
    try:
        # looked at before it is opened: opening a named pipe would wait for ever
        if not stat.S_ISREG(path.stat().st_mode):
            raise read_error("not a file", name)
        return path.open("rb")
    except FileNotFoundError:
        raise read_error("broken link" if path.is_symlink() else "missing", name) from None
    except PermissionError:
        raise read_error("no permission", name) from None
    except NotADirectoryError:
        raise read_error("missing", name) from None
    except OSError as error:
        raise read_error("link loop" if error.errno == errno.ELOOP else "unreadable", name) from None
    except ValueError:  # a NUL inside the path
        raise read_error("missing", name) from None


def _prefix(stream: BinaryIO, name: str | None) -> bytes:
    try:
        prefix = stream.read(raster.PREFIX_BYTES)
    except OSError:
        raise read_error("unreadable", name) from None
    if not prefix:
        raise read_error("empty", name)
    stream.seek(0)
    return prefix
