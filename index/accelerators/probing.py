"""Searching inverted lists from the most promising down, until no other can hold a better row: compiled loops.

A fixed number of lists finds the neighbours of questions like those it was chosen on. Under a filter the nearest
allowed rows may lie anywhere, and how many lists are worth reading depends on the question and on what is allowed. So
each list has a bound on the products of a query q with its rows x. With m, the mean of the list, and r, the root of its
rows' mean squared distance to m,

    <x, q> = <m, q> + <x - m, q - m> + <x - m, m>, about <m, q> + t r |q - m|

where t is the cosine of the angle at m between x and q, times the distance of x in units of r. Were t no smaller than
any row's, the bound would be certain, and worthless: in many dimensions hardly two directions are less than 60 degrees
apart, unless by what they have in common. How large a t finds the recall asked for is measured by `retr.index.tune`,
with filters made to be adverse. Lists are read in the order of their bounds, and the search ends with the first whose
bound lies below the k-th best row found. An infinite t reads all lists that hold allowed rows.

The rows of a list are compared with the query by their codes, and with their stored vectors where the estimate comes
so near to the k-th best that its error may hide more. That error is known (Gao and Long, 2024): it depends on the
random rotation, not on the data. Where few rows of a list are allowed all of them are compared at once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from retr.index.accelerators.lists import _PLANES, _best, _estimate, _guide, _held, _largest, _planes
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

# Reading a stored vector takes as long as reading so many codes.
_CODES_A_VECTOR = 8
# Of the error of an estimate: so many standard deviations are allowed for (a row is further off once in 4,000 times).
_DEVIATIONS = np.float32(3.5)
# What one bit a dimension leaves unknown: the sine of the angle between a random direction and its signs.
_UNKNOWN = np.float32(math.sqrt(1 - 2 / math.pi))
# Beyond this the bound means nothing, and lists come in the order that the other gives.
_MOST_REACH, _USUAL_REACH = np.float32(4), np.float32(0.5)


@compiled
def _sift_down(keys, items, at, n):  # type: ignore[no-untyped-def]
    """Move one entry of a heap of n, whose largest key comes first, to where it belongs."""
    key, item = keys[at], items[at]
    while True:
        child = 2 * at + 1
        if child >= n:
            break
        if child + 1 < n and keys[child + 1] > keys[child]:
            child += 1
        if keys[child] <= key:
            break
        keys[at], items[at] = keys[child], items[child]
        at = child
    keys[at], items[at] = key, item


@compiled
def _sift_up(keys, items, at):  # type: ignore[no-untyped-def]
    """Move the entry at a place of a heap to where it belongs, towards the front."""
    key, item = keys[at], items[at]
    while at:
        parent = (at - 1) // 2
        if keys[parent] >= key:
            break
        keys[at], items[at] = keys[parent], items[parent]
        at = parent
    keys[at], items[at] = key, item


@compiled
def _keep_one(keys, items, n, value, row):  # type: ignore[no-untyped-def]
    """Take a row into the heap of the best ``len(keys)``, of which n are there, worst first; return the new n."""
    if n < len(keys):
        keys[n], items[n] = -value, row
        _sift_up(keys, items, n)
        return n + 1
    if -keys[0] < value:
        keys[0], items[0] = -value, row
        _sift_down(keys, items, 0, n)
    return n


@compiled
def _keep_group(tops, owners, n, value, owner):  # type: ignore[no-untyped-def]
    """Take a row's value into the best of each of ``len(tops)`` groups, of which n are there; return the new n.

    A negative owner is a group by itself.
    """
    least = 0
    for i in range(n):
        if owner >= 0 and owners[i] == owner:
            tops[i] = max(tops[i], value)
            return n
        if tops[i] < tops[least]:
            least = i
    if n < len(tops):
        tops[n], owners[n] = value, owner
        return n + 1
    if tops[least] < value:
        tops[least], owners[least] = value, owner
    return n


@compiled
def _floor(kept, found, tops, held):  # type: ignore[no-untyped-def]
    """Return what a row has to reach: the last of the best rows, or of the best of each group, where there are enough.

    ``kept`` is the heap of the rows, of which ``found`` are there, and ``tops`` the best of ``held`` groups.
    """
    floor = np.float32(-np.inf)
    if found == len(kept):
        floor = -kept[0]
    if held and held == len(tops):
        least = tops[0]
        for i in range(1, held):
            least = min(least, tops[i])
        floor = max(floor, least)
    return floor


@compiled
def _among(values, start, stop, wanted):  # type: ignore[no-untyped-def]
    """Return whether a value stands in sorted values, from ``start`` to ``stop``."""
    while start < stop:
        middle = (start + stop) // 2
        if values[middle] < wanted:
            start = middle + 1
        elif values[middle] > wanted:
            stop = middle
        else:
            return True
    return False


@compiled
def _search_until(  # type: ignore[no-untyped-def]
    queries,
    factors,
    block,
    longest,
    reach,
    most,
    allowed,
    excluded,
    begins,
    groups,
    apart,
    centroids,
    guide,
    lengths,
    along,
    radii,
    squares,
    held,
    rows,
    scores,
):
    """Fill ``rows`` (int64) and ``scores`` (float32), both ``(n, k)``, with each query's best allowed rows, best first.

    Parameters
    ----------
    queries
        float32 ``(n, d)``.
    factors, block
        What they are rotated by; see `retr.index.accelerators.mixing`.
    longest
        How many rows the longest list has.
    reach
        The t of the bound; all lists are read where it is infinite.
    most
        How many lists with allowed rows are read at most.
    allowed
        uint8 ``(N,)``: 1 for the rows that may be found; empty where all may.
    excluded, begins
        int64 rows, sorted for each query, and where each query's begin ``(n + 1,)``.
    groups, apart
        int32 ``(N,)``: the group of each row, negative for one by itself; of so many groups the best rows are wanted,
        and what lies below the best row of each need not be found. Empty, and 0, where groups do not count.
    centroids, guide
        float32 ``(lists, d)``, rotated; and, as one list around their mean: their codes, factors, shifts and ones, and
        the mean.
    lengths, along, radii, squares
        float32 ``(lists,)``: the squared length of a list's centroid; the mean of its rows in units of the centroid,
        the root mean square of their distances to that mean, and its squared length.
    held
        As `retr.index.accelerators.lists._search_lists` takes it.
    """
    vectors, codes, factor, shift, ones, ids, starts, sizes = held
    n, dim = queries.shape
    k = rows.shape[1]
    total = len(centroids)
    words = (dim + 63) // 64
    planes, rounded, turned = (
        _allocate_table(words, _PLANES, np.uint64),
        _allocate(64 * words, np.uint8),
        _allocate(dim, np.float32),
    )
    rounded[:] = 0
    offers, estimates = _allocate(total + LANES, np.float32), _allocate(longest + LANES, np.float32)
    keys, waiting = _allocate(total, np.float32), _allocate(total, np.int64)
    kept, best = _allocate(k, np.float32), _allocate(k, np.int64)
    mine, lowest = _allocate(longest, np.int64), _allocate(longest, np.float32)
    tops, owners = _allocate(apart, np.float32), _allocate(apart, np.int32)
    most_excluded = 0
    for number in range(n):
        most_excluded = max(most_excluded, begins[number + 1] - begins[number])
    picked_of_all = _allocate(5 * (k + most_excluded) // 4 + 8, np.int64)
    every = not reach < _MOST_REACH
    if every:
        reach = _USUAL_REACH
    for number in range(n):
        query = queries[number]
        _rotate(query, factors, block, turned)
        low, step, whole = _planes(turned, planes, rounded)
        square = np.float32(0)
        for j in range(dim):
            square += query[j] * query[j]
        centre = np.float32(0)
        for j in range(dim):
            centre += guide[4][j] * turned[j]
        rounding = np.float32(dim) * step * step / np.float32(12)
        _estimate(planes, low, step, whole, centre, 0, total, guide[0], guide[1], guide[2], guide[3], offers, 0)
        left = 0
        for i in range(total):
            if sizes[i]:
                middle = along[i] * offers[i]
                far = math.sqrt(max(square + squares[i] - 2 * middle, np.float32(0)))
                keys[left], waiting[left] = middle + reach * (far * radii[i]), i
                left += 1
        for i in range(left // 2 - 1, -1, -1):
            _sift_down(keys, waiting, i, left)
        found, read, several = 0, 0, 0
        worst = np.float32(-np.inf)
        surely = k + begins[number + 1] - begins[number]
        picked = picked_of_all[: surely + surely // 4 + 8]
        while left and read < most:
            if keys[0] < worst and not every:
                break
            here = waiting[0]
            left -= 1
            keys[0], waiting[0] = keys[left], waiting[left]
            _sift_down(keys, waiting, 0, left)
            start, size = starts[here], sizes[here]
            m = 0
            if len(allowed):
                for i in range(size):
                    mine[m] = i
                    m += allowed[ids[start + i]]
            else:
                for i in range(size):
                    mine[i] = i
                m = size
            if m == 0:
                continue
            read += 1
            coded = m * _CODES_A_VECTOR > size
            if coded:
                offer = _product(centroids, here, turned)
                far = square + lengths[here] - 2 * offer
                unknown = _DEVIATIONS * math.sqrt(_UNKNOWN * _UNKNOWN * max(far, np.float32(0)) + rounding)
                _estimate(planes, low, step, whole, offer, start, size, codes, factor, shift, ones, estimates, 0)
                needed = worst
                if found < k and m > surely:
                    # so many of the list's own rows lie above
                    for i in range(m):
                        lowest[i] = estimates[mine[i]] - unknown * factor[start + mine[i]]
                    sure = _largest(lowest, m, surely, picked)
                    own = lowest[picked[0]]
                    for i in range(1, sure):
                        own = min(own, lowest[picked[i]])
                    needed = max(needed, own)
                near = 0
                for i in range(m):
                    at = mine[i]
                    mine[near] = at
                    estimates[at] += unknown * factor[start + at]
                    near += estimates[at] >= needed
                m = near
            for i in range(m):
                for j in range(0, dim, 32):
                    _prefetch(vectors, ids[start + mine[i]] * dim + j)
            for i in range(m):
                if coded and estimates[mine[i]] < worst:
                    continue
                row = ids[start + mine[i]]
                value = _product(vectors, row, query)
                # below the last of the rows, but not where it is only of the groups, equals do not count
                if value < worst or (found == k and value <= -kept[0]):
                    continue
                if not _among(excluded, begins[number], begins[number + 1], row):
                    found = _keep_one(kept, best, found, value, row)
                    if apart:
                        several = _keep_group(tops, owners, several, value, groups[row])
                    worst = _floor(kept, found, tops, several)
        for i in range(found):
            kept[i] = _exact_product(vectors, best[i], query)
        _best(kept, best, found, rows[number], scores[number])
        for i in range(found, k):
            rows[number, i], scores[number, i] = -1, -np.inf
    for array in (waiting, best, mine, picked_of_all):
        _free(array)
    for array in (turned, offers, estimates, keys, kept, lowest, tops):
        _free(array)
    _free(owners)
    _free(planes)
    _free(rounded)


def search_until(stored: Any) -> Any:
    """Return the loop `_search_until` over stored values of a kind.

    It takes queries, rows, scores, reach, most, allowed, excluded, begins, groups, apart, and the address of the rest:
    factors, block, longest, centroids, guide, lengths, along, radii, squares, held.
    """

    def loop(p):  # type: ignore[no-untyped-def]
        queries, rows, scores = _table(p, 0, np.float32), _table(p, 3, np.int64), _table(p, 6, np.float32)
        reach, most = _line(p, 9, np.float32)[0], p[11]
        allowed, excluded, begins = _line(p, 12, np.uint8), _line(p, 14, np.int64), _line(p, 16, np.int64)
        groups, apart = _line(p, 18, np.int32), p[20]
        same = _pointer(p[21], np.int64)
        factors = _table(same, 0, np.float32)
        centroids, (codes, factor, shift, ones) = _guide(same, 5)
        guide = codes, factor, shift, ones, _line(same, 16, np.float32)
        lengths, along = _line(same, 18, np.float32), _line(same, 20, np.float32)
        radii, squares = _line(same, 22, np.float32), _line(same, 24, np.float32)
        _search_until(
            queries,
            factors,
            same[3],
            same[4],
            reach,
            most,
            allowed,
            excluded,
            begins,
            groups,
            apart,
            centroids,
            guide,
            lengths,
            along,
            radii,
            squares,
            _held(same, 26, stored),
            rows,
            scores,
        )

    return loop
