"""Exact top-k: the k best allowed rows, whenever k exist, the same in any batch.

Two steps. A scan multiplies queries and vectors block by block and keeps every row that may be among the best; then the
candidates are scored again, each in float64 in an order that depends on nothing but the two vectors, and ranked by
(score rounded to float32, id). A result is final only when the worst kept score lies above everything the scan dropped
by more than its rounding can explain; else the scan is repeated for those queries with more candidates. So identical
rows tie exactly, and a query's answer does not depend on its neighbours in the batch.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from retr.index.scan.matmul import by_one_thread, choose_product
from retr.index.scan.processor import threads
from retr.index.scan.ranking import ranked
from retr.index.types import Ask, Neighbours, Scan, Scans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from retr.index.scan.matmul import Apart, BestOf, Product
    from retr.index.types import Block, FirstScan

# Scores of one block of the scan: small enough to stay near the processor, large enough for a fast product.
_BLOCK_SCORES = 1_000_000
_BLOCK_BYTES = 32 << 20
# The first few rows say what is worth keeping of the next ones, which are so many times as many.
_FIRST_ROWS = 4096
_GROWTH = 8
# Below this share of allowed rows, copying them together costs less than scoring all.
_GATHER_SHARE = 0.35
# Float64 values copied together at a time while candidates are scored again, by all threads and at least by each.
_RESCORE_VALUES = 4_000_000
_THREAD_VALUES = 250_000
# No sum of products of float32 runs over below this.
_OVERFLOWS = 1e37


def search(
    blocks: Sequence[Block],
    queries: NDArray[np.float32],
    ask: Ask,
    *,
    max_norm: float,
    cosine: bool,
    ids_of: Callable[[NDArray[np.int64]], Sequence[str]],
    first_scan: FirstScan | None = None,
) -> Neighbours:
    """Find the ``ask.k`` best rows for each query.

    Parameters
    ----------
    blocks
        All rows, in order.
    queries
        float32 ``(n, d)``, unit vectors where the similarity is cosine.
    ask
        What is allowed and how many.
    max_norm
        The largest norm of a stored vector.
    cosine
        Whether scores are clipped to [-1, 1].
    ids_of
        Returns the ids of rows; only asked where scores tie.
    first_scan
        Makes the scans, where it is given and reaches far enough.
    """
    n = len(queries)
    rows = np.full((n, ask.k), -1, np.int64)
    scores = np.full((n, ask.k), -np.inf, np.float32)
    total = available = sum(len(block.vectors) for block in blocks)
    allowed = ask.allowed
    chosen = ask.few
    if allowed is not None:
        available = int(np.count_nonzero(allowed)) if chosen is None else len(chosen)
        if chosen is None and available < _GATHER_SHARE * total:
            chosen = np.flatnonzero(allowed)
    norms = np.sqrt(np.square(queries, dtype=np.float64).sum(axis=1)) * max(max_norm, 1e-30)
    pending = np.arange(n)
    product = choose_product(n, queries.shape[1], rows=total)
    want = ask.candidates
    if first_scan is not None and not first_scan.reaches(want, allowed):
        first_scan = None
    want = min(available, want + (first_scan or product).margin)
    while len(pending) and available:
        asked, exclude = queries[pending], [ask.exclude[i] for i in pending.tolist()]
        if first_scan is None:
            # The error of the product on either side: a score that is compared, and the bound.
            error = 2 * product.error * norms[pending]
            if chosen is not None and product.apart is not None:
                scans = [
                    _best_apart(blocks, query, chosen, excluded, want, product.apart)
                    for query, excluded in zip(asked, exclude, strict=True)
                ]
            else:
                scans = scan(blocks, asked, allowed, chosen, exclude, want, product)
            found = _rectangular(scans, error)
        else:
            found = first_scan(asked, allowed, exclude, want)
        if found.scores is None:
            exactly = rescore(blocks, asked, found.rows, cosine=cosine)
        else:
            exactly = _rounded(found.scores, found.rows, cosine)
        kept, kept_scores = ranked(found.rows, exactly, ask, ids_of)
        worst = kept_scores[:, -1]
        if ask.min_score is not None:
            worst = np.maximum(worst, ask.min_score)
        # Equal scores are settled by id, so a dropped row that may tie after rounding matters too.
        final = np.isneginf(found.bound) | (worst > found.bound + 2.0**-22 * norms[pending])
        rows[pending[final]], scores[pending[final]] = kept[final], kept_scores[final]
        pending, want = pending[~final], min(available, want * 8)
        if first_scan is not None and not first_scan.reaches(want, allowed):
            first_scan = None
        if first_scan is None:
            product = choose_product(len(pending), queries.shape[1], rows=total, fast=False)
    return Neighbours(rows, scores)


def among(
    blocks: Sequence[Block],
    queries: NDArray[np.float32],
    chosen: NDArray[np.int64],
    k: int,
    *,
    max_norm: float,
    cosine: bool,
    ids_of: Callable[[NDArray[np.int64]], Sequence[str]],
) -> Neighbours:
    """Find the k best of some rows for one query ``(1, d)``, as `search` does.

    Parameters
    ----------
    chosen
        int64, block by block, and in any order within one.
    """
    query = queries[0].astype(np.float64)
    rows, wide = chosen, None
    if len(chosen) > k:
        product = choose_product(1, len(query), rows=sum([len(block.vectors) for block in blocks]))
        most = math.sqrt(query @ query) * max(max_norm, 1e-30)
        # what lies further below the k-th best than two products may be off, and float32 rounds, is none of the best
        off = (2 * product.error + 2.0**-22) * most
        if product.best_of is not None and most < _OVERFLOWS and by_one_thread(len(chosen), len(query)):
            rows, wide = _best_of(blocks, queries[0], chosen, k, off, product.best_of)
        else:
            assert product.apart is not None
            scores = _apart(blocks, queries, chosen, product.apart)
            rows = chosen[~(scores < np.partition(scores, -k)[-k] - off)]
    if wide is None:
        wide = _copied(blocks, rows).astype(np.float64)
    exactly = np.vecdot(wide, query)
    if cosine:
        np.minimum(exactly, 1.0, out=exactly)
        np.maximum(exactly, -1.0, out=exactly)
    rounded = exactly.astype(np.float32)[None]
    return Neighbours(*ranked(rows[None], rounded, Ask(k, None, (), None, None), ids_of))


def scan(
    blocks: Sequence[Block],
    queries: NDArray[np.float32],
    allowed: NDArray[np.bool_] | None,
    chosen: NDArray[np.int64] | None,
    exclude: Sequence[NDArray[np.int64]],
    want: int,
    product: Product,
) -> list[Scan]:
    """Collect, for each query, every row whose score by ``product`` is among the ``want`` best.

    Where they are few, ``chosen`` holds the numbers of the allowed rows.
    """
    n, d = queries.shape
    pools = _Pools(n, want)
    step = _BLOCK_SCORES // n
    if chosen is not None or n > 1:
        # what is copied, or read for one query after another, should fit into a cache
        step = max(1024, min(step, _BLOCK_BYTES // (4 * d)))
    some = [number for number in range(n) if len(exclude[number])]
    for rows, vectors in pieces(blocks, chosen, step):
        scores = product.multiply(queries, vectors)
        if allowed is not None and chosen is None:
            scores[~allowed[rows]] = -np.inf
        for number in some:
            hide(scores[:, number], rows, exclude[number])
        pools.add(scores, rows)
    return pools.result()


def _apart(
    blocks: Sequence[Block], queries: NDArray[np.float32], chosen: NDArray[np.int64], multiply: Apart
) -> NDArray[np.float32]:
    """Return the products of one query ``(1, d)`` and the chosen rows ``(m,)``: ``(m,)``."""
    found = [multiply(queries, block.vectors, rows)[:, 0] for block, rows in _by_block(blocks, chosen)]
    return found[0] if len(found) == 1 else np.concatenate(found)


def _by_block(blocks: Sequence[Block], chosen: NDArray[np.int64]) -> list[tuple[Block, NDArray[np.int64]]]:
    """Return the blocks with those of the chosen rows that are theirs, counted from their first.

    Parameters
    ----------
    chosen
        Block by block, and in any order within one.
    """
    if len(blocks) == 1 and not blocks[0].start:
        return [(blocks[0], chosen)]
    # all rows of a block come before those of the next: what a search by halves needs
    cuts = np.searchsorted(chosen, [block.start for block in blocks]).tolist()
    parts = zip(blocks, cuts, [*cuts[1:], len(chosen)], strict=True)
    return [(block, chosen[start:stop] - block.start) for block, start, stop in parts]


def _best_of(
    blocks: Sequence[Block],
    query: NDArray[np.float32],
    chosen: NDArray[np.int64],
    k: int,
    off: float,
    best_of: BestOf,
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Return which chosen rows may be the k best for one query, and their vectors where these are few."""
    parts = _by_block(blocks, chosen)
    found = [best_of(query, block, rows, k, off) for block, rows in parts]
    if len(found) == 1:
        rows, wide = found[0]
        return rows + parts[0][0].start if parts[0][0].start else rows, wide
    rows = np.concatenate([rows + block.start for (block, _), (rows, _) in zip(parts, found, strict=True)])
    copied = [wide for _, wide in found if wide is not None]
    return rows, np.concatenate(copied) if len(copied) == len(found) else None


def _best_apart(
    blocks: Sequence[Block],
    query: NDArray[np.float32],
    chosen: NDArray[np.int64],
    excluded: NDArray[np.int64],
    want: int,
    multiply: Apart,
) -> Scan:
    """Collect, for one query, the ``want`` best of the chosen rows."""
    scores = _apart(blocks, query[None], chosen, multiply)
    if len(excluded):
        hide(scores, chosen, excluded)
        left = scores > -np.inf
        chosen, scores = chosen[left], scores[left]
    surplus = len(chosen) - want
    if surplus <= 0:
        return Scan(chosen, scores, -np.inf)
    order = scores.argpartition(surplus - 1)
    best = order[surplus:]
    return Scan(chosen[best], scores[best], float(scores[order[surplus - 1]]))


def pieces(
    blocks: Sequence[Block], chosen: NDArray[np.int64] | None, step: int
) -> Iterator[tuple[slice | NDArray[np.int64], NDArray[np.float32] | NDArray[np.float16]]]:
    """Yield rows in order and their vectors, of pieces that grow up to ``step``: those chosen, copied, or all."""
    size = min(step, _FIRST_ROWS)
    if chosen is not None:
        start = 0
        while start < len(chosen):
            rows = chosen[start : start + size]
            yield rows, _copied(blocks, rows)
            start, size = start + size, min(step, _GROWTH * size)
        return
    for block in blocks:
        start = 0
        while start < len(block.vectors):
            vectors = block.vectors[start : start + size]
            first = block.start + start
            yield slice(first, first + len(vectors)), vectors
            start, size = start + size, min(step, _GROWTH * size)


def _copied(blocks: Sequence[Block], rows: NDArray[np.int64]) -> NDArray[np.float32] | NDArray[np.float16]:
    """Copy the stored vectors of rising rows ``(m,)`` together: ``(m, d)``."""
    if len(blocks) == 1:
        return blocks[0].vectors[rows - blocks[0].start]
    vectors = np.empty((len(rows), blocks[0].vectors.shape[1]), blocks[0].vectors.dtype)
    cuts = np.searchsorted(rows, [block.start for block in blocks]).tolist()
    for block, start, stop in zip(blocks, cuts, [*cuts[1:], len(rows)], strict=True):
        if start < stop:
            # with this mode numpy writes where it is told instead of copying twice
            np.take(block.vectors, rows[start:stop] - block.start, axis=0, out=vectors[start:stop], mode="clip")
    return vectors


def hide(scores: NDArray[np.float32], rows: slice | NDArray[np.int64], excluded: NDArray[np.int64]) -> None:
    """Take sorted rows out of the scores of rising ``rows``."""
    if isinstance(rows, slice):
        at = excluded[slice(*np.searchsorted(excluded, (rows.start, rows.stop)))] - rows.start
    else:
        at = np.searchsorted(rows, excluded)
        inside = at < len(rows)
        at = at[inside][rows[at[inside]] == excluded[inside]]
    scores[at] = -np.inf


class _Pools:
    """The best rows of every query so far, and the best score of each that was dropped: its bound.

    A row that is no better than its query's bound is not looked at again, so after the first blocks hardly any is.
    """

    def __init__(self, n: int, want: int) -> None:
        self._want = want
        self._bound = np.full(n, -np.inf, np.float32)
        self._kept = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
        self._limit = 2 * _GROWTH * want * n
        self._size = 0

    def add(self, scores: NDArray[np.float32], rows: slice | NDArray[np.int64]) -> None:
        """Take the scores ``(m, n)`` of m rows."""
        m, n = scores.shape
        above = scores > self._bound
        if m > self._want and np.count_nonzero(above) > self._limit:
            dropped = np.partition(scores, m - self._want - 1, axis=0)[m - self._want - 1]
            np.maximum(self._bound, dropped, out=self._bound)
            above = scores > self._bound
        at = np.flatnonzero(above)
        if len(at):
            mine = at // n + rows.start if isinstance(rows, slice) else rows[at // n]
            self._kept.append((at % n, mine, scores.reshape(-1)[at]))
            self._size += len(at)
            if self._size > self._limit:
                self._shrink()

    def _shrink(self) -> list[Scan]:
        owner, rows, scores = (np.concatenate(part) for part in zip(*self._kept, strict=True))
        n = len(self._bound)
        by_owner = np.argsort(owner.astype(np.min_scalar_type(n)), kind="stable")
        bounds = np.searchsorted(owner[by_owner], np.arange(n + 1))
        scans = []
        for number, (start, stop) in enumerate(pairwise(bounds.tolist())):
            mine = by_owner[start:stop]
            surplus = len(mine) - self._want
            if surplus > 0:
                best = np.argpartition(scores[mine], surplus - 1)
                self._bound[number] = max(self._bound[number], scores[mine[best[surplus - 1]]])
                mine = mine[best[surplus:]]
            scans.append(Scan(rows[mine], scores[mine], float(self._bound[number])))
        owner = np.repeat(np.arange(n), [len(found.rows) for found in scans])
        whole = np.concatenate([found.rows for found in scans]), np.concatenate([found.scores for found in scans])
        self._kept, self._size = [(owner, *whole)], len(owner)
        return scans

    def result(self) -> list[Scan]:
        return self._shrink()


def rescore(
    blocks: Sequence[Block], queries: NDArray[np.float32], rows: NDArray[np.int64], *, cosine: bool
) -> NDArray[np.float32]:
    """Score rows against queries, in float64 and pair by pair in a fixed order.

    Parameters
    ----------
    queries
        float32 ``(n, d)``.
    rows
        int64 ``(n, c)`` rows for each query, -1 for none.

    Returns
    -------
    float32 ``(n, c)``, ``-inf`` where there is no row
    """
    n, c = rows.shape
    dim = queries.shape[1]
    exactly = queries.astype(np.float64)
    if rows.size * dim <= _RESCORE_VALUES:
        return _rounded(_products(blocks, rows, exactly), rows, cosine)
    scores = np.empty((n, c), np.float64)
    values = max(_THREAD_VALUES, _RESCORE_VALUES // threads())
    wide = max(1, min(c, values // dim))
    high = max(1, values // (wide * dim))

    def part(corner: tuple[int, int]) -> None:
        top, left = corner
        place = slice(top, top + high), slice(left, left + wide)
        scores[place] = _products(blocks, rows[place], exactly[place[0]])

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads()) as pool:
        list(pool.map(part, [(top, left) for top in range(0, n, high) for left in range(0, c, wide)]))
    return _rounded(scores, rows, cosine)


def _rounded(scores: NDArray[np.float64], rows: NDArray[np.int64], cosine: bool) -> NDArray[np.float32]:
    if cosine:
        scores = scores.clip(-1.0, 1.0)
    scores[rows < 0] = -np.inf
    return scores.astype(np.float32)


def _products(blocks: Sequence[Block], rows: NDArray[np.int64], queries: NDArray[np.float64]) -> NDArray[np.float64]:
    # Each pair is summed by itself along its own memory: the result depends on nothing else.
    products: NDArray[np.float64] = np.vecdot(gather(blocks, rows).astype(np.float64), queries[:, None])
    return products


def gather(blocks: Sequence[Block], rows: NDArray[np.int64]) -> NDArray[np.float32] | NDArray[np.float16]:
    """Copy the stored vectors of rows ``(n, c)`` together: ``(n, c, d)``; what stands for -1 does not matter."""
    if len(blocks) == 1:
        # A row of -1 is the last one.
        return blocks[0].vectors[rows]
    values = np.zeros((*rows.shape, blocks[0].vectors.shape[1]), blocks[0].vectors.dtype)
    for block in blocks:
        mine = np.nonzero((rows >= block.start) & (rows < block.start + len(block.vectors)))
        values[mine] = block.vectors[rows[mine] - block.start]
    return values


def _rectangular(found: Sequence[Scan], error: NDArray[np.float64]) -> Scans:
    """Put candidates side by side, however many each query has; ``error`` is how far off each bound may be."""
    rows = np.full((len(found), max(len(part.rows) for part in found)), -1, np.int64)
    for number, part in enumerate(found):
        rows[number, : len(part.rows)] = part.rows
    return Scans(rows, None, np.array([part.bound for part in found]) + error)
