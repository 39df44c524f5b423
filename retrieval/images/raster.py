"""Raster formats through Pillow: JPEG, PNG, TIFF, BMP, WebP, GIF (first frame), JPEG 2000, PNM.

The format is recognised by content and its plugin is called directly instead of ``PIL.Image.open``: the
formats that can be reached are exactly those of the table below (none of Pillow's others, some of which start
programs), and the pixel limit is ours, checked between header and pixels. Pillow's own limit is a warning
first, and warnings are not thread-safe.

Colour becomes RGB by ``convert("RGB")``, which drops alpha without compositing: encoders' published
preprocessing does exactly that. Grey deeper than 8 bit is scaled by `retr.retrieval.images.levels`. Colour
deeper than 8 bit keeps its high byte, which is what Pillow decodes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

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

from retr.retrieval.images.levels import Grey16, scale_to_8bit
from retr.retrieval.images.picture import Options, Picture, read_error
from retr.retrieval.images.quiet import silence_decoders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.ImageFile import ImageFile

_BY_MAGIC: dict[bytes, type[ImageFile]] = {
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
    b"II+\0": TiffImageFile,  # BigTIFF
    b"MM\0+": TiffImageFile,
    b"GIF87a": GifImageFile,
    b"GIF89a": GifImageFile,
    b"BM": BmpImageFile,
    b"\0\0\0\x0cjP  \r\n\x87\n": Jpeg2KImageFile,
    b"\xff\x4f\xff\x51": Jpeg2KImageFile,
    **{b"P%d%c" % (kind, space): PpmImageFile for kind in range(1, 7) for space in b"\t\n\r "},
}

# Magic of two characters that plain text may begin with: a bad header there means "not an image".
_WEAK_MAGIC = (BmpImageFile, PpmImageFile)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# TIFF: what a page is (NewSubfileType), as bits
_REDUCED, _MASK = 1, 4
_NEW_SUBFILE_TYPE, _PHOTOMETRIC, _WHITE_IS_ZERO = 254, 262, 0


def plugin_for(prefix: bytes) -> type[ImageFile] | None:
    """Give the Pillow plugin for a file that begins with ``prefix``, or None."""
    if prefix[:4] == b"RIFF" and prefix[8:12] == b"WEBP":
        return WebPImageFile
    return next((plugin for magic, plugin in _BY_MAGIC.items() if prefix.startswith(magic)), None)


def read(stream: BinaryIO, options: Options, *, plugin: type[ImageFile]) -> Iterator[tuple[str, Picture]]:
    """Read the picture of a raster file, or the pages of a TIFF.

    Thumbnails, pyramid levels and masks (by their NewSubfileType) are not pages.

    Parameters
    ----------
    stream
        Seekable, at the beginning of the file.
    plugin
        From `plugin_for`.

    Raises
    ------
    ImageReadError
        With reason "truncated", "damaged", "not an image", "too large" or "unsupported".
    """
    image = _open(stream, plugin, options.name)
    if plugin is not TiffImageFile or options.every is None:
        yield "", _finish(image, stream, options)
        return
    pages = _pages(image, options.name)
    for position, suffix in options.chosen(len(pages)):
        _seek(image, pages[position], options.name)
        yield suffix, _finish(image, stream, options)


def from_pillow(image: Image.Image, options: Options) -> Picture:
    """Give the picture of an image that Pillow already holds or has opened; the image is not altered."""
    silence_decoders()
    return _finish(image, None, options)


def _open(stream: BinaryIO, plugin: type[ImageFile], name: str | None) -> ImageFile:
    silence_decoders()
    try:
        return plugin(stream)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise read_error("too large", name) from None
    except (MemoryError, RecursionError):
        raise read_error("too large", name) from None
    except Exception:  # noqa: BLE001 - plugins raise SyntaxError, struct.error, KeyError, ... for bad headers
        if plugin in _WEAK_MAGIC:
            raise read_error("not an image", name) from None
        raise read_error("truncated" if _at_end(stream) else "damaged", name) from None


def _finish(image: Image.Image, stream: BinaryIO | None, options: Options) -> Picture:
    name = options.name
    width, height = image.size
    if width < 1 or height < 1:
        raise read_error("damaged", name)
    if width * height > options.max_pixels:
        raise read_error("too large", name)
    mode = image.mode
    try:
        if options.draft_size is not None and isinstance(image, JpegImageFile):
            # keeps the shorter side at draft_size or more
            image.draft(None, (options.draft_size, options.draft_size))
        image.load()
        if isinstance(image, TiffImageFile):
            width, height = image.size  # Pillow has turned it upright while loading
        upright = _upright(image)
        if upright.size != image.size:
            width, height = height, width
        rgb, notes = _to_rgb(upright, options.grey16)
    except (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise read_error("too large", name) from None
    except (EOFError, OSError) as error:
        cut = isinstance(error, EOFError) or "truncated" in str(error).lower() or _ends_early(stream, image)
        raise read_error("truncated" if cut else "damaged", name) from None
    except _UnsupportedModeError:
        raise read_error("unsupported", name) from None
    except Exception:  # noqa: BLE001 - decoders raise nearly anything for bad content
        raise read_error("damaged", name) from None
    return Picture(image=rgb, width=width, height=height, mode=mode, notes=notes)


class _UnsupportedModeError(Exception):
    """A pixel layout that Pillow cannot turn into RGB."""


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - a broken EXIF block says nothing about the pixels
        orientation = 1
    method = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image, grey16: Grey16) -> tuple[Image.Image, dict[str, str]]:
    if image.mode == "RGB":
        # Pillow decodes the next page into the same memory
        return image.copy() if isinstance(image, TiffImageFile) else image, {}
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        values = scale_to_8bit(_deep_grey(image), grey16)
        return Image.fromarray(values).convert("RGB"), {"grey": f"scaled to 8 bit by {grey16}"}
    if "transparency" in image.info:
        # convert() would warn about a transparent palette entry; the colours are the same without it
        image = image.copy()
        del image.info["transparency"]
    try:
        return image.convert("RGB"), {}
    except ValueError:
        raise _UnsupportedModeError from None


def _deep_grey(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    values = np.asarray(image)
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        # Pillow inverts white-is-zero for up to 8 bit only
        return values.max() + values.min() - values if values.dtype.kind == "f" else ~values
    return values


def _pages(image: ImageFile, name: str | None) -> list[int]:
    """Give the positions of a TIFF's own pages, without thumbnails, pyramid levels and masks."""
    pages = []
    try:
        for page in range(getattr(image, "n_frames", 1)):
            image.seek(page)
            kind = image.tag_v2.get(_NEW_SUBFILE_TYPE, 0) if isinstance(image, TiffImageFile) else 0
            if page == 0 or not (isinstance(kind, int) and kind & (_REDUCED | _MASK)):
                pages.append(page)
    except Exception:  # noqa: BLE001 - as in _open
        raise read_error("damaged", name) from None
    return pages


def _seek(image: ImageFile, page: int, name: str | None) -> None:
    try:
        image.seek(page)
    except Exception:  # noqa: BLE001 - as in _open
        raise read_error("damaged", name) from None


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
