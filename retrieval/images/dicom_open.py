"""Opening a DICOM file without believing it.

A header of a few bytes can ask for gigabytes: a deflated data set, a JPEG or JPEG 2000 codestream larger than
Rows and Columns say, a segmented palette that expands without end. Each is measured here before a decoder
sees it.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from retr.retrieval.images.picture import Options, max_pixels_allowed, read_error

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"
_PALETTE_ENTRIES = 2 << 16  # entries and segments together
_BYTES_PER_PIXEL = 3
# how the first element of a file without preamble can be encoded
_FIRST_VRS = (b"UL", b"CS", b"UI", b"DA", b"TM", b"OB", b"SH", b"LO")
_LONGEST_FIRST_VALUE = 64
_INDIRECT, _NESTED_SEGMENTS = 2, 3
_TAIL_BYTES = 1 << 16
# SOF markers of JPEG (without DHT, JPG and DAC, which lie between them) and of JPEG-LS
_FRAME_HEADERS = (set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}


def is_dicom(prefix: bytes) -> bool:
    """Say whether a file that begins with ``prefix`` (132 bytes or more of it) is DICOM.

    Files without the 128-byte preamble begin with an element of group 2 or 8, in either byte order.
    """
    if prefix[128:132] == b"DICM":
        return True
    group, element, rest = prefix[0:2], prefix[2:4], prefix[4:8]
    explicit = rest[:2] in _FIRST_VRS
    if group in {b"\2\0", b"\x08\0"} and element[1:] == b"\0":
        return explicit or (len(rest) == 4 and int.from_bytes(rest, "little") <= _LONGEST_FIRST_VALUE)
    return group == b"\0\x08" and element[:1] == b"\0" and explicit


def open_dataset(stream: BinaryIO, options: Options) -> tuple[Dataset, bool]:
    """Read the header, and what is compressed with it.

    Parameters
    ----------
    stream
        Seekable, at the beginning of the file.

    Returns
    -------
    tuple
        The data set, with a transfer syntax in its file meta; and whether the pixels are still in the file
        (native) or in the data set.

    Raises
    ------
    ImageReadError
        With reason "no pixels", "truncated", "too large" or "damaged"; pydicom raises others for bad headers.
    """
    from pydicom import dcmread
    from pydicom.uid import DeflatedExplicitVRLittleEndian as Deflated

    _check_deflated(stream, options)
    header = _header(stream)
    syntax = header.file_meta.TransferSyntaxUID
    if "Rows" not in header:
        raise read_error("no pixels", options.name)
    native = not (syntax == Deflated or syntax.is_encapsulated)
    if native:
        has_pixels = len(stream.read(4)) == 4
    else:
        stream.seek(0)
        header = dcmread(stream, force=True)
        has_pixels = any(header.get(keyword) for keyword in _PIXELS)
    stream.seek(0)
    if not has_pixels:
        raise read_error("truncated", options.name)
    rows, columns = int(header.Rows), int(header.Columns)
    if rows < 1 or columns < 1:
        raise read_error("damaged", options.name)
    if rows * columns > options.max_pixels:
        raise read_error("too large", options.name)
    if syntax.is_encapsulated:
        _check_codestreams(header, options)
    _check_palettes(header, options)
    return header, native


def open_header(stream: BinaryIO) -> Dataset:
    """Read what stands before the pixels; raises as `open_dataset` does."""
    _check_deflated(stream, Options(None, None, "minmax", max_pixels_allowed(), False, None, "axial", None))
    return _header(stream)


def is_cut(stream: BinaryIO) -> bool:
    """Say of a file that could not be read whether it ends before its pixels do."""
    try:
        stream.seek(0)
        header = _header(stream)
        at = stream.tell()
        left = stream.seek(0, io.SEEK_END) - at
        if header.file_meta.TransferSyntaxUID.is_encapsulated:
            stream.seek(max(at, at + left - _TAIL_BYTES))
            return _SEQUENCE_END not in stream.read()
        bits = int(header.Rows) * int(header.Columns) * int(header.BitsAllocated)
        samples = int(header.get("SamplesPerPixel") or 1) * int(header.get("NumberOfFrames") or 1)
        if header.PhotometricInterpretation == "YBR_FULL_422":
            bits = bits * 2 // 3
        return left < bits * samples // 8
    except Exception:  # noqa: BLE001 - of a header that cannot be read, only where the reading stopped is known
        return stream.tell() >= stream.seek(0, io.SEEK_END)


def without_embedded_overlay(frame: NDArray[Any], header: Dataset) -> NDArray[Any]:
    """Clear the bits above the stored ones where old files keep overlays in them."""
    stored = int(header.get("BitsStored") or 0)
    embedded = any(element.value for element in header.group_dataset(0x6000) if element.keyword == "OverlayBitPosition")
    if not embedded or frame.dtype.kind not in "iu" or not 0 < stored < frame.dtype.itemsize * 8:
        return frame
    unused = frame.dtype.itemsize * 8 - stored
    # shifted up and down again: the sign of signed values follows
    return (frame << unused) >> unused


def _header(stream: BinaryIO) -> Dataset:
    """Read up to the pixels; a file without file meta gets the native transfer syntax it was read as."""
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    header = dcmread(stream, stop_before_pixels=True, force=True)
    if not header.file_meta.get("TransferSyntaxUID"):
        implicit, little = header.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return header


def _check_deflated(stream: BinaryIO, options: Options) -> None:
    from pydicom.filereader import _read_file_meta_info, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian as Deflated

    read_preamble(stream, force=True)
    meta = _read_file_meta_info(stream)
    if meta.get("TransferSyntaxUID") == Deflated:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        left = options.max_pixels * _BYTES_PER_PIXEL
        data = stream.read(1 << 16)
        while data and not inflater.eof:
            left -= len(inflater.decompress(data, 1 << 20))
            if left < 0:
                raise read_error("too large", options.name)
            data = inflater.unconsumed_tail or stream.read(1 << 16)
    stream.seek(0)


def _check_codestreams(header: Dataset, options: Options) -> None:
    from pydicom.encaps import generate_frames

    size = (int(header.Rows), int(header.Columns))
    count = int(header.get("NumberOfFrames") or 1)
    for position, frame in enumerate(generate_frames(header.PixelData, number_of_frames=count)):
        wanted = position % (options.every or 1) == 0
        if wanted and codestream_size(frame) not in {None, size}:
            raise read_error("damaged", options.name)
        if options.every is None:
            break


def codestream_size(data: bytes) -> tuple[int, int] | None:
    """Give (rows, columns) as a JPEG, JPEG-LS or JPEG 2000 codestream says itself; None for others (RLE).

    Examples
    --------
    >>> codestream_size(bytes.fromhex("ffd8 ffc0000b 08 0010 0020 01 011100"))
    (16, 32)
    """
    start = data.find(b"\xff\x4f\xff\x51")  # behind the boxes, where it comes as a JP2 file
    if start >= 0 and data[:2] != b"\xff\xd8":
        right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
        return bottom - top, right - left
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAME_HEADERS:
            return struct.unpack_from(">HH", data, at + 5)
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _check_palettes(header: Dataset, options: Options) -> None:
    for colour in ("Red", "Green", "Blue", "Alpha"):
        segments = header.get(f"Segmented{colour}PaletteColorLookupTableData")
        if segments:
            wide = int(header[f"{colour}PaletteColorLookupTableDescriptor"].value[2]) > 8
            order = "<" if header.file_meta.TransferSyntaxUID.is_little_endian else ">"
            words = np.frombuffer(segments[: len(segments) // 2 * 2], f"{order}u2" if wide else np.uint8)
            if _budget_after(words, -1, _PALETTE_ENTRIES) < 0:
                raise read_error("damaged", options.name)


def _budget_after(words: NDArray[Any], count: int, budget: int, depth: int = 0) -> int:
    """Take from ``budget`` one for each entry and segment that ``count`` (-1: all) segments expand to."""
    at = 0
    while at + 1 < len(words) and count != 0 and budget >= 0:
        kind, length = int(words[at]), int(words[at + 1])
        at += 2
        count -= 1
        if kind != _INDIRECT:
            budget -= 1 + length
            at += length if kind == 0 else 1
        elif depth > _NESTED_SEGMENTS:
            return -1
        else:  # repeats `length` segments from an earlier place
            wide = words.itemsize > 1
            address = words[at : at + (2 if wide else 4)].tobytes()
            offset = int.from_bytes(address, "little" if words.dtype.isnative else "big")
            at += 2 if wide else 4
            budget = _budget_after(words[offset:], length, budget - 1, depth + 1)
    return budget
