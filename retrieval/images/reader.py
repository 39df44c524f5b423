"""Read a picture from any source: detect the format, then call its reader."""

from __future__ import annotations

import errno
import io
import os
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Unpack

import numpy as np
from PIL import Image

from retr.index.machine.home import home
from retr.index.options import documents, taken
from retr.retrieval.images import dicom, nifti, raster, tiff
from retr.retrieval.images.arrays import from_array
from retr.retrieval.images.file_types import PREFIX_BYTES, UNREAD, format_of
from retr.retrieval.images.given import given_picture
from retr.retrieval.images.picture import Picture, Reading, read_error
from retr.retrieval.regular_files import NotRegularError, open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from retr.retrieval.images.picture import ReadingKeywords

_READ_WHOLE = 64 << 20


@documents(Reading)
def read_image(source: Any, **options: Unpack[ReadingKeywords]) -> Picture:
    """Read one picture; of a file with several, the first page or frame, or the middle slice of a volume.

    Safe to call from several threads.

    Parameters
    ----------
    source
        A path, the bytes of a file, a file open in binary mode, a PIL image, a `Picture`, a ``pydicom.Dataset``, or
        an array or a tensor ``(h, w)``, ``(h, w, c)`` or ``(c, h, w)``; which samples it may have says
        `retr.retrieval.images.arrays`.
    options
        Fields of `Reading`; here one picture is read whatever ``frames`` says.

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
    with closing(_read(source, replace(taken(Reading, options, "read_image"), frames=0))) as pictures:
        _, picture = next(pictures)
    return picture


@documents(Reading)
def read_images(source: Any, **options: Unpack[ReadingKeywords]) -> Iterator[tuple[str, Picture]]:
    """Read the pictures of a file.

    Parameters
    ----------
    source
        As in `read_image`.
    options
        Fields of `Reading`.

    Returns
    -------
    Iterator
        ``("", picture)`` for a file of one picture, else ``("#1", picture)``, ``("#2", picture)``, ...:
        pages, frames and slices count from 1, as DICOM counts them. Only the first frame of a GIF is read.

    Raises
    ------
    ImageReadError
        With one of `retr.retrieval.images.REASONS`; pictures before the damage have been given by then.
    """
    return _read(source, taken(Reading, options, "read_images"))


def _read(source: Any, options: Reading) -> Generator[tuple[str, Picture]]:
    given = given_picture(source, options.name)
    if isinstance(given, Picture):
        yield "", given
    elif isinstance(given, np.ndarray):
        yield "", from_array(given, options)
    elif isinstance(given, Image.Image):
        yield "", raster.from_pillow(given, options)
    else:
        with _opened(given, options.name) as (stream, prefix):
            yield from _reader(prefix, options.name)(stream, options)


def _reader(prefix: bytes, name: str | None) -> Callable[[BinaryIO, Reading], Iterator[tuple[str, Picture]]]:
    kind = format_of(prefix)
    if kind is None:
        raise read_error("not an image", name)
    if kind == UNREAD:
        raise read_error("unsupported", name)
    if kind == "dicom":
        return dicom.read
    if kind == "nifti":
        return nifti.read
    return tiff.read if kind == "tiff" else partial(raster.read, kind=kind)


@contextmanager
def _opened(source: str | Path | bytes, name: str | None) -> Iterator[tuple[BinaryIO, bytes]]:
    """Yield a seekable stream at its beginning, and the first bytes of it."""
    if isinstance(source, bytes):
        memory = io.BytesIO(source)
        yield memory, _prefix(memory, name)
        return
    with _open_file(home(source), name) as file:
        # in one read: no header can then make a decoder ask for more bytes than there are
        small = os.fstat(file.fileno()).st_size <= _READ_WHOLE
        stream = io.BytesIO(_contents(file, name)) if small else file
        yield stream, _prefix(stream, name)


def _open_file(path: Path, name: str | None) -> BinaryIO:
    try:
        return open_regular(path)
    except NotRegularError:
        raise read_error("not a file", name) from None
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


def _contents(stream: BinaryIO, name: str | None) -> bytes:
    try:
        return stream.read()
    except OSError:
        raise read_error("unreadable", name) from None


def _prefix(stream: BinaryIO, name: str | None) -> bytes:
    try:
        prefix = stream.read(PREFIX_BYTES)
    except OSError:
        raise read_error("unreadable", name) from None
    if not prefix:
        raise read_error("empty", name)
    stream.seek(0)
    return prefix
