"""Compiled loops that rotate vectors as `retr.index.accelerators.rotation` says."""

from __future__ import annotations

from typing import Any

import numpy as np

from retr.index.scan.kernels import _allocate, _free, _table, compiled


@compiled
def _multiply(vector, matrix, out):  # type: ignore[no-untyped-def]
    """Fill ``out (d,)`` with the products of a vector and the rows of ``matrix (d, d)``."""
    for j in range(len(matrix)):
        total = np.float32(0)
        for i in range(len(matrix)):
            total += matrix[j, i] * vector[i]
        out[j] = total


@compiled
def _mix(vector, signs, block, row):  # type: ignore[no-untyped-def]
    """Flip signs and apply Hadamard's matrix to blocks of a row, once for each row of ``signs``, mixing the blocks.

    ``vector`` and ``row``, which is filled, are float32 ``(d,)``, ``signs`` float32 ``(rounds, d)``; ``block`` is a
    power of two that divides d. Lengths are kept.
    """
    dim = len(vector)
    scale = np.float32(1 / np.sqrt(block))
    half = block // 2
    mixed, one, other = _allocate(dim, np.float32), _allocate(block, np.float32), _allocate(block, np.float32)
    here, there = one, other
    for j in range(dim):
        row[j] = vector[j]
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
    _free(mixed)
    _free(one)
    _free(other)


@compiled
def _rotate(vector, factors, block, out):  # type: ignore[no-untyped-def]
    """Fill ``out (d,)`` with a rotated vector; ``factors`` are signs, or a whole matrix where ``block`` is 0."""
    if block:
        _mix(vector, factors, block, out)
    else:
        _multiply(vector, factors, out)


def rotated(_stored: Any) -> Any:
    """Return the loop that rotates each of float32 vectors ``(n, d)``."""

    def loop(p):  # type: ignore[no-untyped-def]
        vectors, out, factors = _table(p, 0, np.float32), _table(p, 3, np.float32), _table(p, 6, np.float32)
        for number in range(len(vectors)):
            _rotate(vectors[number], factors, p[9], out[number])

    return loop
