"""Raster formats other than TIFF: through Pillow where it reads the samples as what they are.

A format's plugin is called directly instead of ``PIL.Image.open``: the formats that can be reached are exactly those
of the table below (none of Pillow's others, some of which start programs), and the pixel limit is ours, checked between
header and pixels. Pillow's own limit is a warning first, and warnings are not thread-safe.

Colour becomes RGB by ``convert("RGB")``, which drops alpha without compositing: encoders' published
preprocessing does exactly that. Grey deeper than 8 bit is scaled by `retr.retrieval.images.levels`. Colour
deeper than 8 bit keeps its high byte, which is what Pillow decodes of PNG.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from retr.retrieval.images import netpbm, streams
from retr.retrieval.images.codestreams import StreamHeader, UnknownStreamError, stream_header
from retr.retrieval.images.decoder_warnings import silence_decoders
from retr.retrieval.images.file_types import PREFIX_BYTES, format_of
from retr.retrieval.images.picture import Picture, Reading, read_error, turned
from retr.retrieval.images.samples import grey_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

_PLUGINS: dict[str, type[ImageFile]] = {
    "jpeg": JpegImageFile,
    "png": PngImageFile,
    "gif": GifImageFile,
    "bmp": BmpImageFile,
    "webp": WebPImageFile,
    "jpeg2000": Jpeg2KImageFile,
    "pnm": PpmImageFile,
}

# TIFF
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
# as much of a file as is looked at for its header
_HEADER_BYTES = (4096, 1 << 20)


def read(stream: BinaryIO, options: Reading, *, kind: str) -> Iterator[tuple[str, Picture]]:
    """Read the picture of a raster file other than TIFF.

    Parameters
    ----------
    stream
        Seekable, at the beginning of the file.
    kind
        The format's name, from `retr.retrieval.images.file_types.format_of`.

    Raises
    ------
    ImageReadError
        With reason "truncated", "damaged", "too large" or "unsupported".
    """
    other = _better_reader(stream, kind)
    if other is not None:
        yield from other(stream, options)
        return
    image = _open(stream, _PLUGINS[kind], options.name)
    yield "", finish(image, stream, options)


def _better_reader(stream: BinaryIO, kind: str) -> Callable[[BinaryIO, Reading], Iterator[tuple[str, Picture]]] | None:
    """Return who reads what Pillow cannot read or reads with another meaning; None for Pillow.

    The stream stands at its beginning afterwards.
    """
    if kind in {"jpegls", "jpegxl"}:
        return streams.read
    if kind == "pnm":
        most = netpbm.maximum(_start(stream, _HEADER_BYTES[0]))
        return netpbm.read if most not in {None, 255} else None
    if kind not in {"jpeg", "jpeg2000", "png"}:
        return None
    header = _header(stream)
    if header is not None and header.kind == "jpegls":  # behind an application's segment
        return streams.read
    if header is None:
        return None
    if kind == "jpeg2000":  # of other than 8 bits Pillow rounds white up to black, and leaves shallow grey dark
        return None if header.bits == 8 and not header.signed else streams.read
    # Pillow knows no JPEG deeper than 8 bit, and keeps the high byte of grey with alpha
    deep = header.bits > 8 and (kind == "jpeg" or header.samples == 2)
    return streams.read if deep else None


def _header(stream: BinaryIO) -> StreamHeader | None:
    # what cameras and scanners write before a JPEG's size may be long
    for size in _HEADER_BYTES:
        start = _start(stream, size)
        with suppress(UnknownStreamError):
            return stream_header(start)
        if len(start) < size:
            break
    return None


def _start(stream: BinaryIO, size: int) -> bytes:
    start = stream.read(size)
    stream.seek(0)
    return start


def from_pillow(image: Image.Image, options: Reading) -> Picture:
    """Return the picture of an image that Pillow already holds or has opened; the image is not altered."""
    silence_decoders()
    # a reduced decode would leave the caller's own image reduced
    return finish(image, None, replace(options, draft_size=None))


def _open(stream: BinaryIO, plugin: type[ImageFile], name: str | None) -> ImageFile:
    silence_decoders()
    try:
        return plugin(stream)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise read_error("too large", name) from None
    except (MemoryError, RecursionError):
        raise read_error("too large", name) from None
    except Exception as error:  # noqa: BLE001 - plugins raise SyntaxError, struct.error, KeyError, ... for bad headers
        if _means_unsupported(error):
            raise read_error("unsupported", name) from None
        raise read_error("truncated" if _at_end(stream) else "damaged", name) from None


def decoded_size(data: bytes, draft_size: int | None) -> tuple[int, int] | None:
    """Return width and height at which a JPEG is decoded for a `Reading.draft_size`; None for whatever is no JPEG."""
    if format_of(data[:PREFIX_BYTES]) != "jpeg":
        return None
    silence_decoders()
    try:
        image = JpegImageFile(io.BytesIO(data))
        if draft_size is not None:
            image.draft(None, (draft_size, draft_size))
    except Exception:  # noqa: BLE001 - as in `_open`; reading it says what is wrong
        return None
    return image.size


def finish(image: Image.Image, stream: BinaryIO | None, options: Reading) -> Picture:
    """Decode an image that Pillow has opened.

    Raises
    ------
    ImageReadError
        With reason "truncated", "damaged", "too large" or "unsupported".
    """
    name = options.name
    width, height = image.size
    if width < 1 or height < 1:
        raise read_error("damaged", name)
    if width * height > options.max_pixels:
        raise read_error("too large", name)
    mode = image.mode
    try:
        if options.reduced_to is not None and isinstance(image, JpegImageFile):
            # keeps the shorter side at draft_size or more
            image.draft(None, (options.reduced_to, options.reduced_to))
        image.load()
        if isinstance(image, TiffImageFile):
            width, height = image.size  # Pillow has turned it upright while loading
        upright = _upright(image)
        if upright.size != image.size:
            width, height = height, width
        rgb, notes, window = _to_rgb(upright, options)
    except (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise read_error("too large", name) from None
    except (EOFError, OSError) as error:
        if _means_unsupported(error):
            raise read_error("unsupported", name) from None
        cut = isinstance(error, EOFError) or "truncated" in str(error).lower() or _ends_early(stream, image)
        raise read_error("truncated" if cut else "damaged", name) from None
    except _UnsupportedModeError:
        raise read_error("unsupported", name) from None
    except Exception as error:  # noqa: BLE001 - decoders raise nearly anything for bad content
        cut = "not enough image data" in str(error).lower()
        raise read_error("truncated" if cut else "damaged", name) from None
    return Picture(image=rgb, width=width, height=height, mode=mode, notes=notes, window=window)


class _UnsupportedModeError(Exception):
    """A pixel layout that Pillow cannot turn into RGB."""


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - a broken EXIF block says nothing about the pixels
        orientation = 1
    return turned(image, orientation)


def _to_rgb(image: Image.Image, options: Reading) -> tuple[Image.Image, dict[str, str], tuple[float, float] | None]:
    if image.mode == "RGB":
        # Pillow decodes the next page into the same memory
        return image.copy() if isinstance(image, TiffImageFile) else image, {}, None
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        values, flipped = _deep_grey(image)
        return grey_picture(values, 8 * values.dtype.itemsize, options, flipped)
    if image.mode == "La":
        image = image.convert("LA")
    if "transparency" in image.info:
        # convert() would warn about a transparent palette entry; the colours are the same without it
        image = image.copy()
        del image.info["transparency"]
    try:
        return image.convert("RGB"), {}, None
    except ValueError:
        raise _UnsupportedModeError from None


def _deep_grey(image: Image.Image) -> tuple[NDArray[Any], float | None]:
    """Return the values, and where white is the lowest, what a value that was turned round and its own add up to."""
    values = np.asarray(image)
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        # a caller's own image: Pillow inverts white-is-zero for up to 8 bit only
        if values.dtype.kind == "f":
            both = values.max() + values.min()
            return both - values, float(both)
        return ~values, float(np.iinfo(values.dtype).max + np.iinfo(values.dtype).min)
    return values, None


def _means_unsupported(error: Exception) -> bool:
    # Pillow has no class of errors for a layout that it recognises and does not read
    return str(error).lower().startswith(("unsupported", "cannot handle", "unknown pixel mode"))


def _at_end(stream: BinaryIO) -> bool:
    position = stream.tell()
    return position >= stream.seek(0, io.SEEK_END)


def _ends_early(stream: BinaryIO | None, image: Image.Image) -> bool:
    # JPEG, JPEG 2000 and PNG end in a marker: its absence tells a cut file from an altered one
    if stream is None or stream.closed:
        return False
    stream.seek(0, io.SEEK_END)
    stream.seek(max(0, stream.tell() - 64))
    tail = stream.read()
    if isinstance(image, (JpegImageFile, Jpeg2KImageFile)):
        return b"\xff\xd9" not in tail
    return isinstance(image, PngImageFile) and b"IEND" not in tail
