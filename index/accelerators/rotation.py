"""A fixed fast rotation that spreads the information of a vector evenly over its dimensions.

RaBitQ (Gao and Long, 2024, https://arxiv.org/abs/2405.12497, section 3.1.2) asks for a random one. Random signs and
Hadamard transforms serve as well, in d log d steps instead of d squared: at 1,280 dimensions the difference is larger
than the rest of a search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retr.index.scan.kernels import compiled, fixed

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Smaller blocks mix too little.
_MIN_BLOCK = 64


@compiled
def _multiply(vectors, matrix, out):  # type: ignore[no-untyped-def]
    """Fill ``out (n, d)`` with the products of each vector and the rows of ``matrix (d, d)``."""
    for number in range(len(vectors)):
        for j in range(len(matrix)):
            total = np.float32(0)
            for i in range(len(matrix)):
                total += matrix[j, i] * vectors[number, i]
            out[number, j] = total


@compiled
def _mix(vectors, signs, block, out):  # type: ignore[no-untyped-def]
    """Flip signs and apply Hadamard's matrix to blocks of each row, once for each row of ``signs``, mixing the blocks.

    ``vectors`` and ``out`` are float32 ``(n, d)``, ``signs`` float32 ``(rounds, d)``; ``block`` is a power of two that
    divides d. Lengths are kept.
    """
    n, dim = vectors.shape
    scale = np.float32(1 / np.sqrt(block))
    half = block // 2
    here, there = np.empty(block, np.float32), np.empty(block, np.float32)
    mixed = np.empty(dim, np.float32)
    for number in range(n):
        row = out[number]
        for j in range(dim):
            row[j] = vectors[number, j]
        for turn in range(len(signs)):
            for j in range(dim):
                mixed[j] = row[j] * signs[turn, j] * scale
            for start in range(0, dim, block):
                for j in range(block):
                    here[j] = mixed[start + j]
                size = 1
                while size < block:
                    for j in range(half):
                        there[j] = here[2 * j] + here[2 * j + 1]
                        there[half + j] = here[2 * j] - here[2 * j + 1]
                    here, there = there, here
                    size *= 2
                # The next turn's blocks take from each of these.
                step = dim // block
                for j in range(block):
                    row[j * step + start // block] = here[j]


class Rotation:
    """The rotation of one number of dimensions: the same for every index and every version."""

    def __init__(self, dim: int) -> None:
        # The generator whose stream numpy has promised never to change.
        rng = np.random.RandomState(dim)
        self._block = dim & -dim
        if self._block < _MIN_BLOCK:
            self._factors = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
        else:
            # One block is all there is to mix; several are mixed with each other in a second turn.
            self._factors = 2 * rng.randint(0, 2, (1 if self._block == dim else 2, dim)).astype(np.float32) - 1

    @property
    def matrix(self) -> NDArray[np.float32]:
        """Return it as an orthonormal float32 ``(d, d)``: ``vectors @ matrix.T`` are rotated vectors."""
        return np.ascontiguousarray(self(np.eye(self._factors.shape[1], dtype=np.float32)).T)

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rotate float32 vectors ``(n, d)``, each by itself."""
        vectors, rotated = fixed(vectors), np.empty_like(vectors)
        if self._block < _MIN_BLOCK:
            _multiply(vectors, self._factors, rotated)
        else:
            _mix(vectors, self._factors, self._block, rotated)
        return rotated
