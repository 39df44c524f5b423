"""Where slices lie in the patient: plane, position, time, and how they are turned to be looked at.

All is told in the patient's coordinates of NIfTI (right, anterior, superior; mm), whichever file says it: DICOM's point
the other way along the first two. Nothing goes by file names or instance numbers. A position is along the normal of
the slice, which points to the right, the front or the head, whichever it is nearest to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.retrieval.images.dicom_values import items, numbers, text, whole

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

PLANES = ("sagittal", "coronal", "axial")
OBLIQUE = "oblique"
# a plane is called by an axis of the body if its normal has this cosine with it, as D. Clunie's PixelMed does
_ALONG = 0.8
# directions of rows and columns that are not orthogonal unit vectors, within rounding, are a mistake
_ROUNDING = 0.02
_TO_RAS = np.array([-1.0, -1.0, 1.0])
_CINE = ("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate")
_MOST_NUMBER = 100_000
# positions of one slice that come by ways of different precision are one
_MM_DIGITS = 2


@dataclass(frozen=True)
class Slice:
    """Where one slice lies.

    Attributes
    ----------
    plane
        One of `PLANES`, or ``"oblique"``.
    position
        mm along the normal, in hundredths.
    thickness
        mm that the slice stands for: the spacing of slices, or else their thickness; ``None`` where it is not told.
    axes
        float64 ``(3, 3)``: its columns are the directions in which columns and rows rise, and the normal.
    """

    plane: str
    position: float
    thickness: float | None
    axes: NDArray[np.float64]

    def columns(self) -> dict[str, Any]:
        """Return what an index keeps of it."""
        return {"plane": self.plane, "slice_position": self.position}

    def turn(self) -> tuple[bool, bool, bool]:
        """Return whether a picture is transposed, then flipped from left to right, then from top to bottom, to be seen.

        The patient's right is then on the left, of sagittal slices the front, and the front or the head at the top.
        """
        import nibabel

        affine = np.eye(4)
        affine[:3, :3] = self.axes
        (across, way_across), (down, way_down), _ = nibabel.io_orientation(affine)
        if across > down:
            return True, way_down > 0, way_across > 0
        return False, way_across > 0, way_down > 0

    def holds_multiple(self, step: float) -> bool:
        """Return whether a whole multiple of ``step`` mm lies in the slice; True where its thickness is not told."""
        if not self.thickness:
            return True
        # ends are put beside the round numbers on which positions often lie
        low = self.position - self.thickness / 2 - 0.0137
        return math.floor((low + self.thickness) / step) != math.floor(low / step)


def slice_at(point: Any, across: Any, down: Any, thickness: float | None) -> Slice | None:
    """Return where a slice lies, from a point of it and two directions in it; ``None`` where they are none."""
    point, across, down = (np.asarray(one, np.float64) for one in (point, across, down))
    lengths = np.linalg.norm(across), np.linalg.norm(down)
    if not (np.isfinite(point).all() and np.isfinite(lengths).all() and min(lengths) > 0):
        return None
    across, down = across / lengths[0], down / lengths[1]
    normal = np.cross(across, down)
    length = float(np.linalg.norm(normal))
    if length < 1 - 10 * _ROUNDING:
        return None
    normal = normal / length
    main = int(np.abs(normal).argmax())
    normal = normal if normal[main] > 0 else -normal
    plane = PLANES[main] if normal[main] >= _ALONG else OBLIQUE
    position = round(float(point @ normal), _MM_DIGITS) + 0.0
    return Slice(plane, position, thickness, np.stack([across, down, normal], axis=1))


def dicom_slices(header: Dataset, frames: int) -> list[Slice | None]:
    """Return where each frame of a DICOM file lies; ``None`` for one of which the header does not say it."""
    found = [_dicom_slice(header, position) for position in range(frames)]
    places = np.unique([one.position for one in found if one is not None])
    if len(places) < 2:
        return found
    # the frames tell their spacing themselves
    spacing = float(np.median(np.diff(places)))
    return [one and Slice(one.plane, one.position, spacing, one.axes) for one in found]


def _dicom_slice(header: Dataset, position: int) -> Slice | None:
    sources = _groups(header, position, "PlaneOrientationSequence", "PlanePositionSequence", "PixelMeasuresSequence")
    directions = _first(sources, "ImageOrientationPatient")
    point = _first(sources, "ImagePositionPatient")
    if len(directions) != 6 or len(point) != 3 or None in directions or None in point:
        return None
    across, down = (np.array(half, np.float64) for half in (directions[:3], directions[3:]))
    products = np.array([across @ across - 1, down @ down - 1, across @ down])
    if not (np.abs(products) < 2 * _ROUNDING).all():
        return None
    told = [_first(sources, keyword) for keyword in ("SpacingBetweenSlices", "SliceThickness")]
    thickness = next((abs(one[0]) for one in told if one and one[0]), None)
    return slice_at(np.array(point) * _TO_RAS, across * _TO_RAS, down * _TO_RAS, thickness)


def _groups(header: Dataset, position: int, *keywords: str) -> list[Dataset]:
    """Return the data sets that say something of one frame, the nearest first."""
    own = items(header, "PerFrameFunctionalGroupsSequence")[position : position + 1]
    shared = items(header, "SharedFunctionalGroupsSequence")[:1]
    return [*(one for group in (*own, *shared) for word in keywords for one in items(group, word)[:1]), header]


def _first(sources: list[Dataset], keyword: str) -> tuple[float | None, ...]:
    return next((numbers(source, keyword) for source in sources if keyword in source), ())


def dicom_times(header: Dataset, position: int, frames: int) -> dict[str, int]:
    """Return the columns that keep apart what was taken at one place at several times.

    ``temporal_position`` is DICOM's index of it, or the number of the frame where frames are a film;
    ``acquisition_number`` the number of the scan within the series, which parts the phases of a CT.
    """
    sources = _groups(header, position, "FrameContentSequence")
    index = [
        whole(source, word) for source in sources for word in ("TemporalPositionIndex", "TemporalPositionIdentifier")
    ]
    film = frames > 1 and any(word in header for word in _CINE)
    found = {
        "temporal_position": next((one for one in index if one is not None), position + 1 if film else None),
        "acquisition_number": whole(header, "AcquisitionNumber"),
    }
    return {column: value for column, value in found.items() if value is not None and 0 <= value < _MOST_NUMBER}


def is_ct(header: Dataset) -> bool:
    """Return whether values are Hounsfield units: of a CT that does not say that they are of another kind."""
    return text(header, "Modality") == "CT" and text(header, "RescaleType") in {"", "HU"}


def nifti_slices(affine: NDArray[np.float64], axis: int, count: int) -> list[Slice | None]:
    """Return where the slices of a volume lie that is turned to its closest canonical orientation.

    Parameters
    ----------
    affine
        float64 ``(4, 4)`` of the turned volume.
    axis
        Along which it is cut.
    """
    across, up = (affine[:3, other] for other in range(3) if other != axis)
    first = slice_at(affine[:3, 3], across, up, None)
    if first is None:
        return [None] * count
    normal = first.axes[:, 2]
    spacing = abs(float(affine[:3, axis] @ normal))
    found = []
    for number in range(count):
        place = round(float((affine[:3, 3] + number * affine[:3, axis]) @ normal), _MM_DIGITS) + 0.0
        found.append(Slice(first.plane, place, spacing, first.axes))
    return list(found)
