"""NIfTI-1 and NIfTI-2 volumes (extra ``dicom``): slices as a radiologist looks at them.

The volume is turned to its closest canonical orientation (right, anterior, superior), cut along one axis, and
shown by radiological convention: the patient's right on the left of the picture, anterior or superior at the
top. All slices share one window over nearly all of the volume's values, so that they can be compared. Of a
series of volumes (4-D) the first is read, of vectors the first component. What a header says is taken as nibabel takes
it. Slices count from 1: from the feet up, from back to front, from
left to right.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from retr.index.errors import ImageReadError
from retr.retrieval.images.decoder_warnings import silence_decoders
from retr.retrieval.images.levels import finite_range, stretch_to_8bit
from retr.retrieval.images.picture import Picture, Reading, made_square, read_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PERCENTILES = (0.5, 99.5)

_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
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
        yield from _slices(*_volume(stream, options), options)
    except ImageReadError:
        raise
    except MemoryError:
        raise read_error("too large", options.name) from None
    except EOFError:
        raise read_error("truncated", options.name) from None
    except Exception:  # noqa: BLE001 - numpy, nibabel, gzip and zlib: each has errors of its own
        raise read_error("damaged", options.name) from None


def _volume(stream: BinaryIO, options: Reading) -> tuple[NDArray[Any], tuple[float, float, float], bool]:
    """Return the first volume as stored, turned to canonical orientation ``(x, y, z)``.

    Beside it, the size of a voxel and whether the scaling turns low stored values into high ones. The scaling itself
    does not matter: the window is relative to the values.
    """
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
    orientation = nibabel.io_orientation(header.get_best_affine())
    if np.isfinite(orientation).all():
        volume = nibabel.apply_orientation(volume, orientation)
        order = np.argsort(orientation[:, 0])
        zooms = [zooms[axis] for axis in order]
    slope, _ = header.get_slope_inter()
    return volume, (zooms[0], zooms[1], zooms[2]), slope is not None and slope < 0


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


def _slices(
    volume: NDArray[Any],
    zooms: tuple[float, float, float],
    inverted: bool,
    options: Reading,
) -> Iterator[tuple[str, Picture]]:
    axis = _AXES[options.axis]
    across, up = (other for other in range(3) if other != axis)
    width, height = volume.shape[across], volume.shape[up]
    if width * height > options.max_pixels:
        raise read_error("too large", options.name)
    count = volume.shape[axis]
    chosen = options.chosen(count)
    if not (options.frames or options.frame):
        chosen = iter([(count // 2, "")])
    low, high = _window(volume)
    note = f"percentile {PERCENTILES[0]}-{PERCENTILES[1]} of the volume"
    if options.window is not None:
        centre, width = options.window
        low, high, note = centre - width / 2, centre + width / 2, "window"
    window = ((low + high) / 2, high - low)
    if inverted:
        low, high = -high, -low
    for position, suffix in chosen:
        plane = np.moveaxis(volume, axis, 0)[position].astype(np.float64)
        pixels = stretch_to_8bit(np.flip(-plane if inverted else plane).T, low, high)
        image = Image.fromarray(pixels).convert("RGB")
        notes = {
            "window": note,
            "slice": f"{options.axis} {position + 1} of {count}",
        }
        square = made_square(image, zooms[across], zooms[up], options.max_pixels)
        if square.size != image.size:
            notes["aspect"] = "pixels made square"
        mode = "F" if volume.dtype.kind == "f" else {1: "L", 2: "I;16"}.get(volume.dtype.itemsize, "I")
        yield (
            suffix,
            Picture(square, width, height, mode, notes=notes, frame=position + 1, frames=count, window=window),
        )


def _window(volume: NDArray[Any]) -> tuple[float, float]:
    step = max(1, round((volume.size / _STATISTICS_VOXELS) ** (1 / 3)))
    sample = volume[::step, ::step, ::step].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 0.0
    low, high = (float(value) for value in np.percentile(sample, PERCENTILES))
    return (low, high) if high > low else finite_range(volume)
