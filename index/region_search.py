"""Search of regions: rows by the vectors of parts of their pictures, each as like as its best part.

The parts' vectors are a row array (`retr.index.disk.row_arrays`): of every row the same number of them, one after the
other, each int8 and compared by its direction alone. A first reading scores all of them in float32 with a bound on the
error; the rows that may be among the best are scored again in float64, sum by sum in one order, and rounded to float32.
So the answer does not depend on what else is asked, nor on how rows lie in segments and shards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from retr.index.errors import UsageError
from retr.index.plan import ask_of, excluded, prepared
from retr.index.scan.ranking import ranked
from retr.index.scatter import Gathered, gather, merge
from retr.index.types import Neighbours

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from retr.index.scatter import Span
    from retr.index.search_options import RankOptions
    from retr.index.store import Store
    from retr.index.types import Ask

# Numbers that are widened to float32, or float64, at a time; and queries that are compared with them.
_AT_ONCE, _QUERIES = 1 << 22, 64
_TINY = 1e-30


@dataclass(frozen=True)
class Matched:
    """Answers to ``n`` queries.

    Attributes
    ----------
    found
        The rows and their scores, those of their best regions.
    regions
        int64 ``(n, m)``: which of a row's regions that is, the first of several as like; -1 where there is no row.
    """

    found: Neighbours
    regions: NDArray[np.int64]


def search_regions(
    store: Store,
    array: str,
    queries: NDArray[np.float32],
    options: RankOptions,
    *,
    mask: NDArray[np.bool_] | None = None,
    exclude: Sequence[NDArray[np.int64]] | None = None,
) -> Matched:
    """Find the k best rows for each query, exactly: by score, equal scores by id.

    Parameters
    ----------
    array
        The row array of the regions' vectors, a multiple of the index's ``dim`` wide.
    queries
        float32 ``(n, dim)``; normalised here.
    options
        What is ranked: conditions and exclusion choose rows.
    mask, exclude
        As `Store.search` takes them.

    Raises
    ------
    UsageError
        ``k`` is not positive, a shape does not fit, a column is unknown, or an effort is given.
    FilterError
        The where-expression cannot be read or applied.
    """
    if options.effort is not None:
        said = f"regions are searched exactly, which has no effort, got {options.effort!r}"
        raise UsageError(said, hint="leave it out")
    dim = store.manifest.encoder.dim
    unrounded, queries = queries, prepared(queries, dim, cosine=True)
    if store.remote is not None:
        return _elsewhere(store, array, unrounded, options, mask, exclude)
    ask = ask_of(store, len(queries), options, mask=mask, exclude=exclude)
    lengths = store.once(("lengths", array), lambda: _lengths(store, array, dim))
    rows = np.full((len(queries), ask.k), -1, np.int64)
    scores = np.full((len(queries), ask.k), -np.inf, np.float32)
    regions = np.full((len(queries), ask.k), -1, np.int64)
    for start in range(0, len(queries), _QUERIES):
        some = queries[start : start + _QUERIES]
        rough = _rough(store, array, lengths, some)
        for number, query in enumerate(some, start):
            near = _near(rough[number - start], ask, number, _error(dim))
            best, which = _best(store, array, near, query)
            mine, my_scores = ranked(near[None], best[None], ask, store.ids)
            here = mine[0] >= 0
            rows[number], scores[number] = mine[0], my_scores[0]
            regions[number, here] = which[np.searchsorted(near, mine[0][here])]
    return Matched(Neighbours(rows, scores), regions)


@dataclass(frozen=True)
class _Regions:
    """What one shard is asked."""

    array: str
    queries: NDArray[np.float32]
    options: RankOptions
    mask: NDArray[np.bool_] | None
    exclude: list[NDArray[np.int64]]

    def answer(self, shard: Store) -> Matched:
        return search_regions(shard, self.array, self.queries, self.options, mask=self.mask, exclude=self.exclude)


def _elsewhere(
    store: Store,
    array: str,
    queries: NDArray[np.float32],
    options: RankOptions,
    mask: NDArray[np.bool_] | None,
    exclude: Sequence[NDArray[np.int64]] | None,
) -> Matched:
    """Ask shards that are held elsewhere for their best rows, and rank these together."""
    left_out = excluded(store, len(queries), exclude, {})
    ask = ask_of(store, len(queries), replace(options, where=None), mask=mask)

    def part(span: Span) -> _Regions:
        return _Regions(array, queries, options, span.mask(mask), [span.rows(rows) for rows in left_out])

    got = gather(store, part, partial=options.partial)
    found = merge(store, Gathered([(span, one.found) for span, one in got.answers], got.searched, got.note), ask)
    rows = np.concatenate([span.whole(one.found.rows) for span, one in got.answers], axis=1)
    which = np.concatenate([one.regions for _, one in got.answers], axis=1)
    regions = np.full(found.rows.shape, -1, np.int64)
    for mine, best, theirs, numbers in zip(regions, found.rows, rows, which, strict=True):
        of_row = dict(zip(theirs.tolist(), numbers.tolist(), strict=True))
        mine[:] = [of_row[row] if row >= 0 else -1 for row in best.tolist()]
    return Matched(found, regions)


def _error(dim: int) -> float:
    """Return how far a score of the first reading, rounded, may be from the true one."""
    return (dim + 16) * 2.0**-23


def _blocks(store: Store, array: str, dim: int) -> Iterator[tuple[int, NDArray[np.int8]]]:
    """Yield the number of a first row, and the vectors of the regions of some rows ``(rows, regions, dim)``."""
    start = 0
    for segment in store.segments:
        lines = segment.arrays[array]
        step = max(1, _AT_ONCE // lines.shape[1])
        for at in range(0, len(lines), step):
            some = lines[at : at + step]
            yield start + at, some.reshape(len(some), -1, dim)
        start += len(segment)


def _lengths(store: Store, array: str, dim: int) -> NDArray[np.float32]:
    """Return the length of each vector: float32 ``(n_total, regions)``."""
    per_row = store.manifest.row_arrays[array].dim // dim
    found = np.empty((store.n_total, per_row), np.float32)
    for start, block in _blocks(store, array, dim):
        wide = block.astype(np.float32)
        # whole numbers below 2^24 * dim: exact enough for a bound, and the second reading takes its own
        found[start : start + len(block)] = np.sqrt(np.einsum("rgd,rgd->rg", wide, wide))
    return found


def _rough(store: Store, array: str, lengths: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the score of each row's best region, near the true one: float32 ``(n, n_total)``."""
    found = np.empty((len(queries), store.n_total), np.float32)
    columns = np.ascontiguousarray(queries.T)
    for start, block in _blocks(store, array, len(columns)):
        stop = start + len(block)
        products = block.reshape(-1, len(columns)).astype(np.float32) @ columns
        products /= np.maximum(lengths[start:stop].reshape(-1, 1), np.float32(_TINY))
        found[:, start:stop] = products.reshape(*block.shape[:2], -1).max(axis=1).T
    return found


def _near(rough: NDArray[np.float32], ask: Ask, number: int, error: float) -> NDArray[np.int64]:
    """Return, in order, the allowed rows of which none can be missed among the best."""
    allowed = np.ones(len(rough), np.bool_) if ask.allowed is None else ask.allowed.copy()
    allowed[ask.exclude[number]] = False
    rows = np.flatnonzero(allowed)
    scores = rough[rows]
    counting = scores
    if ask.one_per is not None and len(rows):
        # of a group only its best row counts
        codes = np.asarray(ask.one_per[rows], np.int64)
        order = np.lexsort((-scores, codes))
        first = np.ones(len(rows), np.bool_)
        first[1:] = (codes[order][1:] != codes[order][:-1]) | (codes[order][1:] < 0)
        counting = scores[order][first]
    if len(counting) <= ask.k:
        return rows
    least = np.partition(counting, len(counting) - ask.k)[len(counting) - ask.k]
    return rows[np.flatnonzero(scores >= least - 2 * error)]


def _best(
    store: Store, array: str, rows: NDArray[np.int64], query: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the score of each row's best region, and which that is."""
    best, which = np.empty(len(rows), np.float32), np.empty(len(rows), np.int64)
    wide = query.astype(np.float64)
    step = max(1, _AT_ONCE // store.manifest.row_arrays[array].dim)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        vectors = store.array(array, some).reshape(len(some), -1, len(query)).astype(np.float64)
        # each sum runs over one contiguous vector: its bits are its own
        products = np.add.reduce(vectors * wide, axis=-1)
        lengths = np.sqrt(np.add.reduce(vectors * vectors, axis=-1))
        scores = np.clip(products / np.maximum(lengths, _TINY), -1, 1).astype(np.float32)
        which[start : start + step] = scores.argmax(axis=1)
        best[start : start + step] = scores.max(axis=1)
    return best, which
