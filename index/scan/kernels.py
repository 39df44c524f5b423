"""Compiled loops over vectors and bit codes: the inner loops of exact search and of inverted lists.

One function a step, compiled by numba for this machine's processor when it is first called, and kept on disk. They hold
no Python objects and let other threads run. What the steps are for is said in `retr.index.scan.matmul` (the first) and
`retr.index.accelerators.rabitq` (all others).
"""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core import config as numba_config
from numba.extending import intrinsic

from retr.index.machine.home import cache_folder
from retr.index.machine.waiting import waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

# Sums may be taken in any order, and a product may be added without being rounded first; nothing is ever not a number.
_FAST = {"reassoc", "contract", "nsz", "arcp", "nnan"}
# A query's values are rounded to so many bits. A sixth would find no more: what a row's single bits lose weighs more.
_PLANES = 5
# Codes that are compared at once; lists are read so many further than they go, less one.
_LANES = 8
PADDING = _LANES - 1
# Of the range of values, until a bound is found: what is closer together is taken for equal.
_HALVINGS = 40


@contextmanager
def _without_scipy() -> Iterator[None]:
    """Let numba take it that scipy is there: it imports scipy.linalg, for a quarter of a second, to know that.

    Nothing here uses scipy, and where another program's function does, numba looks again, as always.
    """
    from numba.np import linalg

    look = linalg.ensure_blas
    if "scipy.linalg" in sys.modules or find_spec("scipy.linalg") is None:
        yield
        return
    linalg.ensure_blas = lambda: None
    try:
        yield
    finally:
        linalg.ensure_blas = look


with _without_scipy():
    import numba.np.arraymath  # noqa: F401


def compiled(function: Callable[..., Any]) -> Any:
    """Compile for every sort of arguments, and keep that in the cache folder, or wherever else there is a place."""
    given = numba_config.CACHE_DIR
    try:
        # numba looks here for the place when it wraps the function; ``NUMBA_CACHE_DIR`` goes before
        numba_config.CACHE_DIR = given or str(cache_folder() / "kernels")
        return njit(function, fastmath=_FAST, nogil=True, cache=True)
    except RuntimeError:
        return njit(function, fastmath=_FAST, nogil=True)
    finally:
        numba_config.CACHE_DIR = given


def fixed(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view of an array: for a writable one the loops would be compiled again."""
    view = array.view()
    view.flags.writeable = False
    return view


def stored(vectors: NDArray[Any]) -> NDArray[Any]:
    """View stored vectors, float32 or float16, as the loops take them (see `_real`)."""
    return fixed(vectors.view(np.uint16) if vectors.dtype == np.float16 else vectors)


@contextmanager
def first_call(function: Any) -> Iterator[None]:
    """Say what takes so long where a function is compiled, for its first call on this machine."""
    with nullcontext() if function.signatures else waiting("compiling a part of the search for this processor, once"):
        yield


@intrinsic  # type: ignore[untyped-decorator]
def _add_sums(_context: Any, codes: Any, _at: Any, planes: Any, _word: Any, sums: Any, _place: Any) -> Any:
    """Add to `_LANES` sums from ``place`` what one word of their codes, from ``at``, has in common with the query.

    Written for whole registers: left to itself the compiler takes half of their width, and half as many rows a second.
    """

    def generate(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = ir.IntType(64)
        lanes = ir.VectorType(word, _LANES)
        count = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(lanes, [lanes]), f"llvm.ctpop.v{_LANES}i64"
        )
        arrays = [target.make_array(signature.args[number])(target, builder, values[number]) for number in (0, 2, 4)]
        codes, planes, sums = (array.data for array in arrays)
        here = builder.bitcast(builder.gep(sums, [values[5]]), lanes.as_pointer())
        code = builder.load(builder.bitcast(builder.gep(codes, [values[1]]), lanes.as_pointer()), align=8)
        total = builder.load(here, align=8)
        first = builder.mul(values[3], word(_PLANES))
        for plane in range(_PLANES):
            bits = builder.load(builder.gep(planes, [builder.add(first, word(plane))]))
            one = builder.insert_element(ir.Constant(lanes, ir.Undefined), bits, ir.IntType(32)(0))
            everywhere = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
            common = builder.and_(code, builder.shuffle_vector(one, one, everywhere))
            weighed = builder.shl(builder.call(count, [common]), ir.Constant(lanes, [plane] * _LANES))
            total = builder.add(total, weighed)
        builder.store(total, here, align=8)
        return target.get_dummy_value()

    return types.void(codes, types.int64, planes, types.int64, sums, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _real(_context: Any, stored: Any) -> Any:
    """Return a stored value as float32: float16 comes as uint16, for which numba has no arithmetic on a CPU."""

    def generate(_target: Any, builder: Any, signature: Any, values: Any) -> Any:
        if signature.args[0] == types.uint16:
            return builder.fpext(builder.bitcast(values[0], ir.HalfType()), ir.FloatType())
        return values[0]

    return types.float32(stored), generate


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(_context: Any, flat: Any, _at: Any) -> Any:
    """Ask for the memory at a position of a flat array before it is needed."""

    def generate(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = target.make_array(signature.args[0])(target, builder, values[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(call, [builder.bitcast(builder.gep(pointer, [values[1]]), byte), word(0), word(3), word(1)])
        return target.get_dummy_value()

    return types.void(flat, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _in_whole_registers(_context: Any) -> Any:
    """Let the compiler use the widest registers in the function that calls this; it takes half of them otherwise."""

    def generate(target: Any, builder: Any, _signature: Any, _values: Any) -> Any:
        # llvmlite's own `add` only knows attributes without a value.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return target.get_dummy_value()

    return types.void(), generate


@compiled
def _product(vectors, row, query):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for j in range(len(query)):
        total += _real(vectors[row, j]) * query[j]
    return total


@compiled
def _four_by_four(vectors, i, queries, k, out):  # type: ignore[no-untyped-def]
    _in_whole_registers()
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = np.float32(0)
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = np.float32(0)
    for j in range(queries.shape[1]):
        q0, q1, q2, q3 = queries[k, j], queries[k + 1, j], queries[k + 2, j], queries[k + 3, j]
        v = _real(vectors[i, j])
        s00, s01, s02, s03 = s00 + v * q0, s01 + v * q1, s02 + v * q2, s03 + v * q3
        v = _real(vectors[i + 1, j])
        s10, s11, s12, s13 = s10 + v * q0, s11 + v * q1, s12 + v * q2, s13 + v * q3
        v = _real(vectors[i + 2, j])
        s20, s21, s22, s23 = s20 + v * q0, s21 + v * q1, s22 + v * q2, s23 + v * q3
        v = _real(vectors[i + 3, j])
        s30, s31, s32, s33 = s30 + v * q0, s31 + v * q1, s32 + v * q2, s33 + v * q3
    out[i, k], out[i, k + 1], out[i, k + 2], out[i, k + 3] = s00, s01, s02, s03
    out[i + 1, k], out[i + 1, k + 1], out[i + 1, k + 2], out[i + 1, k + 3] = s10, s11, s12, s13
    out[i + 2, k], out[i + 2, k + 1], out[i + 2, k + 2], out[i + 2, k + 3] = s20, s21, s22, s23
    out[i + 3, k], out[i + 3, k + 1], out[i + 3, k + 2], out[i + 3, k + 3] = s30, s31, s32, s33


@compiled
def _four_by_one(vectors, i, queries, out):  # type: ignore[no-untyped-def]
    _in_whole_registers()
    s0 = s1 = s2 = s3 = np.float32(0)
    for j in range(queries.shape[1]):
        q = queries[0, j]
        s0, s1 = s0 + _real(vectors[i, j]) * q, s1 + _real(vectors[i + 1, j]) * q
        s2, s3 = s2 + _real(vectors[i + 2, j]) * q, s3 + _real(vectors[i + 3, j]) * q
    out[i, 0], out[i + 1, 0], out[i + 2, 0], out[i + 3, 0] = s0, s1, s2, s3


@compiled
def products(vectors, queries, out):  # type: ignore[no-untyped-def]
    """Fill ``out (m, n)`` with the products of stored vectors ``(m, d)`` and float32 queries ``(n, d)``.

    Four rows are multiplied at a time with four queries (or one), while the next four are on their way from memory.
    """
    _in_whole_registers()
    n, dim = queries.shape
    whole = len(vectors) - len(vectors) % 4
    flat = vectors.reshape(-1)
    share = 16 * dim // max(4, n)
    for i in range(0, whole, 4):
        for first in range(0, n, 4):
            for at in range(share * (first // 4), share * (first // 4 + 1), 16):
                _prefetch(flat, min((i + 4) * dim + at, len(flat) - 1))
            if n == 1:
                _four_by_one(vectors, i, queries, out)
            else:
                _four_by_four(vectors, i, queries, first, out)
    for i in range(whole, len(vectors)):
        for first in range(n):
            out[i, first] = _product(vectors, i, queries[first])


@compiled
def _planes(query, planes):  # type: ignore[no-untyped-def]
    """Round a query to few bits; fill ``planes (words, _PLANES)`` with them; give the least, the step, and the sum."""
    dim = len(query)
    low = high = query[0]
    total = np.float32(0)
    for j in range(dim):
        low = min(low, query[j])
        high = max(high, query[j])
        total += query[j]
    step = (high - low) / np.float32((1 << _PLANES) - 1)
    scale = np.float32(1) / max(step, np.float32(1e-30))
    eight = np.zeros(8, np.uint8)
    for start in range(0, dim, 8):
        if start % 64 == 0:
            for plane in range(_PLANES):
                planes[start // 64, plane] = 0
        for j in range(8):
            eight[j] = np.uint8((query[start + j] - low) * scale + np.float32(0.5)) if start + j < dim else 0
        values = eight.view(np.uint64)[0]
        for plane in range(_PLANES):
            # Bit `plane` of eight bytes, moved together into one by a product (first byte lowest).
            bits = (values >> np.uint64(plane)) & np.uint64(0x0101010101010101)
            byte = (bits * np.uint64(0x0102040810204080)) >> np.uint64(56)
            planes[start // 64, plane] |= byte << np.uint64(start % 64)
    return low, step, total


@compiled
def _estimate(planes, low, step, whole, offer, start, n, codes, factor, shift, ones, sums, estimates):  # type: ignore[no-untyped-def]
    """Fill ``estimates (n,)`` with the products of a query and the rows of the list that begins at ``start``."""
    words = len(planes)
    for i in range(n):
        sums[i] = 0
    for word in range(words):
        for i in range(0, n, _LANES):
            _add_sums(codes, start * words + word * n + i, planes, word, sums, i)
    step, low, offer = 2 * step, 2 * low, np.float32(offer)
    for i in range(n):
        inside = step * np.float32(sums[i]) + low * ones[start + i] - whole
        estimates[i] = offer + factor[start + i] * inside + shift[start + i]


@compiled
def _largest(values, n, want, picked):  # type: ignore[no-untyped-def]
    """Pick the places, rising, of at least the ``want`` largest of n values, as many as fit into ``picked``.

    Give how many.
    """
    if n <= want:
        for i in range(n):
            picked[i] = i
        return n
    least = high = values[0]
    for i in range(n):
        least = min(least, values[i])
        high = max(high, values[i])
    # Halving the range finds a bound that enough lie above, and few enough; among equals it finds none, and some stay.
    found = n
    for _ in range(_HALVINGS):
        if found <= len(picked):
            break
        middle = (least + high) / 2
        above = 0
        for i in range(n):
            above += values[i] >= middle
        if above >= want:
            least, found = middle, above
        else:
            high = middle
    sure = 0
    for i in range(n):
        sure += values[i] >= high
    free = len(picked) - min(sure, len(picked))
    m = 0
    for i in range(n):
        if values[i] >= least and m < len(picked):
            if values[i] < high:
                if free == 0:
                    continue
                free -= 1
            picked[m] = i
            m += 1
    return m


@compiled
def _keep(values, places, n, want, picked):  # type: ignore[no-untyped-def]
    """Move the ``want`` largest of n values (or some more) and their places to the front; give how many, and the least.

    With no value at all the least is infinite.
    """
    m = _largest(values, n, want, picked)
    least = np.float32(np.inf)
    for i in range(m):
        values[i], places[i] = values[picked[i]], places[picked[i]]
        least = min(least, values[i])
    return m, least


@compiled
def _exact_product(vectors, row, query):  # type: ignore[no-untyped-def]
    total = np.float64(0)
    for j in range(len(query)):
        total += np.float64(_real(vectors[row, j])) * np.float64(query[j])
    return np.float32(total)


@compiled
def _best(values, places, n, best, scores):  # type: ignore[no-untyped-def]
    """Fill ``best`` with the places of the largest of n values, largest first, and ``scores``; give how many."""
    kept = 0
    for i in range(n):
        if kept < len(best):
            kept += 1
        elif values[i] <= scores[kept - 1]:
            continue
        at = kept - 1
        while at and scores[at - 1] < values[i]:
            best[at], scores[at] = best[at - 1], scores[at - 1]
            at -= 1
        best[at], scores[at] = places[i], values[i]
    return kept


@compiled
def nearest_lists(rotated, probes, centroids, codes, factor, shift, ones, lists, scores):  # type: ignore[no-untyped-def]
    """Fill ``lists`` and ``scores (n, probes)`` with each query's best centroids, best first, and their products.

    The codes of the centroids (one list, see `search_lists`) say which are worth comparing: four times as many.
    What is left over is -1.
    """
    n, dim = rotated.shape
    total = len(centroids)
    planes = np.empty(((dim + 63) // 64, _PLANES), np.uint64)
    sums, estimates = np.empty(total + _LANES, np.int64), np.empty(total, np.float32)
    wanted = min(total, 4 * probes)
    picked = np.empty(wanted + wanted // 4 + 8, np.int64)
    products = np.empty(len(picked), np.float32)
    for number in range(n):
        query = rotated[number]
        low, step, whole = _planes(query, planes)
        _estimate(planes, low, step, whole, 0, 0, total, codes, factor, shift, ones, sums, estimates)
        m = _largest(estimates, total, wanted, picked)
        for i in range(m):
            products[i] = _product(centroids, picked[i], query)
        kept = _best(products, picked, m, lists[number], scores[number])
        # Of products that are no numbers none is the best.
        for i in range(kept, probes):
            lists[number, i], scores[number, i] = -1, -np.inf


@compiled
def search_lists(  # type: ignore[no-untyped-def]
    queries, rotated, lists, offers, wanted, vectors, codes, factor, shift, ones, ids, bounds, rows, scores
):
    """Fill ``rows`` (int64) and ``scores`` (float32), both ``(n, k)``, with the best of each query's lists.

    Parameters
    ----------
    queries, rotated
        float32 ``(n, d)``.
    lists, offers
        What `nearest_lists` gave.
    wanted
        How many rows with the best estimates are compared with the stored vectors.
    vectors
        The stored vectors ``(N, d)``: float32, or float16 as uint16.
    codes
        uint64: list after list, and in each the words of its rows' codes side by side, 64 dimensions a word.
    factor, shift, ones
        float32 ``(N,)``: a row's estimate is what its list offers, and
        ``factor * (2 * bits @ rotated - sum(rotated)) + shift``; and how many bits are set.
    ids
        int32 ``(N,)``: the row at each place of the lists.
    bounds
        int64 ``(lists + 1,)``: where each list begins.
    """
    n, dim = queries.shape
    longest = 0
    for i in range(len(bounds) - 1):
        longest = max(longest, bounds[i + 1] - bounds[i])
    planes = np.empty(((dim + 63) // 64, _PLANES), np.uint64)
    sums, estimates = np.empty(longest + _LANES, np.int64), np.empty(longest, np.float32)
    # The best so far; when it is full, the least of them are dropped.
    best, places = np.empty(4 * wanted + 256, np.float32), np.empty(4 * wanted + 256, np.int64)
    picked = np.empty(wanted + wanted // 4 + 8, np.int64)
    products = np.empty(len(picked), np.float32)
    flat = vectors.reshape(-1)
    for number in range(n):
        low, step, whole = _planes(rotated[number], planes)
        m = 0
        least = np.float32(-np.inf)
        for probe in range(lists.shape[1]):
            if lists[number, probe] < 0:
                break
            start = bounds[lists[number, probe]]
            size = bounds[lists[number, probe] + 1] - start
            offer = offers[number, probe]
            _estimate(planes, low, step, whole, offer, start, size, codes, factor, shift, ones, sums, estimates)
            for i in range(size):
                if estimates[i] >= least:
                    if m == len(best):
                        m, least = _keep(best, places, m, wanted, picked)
                    best[m], places[m] = estimates[i], start + i
                    m += 1
        m, least = _keep(best, places, m, wanted, picked)
        for i in range(m):
            places[i] = ids[places[i]]
            # All are on their way from memory before the first is used.
            for j in range(0, dim, 32):
                _prefetch(flat, places[i] * dim + j)
        for i in range(m):
            products[i] = _product(vectors, places[i], queries[number])
        kept = _best(products, places, m, rows[number], scores[number])
        for i in range(kept):
            scores[number, i] = _exact_product(vectors, rows[number, i], queries[number])
        for i in range(kept, rows.shape[1]):
            rows[number, i], scores[number, i] = -1, -np.inf
