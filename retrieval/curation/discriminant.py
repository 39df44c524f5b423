"""Held-out probabilities of classes, from vectors and the labels as they are given.

The mean of two that err differently. A linear discriminant with a shrunk covariance learns from the whole archive,
and has no iterations: five folds of patients cost one product of the vectors with themselves. A vote of the nearest
rows of other patients, the nearer the more, follows classes that lie in several places. With labels that were made
wrong on purpose the mean was well ahead of the vote on fundus photographs of 21 classes, and ahead of vote and logistic
probe by less than the plantings differ on chest X-rays of three (``benchmarks/suspects.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np

from retr.retrieval.labels.folds import deal

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

#: Into so many folds the patients are dealt, and so many neighbours vote.
FOLDS, VOTERS = 5, 20
# How far the covariance is drawn towards a multiple of the identity, and what part of the usual difference between the
# cosines of the first and the last voter makes a vote e times as heavy.
_SHRINK, _FADE = 0.6, 0.5
# No evidence is believed beyond this probability.
_LEAST = 1e-6
_TEMPERATURES = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def held_out(
    vectors: NDArray[np.float32],
    member: NDArray[np.bool_],
    groups: NDArray[np.int64],
    near: tuple[NDArray[np.int64], NDArray[np.float32]],
    *,
    several: bool,
) -> NDArray[np.float64]:
    """Return the probability of each class for each row, as seen from other patients: float64 ``(n, c)``.

    Parameters
    ----------
    vectors
        float32 ``(n, d)``.
    member
        bool ``(n, c)``: the classes of each row.
    groups
        int64 ``(n,)``: equal numbers mark one patient.
    near
        For each row the places of its nearest rows of other patients, int64 ``(n, k)``, -1 for none, and their cosines.
    several
        Whether a row may carry several classes: then each class has a probability of its own, and rows need not sum to
        1.

    Raises
    ------
    UsageError
        All rows are of one patient.
    """
    folds = deal(groups, FOLDS)
    logits = np.zeros(member.shape)
    moments = [_Moments.of(vectors[folds == fold], member[folds == fold]) for fold in range(int(folds.max()) + 1)]
    for fold in range(len(moments)):
        outside = folds == fold
        rest = reduce(add, (one for other, one in enumerate(moments) if other != fold))
        logits[outside] = rest.logits(several=several)(vectors[outside])
    return np.asarray((_tempered(logits, member, several=several) + vote(member, *near)) / 2)


def fitted(
    known: NDArray[np.float32], member: NDArray[np.bool_], *, several: bool
) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """Fit on labelled rows, vectors float32 ``(n, d)`` and classes bool ``(n, c)``.

    Returns
    -------
    Callable
        From other vectors float32 ``(m, d)`` to the probability of each class: float64 ``(m, c)``.
    """
    score = _Moments.of(known, member).logits(several=several)
    return lambda vectors: _probabilities(score(vectors), several=several)


def vote(member: NDArray[np.bool_], places: NDArray[np.int64], cosines: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the share of each class in the votes of the nearest rows, the nearer the more: float64 ``(n, c)``."""
    there = places >= 0
    first = cosines[:, :1].astype(np.float64)
    last = np.where(there, cosines, np.inf).min(axis=1)
    spread = float(np.median((first[:, 0] - last)[there.any(axis=1)])) if there.any() else 0.0
    fade = max(_FADE * spread, 1e-6)
    weight = np.where(there, np.exp((np.where(there, cosines, first) - first) / fade), 0.0)
    shares = np.zeros(member.shape)
    for column in range(places.shape[1]):
        shares += weight[:, column, None] * member[places[:, column]]
    return np.asarray(shares / np.maximum(weight.sum(axis=1, keepdims=True), 1e-12))


@dataclass(frozen=True)
class _Moments:
    """Sums over rows, from which a linear discriminant follows; those of parts add up.

    ``rows`` counts rows and ``counts (c,)`` those of each class; ``sum (d,)`` and ``sums (c, d)`` add up their vectors,
    and ``gram (d, d)`` the products of these with themselves.
    """

    rows: int
    counts: NDArray[np.float64]
    sum: NDArray[np.float64]
    sums: NDArray[np.float64]
    gram: NDArray[np.float64]

    @classmethod
    def of(cls, vectors: NDArray[np.float32], member: NDArray[np.bool_]) -> _Moments:
        """Add up some rows."""
        exact, carried = vectors.astype(np.float64), member.astype(np.float64)
        return cls(len(exact), carried.sum(axis=0), exact.sum(axis=0), carried.T @ exact, exact.T @ exact)

    def __add__(self, other: _Moments) -> _Moments:
        return _Moments(
            self.rows + other.rows,
            self.counts + other.counts,
            self.sum + other.sum,
            self.sums + other.sums,
            self.gram + other.gram,
        )

    def logits(self, *, several: bool) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
        """Return what scores vectors ``(n, d)``: ``(n, c)``; a class without rows is out of the question."""
        means, mean = self.sums / np.maximum(self.counts, 1)[:, None], self.sum / self.rows
        scatter = self.gram / self.rows - np.outer(mean, mean)
        if not several:  # what the classes differ by is no spread within them
            apart = means - mean
            scatter -= (apart * self.counts[:, None]).T @ apart / self.rows
        scale = max(float(np.trace(scatter)) / len(scatter), 1e-12)
        scatter = (1 - _SHRINK) * scatter + _SHRINK * scale * np.eye(len(scatter))
        share = np.clip(self.counts / self.rows, _LEAST, 1 - _LEAST)
        if several:
            rest = (self.sum - self.sums) / np.maximum(self.rows - self.counts, 1)[:, None]
            weights = np.linalg.solve(scatter, (means - rest).T)
            offset = np.log(share / (1 - share)) - 0.5 * np.einsum("cd,dc->c", means + rest, weights)
        else:
            weights = np.linalg.solve(scatter, means.T)
            offset = np.log(share) - 0.5 * np.einsum("cd,dc->c", means, weights)
        empty = self.counts == 0

        def score(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
            logits = np.asarray(vectors.astype(np.float64) @ weights + offset)
            logits[:, empty] = logits.min(initial=0.0) - 50
            return logits

        return score


def _probabilities(logits: NDArray[np.float64], *, several: bool) -> NDArray[np.float64]:
    if several:
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -50, 50))))
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(likely / likely.sum(axis=1, keepdims=True))


def _tempered(logits: NDArray[np.float64], member: NDArray[np.bool_], *, several: bool) -> NDArray[np.float64]:
    """Return probabilities at the temperature at which the labels as given have the smallest held-out log loss."""
    tried = [_probabilities(logits / one, several=several) for one in _TEMPERATURES]
    losses = [
        -np.log(np.clip(np.where(member, one, 1 - one) if several else one[member], _LEAST, 1)).mean() for one in tried
    ]
    return tried[int(np.argmin(losses))]
