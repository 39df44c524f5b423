"""Compiled loops over vectors: the inner loops of exact search, and how loops are compiled.

One function a step, for numba to compile for this machine's processor. What the steps are for is said in
`retr.index.scan.matmul`; the loops over bit codes are those of `retr.index.accelerators.lists`. Only what has to be
compiled brings this module in: the machine code is kept (`retr.index.scan.machine_code`).

A whole loop is compiled as a function of the numbers that `retr.index.scan.machine_code.packed` makes. It takes memory
from C's own `malloc` (`_allocate`), since numba's arrays need numba.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.core import config as numba_config
from numba.extending import intrinsic

from retr.index.machine.home import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    if "scipy.linalg" in sys.modules or find_spec("scipy") is None:
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


# What machine code may call: C's own functions.
_CALLED = {"malloc", "free", "memset", "memcpy", "memmove"}
# What frees numba's own arrays, of which there are none.
_NOTHING_TO_FREE = "define void @NRT_MemInfo_call_dtor(ptr %0) {\n  ret void\n}"


def machine_code(function: Callable[..., Any], name: str) -> bytes:
    """Compile a function of a pointer to int64 numbers; return an object file that has it by this name.

    Raises
    ------
    RuntimeError
        It needs more than C's own functions: a part of numba that nothing would load.
    """
    kind = types.void(types.CPointer(types.int64))
    made = njit(kind, fastmath=_FAST, nogil=True)(function).overloads[kind.args]
    own = made.fndesc.llvm_func_name
    module = llvm.parse_assembly(made.library.get_llvm_str())
    module.link_in(llvm.parse_assembly(_NOTHING_TO_FREE))
    # what numba adds to call it from Python goes, with all that only that uses
    for one in (*module.functions, *module.global_variables):
        if not one.is_declaration and one.name != own:
            one.linkage = "internal"
    machine = made.library.codegen._tm
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    module.get_function(own).name = name
    called = {one.name for one in module.functions if one.is_declaration and not one.name.startswith("llvm.")}
    if called - _CALLED:
        raise RuntimeError(f"the loop {name} calls {sorted(called - _CALLED)}")
    code: bytes = machine.emit_object(module)
    return code


def callback(function: Callable[..., Any]) -> Callable[[int, int, int], int]:
    """Compile a function of a pointer to int64 numbers; return it as it would be called from its machine code."""
    native = cfunc(types.void(types.CPointer(types.int64)), fastmath=_FAST, nogil=True)(function)
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(native.address)

    def called(_result: int, _error: int, numbers: int) -> int:
        call(numbers)
        return 0

    # the callback frees the code when it goes
    called.native = native  # type: ignore[attr-defined]
    return called


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(_context: Any, _address: Any, kind: Any) -> Any:
    """Return an address as a pointer to values of a kind."""
    pointer = types.CPointer(kind.dtype)

    def generate(target: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], target.get_value_type(pointer))

    return pointer(types.int64, kind), generate


@intrinsic  # type: ignore[untyped-decorator]
def _allocated(_context: Any, _n: Any, kind: Any) -> Any:
    """Return the address of memory for so many values of a kind."""

    def generate(_target: Any, builder: Any, _signature: Any, values: Any) -> Any:
        function = ir.FunctionType(ir.IntType(64), [ir.IntType(64)])
        # never nothing: that may have no address
        size = builder.add(builder.mul(values[0], ir.IntType(64)(kind.dtype.bitwidth // 8)), ir.IntType(64)(8))
        return builder.call(cgutils.get_or_insert_function(builder.module, function, "malloc"), [size])

    return types.int64(types.int64, kind), generate


@intrinsic  # type: ignore[untyped-decorator]
def _free(_context: Any, array: Any) -> Any:
    """Free the memory of an array that `_allocate` made."""

    def generate(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = target.make_array(signature.args[0])(target, builder, values[0]).data
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        function = cgutils.get_or_insert_function(builder.module, kind, "free")
        builder.call(function, [builder.ptrtoint(data, ir.IntType(64))])
        return target.get_dummy_value()

    return types.void(array), generate


@compiled
def _allocate(n, kind):  # type: ignore[no-untyped-def]
    """Return a new array of n values, for `_free`."""
    return carray(_pointer(_allocated(n, kind), kind), (n,))


@compiled
def _allocate_table(n, width, kind):  # type: ignore[no-untyped-def]
    """Return a new array ``(n, width)``, for `_free`."""
    return carray(_pointer(_allocated(n * width, kind), kind), (n, width))


@compiled
def _line(p, at, kind):  # type: ignore[no-untyped-def]
    """Return the array ``(n,)`` whose address and length stand from a place on."""
    return carray(_pointer(p[at], kind), (p[at + 1],))


@compiled
def _table(p, at, kind):  # type: ignore[no-untyped-def]
    """Return the array ``(n, d)`` whose address and shape stand from a place on."""
    return carray(_pointer(p[at], kind), (p[at + 1], p[at + 2]))


@intrinsic  # type: ignore[untyped-decorator]
def _real(_context: Any, stored: Any) -> Any:
    """Return a stored value as float32: float16 comes as uint16, for which numba has no arithmetic on a CPU."""

    def generate(_target: Any, builder: Any, signature: Any, values: Any) -> Any:
        if signature.args[0] == types.uint16:
            return builder.fpext(builder.bitcast(values[0], ir.HalfType()), ir.FloatType())
        return values[0]

    return types.float32(stored), generate


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(_context: Any, array: Any, _at: Any) -> Any:
    """Ask for the memory of a value before it is needed; its position counts values from the array's first."""

    def generate(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = target.make_array(signature.args[0])(target, builder, values[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(call, [builder.bitcast(builder.gep(pointer, [values[1]]), byte), word(0), word(3), word(1)])
        return target.get_dummy_value()

    return types.void(array, types.int64), generate


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


def products(stored: Any) -> Any:
    """Return the loop `_products` over stored values of a kind."""

    def loop(p):  # type: ignore[no-untyped-def]
        _products(_table(p, 0, stored), _table(p, 3, np.float32), _table(p, 6, np.float32))

    return loop


def products_of(stored: Any) -> Any:
    """Return the loop `_products_of` over stored values of a kind."""

    def loop(p):  # type: ignore[no-untyped-def]
        _products_of(_table(p, 0, stored), _line(p, 3, np.int64), _table(p, 5, np.float32), _table(p, 8, np.float32))

    return loop


@compiled
def _products(vectors, queries, out):  # type: ignore[no-untyped-def]
    """Fill ``out (m, n)`` with the products of stored vectors ``(m, d)`` and float32 queries ``(n, d)``.

    Four rows are multiplied at a time with four queries (or one), while the next four are on their way from memory.
    """
    _in_whole_registers()
    n, dim = queries.shape
    whole = len(vectors) - len(vectors) % 4
    share = 16 * dim // max(4, n)
    for i in range(0, whole, 4):
        for first in range(0, n, 4):
            for at in range(share * (first // 4), share * (first // 4 + 1), 16):
                _prefetch(vectors, min((i + 4) * dim + at, len(vectors) * dim - 1))
            if n == 1:
                _four_by_one(vectors, i, queries, out)
            else:
                _four_by_four(vectors, i, queries, first, out)
    for i in range(whole, len(vectors)):
        for first in range(n):
            out[i, first] = _product(vectors, i, queries[first])


@compiled
def _products_of(vectors, rows, queries, out):  # type: ignore[no-untyped-def]
    """Fill ``out (m, n)`` with the products of some rows ``(m,)`` of stored vectors and float32 queries ``(n, d)``.

    Rows that lie apart come from memory while the ones before them are multiplied.
    """
    dim = queries.shape[1]
    for i in range(len(rows)):
        if i + _AHEAD < len(rows):
            for j in range(0, dim, 32):
                _prefetch(vectors, rows[i + _AHEAD] * dim + j)
        for number in range(len(queries)):
            out[i, number] = _product(vectors, rows[i], queries[number])


def best_of(stored: Any) -> Any:
    """Return the loop `_best_of` over stored values of a kind."""

    def loop(p):  # type: ignore[no-untyped-def]
        vectors, rows, query = _table(p, 0, stored), _line(p, 3, np.int64), _line(p, 5, np.float32)
        _best_of(vectors, rows, query, _line(p, 7, np.float32), _line(p, 9, np.int64), _table(p, 11, np.float64))

    return loop


@compiled
def _best_of(vectors, rows, query, best, kept, wide):  # type: ignore[no-untyped-def]
    """Find which of some rows ``(m,)`` of stored vectors may be among the k whose products with a query are largest.

    ``best (k + 1,)`` begins with how far below the k-th largest product such a row's may lie, and is written over.
    ``kept (m + 1,)`` takes how many there are, and they; ``wide (c, d)`` the vectors of the first c of them.
    """
    m, k, dim, off = len(rows), len(best) - 1, len(query), best[0]
    scores = _allocate(m, np.float32)
    # a heap of the largest, the least of them first
    held = 0
    for i in range(m):
        if i + _AHEAD < m:
            for j in range(0, dim, 32):
                _prefetch(vectors, rows[i + _AHEAD] * dim + j)
        score = _product(vectors, rows[i], query)
        scores[i] = score
        if held < k:
            at = held
            held += 1
            while at and best[(at - 1) // 2] > score:
                best[at] = best[(at - 1) // 2]
                at = (at - 1) // 2
            best[at] = score
        elif score > best[0]:
            at = 0
            while 2 * at + 1 < k:
                child = 2 * at + 1
                if child + 1 < k and best[child + 1] < best[child]:
                    child += 1
                if best[child] >= score:
                    break
                best[at] = best[child]
                at = child
            best[at] = score
    least, n = (best[0] - off if held == k else np.float32(-np.inf)), 0
    for i in range(m):
        if scores[i] >= least:
            if n < len(wide):
                for j in range(dim):
                    wide[n, j] = _real(vectors[rows[i], j])
            kept[n + 1] = rows[i]
            n += 1
    kept[0] = n
    _free(scores)


@compiled
def _exact_product(vectors, row, query):  # type: ignore[no-untyped-def]
    total = np.float64(0)
    for j in range(len(query)):
        total += np.float64(_real(vectors[row, j])) * np.float64(query[j])
    return np.float32(total)
