"""DICOM files made of arrays: pixels of many kinds, written in every transfer syntax that can be written here."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from pydicom import Dataset

    from retr.benchmarks.dicom_variants import Fault

ROWS, COLUMNS = 12, 18


@dataclass(frozen=True)
class Kind:
    """Pixels of one kind: how many samples, how they are stored, of how many frames."""

    name: str
    photometric: str
    allocated: int = 8
    stored: int = 8
    signed: bool = False
    samples: int = 1
    frames: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def is_grey(self) -> bool:
        """Whether pixels are MONOCHROME1 or MONOCHROME2."""
        return self.photometric.startswith("MONO")

    def cells(self) -> NDArray[Any]:
        """Return the values: ``(frames, rows, columns)`` or with three samples behind."""
        return _cells(self.stored, self.allocated, self.signed, self.samples, self.frames, self.photometric)


@lru_cache(maxsize=64)
def _cells(stored: int, allocated: int, signed: bool, samples: int, frames: int, photometric: str) -> NDArray[Any]:
    rng = np.random.default_rng([stored, allocated, samples, frames])
    shape = (frames, ROWS, COLUMNS, *([samples] if samples > 1 else []))
    if stored == 32 and allocated == 32 and photometric == "FLOAT":
        return rng.normal(0, 100, shape).astype(np.float32)
    low = -(1 << (stored - 1)) if signed else 0
    high = low + (1 << stored)
    values = rng.integers(low, high, shape)
    # smooth in part: half of the picture is a ramp over the whole range
    ramp = np.linspace(low, high - 1, ROWS * COLUMNS).astype(np.int64).reshape(ROWS, COLUMNS)
    values[:, :, : COLUMNS // 2] = (ramp[..., None] if samples > 1 else ramp)[:, : COLUMNS // 2]
    if photometric.startswith("YBR"):
        from pydicom.pixels.processing import convert_color_space

        values = convert_color_space(values.astype(np.uint8), "RGB", "YBR_FULL").copy()
    if photometric == "YBR_FULL_422":
        values[:, :, 1::2, 1:] = values[:, :, ::2, 1:]
    return values.astype(f"{'i' if signed else 'u'}{max(8, allocated) // 8}")


def _grey(name: str, stored: int, allocated: int, **more: Any) -> list[Kind]:
    return [
        Kind(f"{name}, {photometric.lower()}", photometric, allocated, stored, **more)
        for photometric in ("MONOCHROME2", "MONOCHROME1")
    ]


_ALL = [
    Kind("grey 1", "MONOCHROME2", 1, 1, frames=3),
    *(
        kind
        for stored, allocated in ((8, 8), (8, 16), (10, 16), (12, 16), (15, 16), (16, 16))
        for signed in (False, True)
        for kind in _grey(
            f"grey {stored} in {allocated}{' signed' if signed else ''}", stored, allocated, signed=signed
        )
    ),
    Kind("grey 12 in 16, frames", "MONOCHROME2", 16, 12, frames=3),
    Kind("grey 12 in 16 signed, frames", "MONOCHROME2", 16, 12, signed=True, frames=3),
    Kind("grey 20 in 32", "MONOCHROME2", 32, 20),
    Kind("grey 32 signed", "MONOCHROME2", 32, 32, signed=True),
    Kind("float", "FLOAT", 32, 32),
    Kind("palette 8", "PALETTE COLOR"),
    Kind("palette 8 signed", "PALETTE COLOR", signed=True),
    Kind("palette 12 in 16", "PALETTE COLOR", 16, 12),
    Kind("rgb", "RGB", samples=3),
    Kind("rgb, frames", "RGB", samples=3, frames=2),
    Kind("rgb, planar", "RGB", samples=3, attributes={"PlanarConfiguration": 1}),
    Kind("rgb 16", "RGB", 16, 16, samples=3),
    Kind("rgb 12 in 16", "RGB", 16, 12, samples=3),
    Kind("ybr full", "YBR_FULL", samples=3),
    Kind("ybr full 422", "YBR_FULL_422", samples=3),
]
KINDS = {kind.name: kind for kind in _ALL}


def plain(kind: Kind) -> Dataset:
    """Return a data set for pixels of this kind, without the pixels."""
    from pydicom import Dataset

    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"
    data.SamplesPerPixel = kind.samples
    data.PhotometricInterpretation = "MONOCHROME2" if kind.photometric == "FLOAT" else kind.photometric
    if kind.samples > 1:
        data.PlanarConfiguration = 0
    if kind.frames > 1:
        data.NumberOfFrames = kind.frames
    data.Rows, data.Columns, data.BitsAllocated = ROWS, COLUMNS, kind.allocated
    if kind.photometric != "FLOAT":
        data.BitsStored, data.HighBit, data.PixelRepresentation = kind.stored, kind.stored - 1, int(kind.signed)
    for keyword, value in kind.attributes.items():
        setattr(data, keyword, value)
    if kind.photometric == "PALETTE COLOR":
        _add_palette(data, kind)
    return data


def _add_palette(data: Dataset, kind: Kind) -> None:
    count = 1 << min(kind.stored, 10)
    first = -(1 << (kind.stored - 1)) if kind.signed else 0
    rng = np.random.default_rng(count)
    for colour in ("Red", "Green", "Blue"):
        table = rng.integers(0, 1 << 16, count).astype("<u2")
        table[0] = 0xFFFF
        data.add_new(f"{colour}PaletteColorLookupTableDescriptor", "SS" if kind.signed else "US", [count, first, 16])
        data.add_new(f"{colour}PaletteColorLookupTableData", "OW", table.tobytes())


def native_bytes(cells: NDArray[Any], kind: Kind, *, planar: bool, order: Literal["<", ">"] = "<") -> bytes:
    """Return the value of the pixel element for native transfer syntaxes."""
    if kind.allocated == 1:
        body = np.packbits(cells.astype(np.uint8).ravel(), bitorder="little").tobytes()
    elif kind.photometric == "YBR_FULL_422":
        pairs = np.concatenate(
            [cells[..., 0].reshape(*cells.shape[:2], -1, 2), cells[:, :, ::2, 1:]],
            axis=-1,
        )
        body = pairs.astype(np.uint8).tobytes()
    else:
        if planar:
            cells = cells.transpose(0, 3, 1, 2)
        body = cells.astype(cells.dtype.newbyteorder(order)).tobytes()
    return body + b"\0" * (len(body) % 2)


@dataclass(frozen=True)
class Syntax:
    """A transfer syntax: what the file meta says, how the data set is written, how a frame is compressed.

    ``compress`` makes a codestream of one frame with so many bits a sample; ``decode`` is another decoder than the
    reader's, for lossy codestreams.
    """

    name: str
    uid: str
    implicit: bool = False
    little: bool = True
    compress: Callable[[NDArray[Any], Kind, int], bytes] | None = None
    decode: Callable[[bytes, Kind], NDArray[Any]] | None = None
    fits: Callable[[Kind], bool] = lambda _kind: True
    fragments: str = "one"


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


# -- codestreams -------------------------------------------------------------------------------------------------


def _unsigned(frame: NDArray[Any], bits: int) -> NDArray[Any]:
    return (frame.astype(np.int64) & ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def _rle(frame: NDArray[Any], kind: Kind, _bits: int) -> bytes:
    import imagecodecs

    segments = []
    for sample in np.moveaxis(frame.reshape(ROWS, COLUMNS, -1), -1, 0):
        planes = np.ascontiguousarray(sample).view(np.uint8).reshape(-1, kind.allocated // 8)
        segments += [bytes(imagecodecs.packbits_encode(plane.tobytes())) for plane in planes.T[::-1]]
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    starts = np.cumsum([64, *(len(segment) for segment in segments[:-1])])
    header = struct.pack(f"<{1 + len(starts)}I", len(starts), *starts)
    return header.ljust(64, b"\0") + b"".join(segments)


def _jpeg_lossless(frame: NDArray[Any], kind: Kind, bits: int, predictor: int = 1) -> bytes:
    import imagecodecs

    space = ("RGB" if kind.photometric == "RGB" else "YCBCR") if frame.ndim == 3 else None
    values = _unsigned(frame, bits)
    made = bytearray(
        imagecodecs.jpeg8_encode(
            values, lossless=True, predictor=predictor, bitspersample=bits, colorspace=space, outcolorspace=space
        )
    )
    if space == "YCBCR":  # libjpeg-turbo 3.1 codes Cb and Cr by the second table and forgets to say so
        scan = made.index(b"\xff\xda")
        made[scan + 8] = made[scan + 10] = 0x10
    return bytes(made)


def _jpeg(frame: NDArray[Any], kind: Kind, bits: int, how: str = "") -> bytes:
    import imagecodecs

    if bits > 8 or kind.samples == 1:
        return bytes(imagecodecs.jpeg8_encode(_unsigned(frame, bits), level=95, bitspersample=bits))
    if how == "subsampled":
        return bytes(imagecodecs.jpeg8_encode(frame, level=95, subsampling="422"))
    data = bytes(imagecodecs.jpeg8_encode(frame, level=95, colorspace="RGB", outcolorspace="RGB"))
    if how == "adobe":
        return data
    at = data.index(b"\xff\xee")  # Adobe's marker, which says that colours are RGB
    data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    if how == "ids":
        return data
    for marker, place, step in ((b"\xff\xc0", 10, 3), (b"\xff\xda", 5, 2)):  # components R, G, B become 1, 2, 3
        at = data.index(marker)
        for number in range(3):
            where = at + place + number * step
            data = data[:where] + bytes([number + 1]) + data[where + 1 :]
    return data


def _jpeg_ls(frame: NDArray[Any], _kind: Kind, bits: int, near: int = 0) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpegls_encode(_unsigned(frame, bits), level=near))


def _jpeg_2000(
    frame: NDArray[Any], kind: Kind, bits: int, *, level: int = 0, mct: bool = True, unsigned: bool = False
) -> bytes:
    import imagecodecs

    values = _unsigned(frame, bits) if unsigned or not kind.signed else frame.astype(np.int8 if bits <= 8 else np.int16)
    made = imagecodecs.jpeg2k_encode(
        values,
        level=level,
        codecformat="j2k",
        reversible=not level,
        bitspersample=bits,
        mct=mct and kind.photometric == "RGB",
        resolutions=2,
    )
    return bytes(made)


def _ht(frame: NDArray[Any], kind: Kind, bits: int, *, reversible: bool = True) -> bytes:
    import imagecodecs

    values = frame if kind.signed else _unsigned(frame, bits)
    colour = kind.photometric == "RGB"
    level = None if reversible else 0.01
    return bytes(imagecodecs.htj2k_encode(values, level, reversible=reversible, rgb=colour, resolutions=2))


def _deflated(frame: NDArray[Any], kind: Kind, _bits: int) -> bytes:
    made = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return made.compress(_uncompressed(frame, kind, 0)) + made.flush()


def _uncompressed(frame: NDArray[Any], kind: Kind, _bits: int) -> bytes:
    return native_bytes(frame[None], kind, planar=False)


# -- other decoders than the reader's ------------------------------------------------------------------------------


def _by_pillow(data: bytes, kind: Kind, *, ybr: bool = False, said: bool = False) -> NDArray[Any]:
    from PIL import Image
    from pydicom.pixels.processing import convert_color_space

    image = Image.open(io.BytesIO(data))
    if kind.samples > 1 and not said:
        image.draft("YCbCr", image.size)  # as they are
    values = np.asarray(image)
    return convert_color_space(values, "YBR_FULL", "RGB") if ybr else values


def _by_gdcm(data: bytes, kind: Kind, *, uid: str) -> NDArray[Any]:
    import gdcm

    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(data)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((COLUMNS, ROWS, 1))
    image.SetDataElement(element)
    name = gdcm.PhotometricInterpretation.GetPIType(kind.photometric)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(name))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(uid)))
    image.SetPixelFormat(gdcm.PixelFormat(kind.samples, kind.allocated, kind.stored, kind.stored - 1, int(kind.signed)))
    body = image.GetBuffer().encode("utf-8", "surrogateescape")
    shape = (ROWS, COLUMNS, *([kind.samples] if kind.samples > 1 else []))
    return np.frombuffer(body, f"<{'i' if kind.signed else 'u'}{kind.allocated // 8}").reshape(shape)


def _by_openjph(data: bytes, _kind: Kind) -> NDArray[Any]:
    import imagecodecs

    return np.asarray(imagecodecs.htj2k_decode(data))


def _up_to_16(kind: Kind) -> bool:
    return 8 <= kind.stored <= 16 and kind.photometric not in {"FLOAT", "YBR_FULL_422"} and kind.allocated <= 16


def _coded(kind: Kind) -> bool:
    return _up_to_16(kind) and "planar" not in kind.name and (kind.samples == 1 or kind.stored in {8, 16})


def _eight(kind: Kind) -> bool:
    return kind.stored == kind.allocated == 8 and not kind.signed and kind.samples == 1


def _plain_rgb(kind: Kind) -> bool:
    return kind.name in {"rgb", "rgb, frames"}


def _whole_bytes(kind: Kind) -> bool:
    other = kind.photometric in {"FLOAT", "YBR_FULL_422"} or "planar" in kind.name
    return kind.allocated in {8, 16, 32} and not other


def _deflatable(kind: Kind) -> bool:
    return kind.allocated == 1 or _whole_bytes(kind)


_BASE = "1.2.840.10008.1.2"
_BASELINE, _EXTENDED = f"{_BASE}.4.50", f"{_BASE}.4.51"


def _twelve(kind: Kind) -> bool:
    return kind.stored == 12 and kind.samples == 1 and not kind.signed and kind.is_grey


def _grey_bytes(kind: Kind) -> bool:
    return kind.is_grey and kind.stored in {8, 16} and kind.stored == kind.allocated and not kind.signed


_SYNTAXES = [
    Syntax("implicit", _BASE, implicit=True),
    Syntax("explicit", f"{_BASE}.1"),
    Syntax("big endian", f"{_BASE}.2", little=False),
    Syntax("deflated", f"{_BASE}.1.99"),
    Syntax("meta implicit, data explicit", _BASE),
    Syntax("meta explicit, data implicit", f"{_BASE}.1", implicit=True),
    Syntax("meta big endian, data little", f"{_BASE}.2"),
    Syntax("meta little endian, data big", f"{_BASE}.1", little=False),
    Syntax("meta deflated, data plain", f"{_BASE}.1.99"),
    Syntax("meta jpeg, data native", f"{_BASE}.4.70"),
    Syntax("encapsulated uncompressed", f"{_BASE}.1.98", compress=_uncompressed, fits=_whole_bytes),
    Syntax(
        "deflated frames",
        f"{_BASE}.8.1",
        compress=_deflated,
        fits=_deflatable,
    ),
    Syntax("rle", f"{_BASE}.5", compress=_rle, fits=_whole_bytes),
    Syntax("rle, no table", f"{_BASE}.5", compress=_rle, fits=_whole_bytes, fragments="no table"),
    Syntax("rle, extended table", f"{_BASE}.5", compress=_rle, fits=_whole_bytes, fragments="extended"),
    Syntax("jpeg baseline", _BASELINE, compress=_jpeg, decode=_by_pillow, fits=_eight),
    Syntax(
        "jpeg baseline, ybr",
        _BASELINE,
        compress=partial(_jpeg, how="subsampled"),
        decode=partial(_by_pillow, ybr=True),
        fits=_plain_rgb,
    ),
    Syntax("jpeg baseline, rgb", _BASELINE, compress=_jpeg, decode=_by_pillow, fits=_plain_rgb),
    Syntax(
        "jpeg baseline, rgb by Adobe",
        _BASELINE,
        compress=partial(_jpeg, how="adobe"),
        decode=partial(_by_pillow, said=True),
        fits=_plain_rgb,
    ),
    Syntax(
        "jpeg baseline, rgb by component",
        _BASELINE,
        compress=partial(_jpeg, how="ids"),
        decode=partial(_by_pillow, said=True),
        fits=_plain_rgb,
    ),
    Syntax("jpeg extended", _EXTENDED, compress=_jpeg, decode=partial(_by_gdcm, uid=_EXTENDED), fits=_twelve),
    Syntax("jpeg lossless", f"{_BASE}.4.57", compress=partial(_jpeg_lossless, predictor=6), fits=_coded),
    Syntax("jpeg lossless sv1", f"{_BASE}.4.70", compress=_jpeg_lossless, fits=_coded),
    Syntax("jpeg lossless sv1, two fragments", f"{_BASE}.4.70", compress=_jpeg_lossless, fits=_coded, fragments="two"),
    Syntax("meta explicit, data jpeg lossless", f"{_BASE}.1", compress=_jpeg_lossless, fits=_coded),
    Syntax("jpeg-ls", f"{_BASE}.4.80", compress=_jpeg_ls, fits=_coded),
    Syntax("jpeg-ls, no table", f"{_BASE}.4.80", compress=_jpeg_ls, fits=_coded, fragments="no table"),
    Syntax(
        "jpeg-ls near",
        f"{_BASE}.4.81",
        compress=partial(_jpeg_ls, near=2),
        decode=partial(_by_gdcm, uid=f"{_BASE}.4.81"),
        fits=_grey_bytes,
    ),
    Syntax("jpeg 2000 lossless", f"{_BASE}.4.90", compress=_jpeg_2000, fits=_coded),
    Syntax("jpeg 2000 lossless, unsigned", f"{_BASE}.4.90", compress=partial(_jpeg_2000, unsigned=True), fits=_coded),
    Syntax(
        "jpeg 2000 lossless, no transform", f"{_BASE}.4.90", compress=partial(_jpeg_2000, mct=False), fits=_plain_rgb
    ),
    Syntax("meta jpeg-ls, data jpeg 2000", f"{_BASE}.4.80", compress=_jpeg_2000, fits=_coded),
    Syntax(
        "jpeg 2000",
        f"{_BASE}.4.91",
        compress=partial(_jpeg_2000, level=40),
        decode=partial(_by_gdcm, uid=f"{_BASE}.4.91"),
        fits=_grey_bytes,
    ),
    Syntax("htj2k lossless", f"{_BASE}.4.201", compress=_ht, fits=_coded),
    Syntax("htj2k", f"{_BASE}.4.203", compress=partial(_ht, reversible=False), decode=_by_openjph, fits=_eight),
]
SYNTAXES = {syntax.name: syntax for syntax in _SYNTAXES}
