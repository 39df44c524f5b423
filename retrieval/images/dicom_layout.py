"""The pixel layout of a DICOM file: what the header says, checked against the data.

What is missing is inferred where the rest leaves one answer; where a label contradicts the data, the data is believed,
and `PixelLayout.notes` says so. What remains contradictory raises.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from retr.retrieval.images.dicom_values import RefusalError, text, whole

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset


Compression = Literal["jpeg", "jpeg lossless", "jpeg-ls", "jpeg 2000", "jpeg xl", "rle", "deflated", "native"]

GREY = ("MONOCHROME1", "MONOCHROME2")
YBR = ("YBR_FULL", "YBR_FULL_422")
PALETTE = "PALETTE COLOR"
# YBR_ICT, YBR_RCT and XYB name transforms of the codestream, which its decoder undoes
_TRANSFORMED = ("YBR_ICT", "YBR_RCT")
_DECODED = (*_TRANSFORMED, "XYB")
_PHOTOMETRIC = (*GREY, *YBR, *_DECODED, PALETTE, "RGB")
_COLOUR_SAMPLES = 3
_CONTAINERS = (8, 16, 32, 64)
_FLOATS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
_DEEPEST = 64


@dataclass(frozen=True)
class Codestream:
    """What a compressed frame says of itself.

    Attributes
    ----------
    rows, columns, samples, bits
        None where the stream does not say.
    signed
        Whether its values are.
    colour
        ``"RGB"`` or ``"YBR"`` of what the decoder gives, None where the stream does not say.
    planes
        How many byte planes RLE has.
    """

    kind: Compression
    rows: int | None = None
    columns: int | None = None
    samples: int | None = None
    bits: int | None = None
    signed: bool = False
    colour: Literal["RGB", "YBR"] | None = None
    planes: int | None = None


@dataclass(frozen=True)
class PixelLayout:
    """How the pixels lie.

    Attributes
    ----------
    rows, columns, samples, frames
        Shape; samples is 1 or 3.
    allocated, stored, high
        Bits of a cell, of a value, and the place of its highest bit.
    signed
        Whether values are two's complement.
    planar
        Whether native colour lies plane by plane.
    photometric
        ``MONOCHROME1``, ``MONOCHROME2``, ``PALETTE COLOR``, ``RGB``, ``YBR_FULL`` or ``YBR_FULL_422``; the last
        only where native chroma is in fact subsampled.
    real
        Whether cells are floating point numbers.
    doubtful
        Whether the photometric interpretation is known to be wrong in part, so that colours must be looked at.
    notes
        What was assumed or corrected, in constant words.
    """

    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    high: int
    signed: bool
    planar: bool
    photometric: str
    frames: int
    real: bool = False
    doubtful: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def reach(self) -> tuple[float, float]:
        """Lowest and highest value that a pixel can have."""
        if self.real:
            return -np.inf, np.inf
        low = -(1 << (self.stored - 1)) if self.signed else 0
        return float(low), float(low + (1 << self.stored) - 1)

    @property
    def frame_bits(self) -> int:
        """How many bits a native frame takes."""
        bits = self.rows * self.columns * self.samples * self.allocated
        return bits * 2 // 3 if self.photometric == "YBR_FULL_422" else bits

    def values(self, cells: NDArray[Any]) -> NDArray[Any]:
        """Return the pixel values that lie in cells of the same shape: other bits cleared, the sign extended.

        Parameters
        ----------
        cells
            Unsigned or signed integers of any width.
        """
        width = max(cells.dtype.itemsize * 8, next(bits for bits in _CONTAINERS if bits > self.high))
        kind = f"{'i' if self.signed else 'u'}{width // 8}"
        plain = cells.astype(f"u{width // 8}", copy=False)
        if self.stored == width:
            return plain.view(kind)
        low = self._from_bit(plain, kind, self.stored - 1)
        if self.high == self.stored - 1:
            if not self._fits(plain, low):
                self._note("bits above the stored ones left out")
            return low
        # a HighBit that is wrong: the values lie at the bottom, and would lose their lowest bits
        if (plain & ((1 << (self.high + 1 - self.stored)) - 1)).any() and self._fits(plain, low):
            self._note(f"HighBit taken to be {self.stored - 1}")
            return low
        return self._from_bit(plain, kind, self.high)

    def _from_bit(self, cells: NDArray[Any], kind: str, high: int) -> NDArray[Any]:
        """Return the values whose highest bit is ``high``: up to the top and down again, so that the sign follows."""
        width = cells.dtype.itemsize * 8
        values: NDArray[Any] = np.left_shift(cells, width - 1 - high).view(kind)
        np.right_shift(values, width - self.stored, out=values)
        return values

    def _fits(self, cells: NDArray[Any], values: NDArray[Any]) -> bool:
        """Return whether nothing but zeros or the sign stands above the stored bits."""
        if not self.signed:
            return bool((values == cells).all())
        return bool(((values.view(cells.dtype) == cells) | (cells >> self.stored == 0)).all())

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def native_layout(header: Dataset, keyword: str, length: int, frames: int | None = None) -> PixelLayout:
    """Return how uncompressed pixels lie.

    Parameters
    ----------
    keyword
        Of the element that holds them.
    length
        How many bytes the element says it has.
    frames
        How many frames these are, where the header is not to be asked.

    Raises
    ------
    RefusalError
        There is no way to know: "damaged"; or such pixels are not read: "unsupported".
    """
    rows, columns = _size(header)
    said = whole(header, "NumberOfFrames") or 0 if frames is None else frames
    frames = max(1, said)
    notes: list[str] = []
    pixels = rows * columns
    photometric, samples = _photometric(header), whole(header, "SamplesPerPixel")
    allocated = _FLOATS.get(keyword) or whole(header, "BitsAllocated") or 0
    real = keyword in _FLOATS

    def fits(candidate_samples: int, bits: int) -> bool:
        return 0 <= length - (pixels * frames * candidate_samples * bits + 7) // 8 <= 1

    if samples is None or _samples_of(photometric) not in {None, samples}:
        implied = _samples_of(photometric)
        candidates = [count for count in (implied, samples, 1, _COLOUR_SAMPLES) if count is not None]
        fitting = [count for count in candidates if fits(count, allocated or 8)]
        if not fitting and samples is not None:
            raise RefusalError("damaged")
        samples = (fitting or candidates)[0]
        notes.append(f"SamplesPerPixel taken to be {samples}")
    if not allocated:
        fitting = [bits for bits in (8, 16, 32, 1) if fits(samples, bits)]
        if not fitting:
            raise RefusalError("damaged")
        allocated = fitting[0]
        notes.append(f"BitsAllocated taken to be {allocated}")
    photometric, doubtful = _settled(photometric, samples, header, notes), False
    if photometric in YBR and samples == _COLOUR_SAMPLES:
        full = pixels * frames * samples * (allocated // 8)
        halved = full * 2 // 3
        if photometric == "YBR_FULL_422" and length >= full:
            photometric, doubtful = "YBR_FULL", True
            notes.append("colour not subsampled, against YBR_FULL_422")
        elif photometric == "YBR_FULL" and 0 <= length - halved <= 1:
            photometric = "YBR_FULL_422"
            notes.append("colour subsampled, against YBR_FULL")
        if photometric == "YBR_FULL_422" and (columns % 2 or allocated != 8):
            raise RefusalError("unsupported")
    layout = _with_bits(header, rows, columns, samples, allocated, photometric, frames, real, notes)
    planar = whole(header, "PlanarConfiguration")
    if samples > 1 and planar is None:
        notes.append("PlanarConfiguration taken to be 0")
    planar_cells = planar == 1 and samples > 1 and photometric != "YBR_FULL_422"
    layout = replace(layout, planar=planar_cells, doubtful=doubtful)
    whole_frames = length * 8 // layout.frame_bits
    if whole_frames > frames and length - (layout.frame_bits * frames + 7) // 8 > 1:
        notes.append("more frames than NumberOfFrames says" if said else "NumberOfFrames taken from the data")
        layout = replace(layout, frames=whole_frames)
    return layout


def compressed_layout(header: Dataset, stream: Codestream, frames: int) -> PixelLayout:
    """Return how the pixels of compressed frames lie, once decoded.

    Parameters
    ----------
    stream
        What the first frame says of itself.
    frames
        How many there are.

    Raises
    ------
    RefusalError
        As `native_layout`.
    """
    rows, columns = _size(header)
    notes: list[str] = []
    if (stream.rows or rows, stream.columns or columns) != (rows, columns):
        raise RefusalError("unsupported" if stream.kind == "jpeg xl" else "damaged")
    photometric, said = _photometric(header), whole(header, "SamplesPerPixel")
    allocated = whole(header, "BitsAllocated") or 0
    samples = stream.samples or said or _samples_of(photometric) or 1
    if stream.planes is not None and stream.planes * 8 != samples * allocated:
        samples = _COLOUR_SAMPLES if stream.planes == _COLOUR_SAMPLES else samples
        allocated = stream.planes // samples * 8
        notes.append(f"BitsAllocated taken to be {allocated}")
    elif not allocated or (stream.bits or 0) > allocated:
        if stream.bits is None:
            raise RefusalError("damaged")
        allocated = next(bits for bits in _CONTAINERS if bits >= stream.bits)
        notes.append(f"BitsAllocated taken to be {allocated}")
        header = _without(header, "BitsStored", "HighBit")
    if said != samples:
        notes.append(f"SamplesPerPixel taken to be {samples}")
    unsaid = photometric is None or _samples_of(photometric) != samples
    # JPEG undoes no transform of colours that JPEG 2000 names
    is_ybr = photometric in YBR or (photometric in _TRANSFORMED and stream.kind != "jpeg 2000")
    photometric = _settled(photometric, samples, header, notes)
    layout = _with_bits(header, rows, columns, samples, allocated, photometric, frames, False, notes, stream.bits)
    if samples == _COLOUR_SAMPLES:
        labelled = "YBR" if is_ybr or (unsaid and stream.kind == "jpeg") else "RGB"
        colour = stream.colour or labelled
        if colour != labelled and not unsaid and stream.kind != "jpeg xl":
            notes.append(f"colours are {colour}, against PhotometricInterpretation")
        layout = replace(layout, photometric="YBR_FULL" if colour == "YBR" else "RGB")
    if stream.signed and not layout.signed:
        notes.append("sign of the codestream left out")
    return _with_coded_bits(layout, stream)


def _with_coded_bits(layout: PixelLayout, stream: Codestream) -> PixelLayout:
    """Return the layout with ``stored`` and ``high`` as they lie in what the decoder gives."""
    bits = stream.bits
    if bits is None or bits > layout.high:  # the stream holds whole cells, or does not say
        return layout
    if bits < layout.stored and stream.kind in {"jpeg-ls", "jpeg 2000"}:
        layout.notes.append("BitsStored taken from the codestream")
        return replace(layout, stored=bits, high=bits - 1)
    # fewer bits than a cell: the values lie at its bottom
    return replace(layout, high=layout.stored - 1)


def _with_bits(
    header: Dataset,
    rows: int,
    columns: int,
    samples: int,
    allocated: int,
    photometric: str,
    frames: int,
    real: bool,
    notes: list[str],
    coded: int | None = None,
) -> PixelLayout:
    if samples not in {1, _COLOUR_SAMPLES} or allocated not in {1, *_CONTAINERS} or (allocated == 1 and samples > 1):
        raise RefusalError("unsupported")
    stored, high = whole(header, "BitsStored"), whole(header, "HighBit")
    if real:
        stored = high = None
    if stored is None:
        stored = high + 1 if high is not None and 0 <= high < allocated else coded or allocated
        if not real:
            notes.append(f"BitsStored taken to be {stored}")
    if high is None:
        high = stored - 1
    if not 1 <= stored <= allocated:
        raise RefusalError("damaged")
    if not stored - 1 <= high < allocated:
        notes.append(f"HighBit taken to be {stored - 1}")
        high = stored - 1
    signed = whole(header, "PixelRepresentation")
    if signed is None and not real:
        notes.append("pixels taken to be unsigned")
    if signed == 1 and samples > 1:
        notes.append("colours taken to be unsigned")
    return PixelLayout(
        rows=rows,
        columns=columns,
        samples=samples,
        allocated=allocated,
        stored=stored,
        high=high,
        signed=signed == 1 and samples == 1 and allocated > 1,
        planar=False,
        photometric=photometric,
        frames=frames,
        real=real,
        notes=notes,
    )


def _size(header: Dataset) -> tuple[int, int]:
    rows, columns = whole(header, "Rows"), whole(header, "Columns")
    if rows is None or columns is None or rows < 1 or columns < 1:
        raise RefusalError("damaged")
    return rows, columns


def _photometric(header: Dataset) -> str | None:
    value = text(header, "PhotometricInterpretation")
    if not value:
        return None
    if value not in _PHOTOMETRIC:
        raise RefusalError("unsupported")
    return value


def _samples_of(photometric: str | None) -> int | None:
    if photometric is None:
        return None
    return 1 if photometric in {*GREY, PALETTE} else _COLOUR_SAMPLES


def _settled(photometric: str | None, samples: int, header: Dataset, notes: list[str]) -> str:
    """Return a photometric interpretation for pixels of so many samples."""
    if photometric is None or _samples_of(photometric) != samples:
        if samples == _COLOUR_SAMPLES:
            photometric = "RGB"
        else:
            photometric = PALETTE if "RedPaletteColorLookupTableDescriptor" in header else "MONOCHROME2"
        notes.append(f"PhotometricInterpretation taken to be {photometric}")
    return "RGB" if photometric in _DECODED else photometric


def _without(header: Dataset, *keywords: str) -> Dataset:
    from pydicom import Dataset

    kept = Dataset(header)
    for keyword in keywords:
        if keyword in kept:
            del kept[keyword]
    return kept
