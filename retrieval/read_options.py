"""What a user decides about how a file becomes pictures: it travels whole from the command line to the readers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, TypedDict, get_args

from retr.index.errors import UsageError
from retr.index.options import Option, Options

Axis: TypeAlias = Literal["axial", "coronal", "sagittal", "acquired"]

#: Centre and width, in Hounsfield units, of named windows of CT; `retr.retrieval.images.slices` says whose they are.
CT_WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "abdomen": (50.0, 400.0),
}
#: What the id of a picture has behind its file's path: a number, a window's name, or both.
FRAME = re.compile(rf"#(?:\d+|(?:\d+-)?(?:{'|'.join(CT_WINDOWS)}))$")
#: What stands for the window that a file names itself.
AS_STORED = "file"
_STEP = re.compile(r"(\d+(?:\.\d+)?)mm")


def slice_step(slices: str) -> float | None:
    """Return the mm of ``slices``, ``None`` where it names none; a `UsageError` where it is no such option.

    >>> slice_step("5mm"), slice_step("content")
    (5.0, None)
    """
    if slices in {"all", "content"}:
        return None
    found = _STEP.fullmatch(slices)
    step = float(found[1]) if found else 0.0
    if not 0 < step < math.inf:
        raise UsageError(f"slices must be all, content or a number of mm, got: {slices!r}", hint="for example: 5mm")
    return step


def window_names(windows: str) -> tuple[str, ...]:
    """Return the names in ``windows``, in order, none where the file's own is meant; a `UsageError` for another.

    >>> window_names("lung,mediastinum"), window_names("file")
    (('lung', 'mediastinum'), ())
    """
    if windows == AS_STORED:
        return ()
    names = tuple(windows.split(","))
    wrong = next((name for name in names if name not in CT_WINDOWS), None)
    if wrong is not None or len(set(names)) < len(names):
        what = f"windows must be {AS_STORED}, or different ones of {', '.join(CT_WINDOWS)}, got: {windows!r}"
        raise UsageError(what, hint="for example: lung,mediastinum")
    return names


@dataclass(frozen=True, kw_only=True)
class ReadOptions(Options):
    """How files are read; the fields of `ReadKeywords`, by which callers give them.

    An index keeps those that are declared so: its rows are all read in one way, and so are they when their pictures are
    read again.
    """

    exact_decode: Annotated[
        bool, Option("Decode JPEGs at full size, not reduced to what the encoder needs.", kept=True)
    ] = False
    frames: Annotated[
        int,
        Option(
            "Of DICOM frames, TIFF pages and NIfTI slices take the first and every nth; by default all.",
            "0: one alone, the first, of a volume the middle slice.",
            least=1,
            kept=True,
        ),
    ] = 1
    axis: Annotated[
        Axis,
        Option(
            "Along which axis NIfTI volumes are cut: axial, coronal, sagittal, or acquired.",
            "The last is the plane in which a file's slices lie, as a DICOM series has them.",
            kept=True,
        ),
    ] = "axial"
    slices: Annotated[
        str,
        Option(
            "Which slices become rows: all, content (not those next to blank), or one for each so many mm (5mm).",
            "A place is that in the patient, by the header's geometry; a slice without one is taken. Where a volume is "
            "read as one picture, content is the slice that shows most.",
            kept=True,
        ),
    ] = "all"
    windows: Annotated[
        str,
        Option(
            "Windows of CT, of which each makes a picture: lung, mediastinum, bone, brain, abdomen, with commas.",
            "Of DICOM they are for CT in Hounsfield units, and other files are shown as they say; of NIfTI for every "
            "volume, since none says what it is. ``file``: as the file says.",
            kept=True,
        ),
    ] = AS_STORED
    orient: Annotated[
        bool,
        Option(
            "Turn and flip DICOM slices by their geometry, as NIfTI's are: the patient's right is on the left.",
            "Those without geometry stay as they are stored.",
            kept=True,
        ),
    ] = False
    allow_burned_in: Annotated[
        bool,
        Option("Read DICOM files that say their pixels hold annotations.", "These may name the patient."),
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.frames, int):
            # it is recorded, as a whole number
            raise UsageError(f"frames must be a whole number, got: {self.frames!r}")
        if self.frames < 0:
            hint = "1 takes every picture of a file"
            raise UsageError(f"frames must not be negative, got: {self.frames!r}", hint=hint)
        if self.axis not in get_args(Axis):
            raise UsageError(f"unknown axis {self.axis!r}", hint="use axial, coronal, sagittal or acquired")
        slice_step(self.slices)
        window_names(self.windows)


class ReadKeywords(TypedDict, total=False):
    """The fields of `ReadOptions` by name."""

    exact_decode: bool
    frames: int
    axis: Axis
    slices: str
    windows: str
    orient: bool
    allow_burned_in: bool
