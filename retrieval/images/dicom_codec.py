"""Compressed frames to arrays, through imagecodecs (BSD).

What a frame is compressed with is read from its own first bytes, since transfer syntaxes are at times wrong; the
transfer syntax decides only where the bytes do not say. Sizes are read before a decoder sees them.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from retr.retrieval.images.codestreams import UnknownStreamError, stream_header
from retr.retrieval.images.dicom_layout import Codestream, Compression
from retr.retrieval.images.dicom_values import RefusalError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.retrieval.images.dicom_layout import PixelLayout

_SOI, _SOC_SIZ, _JP2 = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "
_APP0, _APP14, _COD, _SOS = 0xE0, 0xEE, 0x52, 0xDA
_LOSSLESS, _ARITHMETIC, _JPEG_LS = (0xC3, 0xC7), (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), 0xF7
# markers that state a frame's size: SOF of JPEG (without DHT, JPG and DAC, which lie between them) and of JPEG-LS
_FRAME_HEADERS = (set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {_JPEG_LS}
_MOST_SEGMENTS = 15
_RLE_HEADER = 64
_TAIL = 4096
_IDS_RGB = (b"RGB", b"rgb")

# Transfer syntaxes, by what their frames are compressed with.
SYNTAXES: dict[str, Compression] = {
    **{f"1.2.840.10008.1.2.4.{last}": "jpeg" for last in (*range(50, 67), 70)},
    **{f"1.2.840.10008.1.2.4.{last}": "jpeg-ls" for last in (80, 81)},
    **{f"1.2.840.10008.1.2.4.{last}": "jpeg 2000" for last in (90, 91, 201, 202, 203)},
    **{f"1.2.840.10008.1.2.4.{last}": "jpeg xl" for last in (110, 111, 112)},
    "1.2.840.10008.1.2.5": "rle",
    "1.2.840.10008.1.2.8.1": "deflated",
    "1.2.840.10008.1.2.1.98": "native",
}


def describe_frame(data: bytes, syntax: str) -> Codestream:
    """Return what a compressed frame says of itself; ``syntax`` decides where it says nothing.

    Raises
    ------
    RefusalError
        The bytes do not fit the transfer syntax, or their header is broken: "damaged"; or they are of a kind that
        is not read: "unsupported".

    Examples
    --------
    >>> found = describe_frame(bytes.fromhex("ffd8 ffc0000b 08 0010 0020 01 011100"), "")
    >>> found.kind, found.rows, found.columns, found.bits
    ('jpeg', 16, 32, 8)
    """
    try:
        if data[:2] == _SOI:
            return _jpeg(data)
        if data[:4] == _SOC_SIZ or data[:8] == _JP2:
            return _jpeg_2000(data[data.index(_SOC_SIZ) :])
        if _is_jpeg_xl(data):
            return _jpeg_xl(data)
    except (struct.error, ValueError, IndexError):
        raise RefusalError("damaged") from None
    kind = SYNTAXES.get(syntax)
    if kind == "rle" or (kind is None and starts_frame(data)):
        planes = int.from_bytes(data[:4], "little")
        if not 1 <= planes <= _MOST_SEGMENTS:
            raise RefusalError("damaged")
        return Codestream("rle", planes=planes)
    if kind in {"deflated", "native"}:
        return Codestream(kind)
    raise RefusalError("damaged")


def starts_frame(data: bytes) -> bool:
    """Return whether a fragment begins as JPEG, JPEG 2000 and RLE frames begin."""
    if data[:2] == _SOI or data[:4] == _SOC_SIZ or data[:8] == _JP2 or _is_jpeg_xl(data):
        return True
    return data[4:8] == b"\x40\0\0\0" and 1 <= int.from_bytes(data[:4], "little") <= _MOST_SEGMENTS


def decode(data: bytes, stream: Codestream, layout: PixelLayout) -> NDArray[Any]:
    """Decode one frame.

    Returns
    -------
    Array
        ``(rows, columns)`` or ``(rows, columns, samples)`` of integers, colours as they were compressed but for
        JPEG 2000's own transform, which is undone.

    Raises
    ------
    RefusalError
        The frame cannot be decoded, or is not of the size that it or the header says: "damaged".
    """
    if stream.kind == "rle":
        return _rle(data, layout)
    if stream.kind in {"jpeg", "jpeg lossless", "jpeg-ls"} and b"\xff\xd9" not in data[-_TAIL:]:
        raise RefusalError("damaged")  # libjpeg would fill what is missing with grey
    try:
        frame = _decoded(data, stream)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - each decoder has its own errors
        # of JPEG XL it is not known whether the stream is at fault or uses what libjxl does not read
        raise RefusalError("unsupported" if stream.kind == "jpeg xl" else "damaged") from None
    shape = (layout.rows, layout.columns) + ((layout.samples,) if layout.samples > 1 else ())
    if frame.shape != shape:
        raise RefusalError("damaged")
    return frame


def _decoded(data: bytes, stream: Codestream) -> NDArray[Any]:
    import imagecodecs

    decoded: NDArray[Any]
    if stream.kind in {"jpeg", "jpeg lossless"}:
        same = "YCBCR" if stream.samples == 3 else None  # as the samples are, whatever libjpeg would guess
        decoded = imagecodecs.jpeg8_decode(data, colorspace=same, outcolorspace=same)
    elif stream.kind == "jpeg xl":
        decoded = imagecodecs.jpegxl_decode(data, keeporientation=True)
    elif stream.kind == "jpeg-ls":
        decoded = imagecodecs.jpegls_decode(data)
    else:
        decoded = imagecodecs.jpeg2k_decode(data[data.index(_SOC_SIZ) :])
    return decoded


def inflate(data: bytes, most: int) -> bytes:
    """Return a raw deflate stream's content, at most ``most`` bytes of it.

    Raises
    ------
    RefusalError
        It cannot be inflated: "unsupported".
    """
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, most)
    except zlib.error:
        raise RefusalError("unsupported") from None


def _is_jpeg_xl(data: bytes) -> bool:
    return data[:2] == b"\xff\x0a" or data[:8] == b"\0\0\0\x0cJXL "


def _jpeg_xl(data: bytes) -> Codestream:
    try:
        told = stream_header(data)
    except UnknownStreamError:
        raise RefusalError("unsupported") from None
    if not 1 <= told.bits <= 16:
        raise RefusalError("unsupported")
    # how many channels there are it says only to its decoder, which gives colours as RGB
    return Codestream("jpeg xl", told.height, told.width, None, told.bits, colour="RGB")


def _rle(data: bytes, layout: PixelLayout) -> NDArray[Any]:
    size, count = layout.allocated // 8, int.from_bytes(data[:4], "little")
    if count != layout.samples * size or len(data) < _RLE_HEADER:
        raise RefusalError("damaged")
    pixels = layout.rows * layout.columns
    offsets = [*struct.unpack_from(f"<{count}I", data, 4), len(data)]
    planes = np.empty((layout.samples, size, pixels), dtype=np.uint8)
    for number, (start, end) in enumerate(pairwise(offsets)):
        # of each sample the highest byte comes first
        planes[number // size, size - 1 - number % size] = np.frombuffer(_unpacked(data[start:end], pixels), np.uint8)
    cells = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f"<u{size}")
    if layout.samples == 1:
        return cells.reshape(layout.rows, layout.columns)
    return cells.reshape(layout.samples, layout.rows, layout.columns).transpose(1, 2, 0)


def _unpacked(segment: bytes, length: int) -> bytearray:
    """Return the ``length`` bytes that PackBits made a segment of; up to three bytes of padding may follow it."""
    import imagecodecs

    out = bytearray(length)
    for padding in range(4):
        with suppress(Exception):  # too long, or ending inside a run
            if len(imagecodecs.packbits_decode(segment[: len(segment) - padding], out=out)) == length:
                return out
        if segment[len(segment) - padding - 1 :][:1] != b"\0":
            break
    raise RefusalError("damaged")


def _jpeg(data: bytes) -> Codestream:
    at, jfif = 2, False
    adobe: Literal["RGB", "YBR"] | None = None
    frame: tuple[int, int, int, int, int] | None = None
    ids, subsampled = b"", False
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if marker == 0xFF:
            at += 1
            continue
        if marker == _APP0 and body[:4] == b"JFIF":
            jfif = True
        elif marker == _APP14 and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = "RGB" if body[11] == 0 else "YBR"
        elif marker in _FRAME_HEADERS:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", body)
            frame = (marker, bits, rows, columns, samples)
            parts = body[6 : 6 + 3 * samples]
            ids, subsampled = parts[::3], len(set(parts[1::3])) > 1
        elif marker == _SOS:
            break
        at += 2 + length
    if frame is None:
        raise RefusalError("damaged")
    marker, bits, rows, columns, samples = frame
    if marker in _ARITHMETIC:
        raise RefusalError("unsupported")
    kind: Compression = "jpeg-ls" if marker == _JPEG_LS else "jpeg lossless" if marker in _LOSSLESS else "jpeg"
    said: Literal["RGB", "YBR"] | None = None
    if samples == 3:
        if ids in _IDS_RGB:
            said = "RGB"
        elif kind == "jpeg":
            # in libjpeg's order; colour with fewer samples than brightness is never RGB
            said = "YBR" if jfif or subsampled else adobe
    return Codestream(kind, rows, columns, samples, bits, colour=said)


def _jpeg_2000(data: bytes) -> Codestream:
    right, bottom, left, top = struct.unpack_from(">4I", data, 8)
    samples = int.from_bytes(data[40:42], "big")
    sizes = data[42 : 42 + 3 * samples]
    depths = set(sizes[::3])
    if len(depths) != 1 or set(sizes[1::3]) | set(sizes[2::3]) != {1}:
        raise RefusalError("unsupported")
    depth = depths.pop()
    at, transformed = 4 + int.from_bytes(data[4:6], "big"), False
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0x90:
        if data[at + 1] == _COD:
            transformed = bool(data[at + 8])
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return Codestream(
        "jpeg 2000",
        bottom - top,
        right - left,
        samples,
        (depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
        colour="RGB" if transformed and samples == 3 else None,
    )
