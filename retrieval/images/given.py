"""Normalise an input picture to one of the few kinds that are read: a path, bytes, a PIL image, an array."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retr.index.errors import UsageError
from retr.index.vectors import plain_array
from retr.retrieval.images.arrays import refused
from retr.retrieval.images.decoder_warnings import silence_decoders
from retr.retrieval.images.picture import Picture, read_error
from retr.retrieval.regular_files import open_regular

if TYPE_CHECKING:
    from pydicom import Dataset

WANTED = "a path, the bytes of a file, a file open in binary mode, a PIL image, an array, a tensor or a pydicom.Dataset"
_ARRAYS = ("__array__", "__array_interface__", "__dlpack__")

Given = str | Path | bytes | Image.Image | Picture | np.ndarray[Any, np.dtype[Any]]


def given_picture(source: Any, name: str | None = None) -> Given:
    """Return a picture as one of the kinds that are read and compared.

    Parameters
    ----------
    source
        A path (``str`` or any ``os.PathLike``), the bytes of a file, a file open in binary mode (read from its
        beginning where it can be sought in), a PIL image, a `Picture`, an array or a tensor wherever it is, or a
        ``pydicom.Dataset``, which becomes the bytes of its file: of the one it was read from where both are the same.
    name
        What errors call the picture.

    Raises
    ------
    ImageReadError
        It is nothing of these, or cannot be read from.
    """
    if isinstance(source, str | Path | bytes | Image.Image | Picture):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, os.PathLike):
        return Path(os.fsdecode(source))
    if _is_dataset(source):
        return _file_of(source, name)
    if hasattr(source, "read"):
        return _contents(source, name)
    if isinstance(source, np.ndarray) or hasattr(source, "detach") or any(hasattr(source, way) for way in _ARRAYS):
        return _array(source, name)
    several = isinstance(source, list | tuple)
    hint = "ask with one picture, or give a list of queries: [Query.image(one) for one in pictures]"
    raise refused(name, f"is given as {type(source).__name__}", hint if several else f"give {WANTED}")


def each_picture(items: Any) -> list[Any]:
    """Return several pictures one by one.

    Parameters
    ----------
    items
        A list, tuple, generator, Series or array of what `given_picture` takes, or a batch with four axes.

    Raises
    ------
    UsageError
        It is one picture.
    """
    one = isinstance(items, str | bytes | bytearray | memoryview | os.PathLike | Image.Image | Picture | Mapping)
    axes = getattr(items, "ndim", None)
    of_objects = getattr(getattr(items, "dtype", None), "kind", "O") in "OUT"
    if one or _is_dataset(items) or hasattr(items, "read") or not hasattr(items, "__iter__"):
        raise UsageError(f"several pictures are wanted, got one {type(items).__name__}", hint="give a list of them")
    if axes is not None and axes != 4 and not (axes == 1 and of_objects):
        raise UsageError(
            f"several pictures are wanted, got an array of the shape {tuple(items.shape)}",
            hint="give a list of pictures, or a batch (n, c, h, w) or (n, h, w, c)",
        )
    return list(items.to_pylist() if hasattr(items, "to_pylist") else items)


def _is_dataset(source: object) -> bool:
    # whoever has one has imported pydicom
    pydicom = sys.modules.get("pydicom")
    return pydicom is not None and isinstance(source, pydicom.Dataset)


def _file_of(dataset: Dataset, name: str | None) -> bytes:
    """Return a data set as the bytes of a file, in the encoding that it states or was read in."""
    from pydicom import dcmwrite

    silence_decoders()
    read = _read_from(dataset)
    if read is not None:
        return read
    stream = io.BytesIO()
    if not getattr(dataset, "preamble", None):
        stream.write(b"\0" * 128 + b"DICM")
    start = stream.tell()
    try:
        try:
            dcmwrite(stream, dataset, enforce_file_format=False)
        except ValueError:  # it states no encoding, or none that there is
            stream.seek(start)
            stream.truncate()
            implicit, little = (False, True) if None in dataset.original_encoding else dataset.original_encoding
            dcmwrite(stream, dataset, implicit_vr=implicit, little_endian=little, force_encoding=True)
    except Exception:  # noqa: BLE001 - pydicom raises nearly anything, with header values in the text
        raise read_error("damaged", name) from None
    return stream.getvalue()


def _read_from(dataset: Dataset) -> bytes | None:
    """Return the file that a data set was read from, so that copies of it are known; None where they differ."""
    from pydicom import dcmread

    file = getattr(dataset, "filename", None)
    if not isinstance(file, str | os.PathLike):
        return None
    try:
        with open_regular(os.fsdecode(file)) as stream:
            data = stream.read()
        there = dcmread(io.BytesIO(data), force=True)
        same = dict(there) == dict(dataset) and there.file_meta == dataset.file_meta
    except Exception:  # noqa: BLE001 - pydicom raises nearly anything
        return None
    return data if same else None


def _contents(stream: Any, name: str | None) -> bytes:
    try:
        # a file that was just written, or looked at, does not stand at its beginning; a pipe cannot be sought in
        if stream.seekable():
            stream.seek(0)
    except (AttributeError, OSError, ValueError):
        pass
    try:
        data = stream.read()
    except UnicodeDecodeError:
        data = ""
    except (OSError, ValueError):  # the file is closed
        raise read_error("unreadable", name) from None
    if not isinstance(data, bytes | bytearray | memoryview):
        raise refused(name, "is given as a file that is open in text mode", 'open it with open(path, "rb")')
    return bytes(data)


def _array(source: Any, name: str | None) -> np.ndarray[Any, np.dtype[Any]]:
    if np.ma.is_masked(source):
        raise refused(name, "has masked samples", "fill them: array.filled(0)")
    try:
        return plain_array(source)
    except Exception:  # noqa: BLE001 - every library of arrays raises its own
        raise refused(name, f"is given as {type(source).__name__}, which is no array of samples") from None
