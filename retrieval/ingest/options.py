"""What a build is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retr.index.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from retr.retrieval.archive.metadata import Metadata
    from retr.retrieval.archive.sources import Entry, Item, Source
    from retr.retrieval.images.picture import Axis

COMMIT_ROWS = 4096


@dataclass(frozen=True)
class Order:
    """What is to be built.

    Attributes
    ----------
    source, entries, first
        The archive, what it lists, and its first item.
    name
        The source's name, with which the ids begin; empty for the archive the index was first built from.
    table
        The metadata to join.
    types
        Columns to be stored as ``"number"`` or as ``"text"``, whatever they look like; kept for later builds.
    image_column
        The column that the pictures of a table were read from, where one was chosen; kept for reading them again.
    group
        The column that tells patients apart.
    scores
        Findings to score and store as columns ``p_<finding>``, for encoders with ``encode_and_score``. Kept for later
        builds of the same index, as are ``exact_decode``, ``frames`` and ``axis``.
    prune
        Drop rows whose files are gone.
    rehash
        Read and hash files that look unchanged: all of them (True), none (False), or by default those that this machine
        has not read in the state they are in.
    exact_decode
        Decode JPEGs in full rather than reduced to what the encoder needs.
    frames
        Of a file with several pictures (DICOM frames, TIFF pages, NIfTI slices) take the first and every nth; 1, all of
        them, by default. 0: one alone, the first, of a volume the middle slice.
    axis
        Along which axis NIfTI volumes are cut: ``"axial"`` (the default), ``"coronal"``, ``"sagittal"``.
    allow_burned_in
        Read DICOM files that say their pixels hold annotations, which may name the patient.
    commit_rows
        Rows between two commits.
    workers
        Threads that read and decode; by default as many as there are cores.
    """

    source: Source
    entries: Iterator[Entry]
    first: Item
    name: str = ""
    table: Metadata | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    image_column: str | None = None
    group: str | None = None
    scores: Sequence[str] | None = None
    prune: bool = False
    rehash: bool | None = None
    exact_decode: bool = False
    frames: int | None = None
    axis: Axis | None = None
    allow_burned_in: bool = False
    commit_rows: int = COMMIT_ROWS
    workers: int | None = None

    def check(self) -> None:
        """Raise `UsageError` for what cannot be meant."""
        if self.commit_rows < 1:
            raise UsageError(f"commit_rows must be at least 1, got: {self.commit_rows!r}")
        if self.frames is not None and self.frames < 0:
            raise UsageError(
                f"frames must not be negative, got: {self.frames!r}", hint="1 takes every picture of a file"
            )
        if self.axis not in {None, "axial", "coronal", "sagittal"}:
            raise UsageError(f"unknown axis {self.axis!r}", hint="use axial, coronal or sagittal")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers must be at least 1, got: {self.workers!r}")
