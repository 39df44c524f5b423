"""Whitening: directions in which an archive's pictures differ much count less, those in which they differ little more.

Principal component analysis of the archive's own vectors: their mean is subtracted, the directions of largest variance
are kept, and each is divided by a power of its variance. No label is looked at.

All sums of products are exact. A float16 number is a whole multiple of 2^-24, and so is the mean as it is kept; the
weights are rounded to multiples of 2^-26, the numbers that a covariance is taken of to multiples of 2^-18. Every sum
then fits into the 53 bits of a float64, so neither its order nor the batch, the number of threads or the processor
changes a bit of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retr.index.errors import UsageError
from retr.index.vectors import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: How many directions are kept, the power of their variance, and the share of the largest that is added to each.
DIM, POWER, FLOOR = 256, 0.5, 1e-3
#: Rows that a whitening can be fitted on: with more, the sums of a covariance would not be exact.
MOST_ROWS = 2**17
_FLOAT16_BITS, _WEIGHT_BITS, _COVARIANCE_BITS = 24, 26, 18
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Whitening:
    """A fitted whitening.

    Attributes
    ----------
    mean
        float64 ``(d,)``: the middle of the rows it was fitted on, in multiples of 2^-24.
    weights
        float64 ``(d, m)``: multiples of 2^-26, no column longer than 1.
    """

    mean: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def dim(self) -> int:
        """Length of what comes out."""
        return int(self.weights.shape[1])

    @property
    def sha256(self) -> str:
        """Hash of the numbers."""
        return hashlib.sha256(self.mean.astype("<f8").tobytes() + self.weights.astype("<f8").tobytes()).hexdigest()

    def __call__(self, features: NDArray[np.float16]) -> NDArray[np.float32]:
        """Transform features of unit length, float16 ``(n, d)``: float32 ``(n, m)`` of unit length.

        The same bits for a row alone and in any batch. A row that lies in the middle stays zero.
        """
        middle = self.mean @ self.weights
        out = np.empty((len(features), self.dim), dtype=np.float32)
        for start in range(0, len(features), _BLOCK):
            block = features[start : start + _BLOCK].astype(np.float64)
            out[start : start + _BLOCK] = unit(block @ self.weights - middle)
        return out


def fit(features: NDArray[np.float16], *, dim: int = DIM, power: float = POWER, floor: float = FLOOR) -> Whitening:
    """Fit a whitening.

    Parameters
    ----------
    features
        float16 ``(n, d)`` of unit length, at least 2 and at most `MOST_ROWS` rows.
    dim
        How many directions are kept at most: never more than n - 1, and fewer than d.
    power
        0 leaves the variances as they are, 1 makes them all equal.
    floor
        Share of the largest variance that is added to each before the power is taken.

    Raises
    ------
    UsageError
        All rows have one and the same vector.
    """
    n, d = features.shape
    if not 2 <= n <= MOST_ROWS:
        raise UsageError(f"a whitening is fitted on 2 to {MOST_ROWS} rows, got {n}")
    rows = _rounded(features.astype(np.float64), _COVARIANCE_BITS)
    if not np.ptp(rows, axis=0).any():
        raise UsageError(
            f"the {n} rows that a transform would be fitted on have one and the same vector",
            hint="add other pictures, or build with another encoder",
        )
    mean = rows.sum(axis=0) / n
    spread, axes = _principal(rows, mean, max(1, min(dim, n - 1, d - 1)))
    weights = axes / (spread + floor * spread[0]) ** (power / 2)
    weights /= np.sqrt(np.square(weights).sum(axis=0)).max()
    return Whitening(_rounded(mean, _FLOAT16_BITS), _rounded(weights, _WEIGHT_BITS))


def _rounded(numbers: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """Round numbers towards zero to multiples of 2^-bits: nothing grows longer."""
    return np.asarray(np.trunc(numbers * 2.0**bits) / 2.0**bits, np.float64)


def _principal(
    rows: NDArray[np.float64], mean: NDArray[np.float64], kept: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest variances ``(m,)``, descending, and their directions ``(d, m)``; m is ``kept`` at most.

    Directions without any variance are left out, and of two opposite directions the one is taken whose largest
    component is positive.
    """
    from threadpoolctl import threadpool_limits

    n, d = rows.shape
    # with several threads the last bits of an eigenvector would depend on their number
    with threadpool_limits(1):
        if n > d:
            total = np.zeros((d, d))
            for start in range(0, n, _BLOCK):
                total += rows[start : start + _BLOCK].T @ rows[start : start + _BLOCK]
            spread, axes = np.linalg.eigh(total / n - np.outer(mean, mean))
        else:
            # fewer rows than numbers in each: the same directions, from the products of rows
            products = rows @ rows.T
            inner = products.mean(axis=0)
            centred = products - inner - inner[:, None] + inner.mean()
            spread, mixes = np.linalg.eigh(centred / n)
            axes = (rows - mean).T @ mixes[:, -kept:]
    spread, axes = spread[: -kept - 1 : -1], axes[:, : -kept - 1 : -1]
    real = spread > 1e-9 * spread[0]
    spread, axes = spread[real], axes[:, real]
    axes = axes / np.sqrt(np.square(axes).sum(axis=0))
    return spread, axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
