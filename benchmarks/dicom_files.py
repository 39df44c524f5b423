"""DICOM files made of arrays: pixels of many kinds, written in every transfer syntax that can be written here."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.benchmarks.dicom_kinds import native_bytes
from retr.benchmarks.dicom_syntaxes import SYNTAXES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

    from retr.benchmarks.dicom_kinds import Kind
    from retr.benchmarks.dicom_syntaxes import Syntax
    from retr.benchmarks.dicom_variants import Fault


def written(data: Dataset, kind: Kind, cells: NDArray[Any]) -> bytes:
    """Return a file in Explicit VR Little Endian: what pydicom reads without any decoder."""
    body = native_bytes(cells, kind, planar=data.get("PlanarConfiguration") == 1)
    return _saved(data, kind, body, SYNTAXES["explicit"])


def encoded(data: Dataset, kind: Kind, cells: NDArray[Any], syntax: Syntax, fault: Fault) -> bytes:
    """Return a file in one transfer syntax with one fault."""
    cells = fault.cells(cells, kind)
    if syntax.compress is None:
        planar = data.get("PlanarConfiguration") == 1
        body = native_bytes(cells, kind, planar=planar, order="<" if syntax.little else ">")
    else:
        body = _encapsulated(data, codestreams(kind, cells, syntax, fault), syntax)
        if syntax.decode is not None and kind.samples > 1:
            data.PhotometricInterpretation = "RGB" if "rgb" in syntax.name else "YBR_FULL_422"
    fault.spoil(data, kind)
    return _saved(data, kind, body, syntax)


def codestreams(kind: Kind, cells: NDArray[Any], syntax: Syntax, fault: Fault) -> list[bytes]:
    """Return the compressed frames of a file."""
    assert syntax.compress is not None
    return [syntax.compress(frame, kind, kind.allocated if fault.whole_cells else kind.stored) for frame in cells]


def _encapsulated(data: Dataset, frames: list[bytes], syntax: Syntax) -> bytes:
    from pydicom.encaps import encapsulate, encapsulate_extended

    if syntax.fragments == "extended":
        body, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = encapsulate_extended(frames)
        return bytes(body)
    pieces = 2 if syntax.fragments == "two" else 1
    return bytes(encapsulate(frames, fragments_per_frame=pieces, has_bot=syntax.fragments != "no table"))


def _saved(data: Dataset, kind: Kind, body: bytes, syntax: Syntax) -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = syntax.implicit, syntax.little
    keyword = "FloatPixelData" if kind.photometric == "FLOAT" else "PixelData"
    data.add_new(keyword, "OF" if kind.photometric == "FLOAT" else "OW" if kind.allocated > 8 else "OB", body)
    if syntax.compress is not None:
        data[keyword].VR, data[keyword].is_undefined_length = "OB", True
    if not syntax.little:
        _swap_words(data)
    write_dataset(stream, data)
    content: bytes = stream.getvalue()
    if syntax.name == "deflated":
        made = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        content = made.compress(content) + made.flush()
    uid = syntax.uid.encode() + b"\0" * (len(syntax.uid) % 2)
    meta = b"\2\0\x10\0UI" + struct.pack("<H", len(uid)) + uid
    length = b"\2\0\0\0UL\4\0" + struct.pack("<I", len(meta))
    return b"".join([bytes(128), b"DICM", length, meta, content])


def _swap_words(data: Dataset) -> None:
    for colour in ("Red", "Green", "Blue"):
        keyword = f"{colour}PaletteColorLookupTableData"
        if keyword in data:
            data[keyword].value = np.frombuffer(data[keyword].value, "<u2").astype(">u2").tobytes()
