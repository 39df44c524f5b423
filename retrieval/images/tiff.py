"""TIFF and BigTIFF: the layout of a page decides which library decodes it.

Pillow decodes what it decodes right, which is the ordinary page: unsigned samples of 8 bit (or black and white) side by
side, in a compression that libtiff has always known. Everything else is decoded by tifffile with imagecodecs, and what
neither reads right is "unsupported". The tags are read by tifffile for both, so there is one opinion of what a file
holds; sizes are checked before anything is decoded.

A raw camera file is a TIFF too, whose first page is a thumbnail; it is refused.
"""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from retr.index.errors import ImageReadError
from retr.retrieval.images import raster
from retr.retrieval.images.codestreams import UnknownStreamError, stream_header
from retr.retrieval.images.decoder_warnings import silence_decoders
from retr.retrieval.images.levels import finite_range
from retr.retrieval.images.picture import Picture, Reading, read_error
from retr.retrieval.images.samples import (
    UnknownMeaningError,
    colour_to_8bit,
    grey_picture,
    layout_name,
    without_alpha,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# NewSubfileType, as bits
_REDUCED, _MASK = 1, 4
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_SAMPLES = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3}
_SENSOR = {32803, 34892}  # a colour filter array's values, and the same demosaiced but not developed
_DNG_VERSION, _COLOR_MAP, _INK_SET, _SAMPLE_FORMAT, _CHROMA = 50706, 320, 332, 339, 530
# none, CCITT (three kinds), LZW, deflate, packbits; JPEG
_PLAIN, _JPEG = {1, 2, 3, 4, 5, 8, 32773, 32946}, 7
# LERC, LZMA, zstd; Aperio's and the others' JPEG 2000, PNG, WebP, JPEG XL: known to imagecodecs alone
_STREAMS = {_JPEG, 34887, 33003, 33004, 33005, 34712, 34933, 50001, 50002, 52546}
_COMPRESSIONS = _PLAIN | _STREAMS | {34925, 50000}
_PREDICTORS = {1: "uif", 2: "ui", 3: "f"}
_ASSOCIATED = 1
# grey with alpha that Pillow turns into RGB: unspecified or not associated
_GREY_ALPHA = {(_BLACK_IS_ZERO, 0), (_BLACK_IS_ZERO, 2)}
# TIFF's types of values: BYTE, ASCII, SHORT, LONG, RATIONAL, ...
_TYPE_BYTES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), start=1)) | {16: 8, 17: 8, 18: 8}
# A page and its alpha, as the samples lie in the file: as many bytes for each pixel that a picture may have.
_BYTES_PER_PIXEL = 12
_MOST_SAMPLES = 8


def read(stream: BinaryIO, options: Reading) -> Iterator[tuple[str, Picture]]:
    """Read the pages of a TIFF; thumbnails, pyramid levels and masks (by their NewSubfileType) are not pages.

    Parameters
    ----------
    stream
        Seekable, at the beginning of the file.

    Raises
    ------
    ImageReadError
        With reason "truncated", "damaged", "too large" or "unsupported".
    """
    silence_decoders()
    try:
        yield from _read(stream, options)
    except ImageReadError as error:
        # what is missing at the end of a file may look like anything
        if error.reason in {"damaged", "unsupported"} and _is_cut(stream):
            raise read_error("truncated", options.name) from None
        raise


def _read(stream: BinaryIO, options: Reading) -> Iterator[tuple[str, Picture]]:
    import tifffile

    start = stream.read(12)
    stream.seek(0)
    try:
        file = tifffile.TiffFile(stream, name="picture")
        pages = list(file.pages)
        camera = _is_raw_camera(start, pages)
        hidden = len(pages) == 1 and _has_hidden_planes(file)
    except (MemoryError, RecursionError):
        raise read_error("too large", options.name) from None
    except TypeError:  # tifffile has one sample format for all samples of a pixel
        raise read_error("unsupported", options.name) from None
    except Exception:  # noqa: BLE001 - struct.error, KeyError, ValueError, TiffFileError, ... for bad headers
        raise read_error("damaged", options.name) from None
    if camera or hidden:
        raise read_error("unsupported", options.name)
    if not pages:
        raise read_error("damaged", options.name)
    own = [number for number, page in enumerate(pages) if not page.subfiletype & (_REDUCED | _MASK)] or [0]
    pillow = _Pillow(stream, options)
    for position, suffix in options.chosen(len(own)):
        page = pages[own[position]]
        try:
            _check(page, stream, options)
            by_pillow = _pillow_reads(page)
        except ImageReadError:
            raise
        except Exception:  # noqa: BLE001 - tifffile reads tags when asked: tiles of no width, strips of no rows
            raise read_error("damaged", options.name) from None
        # Pillow decodes the next page into the same memory, so each picture is finished before the next is opened
        picture = pillow.picture() if by_pillow and pillow.opens(own[position]) else _picture(page, options)
        yield suffix, replace(picture, frame=position + 1, frames=len(own))


class _Pillow:
    """The same file as Pillow sees it, opened when it is first asked for."""

    def __init__(self, stream: BinaryIO, options: Reading) -> None:
        self._stream, self._options = stream, options
        self._image: TiffImageFile | None = None

    def opens(self, number: int) -> bool:
        """Go to a page; False where Pillow cannot."""
        try:
            if self._image is None:
                self._stream.seek(0)
                self._image = TiffImageFile(self._stream)
            self._image.seek(number)
        except Exception:  # noqa: BLE001 - as everywhere; the other library has its say then
            return False
        return True

    def picture(self) -> Picture:
        """Decode the page."""
        assert self._image is not None
        return raster.finish(self._image, self._stream, self._options)


def _is_raw_camera(start: bytes, pages: list[Any]) -> bool:
    """Return whether a TIFF holds what a camera's sensor saw, with a developed thumbnail at most."""
    # Canon's and Phase One's mark behind the TIFF header
    if start[8:10] == b"CR" or start[8:12] in {b"IIII", b"MMMM"}:
        return True
    for page in pages:
        inner = list(page.pages or ()) if page.subifds else []
        if page.photometric in _SENSOR or _DNG_VERSION in page.tags:
            return True
        for below in inner:
            # a pyramid's levels are reduced and smaller than their page
            larger = below.imagewidth * below.imagelength > page.imagewidth * page.imagelength
            if below.photometric in _SENSOR or (larger and not below.subfiletype & _REDUCED):
                return True
    return False


def _has_hidden_planes(file: Any) -> bool:
    """Return whether more pictures follow the only page, which no directory names: ImageJ's above 4 GB, MetaMorph's."""
    if file.is_stk:
        return int((file.stk_metadata or {}).get("NumberPlanes", 1)) > 1
    if file.is_imagej:
        return int((file.imagej_metadata or {}).get("images", 1)) > 1
    pixels = math.prod(file.pages[0].shape)
    return any(math.prod(described.get("shape", ())) > pixels for described in file.shaped_metadata or ())


def _is_cut(stream: BinaryIO) -> bool:
    """Return whether the first directory, or a value that it points to, lies beyond the end of the file."""
    size = stream.seek(0, 2)
    stream.seek(0)
    start = stream.read(16)
    order = "<" if start[:2] == b"II" else ">"
    big = 43 in start[2:4]
    word, count_format, entry = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
    try:
        (at,) = struct.unpack_from(f"{order}{word}", start, 8 if big else 4)
        stream.seek(at)
        (count,) = struct.unpack(f"{order}{count_format}", stream.read(struct.calcsize(count_format)))
        length = struct.calcsize(f"{order}{entry}")
        entries = stream.read(count * length)
    except (struct.error, OverflowError):
        return True
    if len(entries) < count * length:
        return True
    values = (struct.unpack_from(f"{order}{entry}", entries, number * length) for number in range(count))
    inline = struct.calcsize(word)
    return any(
        _TYPE_BYTES.get(kind, 0) * many > inline and where + _TYPE_BYTES[kind] * many > size
        for _, kind, many, where in values
    )


def _check(page: Any, stream: BinaryIO, options: Reading) -> None:
    """Refuse a page that is too large, ends beyond the file or is of a layout that neither library reads right."""
    name = options.name
    width, height = page.imagewidth, page.imagelength
    if not all(isinstance(side, int) and side > 0 for side in (width, height, page.samplesperpixel)):
        raise read_error("damaged", name)
    if width * height > options.max_pixels:
        raise read_error("too large", name)
    if not _is_known(page):
        raise read_error("unsupported", name)
    budget = options.max_pixels * _BYTES_PER_PIXEL
    chunk = math.prod(page.chunks) * page.dtype.itemsize
    if width * height * page.samplesperpixel * page.dtype.itemsize > budget or chunk > budget:
        raise read_error("too large", name)
    size = stream.seek(0, 2)
    offsets, counts = page.dataoffsets, page.databytecounts
    count = math.prod(page.chunked)
    if page.is_contiguous:
        offsets, counts, count = offsets[:1], (math.prod(page.shape) * page.dtype.itemsize,), 1
    if len(offsets) < count or len(counts) < count:
        raise read_error("damaged", name)
    for offset, length in zip(offsets, counts, strict=False):
        if offset + length > size:
            raise read_error("truncated", name)
    if page.compression in _STREAMS:
        _check_streams(page, stream, options)


def _check_streams(page: Any, stream: BinaryIO, options: Reading) -> None:
    """Refuse tiles whose own header says that they are larger than the page's tags say."""
    most = math.prod(page.chunks)
    for offset, length in zip(page.dataoffsets, page.databytecounts, strict=False):
        stream.seek(offset)
        data = stream.read(length)
        if not data:
            continue
        try:
            header = stream_header(data)
        except UnknownStreamError:
            raise read_error("unsupported" if page.compression != _JPEG else "damaged", options.name) from None
        # a JPEG may have a row of blocks more than its strip
        if header.width * header.height * min(header.samples, page.samplesperpixel) > 2 * most + 64 * header.width:
            raise read_error("damaged", options.name)


def _is_known(page: Any) -> bool:
    """Return whether the page's layout is one that Pillow or tifffile is known to read right."""
    bits, photometric, samples = page.bitspersample, page.photometric, page.samplesperpixel
    if page.dtype is None or page.dtype.kind not in "uifb" or not isinstance(bits, int) or page.imagedepth != 1:
        return False
    if page.compression not in _COMPRESSIONS or page.planarconfig not in {1, 2} or photometric not in _SAMPLES:
        return False
    # samples between 17 and 31 bit are packed in one way by some writers and in another by others
    if not (0 < bits <= 16 or bits in {32, 64}):
        return False
    kind = {1: "u", 2: "i", 3: "f"}.get(page.sampleformat)
    formats = page.tags.valueof(_SAMPLE_FORMAT) or 1
    if kind is None or (isinstance(formats, tuple) and len(set(formats)) > 1):
        return False
    # predictors work on whole bytes
    if kind not in _PREDICTORS.get(page.predictor, "") or (page.predictor != 1 and bits % 8):
        return False
    extra = samples - _SAMPLES[photometric]
    if not 0 <= extra <= _MOST_SAMPLES - 4:
        return False
    if photometric in {_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE} and extra > 1:
        return False  # channels of a microscope, say: no telling which is the picture
    if photometric == _PALETTE and (kind != "u" or bits > 16 or page.tags.valueof(_COLOR_MAP) is None):
        return False
    if photometric == _CMYK and (page.tags.valueof(_INK_SET) or 1) != 1:
        return False
    if photometric == _YCBCR and _is_subsampled(page) and page.compression != _JPEG:
        # libtiff unfolds it, and Pillow asks libtiff for what is compressed
        return page.compression != 1 and _pillow_reads(page)
    if photometric == _LAB:
        return _pillow_reads(page)
    return photometric != _YCBCR or (bits == 8 and kind == "u")


def _is_subsampled(page: Any) -> bool:
    # chroma is halved both ways where the tag is missing
    return tuple(page.tags.valueof(_CHROMA) or (2, 2)) != (1, 1)


def _pillow_reads(page: Any) -> bool:
    """Return whether Pillow reads the page's layout right."""
    extra = page.samplesperpixel - _SAMPLES[page.photometric]
    bilevel = page.bitspersample == 1 and page.photometric in {_WHITE_IS_ZERO, _BLACK_IS_ZERO}
    return (
        (page.bitspersample == 8 or bilevel)
        and page.sampleformat == 1
        and page.planarconfig == 1
        and page.fillorder == 1
        and page.predictor in {1, 2}
        and page.compression in {*_PLAIN, _JPEG}
        and page.photometric != _PALETTE
        and extra == len(page.extrasamples)
        and (not extra or page.photometric == _RGB or (page.photometric, page.extrasamples[0]) in _GREY_ALPHA)
    )


def _picture(page: Any, options: Reading) -> Picture:
    """Decode a page with tifffile."""
    try:
        values = _upright(page.asarray(maxworkers=1, squeeze=False), page)
        image, mode, notes, window = _shown(values, page, options)
    except ImageReadError:
        raise
    except MemoryError:
        raise read_error("too large", options.name) from None
    except (UnknownMeaningError, NotImplementedError, ImportError):
        raise read_error("unsupported", options.name) from None
    except Exception:  # noqa: BLE001 - every codec has errors of its own
        raise read_error("damaged", options.name) from None
    return Picture(image=image, width=image.width, height=image.height, mode=mode, notes=notes, window=window)


def _upright(values: NDArray[Any], page: Any) -> NDArray[Any]:
    """Return the samples ``(h, w, n)`` of tifffile's ``(separate, 1, h, w, together)``, turned upright."""
    values = values[:, 0].view(np.uint8) if values.dtype == np.bool_ else values[:, 0]
    values = values[0] if len(values) == 1 else np.moveaxis(values[..., 0], 0, 2)
    orientation = page.tags.valueof(274) or 1
    if orientation in {5, 6, 7, 8}:
        values = values.swapaxes(0, 1)
    if orientation in {2, 3, 6, 7}:
        values = values[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        values = values[::-1]
    return values


def _shown(
    values: NDArray[Any], page: Any, options: Reading
) -> tuple[Image.Image, str, dict[str, str], tuple[float, float] | None]:
    """Return what the samples ``(h, w, n)`` mean as RGB, the name of their layout, notes, and the window of grey."""
    bits, photometric = page.bitspersample, page.photometric
    own = _SAMPLES[photometric]
    extra = bool(values.shape[2] > own)
    associated = extra and page.extrasamples[:1] == (_ASSOCIATED,)
    colour = values[..., :own]
    if associated:
        # the quotient of longer integers is more than a float64 holds
        if values.dtype.kind == "i" or (values.dtype.kind == "u" and bits > 32) or photometric == _PALETTE:
            raise UnknownMeaningError
        white = 1.0 if values.dtype.kind == "f" else float((1 << bits) - 1)
        colour = without_alpha(colour, values[..., own], white)
    if photometric in {_WHITE_IS_ZERO, _BLACK_IS_ZERO}:
        grey, flipped = colour[..., 0], None
        if photometric == _WHITE_IS_ZERO:
            grey, flipped = _inverted(grey, bits)
        image, notes, window = grey_picture(grey, bits, options, flipped)
        return image, layout_name(values, bits, "LA" if extra else "L"), notes, window
    if photometric == _PALETTE:
        table: NDArray[Any] = np.asarray(page.tags.valueof(_COLOR_MAP), np.uint16).reshape(3, -1)
        # some writers fill only the low byte of a 16-bit entry
        table = table if table.max() < 256 else table >> 8
        return Image.fromarray(table.T.astype(np.uint8)[colour[..., 0]]), "P", {}, None
    eight = colour_to_8bit(colour, bits)
    if photometric == _CMYK:
        return _from(eight, "CMYK"), layout_name(values, bits, "CMYK"), {}, None
    if photometric == _YCBCR and page.compression != _JPEG:
        return _from(eight, "YCbCr"), "YCbCr", {}, None
    return Image.fromarray(eight), layout_name(values, bits, "RGBA" if extra else "RGB"), {}, None


def _from(samples: NDArray[np.uint8], mode: str) -> Image.Image:
    height, width = samples.shape[:2]
    return Image.frombytes(mode, (width, height), samples.tobytes()).convert("RGB")


def _inverted(grey: NDArray[Any], bits: int) -> tuple[NDArray[Any], float]:
    """Return the values turned round, and what a value and its own add up to."""
    out: NDArray[Any] = grey if grey.flags.writeable else np.empty_like(grey)
    if grey.dtype.kind == "i":
        np.invert(grey, out=out)
        return out, -1.0
    white = sum(finite_range(grey)) if grey.dtype.kind == "f" else (1 << bits) - 1
    np.subtract(grey.dtype.type(white), grey, out=out)
    return out, float(white)
