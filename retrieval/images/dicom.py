"""DICOM (extra ``dicom``): what a radiologist's viewer shows, as 8-bit RGB.

Grey goes through modality LUT or rescale, then VOI LUT or window, then the inversion of MONOCHROME1, in that
order:

* of several windows or VOI LUTs the first that can be used is taken;
* without any, up to 8 stored bits are shown as they are, and deeper ones through a window over nearly all of
  the picture's own values, which is said in ``notes["window"]``.

Colour (RGB, YBR_FULL, YBR_FULL_422, YBR_ICT, YBR_RCT, PALETTE COLOR) becomes RGB; overlays are ignored, also in the
upper bits of pixels; pixels that are not square are made so. Frames count from 1. Slices of CT may be asked for through
several windows, and any that say where they lie to be turned as those of a NIfTI volume are.

A label that contradicts the data gives way, an attribute of display that cannot be used is left out; the column
``header_notes`` and ``notes["header"]`` say so. Nothing of the header leaves this module except the columns of
`retr.retrieval.images.dicom_header` and `retr.retrieval.images.geometry`, and no file can make a decoder take more
memory than its header admits.

The way of a file: `dicom_open` (encoding and header), `dicom_layout` (how pixels lie), `dicom_frames` with
`dicom_codec` (values), `dicom_grey` or `dicom_colour` (8 bits).
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from retr.index.errors import ImageReadError
from retr.retrieval.images.decoder_warnings import silence_decoders
from retr.retrieval.images.dicom_colour import rgb
from retr.retrieval.images.dicom_frames import open_frames
from retr.retrieval.images.dicom_grey import DisplayAttributes, grey
from retr.retrieval.images.dicom_header import header_columns
from retr.retrieval.images.dicom_layout import GREY, PALETTE
from retr.retrieval.images.dicom_open import is_dicom, open_dataset
from retr.retrieval.images.dicom_values import RefusalError, numbers, text
from retr.retrieval.images.geometry import dicom_slices, dicom_times, is_ct
from retr.retrieval.images.picture import MAX_ASPECT, Picture, Reading, made_square, read_error
from retr.retrieval.images.slices import by_content, by_place, named, windows

__all__ = ["is_dicom", "read"]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from retr.retrieval.images.dicom_frames import Frames
    from retr.retrieval.images.dicom_open import Opened
    from retr.retrieval.images.geometry import Slice

_BURNED_IN = {"YES", "Y", "TRUE", "T", "1"}  # the first is the defined term
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")


def read(stream: BinaryIO, options: Reading) -> Iterator[tuple[str, Picture]]:
    """Read the chosen frames of a DICOM file.

    Parameters
    ----------
    stream
        Seekable, at the beginning of the file.

    Raises
    ------
    ImageReadError
        With reason "missing extra", "no pixels", "burned-in annotation", "truncated", "damaged", "too large"
        or "unsupported".
    """
    try:
        import pydicom  # noqa: F401 - fails here, with a reason, where the extra is not installed
    except ImportError:
        raise read_error("missing extra", options.name) from None
    silence_decoders()
    try:
        yield from _read(stream, options)
    except ImageReadError:
        raise
    except RefusalError as error:
        raise read_error(error.reason, options.name) from None
    except (MemoryError, RecursionError):
        raise read_error("too large", options.name) from None
    except Exception:  # noqa: BLE001 - pydicom raises nearly anything, with header values in the text
        # of a header that cannot be read, only where the reading stopped is known
        raise read_error("truncated" if _at_end(stream) else "damaged", options.name) from None


def _read(stream: BinaryIO, options: Reading) -> Iterator[tuple[str, Picture]]:
    opened = open_dataset(stream, options)
    if text(opened.header, "BurnedInAnnotation") in _BURNED_IN and not options.allow_burned_in:
        raise read_error("burned-in annotation", options.name)
    if opened.pixels() > options.max_pixels:
        raise read_error("too large", options.name)
    frames = open_frames(opened)
    columns = header_columns(opened.header, options.hash_key)
    places = dicom_slices(opened.header, frames.layout.frames)
    seen = windows(options, hounsfield=frames.layout.photometric in GREY and is_ct(opened.header))
    none, alone = True, not (options.frames or options.frame)
    for position, suffix in options.chosen(frames.layout.frames):
        place = places[position]
        if not (alone or by_place(place, options)):
            continue
        own = {**columns, **(place.columns() if place else {})}
        own |= dicom_times(opened.header, position, frames.layout.frames)
        for name, window in seen:
            asked = replace(options, window=window)
            picture = _picture(frames, opened, position, place, {**own, **({"ct_window": name} if name else {})}, asked)
            if alone or by_content(picture.image, options):
                none = False
                yield named(suffix, name), picture
    if none:
        raise read_error("no slice chosen", options.name)


def _picture(
    frames: Frames, opened: Opened, position: int, place: Slice | None, columns: dict[str, Any], options: Reading
) -> Picture:
    layout, header = frames.layout, opened.header
    frame = frames.read(position)
    shown = DisplayAttributes(header, position)
    notes, said = dict[str, str](), [*opened.notes, *layout.notes]
    window = None
    with np.errstate(all="ignore"):
        if layout.photometric in GREY:
            pixels, notes["window"], window = grey(frame, header, shown, layout, said, options.window)
        else:
            pixels = rgb(frame, layout, header, said)
    turned = place.turn() if options.orient and place is not None else (False, False, False)
    image = Image.fromarray(_turned(pixels, *turned)).convert("RGB")
    square = _square(image, shown, options.max_pixels, said, transposed=turned[0])
    if square.size != image.size:
        notes["aspect"] = "pixels made square"
    if said:
        notes["header"] = "; ".join(dict.fromkeys(said))
        columns = {**columns, "header_notes": notes["header"]}
    return Picture(
        image=square,
        width=image.width,
        height=image.height,
        mode=_mode(frame, layout.photometric),
        notes=notes,
        columns=columns,
        frame=position + 1,
        frames=layout.frames,
        window=window,
    )


def _turned(pixels: NDArray[Any], transposed: bool, mirrored: bool, upended: bool) -> NDArray[Any]:
    pixels = pixels.swapaxes(0, 1) if transposed else pixels
    pixels = pixels[:, ::-1] if mirrored else pixels
    return np.ascontiguousarray(pixels[::-1] if upended else pixels)


def _square(
    image: Image.Image, shown: DisplayAttributes, max_pixels: int, notes: list[str], *, transposed: bool
) -> Image.Image:
    """Enlarge the direction in which pixels are longer, so that shapes are those of the body."""
    for keyword in _SPACINGS:
        source = shown.holder(keyword)
        if keyword not in source:
            continue
        pair = numbers(source, keyword)
        if len(pair) == 1:  # as others read it: the same in both directions
            pair = pair * 2
        if len(pair) == 2:
            down, across = pair[::-1] if transposed else pair
            if down and across and 1 / MAX_ASPECT <= down / across <= MAX_ASPECT:
                return made_square(image, across, down, max_pixels)
        notes.append(f"{keyword} ignored")
    return image


def _mode(frame: NDArray[Any], photometric: str) -> str:
    if photometric not in GREY:
        return "P" if photometric == PALETTE else "RGB"
    if frame.dtype.kind == "f":
        return "F"
    return {1: "L", 2: "I;16"}.get(frame.dtype.itemsize, "I")


def _at_end(stream: BinaryIO) -> bool:
    position = stream.tell()
    return position >= stream.seek(0, io.SEEK_END)
