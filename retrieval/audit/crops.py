"""Which pictures are crops of each other, or turned copies: candidates by vectors and keypoints, decided by geometry.

Half of a picture rarely lies near the whole by its vector: among 250 chest X-rays the whole was one of the 16 nearest
of a quarter of their crops to half the width (``benchmarks/duplicates.py``). So candidates are also looked for as
documents are, by their words: a keypoint's word is the nearest of 4096 descriptors drawn from the archive, and pictures
are near that share rare words; so all of these crops were found. Of each row at most so many candidates are compared:
the 16 nearest by raw vectors, and by words, as it is and mirrored. The keypoints of all rows are held in memory, about
0.1 MB a picture; a picture is read again where keypoints agree.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from retr import system
from retr.index.machine.extras import needed
from retr.retrieval.audit.geometry import MIN_MATCHES, Overlay, overlay
from retr.retrieval.audit.keypoints import SIDE, Detail, Keypoints, find_detail, find_keypoints, require_library
from retr.retrieval.progress import make_progress
from retr.retrieval.raw_vectors import nearest_own
from retr.retrieval.transforms.transform import own_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.audit.copies import Pictures

T = TypeVar("T")

_NEIGHBOURS = 16
_WORDS = 4096
_BATCH = 256
# Pictures at 320 pixels that are held for the next pair.
_HELD = 256


@dataclass
class Crops:
    """Which of some rows are crops of each other, or turned copies.

    Attributes
    ----------
    edges
        Pairs of places, the lower first, and how one lies on the other.
    compared
        How many pairs were.
    unreadable
        The places whose pictures could not be read again.
    plain
        How many pictures have too little structure for any comparison.
    """

    edges: dict[tuple[int, int], Overlay] = field(default_factory=dict)
    compared: int = 0
    unreadable: set[int] = field(default_factory=set)
    plain: int = 0


def find_crops(
    store: Store, numbers: NDArray[np.int64], labels: NDArray[np.int64], pictures: Pictures, *, progress: bool = False
) -> Crops:
    """Find crops and turned copies among rows that are not known to show one picture.

    Parameters
    ----------
    numbers
        The row numbers of all places.
    labels
        int64, which cluster each place is in: of each cluster the first place is compared.
    progress
        Show progress on standard error.

    Raises
    ------
    MissingExtraError
        scikit-image is not installed.
    """
    require_library()
    found = Crops()
    chosen = np.sort(np.unique(labels, return_index=True)[1])
    points: dict[int, Keypoints] = {}

    def keypoints(at: int) -> Keypoints | None:
        image = pictures.read(at, draft_size=2 * SIDE)
        return None if image is None else find_keypoints(image)

    for at, image_points in _in_threads(keypoints, chosen.tolist(), progress):
        if image_points is None:
            found.unreadable.add(at)
        elif len(image_points.points) < MIN_MATCHES:
            found.plain += 1
        else:
            points[at] = image_points
    places = np.array(sorted(points), np.int64)
    if len(places) < 2:
        return found
    pairs: dict[int, set[int]] = {}
    for one, other in [
        *_near_by_vector(store, numbers, places),
        *_near_by_words([points[at] for at in places], places),
    ]:
        pairs.setdefault(min(one, other), set()).add(max(one, other))

    @lru_cache(maxsize=_HELD)
    def detail(at: int) -> Detail | None:
        image = pictures.read(at, draft_size=2 * SIDE)
        return None if image is None else find_detail(image)

    def both(at: int, other: int) -> tuple[Detail, Detail] | None:
        one, two = detail(at), detail(other)
        return None if one is None or two is None else (one, two)

    def compare(at: int) -> dict[int, Overlay]:
        overlays = {to: overlay(points[at], points[to], partial(both, at, to)) for to in sorted(pairs[at])}
        return {to: how for to, how in overlays.items() if how is not None}

    for at, overlays in _in_threads(compare, sorted(pairs), progress):
        found.compared += len(pairs[at])
        found.edges |= {(at, other): how for other, how in overlays.items()}
    return found


def _in_threads(function: Callable[[int], T], places: list[int], progress: bool) -> Iterator[tuple[int, T]]:
    """Yield each place with what a function makes of it."""
    with make_progress(show=progress) as shown, ThreadPoolExecutor(system.processors()) as pool:
        shown.total(len(places))
        for at, made in zip(places, pool.map(function, places), strict=True):
            yield at, made
            shown.step()


def _near_by_vector(store: Store, numbers: NDArray[np.int64], places: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield each place with those nearest to it by their raw vectors."""
    place_of = np.full(store.n_total, -1, np.int64)
    place_of[numbers[places]] = places
    for start in range(0, len(places), _BATCH):
        chosen = places[start : start + _BATCH]
        rows = numbers[chosen]
        near = nearest_own(store, own_vectors(store, rows), rows[:, None], k=_NEIGHBOURS, among=place_of >= 0)
        for at, found in zip(chosen.tolist(), near.rows, strict=True):
            yield from ((at, int(place_of[row])) for row in found if row >= 0)


def _near_by_words(points: list[Keypoints], places: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield each place with those that share most of its rare words, as it is and mirrored."""
    with needed():
        from scipy.sparse import diags_array

    words = _vocabulary(points)
    counts = _count(points, words)
    rare = np.log((len(points) + 1) / (np.bincount(counts.indices, minlength=len(words)) + 1))
    gallery = _unit(counts @ diags_array(rare))
    for queries in (gallery, _unit(_count((one.mirrored() for one in points), words) @ diags_array(rare))):
        for start in range(0, len(points), _BATCH):
            likeness = (queries[start : start + _BATCH] @ gallery.T).toarray()
            own = np.arange(len(likeness))
            likeness[own, start + own] = -1
            best = np.argsort(-likeness, axis=1, kind="stable")[:, : min(_NEIGHBOURS, len(points) - 1)]
            for at, near in zip(places[start : start + _BATCH].tolist(), best, strict=True):
                yield from ((at, int(other)) for other in places[near])


def _vocabulary(points: list[Keypoints]) -> NDArray[np.float32]:
    """Draw words from all keypoints: float32 ``(w, 128)``."""
    ends = np.cumsum([len(one.points) for one in points])
    drawn = np.sort(np.random.default_rng(0).permutation(ends[-1])[:_WORDS])
    of = np.searchsorted(ends, drawn, side="right")
    starts = ends - [len(one.points) for one in points]
    return np.concatenate([points[at].roots()[drawn[of == at] - starts[at]] for at in np.unique(of)])


def _count(points: Iterable[Keypoints], words: NDArray[np.float32]) -> Any:
    """Return the roots of how often each picture has each word: a sparse array ``(n, w)``."""
    with needed():
        from scipy.sparse import csr_array

    # all are of unit length: the nearest word is the one of the largest product
    found = [np.unique((one.roots() @ words.T).argmax(axis=1), return_counts=True) for one in points]
    ends = np.cumsum([0, *(len(which) for which, _ in found)])
    values = np.sqrt(np.concatenate([counts for _, counts in found]), dtype=np.float32)
    return csr_array((values, np.concatenate([which for which, _ in found]), ends), shape=(len(found), len(words)))


def _unit(rows: Any) -> Any:
    with needed():
        from scipy.sparse import diags_array
        from scipy.sparse.linalg import norm

    return diags_array(1 / np.maximum(norm(rows, axis=1), 1e-9)) @ rows
