"""Grey frames of DICOM files as a viewer shows them: modality LUT or rescale, VOI LUT or window, inversion.

Each attribute that cannot be used is left out on its own, and said: a window of no width leaves the rescale, an empty
LUT leaves the window.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.retrieval.images.dicom_values import first_number, items, lookup_table, numbers, signed_like, text, whole
from retr.retrieval.images.levels import finite_range, stretch_to_8bit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from pydicom import Dataset

    from retr.retrieval.images.dicom_layout import PixelLayout

    Transform = Callable[[NDArray[Any]], NDArray[Any]]
    Window = tuple[float, float]

# Without a window: the range of nearly all values, so that a few dead or burnt pixels do not darken the rest. An end
# of the whole range that is not further off than the range is wide is no outlier, and is used instead: X-rays with
# their lead letters keep their whole range, and look as in a 16-bit PNG.
PERCENTILES = (0.1, 99.9)
_REACH = 1.0

_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence", "PixelMeasuresSequence")
_STATISTICS_PIXELS = 1 << 20
_BLOCK_PIXELS = 1 << 20
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_DISPLAY_BITS = 8


class DisplayAttributes:
    """What says how one frame is shown: the frame's own groups, then the shared ones, then the file."""

    def __init__(self, header: Dataset, position: int) -> None:
        shared = items(header, "SharedFunctionalGroupsSequence")[:1]
        own = items(header, "PerFrameFunctionalGroupsSequence")[position : position + 1]
        groups = [items(group, keyword)[:1] for group in (*own, *shared) for keyword in _GROUPS]
        self._sources = [*(source for group in groups for source in group), header]

    def holder(self, *keywords: str) -> Dataset:
        """Return the nearest data set that has one of these attributes; the file's where none has."""
        for source in self._sources:
            if any(keyword in source for keyword in keywords):
                return source
        return self._sources[-1]


def grey(
    frame: NDArray[Any],
    header: Dataset,
    shown: DisplayAttributes,
    layout: PixelLayout,
    notes: list[str],
    asked: Window | None = None,
) -> tuple[NDArray[np.uint8], str, Window | None]:
    """Show one grey frame.

    Parameters
    ----------
    frame
        Values ``(rows, columns)``.
    notes
        What could not be used is appended.
    asked
        Centre and width to show in place of what the header says.

    Returns
    -------
    tuple
        uint8 ``(rows, columns)``, which window did it, and its centre and width; ``None`` of a lookup table.
    """
    modality, reach = _modality(shown, layout, notes)
    show, note, window = _display(frame, header, shown, layout, modality, reach, notes, asked)
    out = np.empty(frame.shape, dtype=np.uint8)
    rows = max(1, _BLOCK_PIXELS // frame.shape[1])
    for start in range(0, frame.shape[0], rows):
        block = frame[start : start + rows]
        values = block if modality is None else modality(block)
        out[start : start + rows] = show(_finite(values) if values.dtype.kind == "f" else values)
    return out, note, window


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    """Return floats with the lowest number in place of what is none, and the ends in place of infinities."""
    finite: NDArray[Any] = np.nan_to_num(values, nan=np.finfo(values.dtype).min)
    return finite


def _modality(
    shown: DisplayAttributes, layout: PixelLayout, notes: list[str]
) -> tuple[Transform | None, tuple[float, float]]:
    """Return the modality transform, None where it changes nothing, and the range of what it gives."""
    source = shown.holder("ModalityLUTSequence")
    for item in items(source, "ModalityLUTSequence"):
        table = lookup_table(item, "LUTDescriptor", "LUTData", layout.reach)
        if table is not None:
            if not table.is_as_said:
                notes.append("ModalityLUTSequence read otherwise than its descriptor says")
            return table, (0.0, float((1 << table.bits) - 1))
    if "ModalityLUTSequence" in source:
        notes.append("ModalityLUTSequence ignored")
    source = shown.holder("RescaleSlope", "RescaleIntercept")
    if "RescaleSlope" not in source or "RescaleIntercept" not in source:
        if "RescaleSlope" in source or "RescaleIntercept" in source:  # half of a transform is none
            notes.append("rescale ignored")
        return None, layout.reach
    slope, intercept = first_number(source, "RescaleSlope"), first_number(source, "RescaleIntercept")
    if not slope:
        notes.append("RescaleSlope ignored")
        slope = 1.0
    if intercept is None:
        notes.append("RescaleIntercept ignored")
        intercept = 0.0
    if slope == 1 and intercept == 0:
        return None, layout.reach
    low, high = sorted(end * slope + intercept for end in layout.reach)
    if not (layout.real or math.isfinite(high - low)):
        notes.append("rescale ignored")
        return None, layout.reach
    return lambda values: values.astype(np.float64) * slope + intercept, (low, high)


def _display(
    frame: NDArray[Any],
    header: Dataset,
    shown: DisplayAttributes,
    layout: PixelLayout,
    modality: Transform | None,
    reach: tuple[float, float],
    notes: list[str],
    asked: Window | None,
) -> tuple[Transform, str, Window | None]:
    """Return the function from modality values to display values, what it is called, and its window."""
    inverted = layout.photometric == "MONOCHROME1"
    if asked is None and (looked_up := _voi_lut(shown, reach, notes, inverted=inverted)) is not None:
        return looked_up, "VOI LUT", None
    window, function = _window(shown, notes) if asked is None else (asked, "LINEAR_EXACT")
    if window is not None and function == "SIGMOID":
        centre, width = window

        def bend(values: NDArray[Any]) -> NDArray[np.uint8]:
            steps = 4 * (values.astype(np.float64) - centre) / width
            return (255 / (1 + np.exp(steps if inverted else -steps))).astype(np.uint8)

        return bend, "window", window
    if window is not None:
        centre, width = window
        if function == "LINEAR":  # PS3.3 C.11.2.1.2.1: the window covers whole values, both ends included
            centre, width = centre - 0.5, width - 1
        low, high, note = centre - width / 2, centre + width / 2, "window"
        high = max(high, math.nextafter(low, math.inf))  # a width of one is a threshold
    elif modality is None and layout.stored <= _DISPLAY_BITS and not layout.real:
        (low, high), note = layout.reach, "stored values"
    else:
        low, high = _robust_range(_without_padding(frame, header, layout), modality)
        note = f"percentile {PERCENTILES[0]}-{PERCENTILES[1]}"

    def stretch(values: NDArray[Any]) -> NDArray[np.uint8]:
        # inverted before the cut to 8 bit: both photometric interpretations of a picture then agree exactly
        if inverted:
            return stretch_to_8bit(-values.astype(np.float64), -high, -low)
        return stretch_to_8bit(values, low, high)

    return stretch, note, ((low + high) / 2, high - low)


def _voi_lut(
    shown: DisplayAttributes, reach: tuple[float, float], notes: list[str], *, inverted: bool
) -> Transform | None:
    """Return the first VOI LUT that has entries, to 8 bits; None where there is none."""
    source = shown.holder("VOILUTSequence")
    for item in items(source, "VOILUTSequence"):
        table = lookup_table(item, "LUTDescriptor", "LUTData", reach)
        if table is not None:
            if not table.is_as_said:
                notes.append("VOILUTSequence read otherwise than its descriptor says")
            entries = table.to_8bit()
            return replace(table, entries=255 - entries if inverted else entries)
    if "VOILUTSequence" in source:
        notes.append("VOILUTSequence ignored")
    return None


def _window(shown: DisplayAttributes, notes: list[str]) -> tuple[tuple[float, float] | None, str]:
    """Return (centre, width) of the first window that can be used, or None, and its function."""
    source = shown.holder("WindowCenter", "WindowWidth")
    function = text(shown.holder("VOILUTFunction"), "VOILUTFunction") or "LINEAR"
    if function not in _FUNCTIONS:
        notes.append("VOILUTFunction ignored")
        function = "LINEAR"
    centres, widths = numbers(source, "WindowCenter"), numbers(source, "WindowWidth")
    for centre, width in _pairs(centres, widths):
        usable = centre is not None and width is not None
        if usable and (width >= 1 if function == "LINEAR" else width > 0):  # type: ignore[operator]
            return (centre, width), function  # type: ignore[return-value]
    if "WindowCenter" in source or "WindowWidth" in source:
        notes.append("window ignored")
    return None, function


def _pairs(centres: Sequence[float | None], widths: Sequence[float | None]) -> list[tuple[float | None, float | None]]:
    return list(zip(centres, widths, strict=False))


def _without_padding(frame: NDArray[Any], header: Dataset, layout: PixelLayout) -> NDArray[Any]:
    """Return the values that do not pad the picture to a rectangle; all where none is left."""
    keyword = {True: "FloatPixelPadding", False: "PixelPadding"}[layout.real]
    if layout.real and layout.allocated == 64:
        keyword = f"Double{keyword}"
    ends = [_padding(header, f"{keyword}{end}", layout) for end in ("Value", "RangeLimit")]
    if ends[0] is None:
        return frame
    first, last = sorted((ends[0], ends[0] if ends[1] is None else ends[1]))
    seen = frame[(frame < first) | (frame > last)]
    return seen if seen.size else frame


def _padding(header: Dataset, keyword: str, layout: PixelLayout) -> float | None:
    if layout.real:
        return first_number(header, keyword)
    value = whole(header, keyword)
    if value is None:
        return None
    value = signed_like(value, layout.reach)
    if layout.reach[0] <= value <= layout.reach[1]:
        return value
    # a cell's value: its upper bits are cleared as the pixels' are
    value &= (1 << layout.stored) - 1
    return value - (1 << layout.stored) if layout.signed and value >> (layout.stored - 1) else value


def _robust_range(values: NDArray[Any], modality: Transform | None) -> tuple[float, float]:
    """Return the range of nearly all values: the whole range where there are no outliers, as in a 16-bit PNG."""
    flat = values.ravel()
    sample = np.append(flat[:: math.ceil(flat.size / _STATISTICS_PIXELS)], finite_range(flat)).astype(flat.dtype)
    if modality is not None:
        sample = modality(sample)
    sample = sample[np.isfinite(sample)]
    low, high = (float(value) for value in np.percentile(sample, PERCENTILES))
    lowest, highest = finite_range(sample)
    reach = _REACH * (high - low)
    if not reach > 0:
        return lowest, highest
    return lowest if lowest >= low - reach else low, highest if highest <= high + reach else high
