"""Every transfer syntax that frames can be written in here, with decoders of others for the lossy ones."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.benchmarks.dicom_kinds import COLUMNS, ROWS, Kind, native_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


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


def _jpeg_xl(frame: NDArray[Any], _kind: Kind, bits: int) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpegxl_encode(_unsigned(frame, bits), lossless=True, bitspersample=bits))


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
    Syntax(
        "jpeg xl lossless",
        f"{_BASE}.4.110",
        compress=_jpeg_xl,
        fits=lambda kind: _coded(kind) and "YBR" not in kind.photometric,
    ),
    Syntax("htj2k lossless", f"{_BASE}.4.201", compress=_ht, fits=_coded),
    Syntax("htj2k", f"{_BASE}.4.203", compress=partial(_ht, reversible=False), decode=_by_openjph, fits=_eight),
]
SYNTAXES = {syntax.name: syntax for syntax in _SYNTAXES}
