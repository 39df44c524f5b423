"""The product of queries and vectors, as fast as this processor allows, with a bound on its error.

The scan of an exact search only needs scores good enough to know which rows cannot be among the best. float32 is
always there. Where the processor multiplies bfloat16 matrices in hardware and torch is loaded already (because an image
was just encoded; it is never loaded for this), batches go through bfloat16: several times faster, and coarser, so more
candidates are scored again.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Stored = NDArray[np.float32] | NDArray[np.float16]

# One query is bound by memory, a few by the copy into bfloat16.
_MIN_BATCH = 16


@dataclass(frozen=True)
class Product:
    """``multiply(queries (n, d), vectors (m, d))`` gives float32 ``(n, m)``.

    ``error`` bounds how far a score is from the true one, for unit vectors; ``margin`` is how many more candidates
    than asked for are worth keeping.
    """

    multiply: Callable[[NDArray[np.float32], Stored], NDArray[np.float32]]
    error: float
    margin: int


def choose(n_queries: int, dim: int, *, fast: bool = True) -> Product:
    """Give the fastest product for a batch; ``fast=False`` asks for float32."""
    torch = sys.modules.get("torch")
    if fast and torch is not None and n_queries >= _MIN_BATCH and has_bfloat16():
        return _bfloat16(torch)
    # Sums run over at least eight partial sums side by side: the error grows with d / 8 roundings, not with d.
    return Product(_float32, (dim / 8 + 33) * 2.0**-24, 16)


@cache
def has_bfloat16() -> bool:
    """Say whether the processor multiplies bfloat16 matrices in hardware."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "amx_bf16" in text or "avx512_bf16" in text


def _float32(queries: NDArray[np.float32], vectors: Stored) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = queries @ vectors.astype(np.float32, copy=False).T
    return scores


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    # torch warns about memory it may not write to, such as a memory map, even where it only reads.
    memory: Any = (ctypes.c_uint8 * array.nbytes).from_address(array.ctypes.data)
    alias: NDArray[Any] = np.frombuffer(memory, array.dtype).reshape(array.shape)
    return alias


def _bfloat16(torch: Any) -> Product:
    def multiply(queries: NDArray[np.float32], vectors: Stored) -> NDArray[np.float32]:
        # Both are contiguous and outlive the call, so the aliases stay valid while they are read.
        asked = torch.from_numpy(_writable(queries)).bfloat16()
        block = torch.from_numpy(_writable(vectors)).bfloat16()
        scores: NDArray[np.float32] = (asked @ block.T).float().numpy()
        return scores

    # bfloat16 has 8 significant bits: both factors and the result are rounded by up to 2**-8 of themselves.
    return Product(multiply, 3.1 * 2.0**-8, 300)
