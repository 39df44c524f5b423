"""Open a DICOM file without trusting its header.

Which encoding a data set has is read from its first bytes, since the transfer syntax in the file meta is at times
another; whether its pixels are compressed is read from where they lie. A header of a few bytes can ask for gigabytes:
a deflated data set is inflated up to a limit, and nothing else is unpacked here.
"""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from retr.retrieval.images.dicom_codec import SYNTAXES, starts_frame
from retr.retrieval.images.dicom_values import RefusalError, whole
from retr.retrieval.images.picture import max_pixels_allowed

if TYPE_CHECKING:
    from pydicom import Dataset

    from retr.retrieval.images.picture import Reading

_IMPLICIT, _EXPLICIT, _DEFLATED, _BIG = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".1.99", ".2"))
_NATIVE = (_IMPLICIT, _EXPLICIT, _DEFLATED, _BIG)
_PIXELS = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}
_UNDEFINED = 0xFFFFFFFF
_ITEM = b"\xfe\xff\x00\xe0"
_BYTES_PER_PIXEL = 3
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_FIRST_GROUPS = frozenset({2, 4, 8, 0x10, 0x18, 0x20, 0x28})
_LONGEST_FIRST_VALUE = 1 << 10


def is_dicom(prefix: bytes) -> bool:
    """Return whether a file that begins with ``prefix`` (132 bytes or more of it) is DICOM.

    Files without the 128-byte preamble begin with a plausible element, and a second behind it, in one of the three
    encodings.
    """
    if prefix[128:132] == b"DICM":
        return True
    return any(_plausible(prefix, explicit, order) for explicit, order in _ENCODINGS)


_ENCODINGS = ((True, "little"), (True, "big"), (False, "little"))


@dataclass(frozen=True)
class Opened:
    """An opened file.

    Attributes
    ----------
    header
        The data set up to its pixels.
    syntax
        Of the file meta, ``""`` where it has none.
    stream, start, length
        Where the pixel element's value lies; what the element says of its length, to the end where it says nothing.
    keyword, representation
        Of the pixel element.
    encapsulated, delimited
        Whether the value is a sequence of fragments, and whether that ends in a delimiter rather than at its length.
    notes
        What was found to be other than the file meta says.
    """

    header: Dataset
    syntax: str
    stream: BinaryIO
    start: int
    length: int
    keyword: str
    representation: str
    little: bool
    encapsulated: bool
    delimited: bool
    notes: list[str] = field(default_factory=list)

    def pixels(self) -> int:
        """Return how many pixels a frame has."""
        return (whole(self.header, "Rows") or 0) * (whole(self.header, "Columns") or 0)

    def extended_offsets(self) -> list[int]:
        """Return the extended offset table, empty where there is none."""
        element = self.header.get_item("ExtendedOffsetTable") if "ExtendedOffsetTable" in self.header else None
        value = None if element is None else element.value
        return np.frombuffer(value[: len(value) // 8 * 8], "<u8").tolist() if isinstance(value, bytes) else []


def open_dataset(stream: BinaryIO, options: Reading) -> Opened:
    """Read the header, and find the pixels.

    Parameters
    ----------
    stream
        Seekable, at the beginning of the file.

    Raises
    ------
    RefusalError
        "no pixels", "unsupported", "too large" or "truncated"; pydicom raises others for bad headers.
    """
    notes: list[str] = []
    stream, header, syntax, (implicit, little) = _header(stream, options.max_pixels, notes)
    found = _pixel_element(stream, header, implicit=implicit, little=little)
    if found is None:
        raise RefusalError("no pixels")
    keyword, representation, start, length = found
    if length == 0:
        raise RefusalError("no pixels")
    if syntax and syntax not in {*_NATIVE, *SYNTAXES}:
        raise RefusalError("unsupported")
    encapsulated = length == _UNDEFINED or _looks_encapsulated(stream, start, syntax)
    delimited = length == _UNDEFINED
    if delimited:
        length = max(0, stream.seek(0, io.SEEK_END) - start)
    if syntax and encapsulated != (syntax in SYNTAXES):
        notes.append(f"pixels are {'compressed' if encapsulated else 'native'}, against the transfer syntax")
    return Opened(
        header, syntax, stream, start, length, keyword, representation, little, encapsulated, delimited, notes
    )


def _looks_encapsulated(stream: BinaryIO, start: int, syntax: str) -> bool:
    """Return whether a value of stated length holds fragments, or a bare codestream, all the same."""
    stream.seek(start)
    begins = stream.read(8)
    if syntax in SYNTAXES:
        return begins[:4] == _ITEM or starts_frame(begins)
    if begins[:4] != _ITEM:
        return False
    # two items where the first says they are, and a codestream in the second, are no native pixels by chance
    stream.seek(int.from_bytes(begins[4:], "little"), io.SEEK_CUR)
    second = stream.read(24)
    return second[:4] == _ITEM and starts_frame(second[8:])


def open_header(stream: BinaryIO) -> Dataset:
    """Read what stands before the pixels; raises as `open_dataset` does."""
    return _header(stream, max_pixels_allowed(), [])[1]


def _header(stream: BinaryIO, max_pixels: int, notes: list[str]) -> tuple[BinaryIO, Dataset, str, tuple[bool, bool]]:
    """Return the stream at the pixels, the data set before them, the transfer syntax, and the encoding in fact."""
    from pydicom.filereader import read_dataset

    syntax = _file_meta(stream)
    stream, implicit, little = _encoding(stream, syntax, max_pixels, notes)
    header = read_dataset(stream, implicit, little, stop_when=lambda tag, _vr, _length: int(tag) in _PIXELS)
    return stream, header, syntax, (implicit, little)


def _file_meta(stream: BinaryIO) -> str:
    """Read up to the data set; return the transfer syntax."""
    from pydicom.filereader import read_dataset

    if stream.read(132)[128:] != b"DICM":
        stream.seek(0)
    start = stream.tell()
    prefix = stream.read(8)
    stream.seek(start)
    syntax = ""
    if prefix[:2] == b"\2\0":
        implicit = prefix[4:6] not in _VRS
        meta = read_dataset(stream, implicit, True, stop_when=lambda tag, _vr, _length: int(tag) >> 16 != 2)
        element = meta.get_item("TransferSyntaxUID") if "TransferSyntaxUID" in meta else None
        if element is not None and isinstance(element.value, bytes):
            syntax = element.value.decode("latin-1").strip(" \0\t\r\n")
    at = stream.tell()
    group = stream.read(2)
    stream.seek(at)
    if group == b"\0\0":  # a command set, as in messages of the network
        read_dataset(stream, True, True, stop_when=lambda tag, _vr, _length: int(tag) >> 16 != 0)
    return syntax


def _encoding(stream: BinaryIO, syntax: str, max_pixels: int, notes: list[str]) -> tuple[BinaryIO, bool, bool]:
    """Return a stream at the beginning of the data set, and whether that is implicit and little-endian."""
    start = stream.tell()
    prefix = stream.read(512)
    stream.seek(start)
    if not prefix:
        raise RefusalError("truncated")
    declared = (syntax == _IMPLICIT, syntax != _BIG)
    order = [(not implicit, "little" if little else "big") for implicit, little in [declared]]
    order += [encoding for encoding in _ENCODINGS if encoding not in order]
    if syntax == _DEFLATED and not any(_plausible(prefix, *encoding) for encoding in order):
        return _inflated(stream, max_pixels), False, True
    # a value that looks like a VR by chance is one of length 16 kB and more: explicit encodings are tried first
    found = next((encoding for encoding in sorted(order, reverse=True) if _plausible(prefix, *encoding)), None)
    if found is None:
        if _plausible(_inflated_prefix(prefix), explicit=True, order="little"):
            notes.append("the data set is deflated, against the transfer syntax")
            return _inflated(stream, max_pixels), False, True
        return stream, *declared
    explicit, byte_order = found
    if syntax and (not explicit, byte_order == "little") != declared:
        notes.append("the data set is encoded otherwise than the transfer syntax says")
    return stream, not explicit, byte_order == "little"


def _plausible(prefix: bytes, explicit: bool, order: Any) -> bool:
    """Return whether bytes begin with an element, and a later one behind it as far as they reach."""
    at, last = 0, (0, 0)
    for number in range(2):
        head = prefix[at : at + 8]
        if len(head) < 8:
            return number > 0 and len(prefix) > 0
        tag = (int.from_bytes(head[:2], order), int.from_bytes(head[2:4], order))
        if tag <= last or (number == 0 and tag[0] not in _FIRST_GROUPS):
            return False
        if explicit:
            if head[4:6] not in _VRS:
                return False
            long = head[4:6] in _LONG_VRS
            length = int.from_bytes(prefix[at + 8 : at + 12] if long else head[6:8], order)
            at += (12 if long else 8) + length
        else:
            length = int.from_bytes(head[4:], order)
            at += 8 + length
        if number == 0 and length > _LONGEST_FIRST_VALUE:
            return False
        if length == _UNDEFINED:
            return True
        last = tag
    return True


def _inflated_prefix(prefix: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(prefix, 512)
    except zlib.error:
        return b""


def _inflated(stream: BinaryIO, max_pixels: int) -> BinaryIO:
    inflater, out = zlib.decompressobj(-zlib.MAX_WBITS), io.BytesIO()
    data = stream.read(1 << 16)
    while data and not inflater.eof:
        out.write(inflater.decompress(data, 1 << 20))
        if out.tell() > max_pixels * _BYTES_PER_PIXEL:
            raise RefusalError("too large")
        data = inflater.unconsumed_tail or stream.read(1 << 16)
    if not inflater.eof:
        raise RefusalError("truncated")
    out.seek(0)
    return out


def _pixel_element(
    stream: BinaryIO, header: Dataset, *, implicit: bool, little: bool
) -> tuple[str, str, int, int] | None:
    """Return keyword, VR, start and length of the pixel element where the stream stands; None where there is none."""
    from pydicom.dataelem import RawDataElement

    order: Any = "little" if little else "big"
    at = stream.tell()
    head = stream.read(12)
    tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)
    if tag in _PIXELS and len(head) >= 8:
        representation = head[4:6].decode("latin-1")
        if implicit or not re.fullmatch("[A-Z]{2}", representation):
            return _PIXELS[tag], "OW", at + 8, int.from_bytes(head[4:8], order)
        if head[4:6] not in _LONG_VRS:
            return _PIXELS[tag], representation, at + 8, int.from_bytes(head[6:8], order)
        if len(head) == 12:
            return _PIXELS[tag], representation, at + 12, int.from_bytes(head[8:], order)
        raise RefusalError("truncated")
    size = stream.seek(0, io.SEEK_END)
    elements = list(header.elements())
    if not elements:
        raise RefusalError("truncated")
    last = max(elements, key=_tell)
    if isinstance(last, RawDataElement) and last.length != _UNDEFINED and last.value_tell + last.length != size:
        raise RefusalError("truncated")
    return None


def _tell(element: Any) -> int:
    return int(getattr(element, "value_tell", None) or getattr(element, "file_tell", None) or 0)
