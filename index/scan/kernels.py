"""Compiled loops over vectors: the inner loops of exact search, and how loops are compiled.

One function a step, compiled by numba for this machine's processor when it is first called, and kept on disk. They hold
no Python objects and let other threads run. What the steps are for is said in `retr.index.scan.matmul`; the loops over
bit codes are those of `retr.index.accelerators.lists`.
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

# Of rows that lie apart, so many are on their way from memory.
_AHEAD = 8
# Sums may be taken in any order, and a product may be added without being rounded first; nothing is ever not a number.
_FAST = {"reassoc", "contract", "nsz", "arcp", "nnan"}


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
def products_of(vectors, rows, queries, out):  # type: ignore[no-untyped-def]
    """Fill ``out (m, n)`` with the products of some rows ``(m,)`` of stored vectors and float32 queries ``(n, d)``.

    Rows that lie apart come from memory while the ones before them are multiplied.
    """
    dim = queries.shape[1]
    flat = vectors.reshape(-1)
    for i in range(len(rows)):
        if i + _AHEAD < len(rows):
            for j in range(0, dim, 32):
                _prefetch(flat, rows[i + _AHEAD] * dim + j)
        for number in range(len(queries)):
            out[i, number] = _product(vectors, rows[i], queries[number])


@compiled
def _exact_product(vectors, row, query):  # type: ignore[no-untyped-def]
    total = np.float64(0)
    for j in range(len(query)):
        total += np.float64(_real(vectors[row, j])) * np.float64(query[j])
    return np.float32(total)
