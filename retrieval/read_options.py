"""What a user decides about how a file becomes pictures: it travels whole from the command line to the readers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, TypedDict, get_args

from retr.index.errors import UsageError
from retr.index.options import Option, Options

Axis: TypeAlias = Literal["axial", "coronal", "sagittal"]


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
    axis: Annotated[Axis, Option("Along which axis NIfTI volumes are cut: axial, coronal or sagittal.", kept=True)] = (
        "axial"
    )
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
            raise UsageError(f"unknown axis {self.axis!r}", hint="use axial, coronal or sagittal")


class ReadKeywords(TypedDict, total=False):
    """The fields of `ReadOptions` by name."""

    exact_decode: bool
    frames: int
    axis: Axis
    allow_burned_in: bool
