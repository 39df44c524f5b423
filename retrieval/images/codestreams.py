"""What an encoded picture says of itself before it is decoded: JPEG, JPEG-LS, JPEG 2000, JPEG XL, PNG, WebP, LERC.

A header of a few bytes can ask for gigabytes, and imagecodecs gives a decoder as much as its stream asks for. So the
size is read here first, whether the stream is a file of its own or a tile of a TIFF.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

# SOF markers of JPEG (without DHT, JPG and DAC, which lie between them) and of JPEG-LS
_FRAME_HEADERS = (set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}
_JPEG2000_BOX, _JPEG2000_SIZE = b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"
_JPEGXL_BOX, _JPEGXL = b"\0\0\0\x0cJXL ", b"\xff\x0a"
_JPEGXL_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


class UnknownStreamError(Exception):
    """The stream is of no kind that is known here, ends early, or uses what is not read."""


class EndsEarlyError(UnknownStreamError):
    """The bytes end before the stream says of what size it is."""


@dataclass(frozen=True)
class StreamHeader:
    """What a stream says of its picture.

    Attributes
    ----------
    kind
        ``"jpeg"``, ``"jpegls"``, ``"jpeg2000"``, ``"jpegxl"``, ``"png"``, ``"webp"`` or ``"lerc"``.
    width, height
        Pixels.
    samples
        Samples a pixel; of JPEG XL, an upper bound.
    bits
        Significant bits a sample, 0 where the stream does not say.
    marker
        JPEG's and JPEG-LS's kind of frame (``0xC3``: lossless), else 0.
    signed
        Whether samples of JPEG 2000 are.
    """

    kind: str
    width: int
    height: int
    samples: int
    bits: int
    marker: int = 0
    signed: bool = False


def stream_header(data: bytes) -> StreamHeader:
    """Read the header of an encoded picture.

    Raises
    ------
    UnknownStreamError
        It is of another kind, or ends before it says (`EndsEarlyError`).

    Examples
    --------
    >>> stream_header(bytes.fromhex("ffd8 ffc1000b 0c 0010 0020 01 011100"))
    StreamHeader(kind='jpeg', width=32, height=16, samples=1, bits=12, marker=193, signed=False)
    """
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg(data)
        if data[:8] == _JPEG2000_BOX or data[:4] == _JPEG2000_SIZE:
            return _jpeg2000(data)
        if data[:8] == _JPEGXL_BOX or data[:2] == _JPEGXL:
            return _jpegxl(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
            return StreamHeader("png", width, height, {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour], bits)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:6] == b"Lerc2 ":
            return _lerc(data)
    except (struct.error, IndexError):
        raise EndsEarlyError from None
    except (KeyError, ValueError):
        pass
    raise UnknownStreamError


def _jpeg(data: bytes) -> StreamHeader:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAME_HEADERS:
            bits, height, width, samples = struct.unpack_from(">BHHB", data, at + 4)
            return StreamHeader("jpegls" if marker == 0xF7 else "jpeg", width, height, samples, bits, marker)
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError


def _jpeg2000(data: bytes) -> StreamHeader:
    start = data.index(_JPEG2000_SIZE)  # behind the boxes, where it comes as a JP2 file
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    (samples,) = struct.unpack_from(">H", data, start + 40)
    depths = [data[start + 42 + 3 * sample] for sample in range(samples)]
    bits, signed = max((depth & 0x7F) + 1 for depth in depths), any(depth & 0x80 for depth in depths)
    return StreamHeader("jpeg2000", right - left, bottom - top, samples, bits, signed=signed)


def _webp(data: bytes) -> StreamHeader:
    kind, alpha = data[12:16], 4
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        packed = int.from_bytes(data[21:25], "little")
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    else:
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    return StreamHeader("webp", width, height, alpha, 8)


def _lerc(data: bytes) -> StreamHeader:
    (version,) = struct.unpack_from("<i", data, 6)
    at = 10 + (4 if version >= 3 else 0)
    height, width = struct.unpack_from("<ii", data, at)
    samples = struct.unpack_from("<i", data, at + 8)[0] if version >= 4 else 1
    if min(width, height, samples) < 1:
        raise ValueError
    return StreamHeader("lerc", width, height, samples, 0)


class _Bits:
    """Bits of a JPEG XL codestream, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._data = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError
        value = self._data & ((1 << count) - 1)
        self._data >>= count
        return value

    def choice(self, *ways: tuple[int, int]) -> int:
        """Read a number that is told in one of four ways: an offset, and how many bits to add."""
        offset, count = ways[self.take(2)]
        return offset + self.take(count)


def _jpegxl(data: bytes) -> StreamHeader:
    bits = _Bits(_jpegxl_start(data))
    width, height = _jpegxl_size(bits)
    depth, extra = 8, 0
    if not bits.take(1):  # the rest is not all by default
        if bits.take(1):
            bits.take(3)  # orientation
            if bits.take(1):
                _jpegxl_size(bits)
            if bits.take(1) or bits.take(1):  # a preview, or an animation
                raise ValueError
        depth = _jpegxl_depth(bits)
        bits.take(1)
        extra = bits.choice((0, 0), (1, 0), (2, 4), (1, 12))
        # an extra channel is alpha by default; of others (black, depth, a spot colour) the meaning would be lost
        if extra > 1 or (extra and not bits.take(1) and bits.choice((0, 0), (1, 0), (2, 4), (18, 6))):
            raise ValueError
    return StreamHeader("jpegxl", width, height, 3 + extra, depth)


def _jpegxl_start(data: bytes) -> bytes:
    if data[:2] == _JPEGXL:
        return data[2:66]
    at = 0
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        begin = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, begin)
            begin += 8
        if kind in {b"jxlc", b"jxlp"}:
            begin += 4 if kind == b"jxlp" else 0  # its number
            if data[begin : begin + 2] != _JPEGXL[: len(data) - begin]:
                raise ValueError
            return data[begin + 2 : begin + 66]
        if length < 8:
            raise ValueError
        at += length


def _jpegxl_size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        return 8 * (bits.take(5) + 1) if small else bits.choice((1, 9), (1, 13), (1, 18), (1, 30))

    height = side()
    ratio = _JPEGXL_RATIOS[bits.take(3)]
    return (side() if ratio is None else height * ratio[0] // ratio[1]), height


def _jpegxl_depth(bits: _Bits) -> int:
    """Return the bits of a sample; 0 for floats."""
    if bits.take(1):
        bits.choice((32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
        return 0
    return bits.choice((8, 0), (10, 0), (12, 0), (1, 6))
