"""The product of queries and vectors, as fast as this processor allows, with a bound on its error.

The scan of an exact search only needs scores good enough to know which rows cannot be among the best. A few queries
are multiplied by loops of our own (`kernels.products`, and `kernels.products_of` for rows that lie apart), which read
float32 and float16 vectors as they lie, at the rate of the memory; many queries by numpy. numpy's threads spin while
they wait for one another, which costs a busy machine several times the product; those of the loops sleep. Where the
processor has bfloat16 matrix tiles and torch is loaded already (because an image was just encoded; it is never loaded
for this), batches go through bfloat16: several times faster, and coarser, so more candidates are scored again.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.machine.imported import imported
from retr.index.scan.machine_code import Loop, loaded, packed
from retr.index.scan.processor import has_fast_bfloat16, threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from retr.index.types import Block

    Stored = NDArray[np.float32] | NDArray[np.float16]
    Apart = Callable[[NDArray[np.float32], Stored, NDArray[np.int64]], NDArray[np.float32]]
    MayBeBest = tuple[NDArray[np.int64], NDArray[np.float64] | None]
    BestOf = Callable[[NDArray[np.float32], Block, NDArray[np.int64], int, float], MayBeBest]

_PRODUCTS, _PRODUCTS_OF = Loop("scan.kernels", "products"), Loop("scan.kernels", "products_of")
_BEST_OF = Loop("scan.kernels", "best_of")
# Of rows that may be the best of some, so many more than are wanted are copied by the loop that finds them.
_COPIED_TOO = 16
# One query is bound by memory, a few by the copy into bfloat16.
_MIN_BATCH = 16
# With more queries numpy's product of matrices is faster than the loop.
_MAX_LOOP = 24
# Values of one index that are worth the loop, and those that a process has read in all, after which it is loaded
# (and, once on a machine, compiled): a server that is asked of a small index reaches it, too.
_MIN_VALUES = 1 << 20
_MIN_VALUES_UNLOADED = 1 << 27
# Fewer values are multiplied before other threads have started.
_VALUES_PER_THREAD = 1 << 20
# The values that this process has read; a few that two threads count at once may be lost.
_READ = [0]
# Fewer queries are faster one by one: each then reads the vectors at the rate of the memory.
_MIN_MATRIX = 4
# Values that stay in a core's cache between two uses.
_CACHED_VALUES = 1 << 18
# Values that numpy multiplies in one call: in smaller pieces its threads wait for each other more than they work.
_SHARED_VALUES = 1 << 21


@dataclass(frozen=True)
class Product:
    """``multiply(queries (n, d), vectors (m, d))`` gives float32 ``(m, n)``, one row a vector.

    ``error`` bounds how far a score is from the true one, for unit vectors; ``margin`` is how many more candidates
    than asked for are worth keeping; ``apart(queries, vectors, rows (m,))`` does the same for some of the vectors
    as fast as it goes for a few queries; ``best_of`` is the function of this name, where there is a loop for it.
    """

    multiply: Callable[[NDArray[np.float32], Stored], NDArray[np.float32]]
    error: float
    margin: int
    apart: Apart | None = None
    best_of: BestOf | None = None


def choose_product(n_queries: int, dim: int, *, rows: int = 0, fast: bool = True) -> Product:
    """Return the fastest product for a batch; ``fast=False`` asks for float32.

    Parameters
    ----------
    rows
        How many vectors there are in all.
    """
    if fast and n_queries >= _MIN_BATCH and (torch := imported("torch")) is not None and has_fast_bfloat16():
        return _bfloat16(torch)
    return _on_cpu(dim, n_queries < _MIN_MATRIX, n_queries <= _MAX_LOOP and _worth_loop(rows * dim))


@lru_cache(maxsize=64)
def _on_cpu(dim: int, few: bool, looped: bool) -> Product:
    if looped:
        # How many sums run side by side depends on the processor; one alone is the worst.
        own = (_looped_apart, best_of) if few else ()
        return Product(_looped, (dim + 2) * 2.0**-24, 16, *own)
    # Sums run over at least eight partial sums side by side: the error grows with d / 8 roundings, not with d.
    return Product(_float32, (dim / 8 + 33) * 2.0**-24, 16, _copied if few else None)


def _worth_loop(values: int) -> bool:
    """Return whether vectors of so many values are worth the loop, and count them as read."""
    if values < _MIN_VALUES:
        return False
    _READ[0] += values
    return loaded() or _READ[0] >= _MIN_VALUES_UNLOADED


def _looped(queries: NDArray[np.float32], vectors: Stored) -> NDArray[np.float32]:
    n = len(queries)
    asked = np.pad(queries, ((0, -n % 4 if n > 1 else 0), (0, 0)))
    scores = np.empty((len(vectors), len(asked)), np.float32)

    def some(part: slice) -> None:
        _PRODUCTS(vectors.dtype, *packed(vectors[part], asked, scores[part]))

    _in_parts(some, *vectors.shape)
    return scores[:, :n]


def _looped_apart(queries: NDArray[np.float32], vectors: Stored, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    scores = np.empty((len(rows), len(queries)), np.float32)

    def some(part: slice) -> None:
        _PRODUCTS_OF(vectors.dtype, *packed(vectors, rows[part], queries, scores[part]))

    _in_parts(some, len(rows), queries.shape[1])
    return scores


def best_of(query: NDArray[np.float32], block: Block, rows: NDArray[np.int64], k: int, off: float) -> MayBeBest:
    """Return which of some rows ``(m,)`` may be the k best of them for one query ``(d,)``: all where m is at most k.

    Parameters
    ----------
    rows
        Counted from the block's first.
    off
        How far below the k-th best product the product of such a row may lie. No product may overflow.

    Returns
    -------
    tuple
        The rows, in their order, and their vectors, float64, where they are few.
    """
    best, kept = np.empty(k + 1, np.float32), np.empty(len(rows) + 1, np.int64)
    wide = np.empty((min(k + _COPIED_TOO, len(rows)), len(query)))
    best[0] = off
    _BEST_OF(block.vectors.dtype, *block.words, *packed(rows, query, best, kept, wide))
    n = int(kept[0])
    return kept[1 : n + 1], wide[:n] if n <= len(wide) else None


def by_one_thread(n: int, dim: int) -> bool:
    """Return whether n vectors of so many values are multiplied before another thread would have started."""
    return n * dim <= _VALUES_PER_THREAD or threads() == 1


def _in_parts(some: Callable[[slice], None], n: int, dim: int) -> None:
    """Call a function on parts of n rows, side by side where they are many."""
    if by_one_thread(n, dim):
        some(slice(0, n))
        return
    workers = min(threads(), -(-n * dim // _VALUES_PER_THREAD))
    # Whole tiles of four rows for each.
    step = -(-n // (4 * workers)) * 4
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(some, [slice(start, start + step) for start in range(0, n, step)]))


def _float32(queries: NDArray[np.float32], vectors: Stored) -> NDArray[np.float32]:
    scores = np.empty((len(vectors), len(queries)), np.float32)
    columns = np.ascontiguousarray(queries.T)
    halves = vectors.dtype == np.float16
    matrix = len(queries) >= _MIN_MATRIX
    step = max(1, _SHARED_VALUES // vectors.shape[1]) if halves or matrix else len(vectors)
    bits = np.empty((min(step, len(vectors)) if halves else 0, vectors.shape[1]), np.int32)
    for start in range(0, len(vectors), step):
        part = vectors[start : start + step]
        wide = widened(part, bits[: len(part)]) if halves else part
        if matrix:
            np.matmul(wide, columns, out=scores[start : start + step])
        else:
            for number, query in enumerate(queries):
                scores[start : start + step, number] = wide @ query
    return scores


def _copied(queries: NDArray[np.float32], vectors: Stored, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    step = max(1, _SHARED_VALUES // vectors.shape[1])
    parts = [_float32(queries, vectors[rows[start : start + step]]) for start in range(0, len(rows), step)]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty((0, len(queries)), np.float32), *parts])


def widened(vectors: Stored, bits: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return finite float16 values as float32, in half the time that ``astype`` takes; ``bits`` holds the result."""
    step = max(1, _CACHED_VALUES // vectors.shape[1])
    for start in range(0, len(vectors), step):
        # Sign, exponent and fraction move to where float32 has them; the exponents then differ by 112.
        part = bits[start : start + step]
        np.copyto(part, vectors[start : start + step].view(np.int16))
        np.left_shift(part, 13, out=part)
        np.bitwise_and(part, np.int32(~0x70000000), out=part)
        np.multiply(part.view(np.float32), np.float32(2.0**112), out=part.view(np.float32))
    return bits.view(np.float32)


def _tensor(torch: Any, array: NDArray[Any]) -> Any:
    """View a contiguous array as a tensor; valid while the array is."""
    # torch warns about memory it may not write to, such as a memory map, even where it only reads.
    memory: Any = (ctypes.c_uint8 * array.nbytes).from_address(array.ctypes.data)
    return torch.from_numpy(np.frombuffer(memory, array.dtype).reshape(array.shape))


def _bfloat16(torch: Any) -> Product:
    def multiply(queries: NDArray[np.float32], vectors: Stored) -> NDArray[np.float32]:
        asked = _tensor(torch, queries).bfloat16()
        block = _tensor(torch, vectors).bfloat16()
        scores: NDArray[np.float32] = (block @ asked.T).float().numpy()
        return scores

    # bfloat16 has 8 significant bits: both factors and the result are rounded by up to 2**-8 of themselves.
    return Product(multiply, 3.1 * 2.0**-8, 300)
