"""Colour frames of DICOM files to 8-bit RGB: palettes, YBR, and deeper channels by their high byte."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.retrieval.images.dicom_layout import PALETTE, YBR
from retr.retrieval.images.dicom_values import PALETTE_BITS, LookupTable, RefusalError, lookup_table, segmented_table

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

    from retr.retrieval.images.dicom_layout import PixelLayout

# PS3.3 C.7.6.3.1.2, turned round: a row for each of Y, Cb, Cr, in the precision of pydicom
_TO_RGB = np.array(
    [[1.0, 1.0, 1.0], [0.0, -0.114 * 1.772 / 0.587, 1.772], [1.402, -0.299 * 1.402 / 0.587, 0.0]], dtype=np.float32
)
_BLOCK_PIXELS = 1 << 20
# Colours that no RGB picture has, beyond what rounding and lossy compression do, in so large a share of the pixels.
_OUT_OF_RANGE, _OUT_SHARE = 16.0, 0.01


def rgb(values: NDArray[Any], layout: PixelLayout, header: Dataset, notes: list[str]) -> NDArray[np.uint8]:
    """Return a colour frame as uint8 ``(rows, columns, 3)``.

    Parameters
    ----------
    values
        ``(rows, columns, 3)``, or ``(rows, columns)`` of palette indices.
    notes
        What was corrected is appended.

    Raises
    ------
    RefusalError
        A palette is missing or cannot be expanded: "damaged".
    """
    if layout.photometric == PALETTE:
        return _through_palette(values, layout, header, notes)
    shown = _high_bytes(values, layout.stored)
    return ybr_to_rgb(shown) if layout.photometric in YBR else shown


def ybr_to_rgb(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return YBR_FULL as RGB, both uint8 ``(rows, columns, 3)``.

    Examples
    --------
    >>> ybr_to_rgb(np.array([[[76, 85, 255]]], dtype=np.uint8)).tolist()
    [[[254, 0, 0]]]
    """
    out = np.empty_like(values)
    rows = max(1, _BLOCK_PIXELS // max(1, values.shape[1]))
    for start in range(0, values.shape[0], rows):
        block = _unclipped(values[start : start + rows])
        np.floor(block + np.float32(0.5), out=block)
        out[start : start + rows] = np.clip(block, 0, 255, out=block)
    return out


def is_ybr(values: NDArray[Any]) -> bool:
    """Return whether colours can be YBR_FULL: what was RGB before stays within its range, other numbers do not.

    Parameters
    ----------
    values
        uint8 ``(rows, columns, 3)``.
    """
    pixels = values.reshape(1, -1, 3)
    pixels = pixels[:, :: max(1, pixels.shape[1] // _BLOCK_PIXELS)]
    found = _unclipped(pixels)
    outside = ((found < -_OUT_OF_RANGE) | (found > 255 + _OUT_OF_RANGE)).any(axis=-1)
    return bool(outside.mean() <= _OUT_SHARE)


def _unclipped(values: NDArray[Any]) -> NDArray[np.float32]:
    block = values.astype(np.float32)
    block -= np.array([0, 128, 128], dtype=np.float32)
    return block @ _TO_RGB


def _high_bytes(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if bits < 8:
        return np.rint(values / ((1 << bits) - 1) * 255).astype(np.uint8)
    return np.ascontiguousarray((values >> (bits - 8)).astype(np.uint8))


def _through_palette(
    indices: NDArray[Any], layout: PixelLayout, header: Dataset, notes: list[str]
) -> NDArray[np.uint8]:
    tables = [_palette(header, colour, layout) for colour in ("Red", "Green", "Blue")]
    bits = max(table.bits for table in tables)
    tables = [replace(table, bits=bits) for table in tables]
    if not all(table.is_as_said for table in tables):
        notes.append("palette read otherwise than its descriptor says")
    channels = [replace(table, entries=table.high_bytes())(indices) for table in tables]
    return np.stack(channels, axis=-1)


def _palette(header: Dataset, colour: str, layout: PixelLayout) -> LookupTable:
    descriptor = f"{colour}PaletteColorLookupTableDescriptor"
    table = lookup_table(header, descriptor, f"{colour}PaletteColorLookupTableData", layout.reach, PALETTE_BITS)
    if table is None:
        segments = f"Segmented{colour}PaletteColorLookupTableData"
        table = segmented_table(header, descriptor, segments, layout.reach)
    if table is None:
        raise RefusalError("damaged")
    return table
