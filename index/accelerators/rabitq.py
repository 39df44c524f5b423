"""Searching inverted lists of RaBitQ codes: one bit a dimension, refined from the stored vectors.

The codes are faiss's (``IndexIVFRaBitQ``: Gao and Long, 2024, https://arxiv.org/abs/2405.12497); how they are read is
ours. A row x in the list of the centroid c has the bits b of the signs of x - c, rotated. The estimate of its product
with a query q is linear in q, so that all that depends on x and c alone is worked out once:

    <x, q> ~ <c, q> + factor * (2 <b, q> - sum(q)) + shift

The query is rounded to 5 bits a dimension; ``<b, q>`` is then a matter of counting bits, the same for every list. (The
readers in faiss subtract the centroid from the query and make a table for each list they visit; at a few hundred rows
a list that takes most of their time.) The best estimates are scored again on the stored vectors.

A query is answered in the same way alone and among others.
"""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.accelerators.config import IVF
from retr.index.disk import lists_file
from retr.index.disk.lists_file import LANES, Lists, whole_groups
from retr.index.scan.machine_code import Loop, packed
from retr.index.types import Candidates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.accelerators.config import Config
    from retr.index.accelerators.rotation import Rotation

_SEARCH_LISTS = Loop("accelerators.lists", "search_lists")
_SEARCH_UNTIL = Loop("accelerators.probing", "search_until")
_ALL, _NOTHING, _NO_GROUPS = np.empty(0, bool), np.empty(0, np.int64), np.empty(0, np.int32)
_AT_ONCE = 1 << 20
# Fewer queries a thread are answered before the threads have started.
_QUERIES_PER_THREAD = 4


class BitLists:
    """Inverted lists laid out for scanning, and the vectors of their rows.

    Parameters
    ----------
    lists
        What is compiled does not look where it reads: that every row stands in one list, once, was seen to before
        (`retr.index.disk.faiss_file`).
    rotation
        What its vectors and centroids were rotated by.
    vectors
        The stored vectors ``(n, d)``, float32 or float16.
    threads
        How many may work on a batch.
    """

    def __init__(self, lists: Lists, rotation: Rotation, vectors: NDArray[Any], *, threads: int) -> None:
        self._rotation, self._threads = rotation, threads
        self._vectors, self.lists = vectors, lists
        self._n_lists = len(lists.sizes)
        codes = lists.codes, lists.factor, lists.shift, lists.ones
        held = packed(vectors, *codes, lists.rows, lists.starts, lists.sizes)
        guide = packed(lists.centroids, lists.guide_codes, lists.guide_factor, lists.guide_shift, lists.guide_ones)
        around = packed(lists.middle, lists.lengths, lists.along, lists.radii, lists.squares)
        # where all that stays as it is lies, as the two loops take it
        same = *rotation.words, int(lists.sizes.max()), *guide
        self._lists, self._until = array("q", (*same, *held)), array("q", (*same, *around, *held))

    def search(self, queries: NDArray[np.float32], k: int, config: Config) -> Candidates:
        """Propose about ``k`` rows for each query; see `Accelerator.search`."""
        if not isinstance(config, IVF):
            raise TypeError(type(config).__name__)
        probes = min(config.probes, self._n_lists)
        n, queries = len(queries), np.ascontiguousarray(queries, np.float32)
        rows, scores = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
        how = probes, k * config.refine, self._lists.buffer_info()[0]

        def some(part: slice) -> None:
            here = packed(queries[part], rows[part], scores[part])
            _SEARCH_LISTS(self._vectors.dtype, *here, *how)

        self._in_threads(some, n)
        return Candidates(rows, scores)

    def best_first(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        reach: float,
        most: int | None = None,
        allowed: NDArray[np.bool_] | None = None,
        exclude: Sequence[NDArray[np.int64]] | None = None,
        groups: NDArray[np.int32] | None = None,
        apart: int = 0,
    ) -> Candidates:
        """Find about the k best allowed rows of each query; see `retr.index.types.BestFirst`."""
        n, queries = len(queries), np.ascontiguousarray(queries, np.float32)
        allowed = np.ascontiguousarray(_ALL if allowed is None else allowed)
        most = self._n_lists if most is None else most
        bound = np.array([reach], np.float32)
        rows, scores = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
        excluded, begins = _NOTHING, np.zeros(n + 1, np.int64)
        if exclude is not None and len(exclude):
            excluded = np.concatenate([_NOTHING, *exclude])
            np.cumsum([len(part) for part in exclude], out=begins[1:])

        grouped = _NO_GROUPS if groups is None else groups
        how, same = (*packed(bound), most), self._until.buffer_info()[0]

        def some(part: slice) -> None:
            here = packed(queries[part], rows[part], scores[part])
            barred = packed(allowed, excluded, begins[part.start : part.stop + 1])
            _SEARCH_UNTIL(self._vectors.dtype, *here, *how, *barred, *packed(grouped), apart, same)

        self._in_threads(some, n)
        return Candidates(rows, scores)

    def _in_threads(self, some: Callable[[slice], None], n: int) -> None:
        """Call a function on parts of n queries, side by side where there are enough of them."""
        threads = min(self._threads, n // _QUERIES_PER_THREAD)
        if threads < 2:
            some(slice(0, n))
            return
        step = -(-n // threads)
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(some, [slice(start, min(start + step, n)) for start in range(0, n, step)]))


def new_lists(index: Any) -> Lists:
    """Return faiss's ``IndexIVFRaBitQ``, trained on rotated vectors, laid out in memory."""
    lists = Lists.new(index.d, index.nlist, int(whole_groups(_sizes(index)).sum()))
    _fill(lists, index)
    return lists


def write_lists(index: Any, rows: int, path: Path) -> None:
    """Add the lists of an ``IndexIVFRaBitQ`` to the file that faiss wrote of it.

    They are filled in where they lie in the file: in memory they would be there twice.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    from mmap import mmap

    start = lists_file.begin(path.stat().st_size)
    shape = index.d, index.nlist, int(whole_groups(_sizes(index)).sum())
    with path.open("r+b") as file:
        left = start - file.seek(0, os.SEEK_END) + lists_file.size(*shape)
        while left:
            # room for all of it, or an error now
            left -= file.write(bytes(min(left, _AT_ONCE)))
        file.write(lists_file.end(index.d, rows, *shape[1:], start))
        file.flush()
        with mmap(file.fileno(), 0) as whole:
            lists = Lists.over(whole, start, *shape)
            _fill(lists, index)
            del lists
            whole.flush()


def _sizes(index: Any) -> NDArray[np.int64]:
    return np.array([index.invlists.list_size(number) for number in range(index.nlist)], np.int64)


def _fill(lists: Lists, index: Any) -> None:
    import faiss

    centroids, sizes = index.quantizer.reconstruct_n(0, index.nlist), _sizes(index)
    lists.centroids[:], lists.sizes[:] = centroids, sizes
    lists.starts[:] = np.cumsum(whole_groups(sizes)) - whole_groups(sizes)
    lists.middle[:] = centroids.mean(axis=0)
    guide: tuple[NDArray[Any], ...] = lists.guide_codes, lists.guide_factor, lists.guide_shift, lists.guide_ones
    for mine, found in zip(guide, _coded(centroids, lists.middle), strict=True):
        mine[:] = found
    words, width = -(-index.d // 64), -(-index.d // 8)
    along, spreads = np.zeros((2, index.nlist))
    for number, (start, size) in enumerate(zip(lists.starts.tolist(), sizes.tolist(), strict=True)):
        raw = faiss.rev_swig_ptr(index.invlists.get_codes(number), size * index.code_size).view(np.uint8)
        raw = raw.reshape(size, index.code_size)
        part = slice(start, start + size)
        grouped = _words(raw[:, :width])
        lists.codes[start * words :][: len(grouped)] = grouped
        # Its squared distance to the centroid less its own squared length, and its multiplier, in the words of
        # faiss/impl/RaBitQuantizer.cpp.
        distance, multiplier = np.ascontiguousarray(raw[:, width : width + 8]).view(np.float32).T
        centroid = centroids[number]
        bits = np.unpackbits(raw[:, :width], axis=1, count=index.d, bitorder="little")
        lists.factor[part] = multiplier / np.sqrt(index.d)
        along[number] = -distance.mean() if size else 0.0
        spreads[number] = np.square(multiplier, dtype=np.float64).mean() if size else 0.0
        inside = 2 * (bits @ centroid) - centroid.sum()
        lists.shift[part] = -(distance + centroid @ centroid) / 2 - lists.factor[part] * inside
        lists.ones[part] = bits.sum(axis=1)
        lists.rows[part] = faiss.rev_swig_ptr(index.invlists.get_ids(number), size)
    around = _around(np.square(centroids).sum(axis=1), along, spreads, index.d)
    for mine, found in zip((lists.lengths, lists.along, lists.radii, lists.squares), around, strict=True):
        mine[:] = found


def _around(
    lengths: NDArray[np.float32], along: NDArray[np.float64], spreads: NDArray[np.float64], dim: int
) -> tuple[NDArray[np.float32], ...]:
    """Describe lists as `probing._search_until` takes them: the last four of what it says about centroids.

    Parameters
    ----------
    lengths
        The squared lengths of the centroids, ``(lists,)``.
    along
        The mean of |x|^2 - |x - c|^2 over the rows of each list.
    spreads
        The mean square of the multipliers of its rows: of |x - c|, over the cosine of x - c with the signs of x - c.
    """
    positive = np.maximum(lengths, 1e-12)
    inside = (along + lengths) / (2 * positive)
    # the cosine's mean square, for a random rotation
    cosine = 2 / np.pi + (1 - 2 / np.pi) / dim
    radii = np.sqrt(np.maximum(spreads * cosine - np.square(1 - inside) * lengths, 0))
    return tuple(part.astype(np.float32) for part in (lengths, inside, radii, np.square(inside) * lengths))


def _words(packed: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Lay the packed bits ``(n, bytes)`` of a list's rows out as `retr.index.accelerators.lists` reads them."""
    n, width = packed.shape
    whole = np.zeros((whole_groups(n), -(-width // 8) * 8), np.uint8)
    whole[:n, :width] = packed
    words = whole.view("<u8").reshape(-1, LANES, whole.shape[1] // 8)
    return np.ascontiguousarray(words.transpose(0, 2, 1)).reshape(-1)


def _coded(centroids: NDArray[np.float32], middle: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    """Code the centroids ``(n, d)`` as one list around a point ``(d,)``.

    Returns
    -------
    tuple
        Its codes, and the factor, the shift and the ones of each.
    """
    aside = centroids - middle
    bits = aside > 0
    along = np.abs(aside).sum(axis=1)
    factor = np.square(aside).sum(axis=1) / np.where(along > 0, along, 1)
    shift = aside @ middle - factor * (2 * (bits @ middle) - middle.sum())
    codes = _words(np.packbits(bits, axis=1, bitorder="little"))
    spare = (0, whole_groups(len(bits)) - len(bits))
    return codes, *(np.pad(part, spare).astype(np.float32) for part in (factor, shift, bits.sum(axis=1)))
