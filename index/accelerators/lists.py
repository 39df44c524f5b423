"""Compiled loops over inverted lists of bit codes: estimates, the best of them, and their rows compared.

What the steps are for is said in `retr.index.accelerators.rabitq`; how they are compiled, in `retr.index.scan.kernels`.

The rows of a list stand in groups of `LANES`, the last one filled up. In a group the words of the codes come one after
another, and of each word those of all its rows: they are compared with the query at once, and their sums stay in
registers until the group is done.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from retr.index.accelerators.mixing import _rotate
from retr.index.disk.lists_file import LANES
from retr.index.scan.kernels import (
    _allocate,
    _allocate_table,
    _exact_product,
    _free,
    _line,
    _pointer,
    _prefetch,
    _product,
    _table,
    compiled,
)

# A query's values are rounded to so many bits. A sixth would find no more: what a row's single bits lose weighs more.
_PLANES = 5
# Values that are compared with a bound at once.
_WIDTH = 16
# Of the range of values, until a bound is found: what is closer together is taken for equal.
_HALVINGS = 40


def _everywhere(builder: Any, value: Any, lanes: int) -> Any:
    """Return a vector of so many copies of a value."""
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


def _loaded(builder: Any, data: Any, at: Any, kind: Any) -> Any:
    """Return a vector of a kind, read from a position of an array's data."""
    return builder.load(builder.bitcast(builder.gep(data, [at]), kind.as_pointer()), align=4)


@intrinsic  # type: ignore[untyped-decorator]
def _group(_context: Any, planes: Any, query: Any, codes: Any, facts: Any, _row: Any, estimates: Any, _at: Any) -> Any:
    """Estimate the products of a query and the rows of the group that begins at ``row``, into places from ``at`` on.

    ``query`` is what `_estimate` makes of it, and ``facts`` the factors, the shifts and the ones. Written for whole
    registers: left to itself the compiler takes half of their width, and half as many rows a second.
    """

    def generate(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        word, real = ir.IntType(64), ir.VectorType(ir.FloatType(), LANES)
        lanes = ir.VectorType(word, LANES)

        def data(kind: Any, value: Any) -> Any:
            return target.make_array(kind)(target, builder, value).data

        bits, code, out = (data(signature.args[number], values[number]) for number in (0, 2, 5))
        words = target.make_array(signature.args[0])(target, builder, values[0]).shape
        words = builder.extract_value(words, 0)
        count = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(lanes, [lanes]), f"llvm.ctpop.v{LANES}i64"
        )
        totals = [cgutils.alloca_once_value(builder, ir.Constant(lanes, [0] * LANES)) for _ in range(_PLANES)]
        begin = builder.mul(values[4], words)
        with cgutils.for_range(builder, words) as loop:
            here = _loaded(builder, code, builder.add(begin, builder.mul(loop.index, word(LANES))), lanes)
            first = builder.mul(loop.index, word(_PLANES))
            for plane, total in enumerate(totals):
                asked = builder.load(builder.gep(bits, [builder.add(first, word(plane))]))
                common = builder.and_(here, _everywhere(builder, asked, LANES))
                builder.store(builder.add(builder.load(total), builder.call(count, [common])), total)
        inside = ir.Constant(lanes, [0] * LANES)
        for plane, total in enumerate(totals):
            inside = builder.add(inside, builder.shl(builder.load(total), ir.Constant(lanes, [plane] * LANES)))
        step, low, whole, offer = (
            _everywhere(builder, builder.extract_value(values[1], number), LANES) for number in range(4)
        )
        factor, shift, ones = (
            _loaded(builder, data(kind, builder.extract_value(values[3], number)), values[4], real)
            for number, kind in enumerate(signature.args[3])
        )
        fast = ("contract", "reassoc")
        found = builder.fmul(step, builder.sitofp(inside, real), flags=fast)
        found = builder.fsub(builder.fadd(found, builder.fmul(low, ones, flags=fast), flags=fast), whole, flags=fast)
        found = builder.fadd(
            builder.fmul(factor, found, flags=fast), builder.fadd(offer, shift, flags=fast), flags=fast
        )
        builder.store(found, builder.bitcast(builder.gep(out, [values[6]]), real.as_pointer()), align=4)
        return target.get_dummy_value()

    return types.void(planes, query, codes, facts, types.int64, estimates, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _at_least(_context: Any, values: Any, _at: Any, _bound: Any) -> Any:
    """Return which of `_WIDTH` float32 values from ``at`` on reach a bound, as bits."""

    def generate(target: Any, builder: Any, signature: Any, given: Any) -> Any:
        data = target.make_array(signature.args[0])(target, builder, given[0]).data
        lanes = ir.VectorType(ir.FloatType(), _WIDTH)
        here = _loaded(builder, data, given[1], lanes)
        reached = builder.fcmp_ordered(">=", here, _everywhere(builder, given[2], _WIDTH))
        return builder.zext(builder.bitcast(reached, ir.IntType(_WIDTH)), ir.IntType(64))

    return types.int64(values, types.int64, types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def _ones(_context: Any, _bits: Any) -> Any:
    """Return how many bits are set."""
    return types.int64(types.int64), lambda _target, builder, _signature, given: builder.ctpop(given[0])


@intrinsic  # type: ignore[untyped-decorator]
def _lowest(_context: Any, _bits: Any) -> Any:
    """Return the place of the lowest bit that is set."""
    return types.int64(types.int64), lambda _target, builder, _signature, given: builder.cttz(
        given[0], ir.IntType(1)(1)
    )


@intrinsic  # type: ignore[untyped-decorator]
def _bit_planes(_context: Any, values: Any, _at: Any, planes: Any, _place: Any) -> Any:
    """Fill the `_PLANES` words from ``place`` on with the bits of 64 uint8 values from ``at`` on."""

    def generate(target: Any, builder: Any, signature: Any, given: Any) -> Any:
        values, planes = (target.make_array(signature.args[at])(target, builder, given[at]).data for at in (0, 2))
        lanes = ir.VectorType(ir.IntType(8), 64)
        value = builder.load(builder.bitcast(builder.gep(values, [given[1]]), lanes.as_pointer()), align=1)
        for plane in range(_PLANES):
            bit = builder.and_(value, ir.Constant(lanes, [1 << plane] * 64))
            word = builder.bitcast(builder.icmp_unsigned("!=", bit, ir.Constant(lanes, [0] * 64)), ir.IntType(64))
            builder.store(word, builder.gep(planes, [builder.add(given[3], ir.IntType(64)(plane))]))
        return target.get_dummy_value()

    return types.void(values, types.int64, planes, types.int64), generate


@compiled
def _planes(query, planes, rounded):  # type: ignore[no-untyped-def]
    """Round a query to few bits; fill ``planes (words, _PLANES)`` with them; return the least, step and sum.

    ``rounded`` holds 64 uint8 a word, of which those beyond the query are 0.
    """
    dim = len(query)
    low = high = query[0]
    total = np.float32(0)
    for j in range(dim):
        low, high = min(low, query[j]), max(high, query[j])
        total += query[j]
    step = np.float32((high - low) / np.float32((1 << _PLANES) - 1))
    scale = np.float32(np.float32(1) / max(step, np.float32(1e-30)))
    for j in range(dim):
        rounded[j] = np.uint8(np.int32((query[j] - low) * scale + np.float32(0.5)))
    for word in range(len(planes)):
        _bit_planes(rounded, 64 * word, planes, word * _PLANES)
    return low, step, total


@compiled
def _estimate(planes, low, step, whole, offer, start, n, codes, factor, shift, ones, estimates, at):  # type: ignore[no-untyped-def]
    """Fill ``estimates``, from ``at``, with the products of a query and the n rows of the list from ``start`` on.

    Up to `LANES` - 1 further places are overwritten.
    """
    query = np.float32(2 * step), np.float32(2 * low), np.float32(whole), np.float32(offer)
    for i in range(0, n, LANES):
        _group(planes, query, codes, (factor, shift, ones), start + i, estimates, at + i)


@compiled
def _how_many(values, n, bound):  # type: ignore[no-untyped-def]
    """Return how many of n values reach a bound."""
    found = 0
    whole = n - n % _WIDTH
    for i in range(0, whole, _WIDTH):
        found += _ones(_at_least(values, i, bound))
    for i in range(whole, n):
        found += values[i] >= bound
    return found


@compiled
def _largest(values, n, want, picked):  # type: ignore[no-untyped-def]
    """Pick the places, rising, of at least the ``want`` largest of n values, as many as fit into ``picked``.

    Return how many.
    """
    if n <= want:
        for i in range(n):
            picked[i] = i
        return n
    least = high = values[0]
    for i in range(n):
        least, high = min(least, values[i]), max(high, values[i])
    # Halving the range finds a bound that enough lie above, and few enough; among equals it finds none, and some stay.
    found = n
    for _ in range(_HALVINGS):
        if found <= len(picked):
            break
        middle = (least + high) / 2
        above = _how_many(values, n, middle)
        if above >= want:
            least, found = middle, above
        else:
            high = middle
    free = len(picked) - min(_how_many(values, n, high), len(picked))
    m = 0
    for start in range(0, n, _WIDTH):
        if start + _WIDTH <= n:
            bits = _at_least(values, start, least)
        else:
            bits = 0
            for i in range(start, n):
                bits |= np.int64(values[i] >= least) << (i - start)
        while bits:
            i = start + _lowest(bits)
            bits &= bits - 1
            if found > len(picked):
                if m == len(picked):
                    break
                if values[i] < high:
                    if free == 0:
                        continue
                    free -= 1
            picked[m] = i
            m += 1
    return m


@compiled
def _best(values, places, n, best, scores):  # type: ignore[no-untyped-def]
    """Fill ``best`` with the places of the largest of n values, largest first, and ``scores``; return how many."""
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
def _nearest(query, planes, low, step, whole, centroids, guide, estimates, picked, products, lists, offers):  # type: ignore[no-untyped-def]
    """Fill ``lists`` and ``offers`` with a query's best centroids, best first, and their products; return how many.

    The codes of the centroids (see `search_lists`) say which are worth comparing: four times as many.
    """
    total = len(centroids)
    codes, factor, shift, ones = guide
    _estimate(planes, low, step, whole, 0, 0, total, codes, factor, shift, ones, estimates, 0)
    wanted = min(total, 4 * len(lists))
    m = _largest(estimates, total, wanted, picked)
    for i in range(m):
        products[i] = _product(centroids, picked[i], query)
    return _best(products, picked, m, lists, offers)


@compiled
def _chosen(query, wanted, centroids, guide, held, work, picked):  # type: ignore[no-untyped-def]
    """Pick the rows with the best estimates in a rotated query's lists, and ask for their vectors; return how many."""
    vectors, codes, factor, shift, ones, ids, starts, sizes = held
    planes, rounded, estimates, products, near, lists, offers, begins = work
    low, step, whole = _planes(query, planes, rounded)
    # Of products that are no numbers none is the best.
    used = _nearest(query, planes, low, step, whole, centroids, guide, estimates, near, products, lists, offers)
    begins[0] = 0
    for probe in range(used):
        start, size = starts[lists[probe]], sizes[lists[probe]]
        offer, begin = offers[probe], begins[probe]
        _estimate(planes, low, step, whole, offer, start, size, codes, factor, shift, ones, estimates, begin)
        begins[probe + 1] = begin + size
    m = _largest(estimates, begins[used], wanted, picked)
    dim = vectors.shape[1]
    probe = 0
    for i in range(m):
        while picked[i] >= begins[probe + 1]:
            probe += 1
        picked[i] = ids[starts[lists[probe]] + picked[i] - begins[probe]]
        for j in range(0, dim, 32):
            _prefetch(vectors, picked[i] * dim + j)
    return m


@compiled
def _search_lists(queries, factors, block, probes, wanted, longest, centroids, guide, held, rows, scores):  # type: ignore[no-untyped-def]
    """Fill ``rows`` (int64) and ``scores`` (float32), both ``(n, k)``, with the best of each query's lists.

    Parameters
    ----------
    queries
        float32 ``(n, d)``.
    factors, block
        What they are rotated by; see `retr.index.accelerators.mixing`.
    probes
        How many lists are read, those with the best centroids.
    wanted
        How many rows with the best estimates are compared with the stored vectors.
    longest
        How many rows the longest list has.
    centroids
        float32 ``(lists, d)``, rotated.
    guide
        The centroids as one list: the codes, factors, shifts and ones of `held`.
    held
        What the lists hold, a row a place, each list from a multiple of `LANES` on:

        * the stored vectors ``(N, d)``, by row: float32, or float16 as uint16
        * uint64: the words of the codes, 64 dimensions a word, in the order that the module's docstring describes
        * float32 three times: a row's estimate is what its list offers, and
          ``factor * (2 * bits @ rotated - sum(rotated)) + shift``; and how many bits are set
        * int32: the row at each place
        * int64 ``(lists,)`` twice: where each list begins, and how many rows it has
    """
    n, dim = queries.shape
    total, vectors = len(centroids), held[0]
    words = (dim + 63) // 64
    near = _allocate(5 * min(total, 4 * probes) // 4 + 8, np.int64)
    width = wanted + wanted // 4 + 8
    both = _allocate_table(2, width, np.int64)
    products = _allocate(max(len(near), width), np.float32)
    planes = _allocate_table(words, _PLANES, np.uint64)
    rounded = _allocate(64 * words, np.uint8)
    rounded[:] = 0
    rotated = _allocate(dim, np.float32)
    # no list is read twice
    estimates = _allocate(max(total, min(probes * longest, len(held[2]))) + LANES, np.float32)
    lists, offers, begins = _allocate(probes, np.int64), _allocate(probes, np.float32), _allocate(probes + 1, np.int64)
    work = planes, rounded, estimates, products, near, lists, offers, begins
    m = 0
    for number in range(n + 1):
        # while the vectors of one query's rows are on their way from memory, those of the next are chosen
        chosen = 0
        if number < n:
            _rotate(queries[number], factors, block, rotated)
            chosen = _chosen(rotated, wanted, centroids, guide, held, work, both[number % 2])
        if number:
            done, picked = number - 1, both[(number - 1) % 2]
            query = queries[done]
            for i in range(m):
                products[i] = _product(vectors, picked[i], query)
            kept = _best(products, picked, m, rows[done], scores[done])
            for i in range(kept):
                scores[done, i] = _exact_product(vectors, rows[done, i], query)
            for i in range(kept, rows.shape[1]):
                rows[done, i], scores[done, i] = -1, -np.inf
        m = chosen
    for array in (near, lists, begins):
        _free(array)
    for array in (products, offers, rotated, estimates):
        _free(array)
    _free(both)
    _free(planes)
    _free(rounded)


@compiled
def _guide(p, at):  # type: ignore[no-untyped-def]
    """Return the centroids, and these as one list, from a place on that holds 3 + 4 * 2 words."""
    codes, factor = _line(p, at + 3, np.uint64), _line(p, at + 5, np.float32)
    return _table(p, at, np.float32), (codes, factor, _line(p, at + 7, np.float32), _line(p, at + 9, np.float32))


@compiled
def _held(p, at, stored):  # type: ignore[no-untyped-def]
    """Return what the lists hold, from a place on that holds 3 + 7 * 2 words."""
    factor, shift = _line(p, at + 5, np.float32), _line(p, at + 7, np.float32)
    ones, ids = _line(p, at + 9, np.float32), _line(p, at + 11, np.int32)
    codes, starts, sizes = _line(p, at + 3, np.uint64), _line(p, at + 13, np.int64), _line(p, at + 15, np.int64)
    return _table(p, at, stored), codes, factor, shift, ones, ids, starts, sizes


def search_lists(stored: Any) -> Any:
    """Return the loop `_search_lists` over stored values of a kind.

    It takes queries, rows, scores, how many lists are read and how many rows compared, and the address of the rest:
    factors, block, longest, centroids, guide, held.
    """

    def loop(p):  # type: ignore[no-untyped-def]
        queries, rows, scores = _table(p, 0, np.float32), _table(p, 3, np.int64), _table(p, 6, np.float32)
        same = _pointer(p[11], np.int64)
        factors = _table(same, 0, np.float32)
        centroids, guide = _guide(same, 5)
        held = _held(same, 16, stored)
        _search_lists(queries, factors, same[3], p[9], p[10], same[4], centroids, guide, held, rows, scores)

    return loop
