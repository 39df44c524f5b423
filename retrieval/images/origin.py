"""Which file a picture is of, and whose it says it is: what a search must know to leave copies and patients out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from retr.index.errors import ImageReadError
from retr.retrieval.images.dicom_identity import stated_identifiers
from retr.retrieval.images.given import given_picture
from retr.retrieval.images.picture import Origin, Picture, read_error
from retr.retrieval.images.reader import read_image
from retr.retrieval.regular_files import NotRegularError, open_regular


def read_picture(source: Any, **options: Any) -> Picture:
    """Read a picture and remember which file it is of.

    A search with the result knows its byte-identical copies and the patient that a DICOM header states, as with the
    file itself, and reads it no second time. It can be cut with `Picture.crop`, pickled, and read in another process.

    Parameters
    ----------
    source
        As `Query.image` takes one.
    options
        As `retr.retrieval.images.read_image` takes them: ``grey16=``, ``max_pixels=``, ``allow_burned_in=``, ``axis=``,
        ``window=(centre, width)`` of deep grey, ``frame=`` of files of several pictures.

    Raises
    ------
    ImageReadError
        It cannot be read as a picture.

    Examples
    --------
    >>> import io, PIL.Image
    >>> file = io.BytesIO()
    >>> PIL.Image.new("L", (60, 40)).save(file, "PNG")
    >>> picture = read_picture(file.getvalue())
    >>> picture.width, picture.height, picture.crop(0, 0, 0.5, 0.5).image.size
    (60, 40, (30, 20))
    """
    given = given_picture(source, options.get("name"))
    if isinstance(given, Picture) and given.origin is not None:
        return given
    origin = Origin(file_sha256(given), stated_identifiers(given))
    return replace(read_image(given, **options), origin=origin)


def file_sha256(image: Any) -> str | None:
    """Return the SHA-256 of a picture's file, given as a path, as bytes or as a `Picture`; ``None`` for others."""
    if isinstance(image, Picture):
        return None if image.origin is None else image.origin.sha256
    if isinstance(image, bytes | bytearray | memoryview):
        return hashlib.sha256(image).hexdigest()
    if isinstance(image, str | Path):
        path = Path(image)
        try:
            with open_regular(path) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except NotRegularError:
            raise read_error("not a file", str(image)) from None
        except OSError as error:
            raise ImageReadError(
                f"cannot read the picture {str(image)!r}: {error.strerror}",
                reason="no permission" if isinstance(error, PermissionError) else "not found",
                hint="check the path",
            ) from error
    return None
