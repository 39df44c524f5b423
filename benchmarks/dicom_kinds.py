"""Pixels of many kinds, and data sets around them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

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
