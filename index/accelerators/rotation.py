"""A fixed fast rotation that spreads the information of a vector evenly over its dimensions.

RaBitQ (Gao and Long, 2024, https://arxiv.org/abs/2405.12497, section 3.1.2) asks for a random one. Random signs and
Hadamard transforms serve as well, in d log d steps instead of d squared: at 1,280 dimensions the difference is larger
than the rest of a search.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from retr.index.scan.machine_code import Loop, packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Smaller blocks mix too little.
_MIN_BLOCK = 64
# The words of its generator's state.
_TWISTER = 624
_ROTATED = Loop("accelerators.mixing", "rotated")


class Rotation:
    """The rotation of one number of dimensions: the same for every index and every version."""

    def __init__(self, dim: int) -> None:
        self._block = dim & -dim
        if self._block < _MIN_BLOCK:
            # The generator whose stream numpy has promised never to change.
            drawn = np.random.RandomState(dim).standard_normal((dim, dim))
            self._factors = np.linalg.qr(drawn)[0].astype(np.float32)
        else:
            # One block is all there is to mix; several are mixed with each other in a second turn.
            turns = 1 if self._block == dim else 2
            self._factors = np.array(_signs(dim, turns * dim), np.float32).reshape(turns, dim)

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


def _signs(seed: int, n: int) -> list[int]:
    """Return n times 1 or -1, by the same Mersenne Twister as numpy's ``RandomState(seed).randint(0, 2, n)``.

    To import ``numpy.random`` for a few hundred numbers takes longer than to load an index.
    """
    state = [seed]
    for place in range(1, _TWISTER):
        state.append((1_812_433_253 * (state[-1] ^ (state[-1] >> 30)) + place) & 0xFFFFFFFF)
    twister = random.Random()  # noqa: S311 - it has to be this one, and known
    twister.setstate((3, (*state, _TWISTER), None))
    return [2 * (twister.getrandbits(32) & 1) - 1 for _ in range(n)]
