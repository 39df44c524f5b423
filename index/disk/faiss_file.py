"""Validating a faiss file before faiss reads it.

faiss trusts the sizes in its files and allocates the memory they ask for; its searches do not check the numbers of
rows, of lists or of neighbours. So the file is parsed first, in faiss's own layout (``faiss/impl/index_write.cpp``):
only the kinds that `retr.index.accelerators.faiss_index.train` makes, every size within the file, every number of a row
within the rows. Nothing is copied.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.disk.lists_file import require_lists, split
from retr.index.errors import IndexCorruptError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INNER_PRODUCT = 0
# faiss's numbers of the codecs `sq8` and `fp16`, and the bytes of a dimension.
_CODECS = {0: 1, 4: 2}
# To such a multiple a file is filled up before lists follow.
_ALIGNED = 64
# Products and squares of a few numbers up to this are still float32.
_LARGEST = 1e15


def require_whole(data: memoryview, rows: int, dim: int) -> None:
    """Validate a file that should hold ``rows`` vectors of ``dim`` dimensions.

    Raises
    ------
    ValueError
        It holds something that `train` does not write.
    IndexCorruptError
        It is of other vectors.
    """
    index, lists = split(data, rows, dim)
    if lists is not None:
        require_lists(lists, rows)
    file = _File(index)
    kind = file.kind("IxPT", "IwSq", "IHNs")
    if file.header() != (rows, dim):
        raise IndexCorruptError("an accelerator belongs to other vectors", hint="run `retr index tune` again")
    if kind == "IxPT":
        _rotation(file, dim)
        file.kind("Iwrq")
        file.require(file.header() == (rows, dim), "a rotation of other vectors")
        _bit_lists(file, rows, dim)
    elif kind == "IwSq":
        nlist = _lists(file, dim)
        size = _codec(file, dim)
        file.require(file.numbers("QB")[0] == size, "codes of another width")
        _rows_in_lists(file, nlist, size, rows)
    else:
        _graph(file, rows)
        file.kind("IxSQ")
        file.require(file.header() == (rows, dim), "a graph of other vectors")
        size = _codec(file, dim)
        file.require(len(file.vector(np.uint8)) == rows * size, "other codes than rows")
    if lists is not None:
        file.require(kind == "IxPT" and file.left < _ALIGNED and not any(file.rest()), "lists behind another index")
    else:
        file.require(file.left == 0, "more than an index")


class _File:
    """The bytes that are left of a file."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def rest(self) -> bytes:
        """Return all bytes that are left."""
        return bytes(self._data[self._at :])

    def require(self, holds: Any, otherwise: str) -> None:
        if not holds:
            raise ValueError(otherwise)

    def numbers(self, form: str) -> tuple[Any, ...]:
        """Take numbers, as `struct` names them."""
        size = struct.calcsize(f"<{form}")
        self.require(size <= self.left, "cut short")
        self._at += size
        return struct.unpack_from(f"<{form}", self._data, self._at - size)

    def vector(self, kind: Any, count: int | None = None) -> NDArray[Any]:
        """View the next ``count`` values; as many as stand before them where it is ``None``."""
        count = self.numbers("Q")[0] if count is None else count
        size = count * np.dtype(kind).itemsize
        self.require(size <= self.left, "cut short")
        self._at += size
        return np.frombuffer(self._data, kind, count, self._at - size)

    def kind(self, *among: str) -> str:
        found = bytes(self.numbers("4s")[0]).decode("latin-1")
        self.require(found in among, f"{found!r} where {among} may be")
        return found

    def require_moderate(self, numbers: NDArray[Any], otherwise: str) -> None:
        """Refuse what is no number, or so large that sums of its products would be none."""
        self.require((np.abs(numbers) <= _LARGEST).all(), otherwise)

    def header(self) -> tuple[int, int]:
        """Take what every index begins with; give its rows and dimensions."""
        dim, rows, _, _, trained, metric = self.numbers("iqqqBi")
        self.require(trained == 1 and metric == _INNER_PRODUCT, "not trained, or of another metric")
        return rows, dim


def _rotation(file: _File, dim: int) -> None:
    steps, name, biased = file.numbers("i4sB")
    if bytes(name) == b"rrot":
        raise IndexCorruptError("an accelerator is of an older kind", hint="run `retr index tune` again")
    file.require((steps, bytes(name), biased) == (1, b"LTra", 0), "no single rotation")
    matrix, bias = file.vector("<f4"), file.vector("<f4")
    file.require(len(matrix) == dim * dim and not len(bias), "no rotation")
    file.require_moderate(matrix, "no rotation")
    file.require(file.numbers("iiB") == (dim, dim, 1), "a rotation of other dimensions")


def _lists(file: _File, dim: int) -> int:
    """Take the centroids; give how many there are."""
    nlist, _ = file.numbers("QQ")
    file.kind("IxFI")
    file.require(nlist > 0 and file.header() == (nlist, dim), "other centroids than lists")
    centroids = file.vector("<f4")
    file.require(len(centroids) == nlist * dim, "no centroids")
    file.require_moderate(centroids, "no centroids")
    # a map from rows to lists, which `train` leaves out
    file.require(file.numbers("BQ") == (0, 0), "a map of rows")
    return int(nlist)


def _bit_lists(file: _File, rows: int, dim: int) -> None:
    nlist = _lists(file, dim)
    width = -(-dim // 8)
    found = file.numbers("QQiQBB")
    file.require(found[:4] == (dim, width + 8, _INNER_PRODUCT, width + 8), "codes of another width")
    for codes in _rows_in_lists(file, nlist, width + 8, rows):
        file.require_moderate(np.ascontiguousarray(codes[:, width:]).view("<f4"), "a factor that is no number")


def _codec(file: _File, dim: int) -> int:
    """Take a scalar quantiser; give the bytes of a vector."""
    kind, _, _, d, size = file.numbers("iifQQ")
    trained = file.vector("<f4")
    file.require(kind in _CODECS and (d, size) == (dim, _CODECS[kind] * dim), "an unknown codec")
    file.require(len(trained) == (2 * dim if kind == 0 else 0), "no ranges")
    file.require_moderate(trained, "no ranges")
    return int(size)


def _rows_in_lists(file: _File, nlist: int, size: int, rows: int) -> list[NDArray[np.uint8]]:
    """Take the lists; give the codes ``(n, size)`` of each. Every row stands in one of them, once."""
    file.kind("ilar")
    file.require(file.numbers("QQ") == (nlist, size), "other lists than centroids")
    if file.kind("full", "sprs") == "full":
        sizes = file.vector("<u8")
        file.require(len(sizes) == nlist, "other sizes than lists")
    else:
        pairs = file.vector("<u8")
        file.require(len(pairs) % 2 == 0 and np.all(pairs[::2] < nlist), "sizes of lists that are not there")
        file.require(np.all(np.diff(pairs[::2].astype(np.int64)) > 0), "a list stands twice")
        sizes = np.zeros(nlist, np.uint64)
        sizes[pairs[::2].astype(np.int64)] = pairs[1::2]
    file.require(np.all(sizes <= rows) and int(sizes.sum()) == rows, "other rows in the lists than there are")
    seen = np.zeros(rows, bool)
    codes = []
    for count in sizes.tolist():
        codes.append(file.vector(np.uint8, count * size).reshape(count, size))
        numbers = file.vector("<i8", count)
        file.require(np.all((numbers >= 0) & (numbers < rows)), "a row that is not there")
        seen[numbers] = True
    file.require(seen.all(), "a row stands in two lists")
    return codes


def _graph(file: _File, rows: int) -> None:
    """Take the edges of an HNSW graph: each leads to a row that has the level."""
    file.vector("<f8")
    first, levels, offsets, edges = (file.vector(kind) for kind in ("<i4", "<i4", "<u8", "<i4"))
    start, highest = file.numbers("iiiii")[:2]
    file.require(len(first) > 1 and first[0] == 0 and np.all(np.diff(first.astype(np.int64)) > 0), "no levels")
    file.require(len(levels) == rows and np.all((levels > 0) & (levels < len(first))), "other levels than rows")
    file.require(len(offsets) == rows + 1 and offsets[0] == 0, "other places than rows")
    places = offsets.astype(np.int64)
    file.require(np.array_equal(np.diff(places), first[levels]) and places[-1] == len(edges), "other edges than places")
    file.require(np.all((edges >= -1) & (edges < rows)), "an edge to a row that is not there")
    file.require(0 <= start < rows and highest == levels.max() - 1 and levels[start] == highest + 1, "no entry")
    for level in range(1, int(highest) + 1):
        here = np.flatnonzero(levels > level)
        ends = edges[places[here, None] + np.arange(first[level], first[level + 1])]
        file.require(np.all(levels[ends[ends >= 0]] > level), "an edge to a row below")
