"""The lists of bit codes as loops read them, behind the faiss index in an accelerator's file.

faiss's own form of ``IndexIVFRaBitQ`` has the bits of a row beside its factors; a search wants the words of several
rows side by side (`retr.index.accelerators.lists`), and would lay every row out anew in each process. So the same lists
are written a second time, behind what faiss reads, and mapped. Little-endian; each array begins at a multiple of 64
bytes; the last 64 bytes say what there is::

    8s magic, u32 version, u32 dimensions, u64 rows, u64 lists, u64 places, u64 where the arrays begin, zeros

Programs that read the faiss index do not look behind it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Rows of a group, whose codes are compared with a query at once.
LANES = 8
_END = struct.Struct("<8sIIQQQQ16x")
_MAGIC, _VERSION = b"bitlists", 1
_ALIGNED = 64
# Products and squares of a few numbers up to this are still float32.
_LARGEST = 1e15


def whole_groups(sizes: Any) -> Any:
    """Return how many places lists of so many rows take."""
    return -(-sizes // LANES) * LANES


@dataclass(frozen=True)
class Lists:
    """Lists of bit codes, every list from a multiple of `LANES` places on.

    Attributes
    ----------
    centroids
        float32 ``(lists, d)``, rotated as the codes are; ``middle`` is their mean ``(d,)``.
    guide_codes, guide_factor, guide_shift, guide_ones
        The centroids as one list around their mean, as ``codes``, ``factor``, ``shift`` and ``ones`` hold rows.
    lengths, along, radii, squares
        float32 ``(lists,)``: what `retr.index.accelerators.probing` knows of each.
    starts, sizes
        int64 ``(lists,)``: the first place of each, and how many rows it has.
    codes
        uint64: the words of the codes, group by group.
    factor, shift, ones
        float32 ``(places,)``: what makes an estimate of them.
    rows
        int32 ``(places,)``: the row at each place.
    """

    centroids: NDArray[np.float32]
    middle: NDArray[np.float32]
    guide_codes: NDArray[np.uint64]
    guide_factor: NDArray[np.float32]
    guide_shift: NDArray[np.float32]
    guide_ones: NDArray[np.float32]
    lengths: NDArray[np.float32]
    along: NDArray[np.float32]
    radii: NDArray[np.float32]
    squares: NDArray[np.float32]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    codes: NDArray[np.uint64]
    factor: NDArray[np.float32]
    shift: NDArray[np.float32]
    ones: NDArray[np.float32]
    rows: NDArray[np.int32]

    @classmethod
    def over(cls, buffer: Any, start: int, dim: int, n_lists: int, places: int) -> Self:
        """View a buffer from ``start`` on; nothing is read."""
        found = {}
        for name, (kind, shape) in _shapes(dim, n_lists, places).items():
            count = math.prod(shape)
            found[name] = np.frombuffer(buffer, kind, count, start).reshape(shape)
            start += _aligned(count * np.dtype(kind).itemsize)
        return cls(**found)

    @classmethod
    def new(cls, dim: int, n_lists: int, places: int) -> Self:
        """Return lists in memory, to be filled."""
        return cls.over(bytearray(size(dim, n_lists, places)), 0, dim, n_lists, places)


def _shapes(dim: int, n_lists: int, places: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    words, groups = -(-dim // 64), whole_groups(n_lists)
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {one.name: ("<f4", (n_lists,)) for one in fields(Lists)}
    shapes |= dict.fromkeys(("factor", "shift", "ones"), ("<f4", (places,)))
    shapes |= dict.fromkeys(("guide_factor", "guide_shift", "guide_ones"), ("<f4", (groups,)))
    shapes |= {"centroids": ("<f4", (n_lists, dim)), "middle": ("<f4", (dim,)), "rows": ("<i4", (places,))}
    shapes |= {"codes": ("<u8", (words * places,)), "guide_codes": ("<u8", (words * groups,))}
    return shapes | dict.fromkeys(("starts", "sizes"), ("<i8", (n_lists,)))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def size(dim: int, n_lists: int, places: int) -> int:
    """Return how many bytes the arrays take."""
    shapes = _shapes(dim, n_lists, places).values()
    return sum(_aligned(math.prod(shape) * np.dtype(kind).itemsize) for kind, shape in shapes)


def end(dim: int, rows: int, n_lists: int, places: int, start: int) -> bytes:
    """Return the last bytes of a file whose arrays begin at ``start``."""
    return _END.pack(_MAGIC, _VERSION, dim, rows, n_lists, places, start)


def begin(bytes_of_faiss: int) -> int:
    """Return where arrays begin behind a faiss index of so many bytes."""
    return _aligned(bytes_of_faiss)


def split(data: memoryview, rows: int, dim: int) -> tuple[memoryview, Lists | None]:
    """Return the faiss index of a file, and the lists behind it where there are any.

    Nothing but the end is looked at: `require_lists` was called when the file was new to this machine.

    Raises
    ------
    ValueError
        They are not of so many vectors, or do not fit the file.
    """
    if len(data) < _END.size or data[-_END.size :][: len(_MAGIC)] != _MAGIC:
        return data, None
    _, version, wide, high, n_lists, places, start = _END.unpack(data[-_END.size :])
    if version != _VERSION:
        # of a later version: faiss's form says the same
        return data[: min(start, len(data))], None
    most = len(data)
    if (wide, high) != (dim, rows) or n_lists > most or places > most or start > most or start % _ALIGNED:
        raise ValueError("lists of other vectors")
    if start + size(dim, n_lists, places) + _END.size != len(data):
        raise ValueError("lists that do not fit the file")
    return data[:start], Lists.over(data, start, dim, n_lists, places)


def require_lists(lists: Lists, rows: int) -> None:
    """Raise `ValueError` where loops that do not look where they read would read elsewhere, or give no number."""
    sizes, starts = lists.sizes, lists.starts
    if not len(sizes) or sizes.min() < 0 or sizes.max() > rows or int(sizes.sum()) != rows:
        raise ValueError("other rows in the lists than there are")
    ends = np.cumsum(whole_groups(sizes))
    if ends[-1] != len(lists.rows) or not np.array_equal(starts, ends - whole_groups(sizes)):
        raise ValueError("lists that begin elsewhere")
    if len(lists.rows) and (lists.rows.min() < 0 or lists.rows.max() >= rows):
        raise ValueError("a row that is not there")
    seen = np.zeros(rows, bool)
    for start, count in zip(starts.tolist(), sizes.tolist(), strict=True):
        seen[lists.rows[start : start + count]] = True
    if not seen.all():
        raise ValueError("a row stands in two lists")
    for one in fields(lists):
        values = getattr(lists, one.name)
        if values.dtype == np.float32 and not (np.abs(values) <= _LARGEST).all():
            raise ValueError("a factor that is no number")
