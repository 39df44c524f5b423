"""A fixed fast rotation that spreads the information of a vector evenly over its dimensions.

RaBitQ (Gao and Long, 2024, https://arxiv.org/abs/2405.12497, section 3.1.2) asks for a random one. Random signs and
Hadamard transforms serve as well, in d log d steps instead of d squared: at 1,280 dimensions the difference is larger
than the rest of a search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retr.index.scan.machine_code import Loop, packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Smaller blocks mix too little.
_MIN_BLOCK = 64
_ROTATED = Loop("accelerators.mixing", "rotated")


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

        # as loops take it: where a block has one length, how long it is, else 0
        self.words = (*packed(self._factors), self._block if self._block >= _MIN_BLOCK else 0)

    @property
    def matrix(self) -> NDArray[np.float32]:
        """Return it as an orthonormal float32 ``(d, d)``: ``vectors @ matrix.T`` are rotated vectors."""
        return np.ascontiguousarray(self(np.eye(self._factors.shape[1], dtype=np.float32)).T)

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rotate float32 vectors ``(n, d)``, each by itself."""
        vectors, rotated = np.ascontiguousarray(vectors, np.float32), np.empty(vectors.shape, np.float32)
        _ROTATED(vectors.dtype, *packed(vectors, rotated), *self.words)
        return rotated
