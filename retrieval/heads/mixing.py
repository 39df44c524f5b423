"""A head mixed with the space that was searched before it, as far as the classes further down the list need it.

A head draws the pictures of one class together, and so pushes others out of the first few places: precision rises, and
yet fewer questions may find any picture of their class among the first five, where the nearest class is the wrong one.
Of a mix ``(1 - share) * head + share * space`` both terms are similarities, of one mean square length each, so that it
is again one matrix.

The share is chosen in cross-validation over the patients that are fitted on: of those `SHARES` whose any-hit@5 is not
lower than that of the space by more than its noise (the 95 % interval of the paired difference over patients reaches
0), the one of the highest precision@1. What it gains and loses is measured on other patients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.vectors import unit
from retr.retrieval.heads.head import FOLDS, MOST_DIMS, Head, head_of_shrinkages
from retr.retrieval.labels.folds import by_class
from retr.retrieval.stats.metrics import any_hit_at, precision_at
from retr.retrieval.transforms.transform import find_transform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from retr.index.store import Store

#: Shares of the space that are tried; all of it is that space itself.
SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
_DEPTH, _ERRORS = 5, 1.96
_TUNING_ROWS = 2000


def space_of(store: Store) -> Head:
    """Return what an index searches, of the encoder's own vectors, as a head: its transform, or nothing done."""
    transform = find_transform(store)
    if transform is None:
        dim = store.manifest.encoder.own.dim
        return Head(np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32), {})
    found = transform.whitening
    return Head(found.mean.astype(np.float32), found.weights.astype(np.float32), {})


def mixed(head: Head, space: Head, rows: NDArray[Any], share: float) -> Head:
    """Mix a head with a space, of one mean length over some rows each.

    Parameters
    ----------
    rows
        float ``(n, d)``: the rows that the head was fitted on.
    share
        Of the space, from 0 to 1.
    """
    about = {**head.about, "mix": share}
    if share <= 0:
        return Head(head.mean, head.weights, about)
    if share >= 1:
        return Head(space.mean, space.weights, about)
    # a space without a transform has no middle of its own
    middle = space.mean if space.mean.any() else head.mean
    centred = np.asarray(rows, np.float64) - middle
    dims = max(MOST_DIMS - space.dim, MOST_DIMS // 2)
    parts = [
        (1 - share, np.asarray(head.weights[:, :dims], np.float64)),
        (share, np.asarray(space.weights, np.float64)),
    ]
    weights = np.hstack([np.sqrt(part) * each / (_length(centred @ each) or 1.0) for part, each in parts])
    if weights.shape[1] > MOST_DIMS:
        moved = centred @ weights
        weights = weights @ np.linalg.eigh(moved.T @ moved)[1][:, ::-1][:, :MOST_DIMS]
    return Head(middle, weights.astype(np.float32), about)


class Mixing:
    """Mixes heads that are fitted on some of the labelled rows of an index with the space that it searches.

    Parameters
    ----------
    space
        ``None`` where there is nothing to mix with.
    vectors
        float ``(n, d)``: the encoder's own, of the labelled rows.
    single
        bool ``(n,)``: those that can be fitted on.
    """

    def __init__(self, space: Head | None, vectors: NDArray[Any], single: NDArray[np.bool_]) -> None:
        self._space, self._vectors, self._single = space, vectors, single

    def __call__(self, head: Head, fitted: NDArray[np.bool_], share: float) -> Head:
        """Return the mix of a head that was fitted on some rows, bool ``(n,)``."""
        return head if self._space is None else mixed(head, self._space, self._vectors[fitted & self._single], share)

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares of the space that can be tried, the smallest first."""
        return SHARES if self._space is not None else (0.0,)

    def chosen(
        self, head: Head, fitted: NDArray[np.bool_], codes: NDArray[np.int64], groups: NDArray[np.int64], *, seed: int
    ) -> float:
        """Choose the share of the space in cross-validation.

        Parameters
        ----------
        head, fitted
            As in a call; the head's shrinkages are those of the folds.
        codes, groups
            int64 ``(n,)``: the class and the patient of each row.
        seed
            Of the folds, and of the rows where there are very many.
        """
        if self._space is None:
            return 0.0
        rows = np.flatnonzero(fitted & self._single)
        if len(rows) > _TUNING_ROWS:
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:_TUNING_ROWS])
        vectors, codes, groups = self._vectors[rows], codes[rows], groups[rows]
        found: dict[float, list[NDArray[np.float64]]] = {share: [] for share in SHARES}
        asked = []
        for inside, outside in by_class(codes, groups, FOLDS, seed):
            if not np.ptp(vectors[inside], axis=0).any():
                continue
            fold = head_of_shrinkages(vectors[inside], codes[inside], head.about["shrinkage"])
            asked.append(groups[outside])
            for share in SHARES:
                moved = unit(mixed(fold, self._space, vectors[inside], share)(vectors))
                found[share].append(np.stack(list(_first_and_any(moved, codes, groups, outside))))
        if not asked:
            return 1.0
        # of each share: by gallery, by measure, by row
        hits, whose = {share: np.concatenate(parts, axis=2) for share, parts in found.items()}, np.concatenate(asked)
        kept = [share for share in SHARES if all(_keeps(one, whose) for one in hits[share][:, 1] - hits[1.0][:, 1])]
        # of equal ones that which is nearer to what was there
        return max(kept, key=lambda share: (round(float(hits[share][:, 0].mean()), 9), share))


def _first_and_any(
    moved: NDArray[np.float32], codes: NDArray[np.int64], groups: NDArray[np.int64], asks: NDArray[np.int64]
) -> Iterator[NDArray[np.float64]]:
    """Yield precision@1 and any-hit@5 of some rows among all others, and among each other: float64 ``(2, n)``."""
    scores = moved[asks] @ moved.T
    scores[groups[asks, None] == groups] = -np.inf
    for among in (np.ones(len(codes), bool), np.isin(np.arange(len(codes)), asks)):
        allowed = np.where(among, scores, -np.inf)
        best = np.argsort(-allowed, axis=1, kind="stable")[:, :_DEPTH]
        same = (codes[best] == codes[asks, None]) & np.isfinite(np.take_along_axis(allowed, best, axis=1))
        yield np.stack([precision_at(same, 1), any_hit_at(same, same.shape[1])]).astype(np.float64)


def _keeps(differences: NDArray[np.float64], groups: NDArray[np.int64]) -> bool:
    """Return whether a mean lies below 0 by no more than `_ERRORS` of its standard errors; each group is one draw."""
    _, owner = np.unique(groups, return_inverse=True)
    mean = differences.mean()
    error = np.sqrt(np.square(np.bincount(owner, differences - mean)).sum()) / len(differences)
    return bool(mean >= -_ERRORS * error - 1e-12)


def _length(rows: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(rows).sum(axis=1).mean()))
