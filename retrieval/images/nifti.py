"""NIfTI-1 and NIfTI-2 volumes (extra ``dicom``): slices as a radiologist looks at them.

The volume is turned to its closest canonical orientation (right, anterior, superior), cut along one axis, and
shown by radiological convention: the patient's right on the left of the picture, anterior or superior at the
top. All slices share one window over nearly all of the volume's values, so that they can be compared, unless windows
of CT are asked for. Of a
series of volumes (4-D) the first is read, of vectors the first component. What a header says is taken as nibabel takes
it. Slices count from 1: from the feet up, from back to front, from
left to right.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from retr.index.errors import ImageReadError
from retr.retrieval.images.decoder_warnings import silence_decoders
from retr.retrieval.images.geometry import PLANES, Slice, nifti_slices
from retr.retrieval.images.levels import finite_range, stretch_to_8bit
from retr.retrieval.images.picture import Picture, Reading, made_square, read_error
from retr.retrieval.images.slices import by_content, by_place, content, named, windows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PERCENTILES = (0.5, 99.5)

# A volume is held in memory as a whole: it may take this many bytes for each pixel that a picture may have.
_BYTES_PER_PIXEL = 12
_STATISTICS_VOXELS = 1 << 20
_PIECE = 1 << 20
_GZIP = b"\x1f\x8b"
_NIFTI2 = (b"\x1c\2\0\0", b"\0\0\2\x1c")  # its header's length, in either byte order


def read(stream: BinaryIO, options: Reading) -> Iterator[tuple[str, Picture]]:
    """Read the chosen slices of a volume; where one picture is wanted, the middle one.

    Parameters
    ----------
    stream
        Seekable, at the beginning of the file.

    Raises
    ------
    ImageReadError
        With reason "missing extra", "truncated", "damaged", "too large" or "unsupported".
    """
    try:
        import nibabel  # noqa: F401 - fails here, with a reason, where the extra is not installed
    except ImportError:
        raise read_error("missing extra", options.name) from None
    silence_decoders()
    try:
        yield from _slices(_volume(stream, options), options)
    except ImageReadError:
        raise
    except MemoryError:
        raise read_error("too large", options.name) from None
    except EOFError:
        raise read_error("truncated", options.name) from None
    except Exception:  # noqa: BLE001 - numpy, nibabel, gzip and zlib: each has errors of its own
        raise read_error("damaged", options.name) from None


@dataclass(frozen=True)
class _Volume:
    """The first volume of a file.

    Attributes
    ----------
    voxels
        ``(x, y, z)`` as stored, turned to canonical orientation.
    affine
        float64 ``(4, 4)``: from indices to mm.
    zooms
        Size of a voxel.
    acquired
        The axis along which the file's slices follow each other.
    slope, intercept
        From stored values to values.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    zooms: tuple[float, float, float]
    acquired: int
    slope: float
    intercept: float

    def scaled(self, values: NDArray[Any]) -> NDArray[np.float64]:
        return values.astype(np.float64) * self.slope + self.intercept


def _volume(stream: BinaryIO, options: Reading) -> _Volume:
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    file: BinaryIO = stream
    if stream.read(2) == _GZIP:
        file = gzip.GzipFile(fileobj=stream)  # type: ignore[assignment]
    stream.seek(0)
    start = file.read(4)
    kind = nibabel.Nifti2Header if start in _NIFTI2 else nibabel.Nifti1Header
    header = kind(start + _exactly(file, kind.template_dtype.itemsize - 4), check=False)
    if header["magic"].item()[:3] not in {b"n+1", b"n+2"}:
        raise read_error("unsupported" if header["magic"].item()[:2] == b"ni" else "damaged", options.name)
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):  # a code that this machine has no type for
        raise read_error("unsupported", options.name) from None
    if dtype.kind not in "iuf" or not dtype.itemsize:
        raise read_error("unsupported", options.name)
    # what nibabel forgives when it loads a file (a qfac of 0, spacings of 0 or below, unknown codes) is forgiven here
    header.check_fix()
    shape = (*(int(length) for length in header.get_data_shape()[:3]), 1, 1)[:3]
    if min(shape) < 1:
        raise read_error("damaged", options.name)
    size = shape[0] * shape[1] * shape[2] * dtype.itemsize
    # the voxels of a file of its own cannot begin before its header ends
    offset = header.get_data_offset() or header.single_vox_offset
    if size > options.max_pixels * _BYTES_PER_PIXEL or offset > options.max_pixels:
        raise read_error("too large", options.name)
    _exactly(file, offset - kind.template_dtype.itemsize)
    volume = np.empty(shape, dtype, order="F")
    _fill(file, volume.reshape(-1, order="A").view(np.uint8).data)
    if file is not stream:
        _check_end(file)
    zooms = [float(length) for length in (*header.get_zooms()[:3], 1.0, 1.0)[:3]]
    affine, acquired = header.get_best_affine(), 2
    orientation = nibabel.io_orientation(affine)
    if np.isfinite(orientation).all():
        volume = nibabel.apply_orientation(volume, orientation)
        affine = affine @ nibabel.orientations.inv_ornt_aff(orientation, shape)
        order = np.argsort(orientation[:, 0])
        zooms = [zooms[axis] for axis in order]
        acquired = int(orientation[2, 0])
    slope, intercept = header.get_slope_inter()
    slope = 1.0 if slope is None else float(slope)
    return _Volume(volume, affine, (zooms[0], zooms[1], zooms[2]), acquired, slope, float(intercept or 0.0))


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(max(0, size))
    if len(data) < size:
        raise EOFError
    return data


def _fill(file: BinaryIO, buffer: memoryview) -> None:
    """Read into ``buffer`` until it is full, piece by piece: gzip makes a copy of each."""
    while buffer:
        count = file.readinto(buffer[:_PIECE])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        buffer = buffer[count:]


def _check_end(file: BinaryIO) -> None:
    """Have gzip compare its checksum, where the voxels are the last of the file; what follows it has no part in it."""
    try:
        file.read(_PIECE)
    except gzip.BadGzipFile as error:
        if "CRC" in str(error) or "length" in str(error):
            raise


def _slices(volume: _Volume, options: Reading) -> Iterator[tuple[str, Picture]]:
    axis = volume.acquired if options.axis == "acquired" else PLANES.index(options.axis)
    across, up = (other for other in range(3) if other != axis)
    if volume.voxels.shape[across] * volume.voxels.shape[up] > options.max_pixels:
        raise read_error("too large", options.name)
    count = volume.voxels.shape[axis]
    places = nifti_slices(volume.affine, axis, count)
    shown = _Shown(volume, axis, places, options)
    if options.frames or options.frame:
        chosen = [one for one in options.chosen(count) if by_place(places[one[0]], options)]
    elif options.slices == "content":
        # the middle one of those that show the most
        shares = np.array([content(shown.picture(one, *shown.windows[0]).image) for one in range(count)])
        most = np.flatnonzero(shares == shares.max())
        chosen = [(int(most[len(most) // 2]), "")]
    else:
        chosen = [(count // 2, "")]
    none = True
    for position, suffix in chosen:
        for name, window in shown.windows:
            picture = shown.picture(position, name, window)
            if not (options.frames or options.frame) or by_content(picture.image, options):
                none = False
                yield named(suffix, name), picture
    if none:
        raise read_error("no slice chosen", options.name)


class _Shown:
    """The slices of a volume along one axis as pictures."""

    def __init__(self, volume: _Volume, axis: int, places: list[Slice | None], options: Reading) -> None:
        self.volume = volume
        self.axis = axis
        self.places = places
        self.options = options
        self.windows = windows(options, hounsfield=True)

    @cached_property
    def _own(self) -> tuple[float, float]:
        """The stored values between which the volume is shown that is asked for through no window."""
        return _window(self.volume.voxels)

    def picture(self, position: int, name: str | None, window: tuple[float, float] | None) -> Picture:
        """Show one slice."""
        volume, options = self.volume, self.options
        plane = np.moveaxis(volume.voxels, self.axis, 0)[position]
        if window is None:
            # relative to the values: their scaling does not matter, but whether it turns low ones into high ones
            low, high = self._own
            note = f"percentile {PERCENTILES[0]}-{PERCENTILES[1]} of the volume"
            values = -plane.astype(np.float64) if volume.slope < 0 else plane.astype(np.float64)
            pixels = (-high, -low) if volume.slope < 0 else (low, high)
            shown = sorted((low * volume.slope + volume.intercept, high * volume.slope + volume.intercept))
            window = (shown[0] + shown[1]) / 2, shown[1] - shown[0]
        else:
            values, note = volume.scaled(plane), "window"
            pixels = window[0] - window[1] / 2, window[0] + window[1] / 2
        image = Image.fromarray(stretch_to_8bit(np.flip(values).T, *pixels)).convert("RGB")
        count = len(self.places)
        notes = {"window": note, "slice": f"{options.axis} {position + 1} of {count}"}
        across, up = (volume.zooms[other] for other in range(3) if other != self.axis)
        square = made_square(image, across, up, options.max_pixels)
        if square.size != image.size:
            notes["aspect"] = "pixels made square"
        place = self.places[position]
        return Picture(
            square,
            image.width,
            image.height,
            "F" if plane.dtype.kind == "f" else {1: "L", 2: "I;16"}.get(plane.dtype.itemsize, "I"),
            notes=notes,
            columns={**(place.columns() if place else {}), **({"ct_window": name} if name else {})},
            frame=position + 1,
            frames=count,
            window=window,
        )


def _window(volume: NDArray[Any]) -> tuple[float, float]:
    step = max(1, round((volume.size / _STATISTICS_VOXELS) ** (1 / 3)))
    sample = volume[::step, ::step, ::step].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 0.0
    low, high = (float(value) for value in np.percentile(sample, PERCENTILES))
    return (low, high) if high > low else finite_range(volume)
