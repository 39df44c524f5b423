"""A head mixed with the space that was searched before it, as far as the classes further down the list need it.

A head draws the pictures of one class together, and so pushes others out of the first few places: precision rises, and
yet fewer questions find any picture of their class among the first five where the nearest class is the wrong one. Of a
mix ``(1 - share) * head + share * space`` both terms are similarities, of one mean square length each, so that it is
again one matrix.

The share is the smallest of `SHARES` that lowers any-hit@5 nowhere: in cross-validation over the patients that are
fitted on it must lie above that of the space by half a standard error (so few patients rather keep the space), and
then, where it is measured, not below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.vectors import unit
from retr.retrieval.heads.head import FOLDS, MOST_DIMS, Head, head_of_shrinkage
from retr.retrieval.labels.folds import by_class
from retr.retrieval.stats.metrics import any_hit_at
from retr.retrieval.transforms.transform import find_transform

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.stats.intervals import Estimate

#: Shares of the space that are tried; all of it is that space itself.
SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
_DEPTH, _ERRORS = 5, 0.5
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

    def shares(
        self, head: Head, fitted: NDArray[np.bool_], codes: NDArray[np.int64], groups: NDArray[np.int64], *, seed: int
    ) -> list[float]:
        """Return the shares of the space with which any-hit@5 is kept in cross-validation, the smallest first.

        Parameters
        ----------
        head, fitted
            As in a call; the head's shrinkage is that of the folds.
        codes, groups
            int64 ``(n,)``: the class and the patient of each row.
        seed
            Of the folds, and of the rows where there are very many.

        Returns
        -------
        list
            The last is 1, or it is ``[0.0]`` where there is nothing to mix with.
        """
        if self._space is None:
            return [0.0]
        rows = np.flatnonzero(fitted & self._single)
        if len(rows) > _TUNING_ROWS:
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:_TUNING_ROWS])
        vectors, codes, groups = self._vectors[rows], codes[rows], groups[rows]
        found: dict[float, list[NDArray[np.float64]]] = {share: [] for share in SHARES}
        asked = []
        for inside, outside in by_class(codes, groups, FOLDS, seed):
            if not np.ptp(vectors[inside], axis=0).any():
                continue
            fold = head_of_shrinkage(vectors[inside], codes[inside], float(head.about["shrinkage"]))
            asked.append(groups[outside])
            for share in SHARES:
                moved = unit(mixed(fold, self._space, vectors[inside], share)(vectors))
                found[share].append(np.stack(list(_any_hit(moved, codes, groups, outside))))
        if not asked:
            return [1.0]
        hits = {share: np.concatenate(parts, axis=1) for share, parts in found.items()}
        whose = np.concatenate(asked)
        return [share for share in SHARES if share == 1 or all(_keeps(d, whose) for d in hits[share] - hits[1.0])]


def any_hit_falls(before: Mapping[str, Estimate], after: Mapping[str, Estimate]) -> bool:
    """Return whether any-hit@5 of held-out rows is lower afterwards."""
    return any(after[name].value < one.value - 1e-9 for name, one in before.items() if name.startswith("any_hit"))


def said_of(share: float) -> list[str]:
    """Return what is to be known of a share that was chosen."""
    if not share:
        return []
    if share == 1:
        return ["no head kept any-hit@5, so what is written is the space that was there; --mix 0 gives the head alone"]
    kept = "so that any-hit@5 falls nowhere; --mix 0 gives the head alone"
    return [f"{share:.0%} of the similarity is that of the space that was there, {kept}"]


def _any_hit(
    moved: NDArray[np.float32], codes: NDArray[np.int64], groups: NDArray[np.int64], asks: NDArray[np.int64]
) -> Iterator[NDArray[np.float64]]:
    """Yield any-hit@5 of some rows among all others, and among each other: float64 ``(n,)``."""
    scores = moved[asks] @ moved.T
    scores[groups[asks, None] == groups] = -np.inf
    for among in (np.ones(len(codes), bool), np.isin(np.arange(len(codes)), asks)):
        allowed = np.where(among, scores, -np.inf)
        best = np.argsort(-allowed, axis=1, kind="stable")[:, :_DEPTH]
        same = (codes[best] == codes[asks, None]) & np.isfinite(np.take_along_axis(allowed, best, axis=1))
        yield any_hit_at(same, same.shape[1]).astype(np.float64)


def _keeps(differences: NDArray[np.float64], groups: NDArray[np.int64]) -> bool:
    """Return whether a mean lies above 0 by some of its standard error, of which each group is one draw."""
    _, owner = np.unique(groups, return_inverse=True)
    mean = differences.mean()
    error = np.sqrt(np.square(np.bincount(owner, differences - mean)).sum()) / len(differences)
    return bool(mean >= _ERRORS * error)


def _length(rows: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(rows).sum(axis=1).mean()))
