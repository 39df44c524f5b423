"""Which pictures are copies of each other: candidates by their vectors, confirmed by a hash of their pixels.

Candidates are pairs whose cosine is at least what copies of this index's own pictures reach, measured by shrinking and
recompressing, and by brightening, a sample of them and embedding the copies. A candidate is confirmed by a perceptual
hash of the pixels (`perceptual_hash`): the hashes of two rows must correlate by at least `MIN_AGREEMENT`. An embedding
alone does not tell a copy from another photograph of the same eye; the hash does. Measured on fundus photographs and
chest X-rays (45 to 800 of each, all pairs): 99 % of the copies that were recompressed, resized or brightened agree by
0.996 or more; of 387,000 pairs of other pictures one, two eyes too dark to see, agrees by 0.994. Of two hashes one is
also mirrored: a mirror image is found where the encoder puts it beside its original. Crops and turned copies are not
found: half of a picture lies nowhere near the whole, in vectors as in hashes (``benchmarks/duplicates.py``);
`retr.retrieval.audit.crops` looks for them.
"""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageEnhance

from retr import system
from retr.index.errors import ImageReadError, RetrError
from retr.index.machine.extras import needed
from retr.retrieval.archive.locations import Archive
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.archive.row_pictures import picture_in
from retr.retrieval.audit.clusters import components
from retr.retrieval.raw_vectors import encode_raw, raw_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.encoders.base import BaseEncoder

MIN_AGREEMENT = 0.994
_SIDE = 32
# So many candidates a row are compared at a time; more for as long as that finds copies.
_NEIGHBOURS = 16
_SAMPLE = 32
_BATCH = 256


def perceptual_hash(image: Image.Image) -> NDArray[np.float32]:
    """Reduce a picture to how 32 x 32 places differ from their surroundings: float32 ``(1024,)``, a unit vector.

    Taking the surroundings away leaves vessels and ribs, and removes the round field and the lungs that all pictures of
    a kind have in common.
    """
    with needed():
        from scipy.ndimage import gaussian_filter

    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    grey = np.asarray(small, dtype=np.float32)
    detail = (grey - gaussian_filter(grey, 2)).ravel()
    centred = detail - detail.mean()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-6), dtype=np.float32)


def mirrored_hash(of: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the hash of the picture that is mirrored from left to right: float32 ``(1024,)``."""
    return of.reshape(_SIDE, _SIDE)[:, ::-1].ravel()


@dataclass
class Copies:
    """Which of some rows are copies of each other.

    Attributes
    ----------
    edges
        Pairs of places, the lower first, with their cosine and the agreement of their hashes.
    hashes
        Of all places that were compared; ``None`` where the picture could not be read again.
    threshold
        The cosine above which pairs were compared, and ``candidates`` how many they were.
    stopped
        Rows that have further candidates, which were not compared since the nearest were no copies.
    note
        What a person should know of how candidates were found.
    """

    threshold: float
    edges: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)
    hashes: dict[int, NDArray[np.float32] | None] = field(default_factory=dict)
    candidates: int = 0
    stopped: int = 0
    note: str | None = None

    @property
    def unreadable(self) -> int:
        """How many rows with candidates could not be read again."""
        return sum(value is None for value in self.hashes.values())

    def agreement(self, a: int, b: int) -> float | None:
        """Return the correlation of two places' hashes, of one mirrored if that is higher; ``None`` without one."""
        one, other = self.hashes.get(a), self.hashes.get(b)
        if one is None or other is None:
            return None
        return max(float(one @ other), float(one @ mirrored_hash(other)))

    def mirrored(self, a: int, b: int) -> bool:
        """Return whether one of two places looks more like the other's mirror image than like itself."""
        one, other = self.hashes.get(a), self.hashes.get(b)
        return one is not None and other is not None and float(one @ mirrored_hash(other)) > float(one @ other)


class Pictures:
    """Reads rows' pictures again from the archive.

    ``ids``, ``paths`` and ``sha256`` (of the files, where it is known) are of all rows; a place is a position in them.
    ``exact`` are pairs of places of the same picture, byte for byte: where the first is gone or has another file by
    now, the second is read.
    """

    def __init__(
        self,
        store: Store,
        ids: list[str],
        paths: list[str],
        sha256: list[str | None],
        exact: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._archive, self._notes = Archive(store), BuildNotes.of(store)
        self._ids, self._paths, self._sha256 = ids, paths, sha256
        self._grey16 = store.manifest.encoder.grey16
        self._again: dict[int, list[int]] = {}
        for first, other in exact:
            self._again.setdefault(first, []).append(other)

    def read(self, at: int, draft_size: int | None = None) -> Image.Image | None:
        """Return a row's picture; None where it cannot be read any more, or its file is another one by now."""
        found = (self._read(place, draft_size) for place in (at, *self._again.get(at, ())))
        return next((image for image in found if image is not None), None)

    def _read(self, at: int, draft_size: int | None) -> Image.Image | None:
        try:
            data = self._archive.read(self._paths[at])
            if self._sha256[at] and hashlib.sha256(data).hexdigest() != self._sha256[at]:
                return None
            reading = {"draft_size": draft_size, "grey16": self._grey16}
            return picture_in(data, self._ids[at], self._notes, **reading).image
        except ImageReadError:
            pass
        except RetrError:
            if not self._archive.in_reach(self._paths[at]):
                raise
        return None

    def hashes(self, chosen: list[int]) -> dict[int, NDArray[np.float32] | None]:
        """Hash some rows' pictures, in threads; None where one cannot be read any more."""

        def one(at: int) -> NDArray[np.float32] | None:
            image = self.read(at, draft_size=4 * _SIDE)
            return None if image is None else perceptual_hash(image)

        with ThreadPoolExecutor(system.processors()) as pool:
            return dict(zip(chosen, pool.map(one, chosen), strict=True))


def measure_threshold(
    store: Store, encoder: BaseEncoder, numbers: NDArray[np.int64], unique: NDArray[np.int64], pictures: Pictures
) -> float:
    """Return the lowest cosine that copies of a sample reach: shrunk and compressed ones, and brightened ones.

    ``numbers`` are the row numbers of all places, ``unique`` the places to draw from.
    """
    sample = unique[np.linspace(0, len(unique) - 1, min(_SAMPLE, len(unique)), dtype=np.int64)]
    originals = [(at, pictures.read(int(at))) for at in sample]
    readable = [(at, image) for at, image in originals if image is not None]
    if not readable:
        raise RetrError(
            "no picture of a sample of the index can be read again, so near duplicates cannot be confirmed",
            hint="bring the archive back, or compare bytes only with --exact-only",
        )
    stored = raw_vectors(store, numbers[[at for at, _ in readable]])
    lowest = 1.0
    for change in (_recompressed, _brightened):
        copies = encode_raw(encoder, [change(image) for _, image in readable])
        lowest = min(lowest, float((stored * copies).sum(axis=1).min()))
    return max(lowest, 0.01)


def _recompressed(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    size = (max(1, image.width * 7 // 10), max(1, image.height * 7 // 10))
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def _brightened(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.15)


def find_copies(
    store: Store, numbers: NDArray[np.int64], unique: NDArray[np.int64], pictures: Pictures, threshold: float
) -> Copies:
    """Find the copies among rows of different bytes.

    Each row's `_NEIGHBOURS` nearest are compared. Where all of them are candidates and one was a copy, there may be
    more: the next nearest are compared, leaving out what is connected already, until that finds no copy.
    """
    found = Copies(threshold)
    compared: dict[tuple[int, int], float] = {}
    apart: dict[int, set[int]] = {}
    labels = np.arange(len(numbers))
    active = unique.tolist()
    while active:
        fresh, full, note = _candidates(store, numbers, unique, active, labels, apart, threshold)
        found.note = found.note or note
        fresh = {pair: cosine for pair, cosine in fresh.items() if pair not in compared}
        compared |= fresh
        wanted = {at for pair in fresh for at in pair} - found.hashes.keys()
        found.hashes |= pictures.hashes(sorted(wanted))
        grown = set()
        for (a, b), cosine in sorted(fresh.items()):
            agreement = found.agreement(a, b)
            if agreement is not None and agreement >= MIN_AGREEMENT:
                found.edges[a, b] = cosine, round(agreement, 4)
                grown |= {a, b}
            elif a in full or b in full:
                apart.setdefault(a, set()).add(b)
                apart.setdefault(b, set()).add(a)
        labels = components(len(numbers), found.edges)
        active = sorted(full & grown)
        found.stopped += len(full - grown)
    found.candidates = len(compared)
    return found


def _candidates(
    store: Store,
    numbers: NDArray[np.int64],
    unique: NDArray[np.int64],
    active: list[int],
    labels: NDArray[np.int64],
    apart: dict[int, set[int]],
    threshold: float,
) -> tuple[dict[tuple[int, int], float], set[int], str | None]:
    """Return pairs of places with their cosine, the places all of whose nearest are candidates, and a note."""
    position = np.full(store.n_total, -1, np.int64)
    position[numbers] = np.arange(len(numbers))
    mask = np.zeros(store.n_total, dtype=np.bool_)
    mask[numbers[unique]] = True
    order = unique[np.argsort(labels[unique], kind="stable")]
    starts = np.searchsorted(labels[order], np.arange(labels.max(initial=-1) + 2))
    large = np.diff(starts) > _BATCH
    pairs: dict[tuple[int, int], float] = {}
    full: set[int] = set()
    note = None
    for chosen in _batches(active, labels, large):
        vectors = store.vectors(numbers[chosen]).astype(np.float32)
        own = [numbers[order[starts[labels[at]] : starts[labels[at] + 1]]] for at in chosen]
        allowed = mask
        if large[labels[chosen[0]]]:  # all of them are of one cluster
            allowed = mask.copy()
            allowed[own[0]] = False
            own = [own[0][:0]] * len(chosen)
        told = [numbers[sorted(apart.get(at, ()))] for at in chosen]
        exclude = [np.union1d(*both) for both in zip(own, told, strict=True)]
        near = store.search(vectors, _NEIGHBOURS, mask=allowed, exclude=exclude)
        note = note or near.note
        for at, vector, rows in zip(chosen, raw_vectors(store, numbers[chosen]), near.rows, strict=True):
            others = rows[rows >= 0]
            cosines = raw_vectors(store, others) @ vector
            hits = [(int(position[row]), float(c)) for row, c in zip(others, cosines, strict=True) if c >= threshold]
            if len(hits) == _NEIGHBOURS:
                full.add(at)
            for other, cosine in hits:
                pairs[min(at, other), max(at, other)] = cosine
    return pairs, full, note


def _batches(active: list[int], labels: NDArray[np.int64], large: NDArray[np.bool_]) -> Iterator[list[int]]:
    """Yield the places to search for, those of a large cluster by themselves."""
    together: dict[int, list[int]] = {}
    for at in active:
        together.setdefault(int(labels[at]) if large[labels[at]] else -1, []).append(at)
    for places in together.values():
        yield from (places[start : start + _BATCH] for start in range(0, len(places), _BATCH))
