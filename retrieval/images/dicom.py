"""DICOM (extra ``dicom``): what a radiologist's viewer shows, as 8-bit RGB.

Grey goes through modality LUT or rescale, then VOI LUT or window, then the inversion of MONOCHROME1, in that
order:

* of several windows or VOI LUTs the first is taken;
* without any, up to 8 stored bits are shown as they are, and deeper ones through a window over nearly all of
  the picture's own values (`PERCENTILES`), which is said in ``notes["window"]``.

Colour (RGB, YBR_FULL, YBR_FULL_422, YBR_ICT, YBR_RCT, PALETTE COLOR) becomes RGB; overlays are ignored;
pixels that are not square are made so. Frames count from 1.

Nothing of the header leaves this module except the columns of `retr.retrieval.images.dicom_header`, and no
file can make a decoder take more memory than its header admits (`retr.retrieval.images.dicom_open`).
"""

from __future__ import annotations

import math
from contextlib import closing
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from retr.index.errors import ImageReadError
from retr.retrieval.images.dicom_header import header_columns
from retr.retrieval.images.dicom_open import is_cut, is_dicom, open_dataset, without_embedded_overlay
from retr.retrieval.images.levels import finite_range, stretch_to_8bit
from retr.retrieval.images.picture import Options, Picture, made_square, read_error
from retr.retrieval.images.quiet import silence_decoders

__all__ = ["is_dicom", "read"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from pydicom import Dataset

# Without a window: the range of nearly all values, so that a few dead or burnt pixels do not darken the rest. An end
# of the whole range that is not further off than the range is wide is no outlier, and is used instead: X-rays with
# their lead letters keep their whole range, and look as in a 16-bit PNG.
PERCENTILES = (0.1, 99.9)
_REACH = 1.0

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

# Attributes that say how a frame is shown; enhanced multi-frame files keep them in functional groups.
_SHOWN_BY = (
    "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept",
    "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio",
)  # fmt: skip
_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence", "PixelMeasuresSequence")

_STATISTICS_PIXELS = 1 << 20
_BLOCK_PIXELS = 1 << 20


def read(stream: BinaryIO, options: Options) -> Iterator[tuple[str, Picture]]:
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
    except (MemoryError, RecursionError):
        raise read_error("too large", options.name) from None
    except NotImplementedError:
        raise read_error("unsupported", options.name) from None
    except Exception:  # noqa: BLE001 - pydicom raises nearly anything, with header values in the text
        raise read_error("truncated" if is_cut(stream) else "damaged", options.name) from None
    except BaseException as error:
        # a panic of the RLE decoder, which is written in Rust, is no Exception
        if type(error).__name__ == "PanicException":
            raise read_error("damaged", options.name) from None
        raise


def _read(stream: BinaryIO, options: Options) -> Iterator[tuple[str, Picture]]:
    from pydicom.pixels import iter_pixels

    header, native = open_dataset(stream, options)
    if str(header.get("BurnedInAnnotation")).strip().upper() == "YES" and not options.allow_burned_in:
        raise read_error("burned-in annotation", options.name)
    if str(header.PhotometricInterpretation) not in (*_GREY, *_COLOUR, "PALETTE COLOR"):
        raise read_error("unsupported", options.name)
    columns = header_columns(header, options.hash_key)
    count = int(header.get("NumberOfFrames") or 1)
    positions = (position for position, _ in options.chosen(count))
    if native:
        # frame by frame from the file: the frames of a study do not fit into memory
        frames = iter_pixels(stream, indices=positions, transfer_syntax_uid=header.file_meta.TransferSyntaxUID)
    else:
        frames = iter_pixels(header, indices=positions)
    with closing(frames):
        for (position, suffix), frame in zip(options.chosen(count), frames, strict=False):
            yield suffix, _picture(frame, header, position, columns, options)


def _picture(frame: NDArray[Any], header: Dataset, position: int, columns: dict[str, Any], options: Options) -> Picture:
    shown = _shown_by(header, position)
    photometric = str(header.PhotometricInterpretation)
    notes = {}
    with np.errstate(all="ignore"):
        if photometric in _GREY:
            pixels, notes["window"] = _grey(frame, header, shown)
        else:
            pixels = _colour(frame, header)
    image = Image.fromarray(pixels).convert("RGB")
    square = _square(image, shown, options.max_pixels)
    if square.size != image.size:
        notes["aspect"] = "pixels made square"
    return Picture(
        image=square,
        width=image.width,
        height=image.height,
        mode=_mode(frame, photometric),
        notes=notes,
        columns=columns,
    )


def _shown_by(header: Dataset, position: int) -> Dataset:
    """Collect what says how one frame is shown: the file's attributes, then the functional groups'."""
    from pydicom import Dataset

    shown = Dataset()
    shown.file_meta = header.file_meta
    sources = [header]
    for groups, item in (
        ("SharedFunctionalGroupsSequence", 0),
        ("PerFrameFunctionalGroupsSequence", position),
    ):
        items = header.get(groups) or []
        if item < len(items):
            sources += [items[item][group][0] for group in _GROUPS if items[item].get(group)]
    for source in sources:
        for keyword in _SHOWN_BY:
            if keyword in source:
                shown[keyword] = source[keyword]
    return shown


def _grey(frame: NDArray[Any], header: Dataset, shown: Dataset) -> tuple[NDArray[np.uint8], str]:
    """Show one grey frame: uint8 ``(rows, columns)``, and which window did it."""
    from pydicom.pixels.processing import apply_modality_lut

    if frame.ndim != 2:
        raise NotImplementedError
    frame = without_embedded_overlay(frame, header)
    inverted = header.PhotometricInterpretation == "MONOCHROME1"
    show, note = _display(frame, header, shown, inverted=inverted)
    out = np.empty(frame.shape, dtype=np.uint8)
    rows = max(1, _BLOCK_PIXELS // frame.shape[1])
    for start in range(0, frame.shape[0], rows):
        values = apply_modality_lut(frame[start : start + rows], shown)
        if values.dtype.kind == "f":
            values = np.nan_to_num(values)
        out[start : start + rows] = show(values)
    return out, note


def _display(
    frame: NDArray[Any], header: Dataset, shown: Dataset, *, inverted: bool
) -> tuple[Callable[[NDArray[Any]], NDArray[np.uint8]], str]:
    """Give the function from modality values to display values, and what it is called."""
    if (lut := _voi_lut(shown)) is not None:
        first, table = lut
        table = 255 - table if inverted else table

        def look_up(values: NDArray[Any]) -> NDArray[np.uint8]:
            return table[np.clip(values.astype(np.float64) - first, 0, len(table) - 1).astype(np.intp)]

        return look_up, "VOI LUT"
    window, function = _window(shown)
    if window is not None and function == "SIGMOID":
        centre, width = window

        def bend(values: NDArray[Any]) -> NDArray[np.uint8]:
            steps = 4 * (values.astype(np.float64) - centre) / width
            return (255 / (1 + np.exp(steps if inverted else -steps))).astype(np.uint8)

        return bend, "window"
    if window is not None:
        centre, width = window
        if function == "LINEAR":  # PS3.3 C.11.2.1.2.1: the window covers whole values, both ends included
            centre, width = centre - 0.5, width - 1
        low, high, note = centre - width / 2, centre + width / 2, "window"
        high = max(high, math.nextafter(low, math.inf))  # a width of one is a threshold
    elif (stored := _stored_range(frame, header, shown)) is not None:
        (low, high), note = stored, "stored values"
    else:
        (low, high), note = _robust_range(frame, header, shown), f"percentile {PERCENTILES[0]}-{PERCENTILES[1]}"

    def stretch(values: NDArray[Any]) -> NDArray[np.uint8]:
        # inverted before the cut to 8 bit: both photometric interpretations of a picture then agree exactly
        if inverted:
            return stretch_to_8bit(-values.astype(np.float64), -high, -low)
        return stretch_to_8bit(values, low, high)

    return stretch, note


def _voi_lut(shown: Dataset) -> tuple[int, NDArray[np.uint8]] | None:
    """Give the first VOI LUT as (first mapped value, uint8 table), or None."""
    if not shown.get("VOILUTSequence"):
        return None
    item = shown.VOILUTSequence[0]
    entries, first, _ = (int(value) for value in item.LUTDescriptor)
    data = item.LUTData
    if isinstance(data, bytes):
        order = "<" if shown.file_meta.TransferSyntaxUID.is_little_endian else ">"
        data = np.frombuffer(data, np.uint8 if len(data) <= (entries or 1 << 16) + 1 else f"{order}u2")
    table = np.asarray(data, dtype=np.float64)[: entries or 1 << 16]
    if not table.size:
        return None
    # many files declare 16-bit entries and fill 12 of the bits: the bits in use are the range
    peak = (1 << max(1, int(table.max()).bit_length())) - 1
    return first, np.rint(table / peak * 255).astype(np.uint8)


def _window(shown: Dataset) -> tuple[tuple[float, float] | None, str]:
    """Give (centre, width) of the first window, or None where it is missing or impossible, and its function."""
    width, centre = (_first(shown.get(keyword)) for keyword in ("WindowWidth", "WindowCenter"))
    function = str(shown.get("VOILUTFunction") or "LINEAR").upper()
    if function not in {"LINEAR_EXACT", "SIGMOID"}:
        function = "LINEAR"
    if centre is None or width is None or not (width >= 1 if function == "LINEAR" else width > 0):
        return None, function
    return (centre, width), function


def _first(value: Any) -> float | None:
    """Give the first number of a value of any multiplicity, None where there is none."""
    if value is None or isinstance(value, str):
        return None
    number = value if isinstance(value, (int, float)) else next(iter(value), None)
    return float(number) if isinstance(number, (int, float)) and math.isfinite(number) else None


def _stored_range(frame: NDArray[Any], header: Dataset, shown: Dataset) -> tuple[float, float] | None:
    """Give the range of up to 8 stored bits where the values are display values already."""
    rescaled = shown.get("ModalityLUTSequence") or (
        shown.get("RescaleSlope", 1) != 1 or shown.get("RescaleIntercept", 0) != 0
    )
    bits = int(header.get("BitsStored") or 16)
    if rescaled or bits > 8 or frame.dtype.kind not in "iu":
        return None
    low = -(1 << (bits - 1)) if header.get("PixelRepresentation") == 1 else 0
    return float(low), float(low + (1 << bits) - 1)


def _robust_range(frame: NDArray[Any], header: Dataset, shown: Dataset) -> tuple[float, float]:
    """Give the range of nearly all values, those that pad the picture to a rectangle left out.

    It is the whole range where there are no outliers, as in a 16-bit PNG of the same picture.
    """
    from pydicom.pixels.processing import apply_modality_lut

    padding = header.get("PixelPaddingValue")
    if isinstance(padding, int):
        limit = header.get("PixelPaddingRangeLimit")
        first, last = sorted((padding, limit if isinstance(limit, int) else padding))
        seen = frame[(frame < first) | (frame > last)]
        frame = seen if seen.size else frame
    flat = frame.ravel()
    sample = np.append(flat[:: math.ceil(flat.size / _STATISTICS_PIXELS)], finite_range(flat))
    values = apply_modality_lut(sample.astype(flat.dtype), shown)
    values = values[np.isfinite(values)]
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    lowest, highest = finite_range(values)
    reach = _REACH * (high - low)
    if not reach > 0:
        return lowest, highest
    return lowest if lowest >= low - reach else low, highest if highest <= high + reach else high


def _colour(frame: NDArray[Any], header: Dataset) -> NDArray[np.uint8]:
    """Give the high byte of each colour channel: uint8 ``(rows, columns, 3)``."""
    from pydicom.pixels.processing import apply_color_lut

    if header.PhotometricInterpretation == "PALETTE COLOR":
        frame = apply_color_lut(frame, header)
        bits = frame.dtype.itemsize * 8
    else:
        bits = int(header.get("BitsStored") or 8)
    if frame.ndim != 3 or frame.shape[2] < 3 or frame.dtype.kind != "u":
        raise NotImplementedError
    frame = frame[..., :3]
    if bits < 8:
        return np.rint(frame / ((1 << bits) - 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.clip(frame >> (bits - 8), 0, 255).astype(np.uint8))


def _square(image: Image.Image, shown: Dataset, max_pixels: int) -> Image.Image:
    """Enlarge the direction in which pixels are longer, so that shapes are those of the body."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
        pair = shown.get(keyword)
        if pair is not None and not isinstance(pair, str) and len(pair) == 2:
            break
    else:
        return image
    down, across = (_first(value) for value in pair)
    if down is None or across is None:
        return image
    return made_square(image, across, down, max_pixels)


def _mode(frame: NDArray[Any], photometric: str) -> str:
    if photometric not in _GREY:
        return "P" if photometric == "PALETTE COLOR" else "RGB"
    if frame.dtype.kind == "f":
        return "F"
    return {1: "L", 2: "I;16"}.get(frame.dtype.itemsize, "I")
