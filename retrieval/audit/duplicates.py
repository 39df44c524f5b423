"""Find rows that show the same picture, and those among them that belong to different patients.

Exact duplicates have the same bytes (sha256); near ones are copies (`retr.retrieval.audit.copies`); crops and turned
copies are found where that is asked for (`retr.retrieval.audit.crops`). Rows that are connected through any of these
are one cluster: a copy of a copy shows the same picture, whether or not the two were compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.audit.clusters import components, count_crossing, list_crossing, several
from retr.retrieval.audit.copies import MIN_AGREEMENT, Copies, Pictures, find_copies, measure_threshold
from retr.retrieval.audit.crops import Crops, find_crops
from retr.retrieval.audit.keypoints import require_library
from retr.retrieval.raw_vectors import raw_vectors

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from retr.index.store import Store
    from retr.retrieval.audit.geometry import Overlay
    from retr.retrieval.index_like import IndexLike

#: Of the pairs that cross a split or a patient so many are listed; all are counted.
LISTED = 10_000


@dataclass(frozen=True)
class Pair:
    """Two rows that show the same picture.

    Attributes
    ----------
    a, b
        Ids, in the order of the rows.
    kind
        ``"exact"`` (the same bytes), ``"near"`` (copies), ``"mirrored"`` (copies, one of them the other way round),
        ``"crop"`` (one is part of the other), ``"rotated"``, or ``"linked"`` (connected through other copies).
    cosine
        Of their raw vectors.
    agreement
        Correlation of their perceptual hashes, or of their detail laid on each other; None for exact ones, and where
        the two were not compared.
    across
        Whether they belong to different groups (patients); None where that is not known of both.
    how
        How one lies on the other, where geometry told: ``"crop to 49 % of the area, rotated by 4 degrees"``.
    """

    a: str
    b: str
    kind: str
    cosine: float
    agreement: float | None = None
    across: bool | None = None
    how: str | None = None


@dataclass(frozen=True)
class Duplicates:
    """All duplicates, and how they were found.

    Attributes
    ----------
    pairs
        As found: each exact copy with the first row of its bytes, and the near ones.
    clusters
        The ids of rows that show the same picture, two or more each.
    crossing, n_crossing
        The pairs of one cluster that belong to different groups (patients), at most so many as were asked for, and how
        many there are.
    threshold, candidates
        The cosine above which pairs were compared, and how many they were.
    unreadable
        How many rows that were to be compared could not be read again, or have another file by now.
    stopped
        Of how many rows only the nearest candidates were compared, since these were no copies.
    unhashed
        How many rows have no hash of their bytes, where only bytes were compared.
    note
        What a person should know of how candidates were found, or ``None``.
    overlaid
        How many pairs were compared by geometry; ``None`` where that was not asked for.
    plain
        How many rows have too little structure for that.
    """

    pairs: tuple[Pair, ...]
    clusters: tuple[tuple[str, ...], ...]
    crossing: tuple[Pair, ...]
    n_crossing: int
    threshold: float | None
    candidates: int
    unreadable: int
    stopped: int = 0
    unhashed: int = 0
    note: str | None = None
    overlaid: int | None = None
    plain: int = 0


def duplicates(
    index: IndexLike,
    *,
    group: str | None = None,
    threshold: float | None = None,
    exact_only: bool = False,
    geometry: bool = False,
    limit: int = LISTED,
    progress: bool = False,
) -> Duplicates:
    """Find exact and near duplicates among the live rows.

    Parameters
    ----------
    index
        Its archive must be in reach unless ``exact_only``.
    group
        The column that tells patients apart; by default the index's own.
    threshold
        Cosine above which a pair is a candidate; measured by default.
    exact_only
        Compare bytes only.
    geometry
        Find crops and turned copies, too: every picture is read, and at most 48 pairs of each are laid on each other.
    limit
        Of the pairs across groups so many are listed.
    progress
        Show on standard error how far the comparison by geometry is.

    Raises
    ------
    UsageError
        The threshold is not a cosine, a column is unknown, or geometry and bytes only are asked for.
    MissingExtraError
        ``geometry`` needs scikit-image (``pip install "retr[geometry]"``).
    RetrError
        The archive is not in reach.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> index.duplicates().pairs
    ()
    """
    found = Found(index, group=group, threshold=threshold, exact_only=exact_only, geometry=geometry, progress=progress)
    return found.duplicates(limit)


class Found:
    """What shows the same picture among the live rows, whose places are numbered from 0.

    Attributes
    ----------
    numbers, ids
        The rows.
    groups
        The patient of each; None where it is not known, or no column tells.
    labels
        int64, which cluster each is in.
    """

    def __init__(
        self,
        index: IndexLike,
        *,
        group: str | None,
        threshold: float | None,
        exact_only: bool,
        geometry: bool = False,
        progress: bool = False,
    ) -> None:
        if exact_only and geometry:
            raise UsageError(
                "geometry compares pixels, and only bytes are to be compared", hint="ask for one of the two"
            )
        if geometry:  # before anything is read
            require_library()
        if threshold is not None and not 0 < threshold <= 1:
            raise UsageError(f"a cosine threshold lies above 0 and is at most 1, got: {threshold!r}")
        self._store: Store = index.store
        self.numbers = self._store.live_rows()
        self.ids: list[str] = self._column("id")
        # vectors that were made elsewhere may come without the paths and hashes of their pictures
        paths, sha256 = self._column("path"), self._column("sha256")
        group = group or self._store.manifest.group
        self.groups: list[str | None] = (
            [None] * len(self.ids) if group is None else self._store.identity.of(group, self.numbers)
        )
        first: dict[tuple[str, str], int] = {}
        self._original = [
            first.setdefault((sha, _which(self.ids[at], paths[at])), at) if sha else at for at, sha in enumerate(sha256)
        ]
        self._unhashed = sum(not sha for sha in sha256) if exact_only else 0
        self._exact = [(original, at) for at, original in enumerate(self._original) if original != at]
        self._copies: Copies | None = None
        self._crops: Crops | None = None
        if not exact_only and self.ids:
            unique = np.unique(np.array(self._original, dtype=np.int64))
            pictures = Pictures(self._store, self.ids, [path or "" for path in paths], sha256, self._exact)
            if threshold is None:
                threshold = measure_threshold(self._store, index.encoder, self.numbers, unique, pictures)
            self._copies = find_copies(self._store, self.numbers, unique, pictures, threshold)
        near = self._copies.edges if self._copies else {}
        self.labels = components(len(self.ids), [*self._exact, *near])
        if geometry and self.ids:
            self._crops = find_crops(self._store, self.numbers, self.labels, pictures, progress=progress)
            self.labels = components(len(self.ids), [*self._exact, *near, *self._crops.edges])
        self.clusters = several(self.labels)

    def _column(self, name: str) -> list[Any]:
        if name not in self._store.schema.names:
            return [None] * len(self.numbers)
        values: list[Any] = self._store.table([name])[name].to_pylist()
        return values

    def duplicates(self, limit: int) -> Duplicates:
        """Return all of it, with at most ``limit`` pairs across groups."""
        copies = self._copies or Copies(0.0)
        crops = self._crops or Crops()
        unread = {at for at, hashed in copies.hashes.items() if hashed is None} | crops.unreadable
        return Duplicates(
            pairs=tuple(self.pair(a, b) for a, b in [*self._exact, *copies.edges, *crops.edges]),
            clusters=tuple(tuple(self.ids[at] for at in cluster) for cluster in self.clusters),
            crossing=tuple(self.pair(a, b) for a, b in list_crossing(self.clusters, self.groups, limit)),
            n_crossing=self.count(self.groups),
            threshold=self._copies.threshold if self._copies else None,
            candidates=copies.candidates,
            unreadable=len(unread),
            stopped=copies.stopped,
            unhashed=self._unhashed,
            note=copies.note,
            overlaid=crops.compared if self._crops else None,
            plain=crops.plain,
        )

    def count(self, values: Sequence[Hashable | None]) -> int:
        """Count the pairs of one cluster whose values differ; ``values`` has one for each row."""
        return sum(count_crossing(values[at] for at in cluster) for cluster in self.clusters)

    def pair(self, a: int, b: int) -> Pair:
        """Return two rows of one cluster."""
        one, other = sorted((self._original[a], self._original[b]))
        overlay = self._crops.edges.get((one, other)) if self._crops else None
        kind, cosine, agreement = self._how(one, other, overlay)
        across = None if None in {self.groups[a], self.groups[b]} else self.groups[a] != self.groups[b]
        how = overlay.how if overlay else None
        return Pair(self.ids[a], self.ids[b], kind, round(cosine, 4), agreement, across, how)

    def _how(self, one: int, other: int, overlay: Overlay | None) -> tuple[str, float, float | None]:
        """Return kind, cosine and agreement of two rows, each the first of its bytes."""
        if one == other:
            return "exact", 1.0, None
        assert self._copies is not None
        if overlay:
            first, second = raw_vectors(self._store, self.numbers[[one, other]])
            return overlay.kind, float(first @ second), round(overlay.correlation, 4)
        alike = "mirrored" if self._copies.mirrored(one, other) else "near"
        if (one, other) in self._copies.edges:
            return alike, *self._copies.edges[one, other]
        first, second = raw_vectors(self._store, self.numbers[[one, other]])
        agreement = self._copies.agreement(one, other)
        near = agreement is not None and agreement >= MIN_AGREEMENT
        return alike if near else "linked", float(first @ second), None if agreement is None else round(agreement, 4)


def _which(row_id: str, path: str | None) -> str:
    """Return which picture of its file a row is: the end of its id, such as ``#3``; empty of the only one."""
    if path and row_id.startswith(path):
        return row_id[len(path) :]
    return "".join(row_id.rpartition("#")[1:]) if "#" in row_id else ""
