"""Which rows show the same picture, and which of them cross a border they must not cross.

Exact duplicates have the same bytes (sha256). Near duplicates are found in two steps. First candidates: pairs whose
cosine is at least what copies of this index's own pictures reach, measured by shrinking and recompressing, and by
brightening, a sample of them and embedding the copies. Then confirmation by a perceptual hash of the pixels
(`perceptual_hash`): the hashes of two rows must correlate by at least `MIN_AGREEMENT`. An embedding alone does not tell
a copy from another photograph of the same eye; the hash does. Measured on fundus photographs and chest X-rays (45 to
800 of each, all pairs): 99 % of the copies that were recompressed, resized or brightened agree by 0.996 or more; of
387,000 pairs of other pictures one, two eyes too dark to see, agrees by 0.994. A crop is not found.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageEnhance

from retr.index.errors import ImageReadError, RetrError, UsageError
from retr.retrieval.archive.notes import Notes
from retr.retrieval.archive.pictures import picture_in
from retr.retrieval.archive.places import Archive

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.engine import Index

MIN_AGREEMENT = 0.994
_SIDE = 32
# For each row so many nearest rows are candidates; a larger cluster of copies is still linked through its members.
_NEIGHBOURS = 16
_SAMPLE = 32
_BATCH = 256


@dataclass(frozen=True)
class Pair:
    """Two rows that show the same picture.

    Attributes
    ----------
    a, b
        Ids, in the order of the rows.
    kind
        ``"exact"`` (the same bytes) or ``"near"``.
    cosine
        Of their vectors.
    agreement
        Correlation of their perceptual hashes; None for exact ones.
    across
        Whether they belong to different groups (patients); None where there is no group column.
    """

    a: str
    b: str
    kind: str
    cosine: float
    agreement: float | None = None
    across: bool | None = None


@dataclass(frozen=True)
class Duplicates:
    """All pairs, and how they were found.

    ``threshold`` is the measured cosine, ``candidates`` the number of pairs above it, ``unreadable`` how many rows
    with candidates could not be read again and so not be confirmed.
    """

    pairs: tuple[Pair, ...]
    threshold: float | None
    candidates: int
    unreadable: int


@dataclass(frozen=True)
class Leaks:
    """What crosses a split.

    ``groups`` gives, for each patient with rows in several parts, how many rows each part has; ``pairs`` the duplicates
    whose two rows are in different parts, with these parts. ``without_part`` and ``without_group`` count the rows that
    could not be looked at: those in no part, and those in one whose patient is not known.
    """

    groups: dict[str, dict[str, int]]
    pairs: tuple[tuple[Pair, str, str], ...]
    without_part: int = 0
    without_group: int = 0


def duplicates(
    index: Index,
    *,
    group: str | None = None,
    threshold: float | None = None,
    exact_only: bool = False,
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

    Raises
    ------
    UsageError
        The threshold is not a cosine, or a column is unknown.
    RetrError
        The archive is not in reach.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise UsageError(f"a cosine threshold lies above 0 and is at most 1, got: {threshold!r}")
    store = index.store
    rows = _Rows(store, group or store.manifest.group)
    first: dict[tuple[str, str], int] = {}
    pairs = []
    for at in range(len(rows.ids)):
        original = first.setdefault(rows.key(at), at)
        if original != at:
            pairs.append(rows.pair(original, at, "exact", 1.0))
    if exact_only:
        return Duplicates(tuple(pairs), None, 0, 0)
    unique = np.array(sorted(first.values()), dtype=np.int64)
    pictures = _Pictures(store, rows)
    if threshold is None:
        threshold = _measure(store, index.encoder, rows, unique, pictures)
    candidates = _candidates(store, rows, unique, threshold)
    hashes = pictures.hashes(sorted({at for a, b, _ in candidates for at in (a, b)}))
    for a, b, cosine in candidates:
        if a in hashes and b in hashes:
            agreement = float(hashes[a] @ hashes[b])
            if agreement >= MIN_AGREEMENT:
                pairs.append(rows.pair(a, b, "near", cosine, round(agreement, 4)))
    return Duplicates(tuple(pairs), threshold, len(candidates), pictures.unreadable)


def leaks(
    index: Index,
    split: str,
    *,
    group: str | None = None,
    threshold: float | None = None,
    exact_only: bool = False,
) -> Leaks:
    """Find patients, and duplicates, that are in several parts of a split.

    Parameters
    ----------
    split
        The column that names each row's part; rows without one are in none.
    group
        The column that tells patients apart; by default the index's own, and without one only pairs are looked at.
    threshold, exact_only
        As in `duplicates`.

    Raises
    ------
    UsageError
        A column is unknown.
    """
    store = index.store
    parts = store.table(["id", split])
    part_of = dict(zip(parts["id"].to_pylist(), parts[split].to_pylist(), strict=True))
    group = group or store.manifest.group
    seen: dict[str, dict[str, int]] = {}
    unknown = 0
    if group is not None:
        for value, part in zip(store.identity.of(group, store.live_rows()), part_of.values(), strict=True):
            if value is not None and part is not None:
                counts = seen.setdefault(value, {})
                counts[str(part)] = counts.get(str(part), 0) + 1
            unknown += value is None and part is not None
    crossing = [
        (pair, str(part_of[pair.a]), str(part_of[pair.b]))
        for pair in duplicates(index, group=group, threshold=threshold, exact_only=exact_only).pairs
        if None not in {part_of[pair.a], part_of[pair.b]} and part_of[pair.a] != part_of[pair.b]
    ]
    groups = {value: counts for value, counts in seen.items() if len(counts) > 1}
    return Leaks(groups, tuple(crossing), sum(part is None for part in part_of.values()), unknown)


def perceptual_hash(image: Image.Image) -> NDArray[np.float32]:
    """Reduce a picture to how 32 x 32 places differ from their surroundings: float32 ``(1024,)``, a unit vector.

    Taking the surroundings away leaves vessels and ribs, and removes the round field and the lungs that all pictures of
    a kind have in common.
    """
    from scipy.ndimage import gaussian_filter

    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    grey = np.asarray(small, dtype=np.float32)
    detail = (grey - gaussian_filter(grey, 2)).ravel()
    centred = detail - detail.mean()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-6), dtype=np.float32)


class _Rows:
    """The live rows: what they are called, what bytes they have, whose they are."""

    def __init__(self, store: Store, group: str | None) -> None:
        self.numbers = store.live_rows()
        table = store.table(["id", "path", "sha256"])
        self.ids, self.paths, self._sha256 = (table[name].to_pylist() for name in table.column_names)
        self._groups = None if group is None else store.identity.of(group, self.numbers)

    def key(self, at: int) -> tuple[str, str]:
        """Give a row's bytes, and which picture of them it is: empty, or ``#3``."""
        return self._sha256[at], str(self.ids[at]).removeprefix(self.paths[at])

    def pair(self, a: int, b: int, kind: str, cosine: float, agreement: float | None = None) -> Pair:
        across = None
        if self._groups is not None and None not in {self._groups[a], self._groups[b]}:
            across = self._groups[a] != self._groups[b]
        return Pair(self.ids[a], self.ids[b], kind, round(cosine, 4), agreement, across)


class _Pictures:
    """Reads rows' pictures again from the archive."""

    def __init__(self, store: Store, rows: _Rows) -> None:
        self._archive, self._rows, self._notes = Archive(store), rows, Notes.of(store)
        self._grey16 = store.manifest.encoder.grey16
        self.unreadable = 0

    def read(self, at: int, draft_size: int | None = None) -> Image.Image | None:
        """Give a row's picture; None where it cannot be read any more."""
        try:
            data = self._archive.read(self._rows.paths[at])
            reading = {"draft_size": draft_size, "grey16": self._grey16}
            return picture_in(data, self._rows.ids[at], self._notes, **reading).image
        except ImageReadError:
            pass
        except RetrError:
            if not self._archive.in_reach(self._rows.paths[at]):
                raise
        return None

    def hashes(self, chosen: list[int]) -> dict[int, NDArray[np.float32]]:
        """Hash some rows' pictures, in threads."""

        def one(at: int) -> NDArray[np.float32] | None:
            image = self.read(at, draft_size=4 * _SIDE)
            return None if image is None else perceptual_hash(image)

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            found = dict(zip(chosen, pool.map(one, chosen), strict=True))
        self.unreadable = sum(value is None for value in found.values())
        return {at: value for at, value in found.items() if value is not None}


def _measure(store: Store, encoder: BaseEncoder, rows: _Rows, unique: NDArray[np.int64], pictures: _Pictures) -> float:
    """Give the lowest cosine that copies of a sample reach: shrunk and compressed ones, and brightened ones."""
    sample = unique[np.linspace(0, len(unique) - 1, min(_SAMPLE, len(unique)), dtype=np.int64)]
    originals = [(at, pictures.read(int(at))) for at in sample]
    readable = [(at, image) for at, image in originals if image is not None]
    if not readable:
        raise RetrError(
            "no picture of a sample of the index can be read again, so near duplicates cannot be confirmed",
            hint="bring the archive back, or compare bytes only with --exact-only",
        )
    stored = _unit(store.vectors(rows.numbers[[at for at, _ in readable]]))
    lowest = 1.0
    for change in (_recompressed, _brightened):
        copies = _unit(encoder.encode_images([change(image) for _, image in readable]))
        lowest = min(lowest, float((stored * copies).sum(axis=1).min()))
    return max(lowest, 0.01)


def _recompressed(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    size = (max(1, image.width * 7 // 10), max(1, image.height * 7 // 10))
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def _brightened(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.15)


def _candidates(store: Store, rows: _Rows, unique: NDArray[np.int64], threshold: float) -> list[tuple[int, int, float]]:
    """Give the pairs of rows with different bytes whose cosine is at least ``threshold``, as ``(a, b, cosine)``."""
    position = {int(number): at for at, number in enumerate(rows.numbers)}
    mask = np.zeros(store.n_total, dtype=np.bool_)
    mask[rows.numbers[unique]] = True
    found: dict[tuple[int, int], float] = {}
    for start in range(0, len(unique), _BATCH):
        chosen = unique[start : start + _BATCH]
        numbers = rows.numbers[chosen]
        vectors = store.vectors(numbers).astype(np.float32)
        neighbours = store.search(vectors, _NEIGHBOURS, mask=mask, exclude=[np.array([n]) for n in numbers])
        for at, vector, near in zip(chosen.tolist(), _unit(vectors), neighbours.rows, strict=True):
            near = near[near >= 0]  # noqa: PLW2901
            cosines = _unit(store.vectors(near)) @ vector
            for number, cosine in zip(near.tolist(), cosines.tolist(), strict=True):
                if cosine >= threshold:
                    other = position[number]
                    found[min(at, other), max(at, other)] = cosine
    return [(a, b, cosine) for (a, b), cosine in sorted(found.items())]


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    exact = vectors.astype(np.float32)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.asarray(exact / np.maximum(norms, np.float32(1e-12)))
