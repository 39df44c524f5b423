"""A generated family of DICOM files, each read and compared with pydicom's own pipeline, pixel for pixel.

    python -m retr.benchmarks.dicom_family

A member is pixels of one kind, displayed by one set of attributes, with one fault of the wild or none, in one transfer
syntax. Its twin is what the file means: the same pixels native, with the fault mended. pydicom shows the twin
(`pixel_array`, then its modality, VOI, palette and colour functions), scaled to 8 bits as docs/formats.md says; the
reader is given the member. Frames of lossy syntaxes are decoded for the twin by other decoders than the reader's:
Pillow, GDCM, OpenJPH.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.benchmarks.dicom_files import codestreams, encoded, written
from retr.benchmarks.dicom_kinds import KINDS, plain
from retr.benchmarks.dicom_syntaxes import SYNTAXES
from retr.benchmarks.dicom_variants import DISPLAYS, FAULTS
from retr.benchmarks.record import record
from retr.index.errors import ImageReadError
from retr.retrieval.images import read_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from pydicom import Dataset

    from retr.benchmarks.dicom_kinds import Kind

_EDGE = 1e-6  # an exact whole number may come out on either side of itself


def members() -> Iterator[tuple[str, str, str, str]]:
    """Yield every combination: pixel kind, display, fault, transfer syntax."""
    for kind in KINDS.values():
        for display in DISPLAYS.values():
            if not display.fits(kind):
                continue
            for fault in FAULTS.values():
                for syntax in SYNTAXES.values():
                    if syntax.fits(kind) and fault.fits(kind, display, syntax):
                        yield kind.name, display.name, fault.name, syntax.name


def compare(kind: str, display: str, fault: str, syntax: str) -> str:
    """Read one member and its twin; return ``"equal"`` or what came instead."""
    pixels, variant, coding = KINDS[kind], FAULTS[fault], SYNTAXES[syntax]
    data, twin, cells = plain(pixels), plain(pixels), pixels.cells()
    DISPLAYS[display].apply(data, pixels)
    DISPLAYS[display].apply(twin, pixels)
    variant.mend(twin, pixels)
    file = encoded(data, pixels, cells, coding, variant)
    if coding.decode is not None:
        cells = np.stack([coding.decode(frame, pixels) for frame in codestreams(pixels, cells, coding, variant)])
    expected = shown(twin, pixels, cells)
    try:
        got = [np.asarray(picture.image) for _, picture in read_images(file)]
    except ImageReadError as error:
        return error.reason
    if len(got) != len(expected):
        return f"{len(got)} frames"
    for ours, (low, high) in zip(got, expected, strict=True):
        if ours.shape[:2] != low.shape[:2]:
            return f"size {ours.shape}"
        if not ((low <= ours) & (ours <= high)).all():
            off = np.maximum(low - ours, ours - high).max()
            return f"differs by {off:.0f}"
    return "equal"


def shown(twin: Dataset, kind: Kind, cells: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return what pydicom shows of each frame: lowest and highest 8-bit value that its numbers allow."""
    from pydicom import dcmread
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = dcmread(io.BytesIO(written(twin, kind, cells)))
        frames = data.pixel_array.reshape(-1, *cells.shape[1:])
        if data.PhotometricInterpretation == "PALETTE COLOR":
            entries = apply_color_lut(frames, data)
            return [_exactly(frame >> (entries.dtype.itemsize * 8 - 8)) for frame in entries]
        if data.SamplesPerPixel > 1:
            return [_exactly(frame >> (data.BitsStored - 8)) for frame in frames]
        # pydicom counts in the type of the pixels, which is too narrow for a table's places
        wide = frames if frames.dtype.kind == "f" else frames.astype(np.int64)
        values = [apply_modality_lut(frame, data) for frame in wide]
        if data.get("VOILUTSequence"):
            bits = data.VOILUTSequence[0].LUTDescriptor[2]
            return [_rounded(apply_voi_lut(value, data) / ((1 << bits) - 1) * 255, data) for value in values]
        if "WindowWidth" in data:
            low, high = _output_range(data)
            return [_cut((apply_voi_lut(value, data) - low) / (high - low) * 255, data) for value in values]
        return [_without_window(frame, value, data) for frame, value in zip(frames, values, strict=True)]


def _output_range(data: Dataset) -> tuple[float, float]:
    """Return the range over which pydicom spreads a window."""
    if data.get("ModalityLUTSequence"):
        return 0.0, float((1 << data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    bits = data.BitsStored
    ends = (-(1 << bits - 1), (1 << bits - 1) - 1) if data.PixelRepresentation else (0, (1 << bits) - 1)
    slope, intercept = data.get("RescaleSlope"), data.get("RescaleIntercept")
    if slope is not None and intercept is not None:
        return float(ends[0] * slope + intercept), float(ends[1] * slope + intercept)
    return float(ends[0]), float(ends[1])


def _without_window(frame: NDArray[Any], values: NDArray[Any], data: Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
    rescaled = data.get("ModalityLUTSequence") or data.get("RescaleSlope", 1) != 1 or data.get("RescaleIntercept", 0)
    if data.get("BitsStored", 32) <= 8 and not rescaled:
        low, high = _output_range(data)
    else:
        seen = values
        if "PixelPaddingValue" in data:
            ends = sorted((data.PixelPaddingValue, data.get("PixelPaddingRangeLimit", data.PixelPaddingValue)))
            inside = (frame < ends[0]) | (frame > ends[1])
            seen = values[inside] if inside.any() else values
        # as the reader: the ends take part once more
        sample = np.append(seen.ravel(), [seen.min(), seen.max()])
        low, high = (float(end) for end in np.percentile(sample, (0.1, 99.9)))
        lowest, highest, reach = float(seen.min()), float(seen.max()), high - low
        if not reach > 0:
            low, high = lowest, highest
        else:
            low = lowest if lowest >= low - reach else low
            high = highest if highest <= high + reach else high
    if not high > low:
        return _exactly(np.zeros(frame.shape, np.uint8))
    return _cut(np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255, data)


def _exactly(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    pixels = np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else pixels
    return pixels.astype(np.int64), pixels.astype(np.int64)


def _cut(scaled: NDArray[Any], data: Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
    scaled = (255 - scaled if data.PhotometricInterpretation == "MONOCHROME1" else scaled)[..., None]
    return np.floor(scaled - _EDGE), np.floor(np.clip(scaled + _EDGE, 0, 255))


def _rounded(scaled: NDArray[Any], data: Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
    scaled = (255 - scaled if data.PhotometricInterpretation == "MONOCHROME1" else scaled)[..., None]
    return np.rint(scaled - _EDGE), np.rint(scaled + _EDGE)


def run(step: int = 1) -> dict[str, Any]:
    """Compare every ``step``-th member.

    Returns
    -------
    dict
        ``combinations``, ``equal``, how many each pixel kind, display, fault and syntax took part in, and of those
        that are not equal the names and what came instead.
    """
    began, outcomes, others = time.perf_counter(), Counter[str](), list[str]()
    counts: dict[str, Counter[str]] = {part: Counter() for part in ("pixels", "display", "fault", "syntax")}
    for number, member in enumerate(members()):
        if number % step:
            continue
        outcome = compare(*member)
        outcomes[(outcome == "equal" and "equal") or "other"] += 1
        for part, name in zip(counts, member, strict=True):
            counts[part][name] += 1
        if outcome != "equal":
            others.append(f"{' | '.join(member)}: {outcome}")
    return {
        "combinations": sum(outcomes.values()),
        "equal": outcomes["equal"],
        "not equal": others[:20],
        **{part: dict(counter) for part, counter in counts.items()},
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=1, help="compare every so-manieth combination")
    parser.add_argument("--dry", action="store_true", help="print, and write no result file")
    given = parser.parse_args()
    figures = run(given.step)
    if given.dry:
        import json

        print(json.dumps(figures, indent=1))
    else:
        record("dicom_family", figures, note="`equal` counts members that agree in every pixel of every frame")
    sys.exit(figures["combinations"] != figures["equal"])


if __name__ == "__main__":
    main()
