"""Encoded pictures that Pillow cannot read or reads with the wrong meaning, through imagecodecs.

JPEG-LS, JPEG XL, JPEG deeper than 8 bit (12 bit, lossless up to 16), JPEG 2000 of other than 8 bits, PNG in grey deeper
than 8 bit with alpha. The size is checked in the header first; alpha is dropped, as everywhere.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from retr.retrieval.images.codestreams import EndsEarlyError, StreamHeader, UnknownStreamError, stream_header
from retr.retrieval.images.picture import Picture, Reading, read_error, turned
from retr.retrieval.images.samples import UnknownMeaningError, colour_to_8bit, grey_picture, layout_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_MOST_SAMPLES = 4
_APP1, _START_OF_SCAN = 0xE1, 0xDA
# how streams begin, and the mark that they end in
_ENDS = ((b"\xff\xd8", b"\xff\xd9"), (b"\xff\x4f", b"\xff\xd9"), (b"\0\0\0\x0cjP", b"\xff\xd9"), (b"\x89PNG", b"IEND"))


def read(stream: BinaryIO, options: Reading) -> Iterator[tuple[str, Picture]]:
    """Read the one picture of a stream.

    Raises
    ------
    ImageReadError
        With reason "truncated", "damaged", "too large" or "unsupported".
    """
    data = stream.read()
    try:
        header = stream_header(data)
    except UnknownStreamError as error:
        # a stream that is recognised and ends before its size is cut; one that goes on uses what is not read
        cut = isinstance(error, EndsEarlyError) or _is_cut(data)
        raise read_error("truncated" if cut else "unsupported", options.name) from None
    if min(header.width, header.height) < 1:
        raise read_error("damaged", options.name)
    if header.width * header.height > options.max_pixels:
        raise read_error("too large", options.name)
    if header.samples > _MOST_SAMPLES:
        raise read_error("unsupported", options.name)
    picture = _picture(_decoded(data, header, options), header, options)
    image = turned(picture.image, _orientation(data, header.kind))
    yield "", replace(picture, image=image, width=image.width, height=image.height)


def _orientation(data: bytes, kind: str) -> Any:
    """Return EXIF's number of the orientation of a JPEG or PNG, None where it says none."""
    try:
        exif = Image.Exif()
        exif.load(next(_exif_blocks(data, kind), b""))
        return exif.get(Base.Orientation)
    except Exception:  # noqa: BLE001 - a broken EXIF block says nothing about the pixels
        return None


def _exif_blocks(data: bytes, kind: str) -> Iterator[bytes]:
    if kind == "png":
        at = 8
        while at + 8 <= len(data):
            length, name = struct.unpack_from(">I4s", data, at)
            if name == b"eXIf":
                yield data[at + 8 : at + 8 + length]
            at += 12 + length
    elif kind in {"jpeg", "jpegls"}:
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _START_OF_SCAN:
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            if data[at + 1] == _APP1 and data[at + 4 : at + 10] == b"Exif\0\0":
                yield data[at + 4 : at + 2 + length]
            at += 2 + length


def _picture(values: NDArray[Any], header: StreamHeader, options: Reading) -> Picture:
    bits = header.bits or 8 * values.dtype.itemsize
    samples = 1 if values.ndim == 2 else values.shape[2]
    # four samples in a JPEG are CMYK of one kind or another
    if samples == 4 and header.kind in {"jpeg", "jpegls"}:
        raise read_error("unsupported", options.name)
    height, width = values.shape[:2]
    notes: dict[str, str] = {}
    window = None
    if samples < 3:
        grey = values if values.ndim == 2 else values[..., 0]
        image, notes, window = grey_picture(grey, bits, options)
        mode = layout_name(values, bits, "L" if samples == 1 else "LA")
    else:
        try:
            image = Image.fromarray(colour_to_8bit(np.ascontiguousarray(values[..., :3]), bits))
        except UnknownMeaningError:
            raise read_error("unsupported", options.name) from None
        mode = layout_name(values, bits, "RGB" if samples == 3 else "RGBA")
    return Picture(image=image, width=width, height=height, mode=mode, notes=notes, window=window)


def _decoded(data: bytes, header: StreamHeader, options: Reading) -> NDArray[Any]:
    import imagecodecs

    if header.kind in {"jpeg", "jpegls"} and _is_cut(data):
        # libjpeg would fill the rest with grey, and CharLS look for it for half a minute
        raise read_error("truncated", options.name)
    decoders: dict[str, Callable[[bytes], NDArray[Any]]] = {
        "jpeg": imagecodecs.jpeg_decode,
        "jpegls": imagecodecs.jpegls_decode,
        "jpeg2000": imagecodecs.jpeg2k_decode,
        "jpegxl": _jpegxl,
        "png": imagecodecs.png_decode,
    }
    try:
        values = decoders[header.kind](data)
    except (ImportError, KeyError):
        raise read_error("unsupported", options.name) from None
    except MemoryError:
        raise read_error("too large", options.name) from None
    except Exception as error:  # noqa: BLE001 - every codec has errors of its own
        cut = _is_cut(data) or "NEED_MORE_INPUT" in str(error)
        raise read_error("truncated" if cut else "damaged", options.name) from None
    if values.ndim not in {2, 3} or values.dtype.kind not in "iuf":
        raise read_error("unsupported", options.name)
    return values


def _jpegxl(data: bytes) -> NDArray[Any]:
    import imagecodecs

    # of an animation the first frame; the orientation in the header is applied
    values: NDArray[Any] = imagecodecs.jpegxl_decode(data, index=0, numthreads=1)
    return values


def _is_cut(data: bytes) -> bool:
    """Return whether the mark that such a stream ends in is missing; JPEG XL has none."""
    end = next((mark for start, mark in _ENDS if data.startswith(start)), None)
    return end is not None and end not in data.rstrip(b"\0")[-64:]
