"""The report of a build."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes
    ----------
    rows
        Rows in the index afterwards.
    embedded, reused, unchanged
        Rows whose vector was computed; taken from a row with the same bytes; left alone.
    rehashed
        Files among the unchanged that were read again to make sure.
    changed
        Files of the embedded and reused rows that the index held in another state.
    vanished, removed
        Files of the index that are no longer in the archive and were kept; rows dropped (by ``prune``, or because
        the file now holds no readable picture).
    skipped, skipped_examples
        How many entries could not be read, by reason; the first few of them as ``(path, reason)``.
    other_files
        Files that are not meant to be pictures.
    without_metadata, unmatched_metadata, unmatched_examples
        Files that the metadata table has no row for; its rows that no file has; the first few of those.
    seconds, images_per_second, device
        How long it took; embedded rows a second; where the encoder ran.
    notes
        What the user should know, one line each.
    fence
        Where the build measured it, below which similarity a picture is unlike the archive, or why there is no such.

    Examples
    --------
    >>> report = BuildReport(rows=12, embedded=10, skipped={"truncated": 2})
    >>> report.rows, sum(report.skipped.values())
    (12, 2)
    """

    rows: int = 0
    embedded: int = 0
    reused: int = 0
    unchanged: int = 0
    rehashed: int = 0
    changed: int = 0
    vanished: int = 0
    removed: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    skipped_examples: tuple[tuple[str, str], ...] = ()
    other_files: int = 0
    without_metadata: int = 0
    unmatched_metadata: int = 0
    unmatched_examples: tuple[str, ...] = ()
    seconds: float = 0.0
    images_per_second: float = 0.0
    device: str = "cpu"
    notes: tuple[str, ...] = ()
    fence: str | None = None
