"""How the files of the family are displayed, and what is wrong with them.

A fault changes the file that is read; its ``mend`` changes the twin that pydicom shows, where the right answer is not
simply that of the file without the fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from pydicom import Dataset

    from retr.benchmarks.dicom_kinds import Kind
    from retr.benchmarks.dicom_syntaxes import Syntax


@dataclass(frozen=True)
class Display:
    """A set of attributes that say how grey is shown; ``reach`` is of the stored values."""

    name: str
    apply: Callable[[Dataset, Kind], None]
    fits: Callable[[Kind], bool]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a file."""

    name: str
    spoil: Callable[[Dataset, Kind], None]
    fits: Callable[[Kind, Display, Syntax], bool]
    mend: Callable[[Dataset, Kind], None] = lambda _data, _kind: None
    cells: Callable[[NDArray[Any], Kind], NDArray[Any]] = lambda cells, _kind: cells
    whole_cells: bool = False


def lowest(kind: Kind) -> int:
    """Return the lowest value that pixels of this kind can have."""
    return -(1 << (kind.stored - 1)) if kind.signed else 0


# -- displays ------------------------------------------------------------------------------------------------------


def _window(function: str) -> Callable[[Dataset, Kind], None]:
    def apply(data: Dataset, kind: Kind) -> None:
        span = 1 << kind.stored
        data.WindowCenter, data.WindowWidth = lowest(kind) + span // 2 + 3, max(2, span // 2 - 1)
        if function != "LINEAR":
            data.VOILUTFunction = function

    return apply


def _rescale(data: Dataset, kind: Kind) -> None:
    data.RescaleSlope, data.RescaleIntercept = "2.5", "-1024"
    del kind


def _rescale_window(data: Dataset, kind: Kind) -> None:
    _rescale(data, kind)
    middle = (lowest(kind) + (1 << kind.stored - 1)) * 2.5 - 1024
    data.WindowCenter, data.WindowWidth = [middle, 1], [max(2, 1 << kind.stored), 2]


def table(kind: Kind, bits: int, first: int | None = None) -> Dataset:
    """Return a LUT item over half of the values of this kind, or from ``first`` on."""
    from pydicom import Dataset

    count = min(1 << (kind.stored - 1), 1000)
    begin = lowest(kind) + (1 << (kind.stored - 2)) if first is None else first
    entries = (np.linspace(0, 1, count) ** 1.7 * ((1 << bits) - 1)).astype(int)
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if begin < 0 else "US", [count, begin, bits])
    item.add_new("LUTData", "US", entries.tolist())
    return item


def _modality(data: Dataset, kind: Kind) -> None:
    data.ModalityLUTSequence = [table(kind, 16)]
    data.WindowCenter, data.WindowWidth = 30000, 50000


def _voi(bits: int) -> Callable[[Dataset, Kind], None]:
    def apply(data: Dataset, kind: Kind) -> None:
        data.VOILUTSequence = [table(kind, bits)]
        data.WindowCenter, data.WindowWidth = 1, 1

    return apply


def _padding(data: Dataset, kind: Kind) -> None:
    _add_padding(data, kind, lowest(kind), None)


def _padding_range(data: Dataset, kind: Kind) -> None:
    _add_padding(data, kind, lowest(kind) + (1 << kind.stored - 2), lowest(kind))


def _add_padding(data: Dataset, kind: Kind, value: int, limit: int | None) -> None:
    representation = "SS" if kind.signed else "US"
    data.add_new("PixelPaddingValue", representation, value)
    if limit is not None:
        data.add_new("PixelPaddingRangeLimit", representation, limit)


def _any(_kind: Kind) -> bool:
    return True


def _grey(kind: Kind) -> bool:
    return kind.is_grey and 8 <= kind.stored <= 16


_DISPLAYS = [
    Display("none", lambda _data, _kind: None, _any),
    *(Display(f"window {name.lower()}", _window(name), _grey) for name in ("LINEAR", "LINEAR_EXACT", "SIGMOID")),
    Display("rescale", _rescale, _grey),
    Display("rescale, windows", _rescale_window, _grey),
    Display("modality lut", _modality, _grey),
    *(Display(f"voi lut of {bits}", _voi(bits), lambda kind: _grey(kind) and kind.stored > 8) for bits in (10, 12, 16)),
    Display("padding", _padding, lambda kind: _grey(kind) and kind.stored > 8),
    Display("padding range", _padding_range, lambda kind: _grey(kind) and kind.stored > 8),
]
DISPLAYS = {display.name: display for display in _DISPLAYS}


# -- faults --------------------------------------------------------------------------------------------------------


def _without(*keywords: str) -> Callable[[Dataset, Kind], None]:
    def spoil(data: Dataset, _kind: Kind) -> None:
        for keyword in keywords:
            if keyword in data:
                delattr(data, keyword)

    return spoil


def _set(**attributes: Any) -> Callable[[Dataset, Kind], None]:
    def spoil(data: Dataset, _kind: Kind) -> None:
        for keyword, value in attributes.items():
            raw(data, keyword, value)

    return spoil


def raw(data: Dataset, keyword: str, value: str) -> None:
    """Set a text element to what pydicom would not let pass."""
    from pydicom import config
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import DataElement

    with config.disable_value_validation():
        data[keyword] = DataElement(tag_for_keyword(keyword), "LO", value)
    data[keyword].VR = "LO"


def _as_unsigned(*keywords: str) -> Callable[[Dataset, Kind], None]:
    """Write what is SS as US."""

    def spoil(data: Dataset, _kind: Kind) -> None:
        holders = [data, *data.get("VOILUTSequence", []), *data.get("ModalityLUTSequence", [])]
        for holder in holders:
            for keyword in keywords:
                if keyword in holder:
                    value = holder[keyword].value
                    value = [item % 65536 for item in value] if not isinstance(value, int) else value % 65536
                    holder.add_new(keyword, "US", value)

    return spoil


_DESCRIPTORS = tuple(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue"))


def _low_bytes(data: Dataset, _kind: Kind) -> None:
    for colour in ("Red", "Green", "Blue"):
        element = data[f"{colour}PaletteColorLookupTableData"]
        element.value = (np.frombuffer(element.value, "<u2") >> 8).astype("<u2").tobytes()


def _as_bytes(data: Dataset, _kind: Kind) -> None:
    for colour in ("Red", "Green", "Blue"):
        element = data[f"{colour}PaletteColorLookupTableData"]
        element.value = (np.frombuffer(element.value, "<u2") >> 8).astype(np.uint8).tobytes()


def _shifted(cells: NDArray[Any], kind: Kind) -> NDArray[Any]:
    shifted: NDArray[Any] = np.left_shift(cells.astype(f"u{cells.dtype.itemsize}"), kind.allocated - kind.stored)
    return shifted


def _overlaid(cells: NDArray[Any], kind: Kind) -> NDArray[Any]:
    mask = (1 << kind.stored) - 1
    marks = np.random.default_rng(0).integers(0, 1 << (kind.allocated - kind.stored), cells.shape) << kind.stored
    return ((cells.astype(np.int64) & mask) | marks).astype(f"u{cells.dtype.itemsize}")


def _high_bit(data: Dataset, kind: Kind) -> None:
    data.HighBit = kind.allocated - 1


def _overlay_group(data: Dataset, kind: Kind) -> None:
    data.add_new(0x60000100, "US", kind.allocated)
    data.add_new(0x60000102, "US", kind.allocated - 1)


def _room(kind: Kind) -> bool:
    return kind.stored < kind.allocated <= 16 and kind.samples == 1 and kind.stored > 1


def _empty_item(keyword: str) -> Callable[[Dataset, Kind], None]:
    def spoil(data: Dataset, _kind: Kind) -> None:
        from pydicom import Dataset

        setattr(data, keyword, [Dataset()])

    return spoil


def _twelve_bits(data: Dataset, kind: Kind) -> None:
    item = data.ModalityLUTSequence[0]
    count, first, _ = item.LUTDescriptor
    item["LUTDescriptor"].value = [count, first, 12]
    item["LUTData"].value = [value >> 4 for value in item.LUTData]
    data.WindowCenter, data.WindowWidth = 2000, 3000
    del kind


def _twelve_of_16(data: Dataset, kind: Kind) -> None:
    _twelve_bits(data, kind)
    item = data.ModalityLUTSequence[0]
    item["LUTDescriptor"].value = [*item.LUTDescriptor[:2], 16]


def _on(*displays: str) -> Callable[[Kind, Display, Syntax], bool]:
    return lambda _kind, display, _syntax: display.name in displays


def _plain_grey(kind: Kind, display: Display, _syntax: Syntax) -> bool:
    return display.name == "window linear" and kind.is_grey


def _coded_colour(kind: Kind, display: Display, syntax: Syntax) -> bool:
    codec = syntax.compress is not None and syntax.name != "encapsulated uncompressed" and "deflated" not in syntax.name
    return codec and kind.samples > 1 and display.name == "none"


def _is_palette(kind: Kind) -> bool:
    return kind.photometric == "PALETTE COLOR"


def _simple(display: Display) -> bool:
    return display.name in {"none", "window linear"}


def _none(_data: Dataset, _kind: Kind) -> None:
    return


def _planar(data: Dataset, _kind: Kind) -> None:
    data.PlanarConfiguration = 1


_CELLS = ("jpeg lossless", "jpeg lossless sv1", "jpeg-ls", "jpeg 2000 lossless, unsigned", "rle")

_FAULTS = [
    Fault("none", _none, lambda _kind, _display, _syntax: True),
    # (a) the stored type believed over the meaning
    Fault(
        "padding written unsigned",
        _as_unsigned("PixelPaddingValue", "PixelPaddingRangeLimit"),
        lambda kind, display, _syntax: kind.signed and display.name.startswith("padding"),
    ),
    Fault(
        "lut written unsigned",
        _as_unsigned("LUTDescriptor"),
        lambda kind, display, _syntax: kind.signed and " lut" in display.name,
    ),
    Fault(
        "palette written unsigned",
        _as_unsigned(*_DESCRIPTORS),
        lambda kind, _display, _syntax: kind.signed and kind.photometric == "PALETTE COLOR",
    ),
    Fault("palette in low bytes", _low_bytes, lambda kind, _d, _s: _is_palette(kind)),
    Fault(
        "palette of bytes", _as_bytes, lambda kind, _d, syntax: kind.photometric == "PALETTE COLOR" and syntax.little
    ),
    Fault(
        "high bit at the top",
        _high_bit,
        lambda kind, display, syntax: _room(kind) and display.name == "window linear" and syntax.compress is None,
        cells=_shifted,
    ),
    Fault(
        "marks above the stored bits",
        _none,
        lambda kind, _display, syntax: _room(kind) and (syntax.compress is None or syntax.name in _CELLS),
        cells=_overlaid,
        whole_cells=True,
    ),
    Fault(
        "overlay above the stored bits",
        _overlay_group,
        lambda kind, display, syntax: (
            _room(kind) and display.name == "window linear" and (syntax.compress is None or syntax.name in _CELLS)
        ),
        cells=_overlaid,
        whole_cells=True,
    ),
    Fault("modality lut of 12 bits", _twelve_bits, _on("modality lut"), mend=_twelve_of_16),
    # (b) a label that contradicts the data
    Fault("planar on a codestream", _planar, _coded_colour),
    Fault(
        "422 with three bytes a pixel",
        lambda data, _kind: setattr(data, "PhotometricInterpretation", "YBR_FULL_422"),
        lambda kind, _display, syntax: (
            kind.photometric in {"YBR_FULL", "RGB"}
            and kind.stored == 8
            and "planar" not in kind.name
            and syntax.compress is None
        ),
    ),
    # (c) an optional attribute that is missing or no use
    Fault(
        "no PhotometricInterpretation",
        _without("PhotometricInterpretation"),
        lambda kind, display, _s: kind.photometric in {"MONOCHROME2", "PALETTE COLOR"} and _simple(display),
    ),
    Fault(
        "no PlanarConfiguration",
        _without("PlanarConfiguration"),
        lambda kind, _d, _s: kind.samples > 1 and "planar" not in kind.name,
    ),
    Fault(
        "no PixelRepresentation",
        _without("PixelRepresentation"),
        lambda kind, display, _s: not kind.signed and _simple(display),
    ),
    *(
        Fault(f"no {keyword}", _without(keyword), lambda _kind, display, _s: _simple(display))
        for keyword in ("SamplesPerPixel", "HighBit", "BitsStored")
    ),
    Fault("no number of frames", _without("NumberOfFrames"), lambda kind, _d, _s: kind.frames > 1 < kind.allocated),
    Fault("frames of zero", _set(NumberOfFrames="0"), lambda kind, _d, _s: kind.frames > 1 < kind.allocated),
    Fault("empty rescale", _set(RescaleSlope="", RescaleIntercept=""), _plain_grey),
    Fault("rescale that is no number", _set(RescaleSlope="one", RescaleIntercept="0"), _plain_grey),
    Fault("rescale of nan", _set(RescaleSlope="NaN", RescaleIntercept="0"), _plain_grey),
    Fault("slope of zero", _set(RescaleSlope="0", RescaleIntercept="0"), _plain_grey),
    Fault("one spacing", _set(PixelSpacing="0.5"), _plain_grey),
    Fault("spacing that is no number", _set(PixelSpacing="a\\b"), _plain_grey),
    Fault("empty voi lut item", _empty_item("VOILUTSequence"), _plain_grey),
    Fault("empty modality lut item", _empty_item("ModalityLUTSequence"), _plain_grey),
    Fault("unknown voi function", _set(VOILUTFunction="CURVE"), _plain_grey),
    Fault("a presentation lut shape", _set(PresentationLUTShape="INVERSE"), _plain_grey),
    Fault(
        "window of no width",
        _set(WindowWidth="0"),
        _plain_grey,
        mend=_without("WindowCenter", "WindowWidth"),
    ),
    Fault(
        "window that is no number",
        _set(WindowCenter="mid"),
        _plain_grey,
        mend=_without("WindowCenter", "WindowWidth"),
    ),
    Fault("an unknown character set", _set(SpecificCharacterSet="ISO_IR 999"), _plain_grey),
    Fault(
        "a broken profile",
        lambda data, _kind: data.add_new("ICCProfile", "OB", b"none"),
        lambda kind, _d, _s: kind.samples > 1,
    ),
]
FAULTS = {fault.name: fault for fault in _FAULTS}
