"""Match table rows to pictures by path, never by a guess.

A picture whose path is written in the table as it lies on the disk has that row. Otherwise a row is found by the same
path in another composition of its accents (NFC, NFD) or with backslashes, by the path of a member without its
container, or, where the table gives names without suffix, by the name without it. Such a row belongs to a picture only
where it is the only one that it fits: a row that fits two is given to neither. Upper and lower case are different.

Memory: 12 bytes a row for each way to look, and the text.
"""

from __future__ import annotations

import posixpath
import unicodedata
from typing import TYPE_CHECKING

import numpy as np

from retr.index.machine.arrow import pc
from retr.retrieval.archive.hashed_lookup import Lookup, hashes_of
from retr.retrieval.archive.sources import is_image_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

SEPARATOR = "::"
PIECE = 20_000


class Matcher:
    """The rows of a table by their paths, and the pictures that were seen.

    Parameters
    ----------
    paths
        Of every row, as `clean` writes them; empty where a row has none.
    """

    def __init__(self, paths: pa.ChunkedArray) -> None:
        self.paths = paths
        rows = np.arange(len(paths), dtype=np.uint32)
        hashes = [hashes_of(piece.to_pylist()) for piece in pieces(paths)]
        self._exact = Lookup(np.concatenate([np.empty(0, np.int64), *hashes]), rows)
        accented = np.flatnonzero(~pc.string_is_ascii(paths).to_numpy()).astype(np.uint32)
        composed = [hashes_of(map(composed_text, piece.to_pylist())) for piece in pieces(paths.take(accented))]
        self._composed = Lookup(np.concatenate([np.empty(0, np.int64), *composed]), accented)
        self._short = any(_is_short(path) for piece in pieces(paths) for path in piece.to_pylist())
        self._taken = np.zeros(len(paths), np.bool_)
        # of the first picture that a row fits in another way; 0 for none
        self._claims = np.zeros(len(paths), np.int64)
        self._torn = np.zeros(len(paths), np.bool_)

    def again(self) -> Iterator[tuple[int, int]]:
        """Return the pairs of rows that have the same path: the first one, and another."""
        for row in self._exact.again().tolist():
            first = self._find(self._exact, self.paths[row].as_py())
            if first != row:
                yield first, row

    def see(self, path: str) -> bool:
        """Note that there is a picture of this path; say whether a row fits it."""
        row, exact = self._fit(path)
        if row < 0:
            return False
        if exact:
            self._taken[row] = True
        else:
            mine = hash(path) or 1
            self._torn[row] |= self._claims[row] not in {0, mine}
            self._claims[row] = self._claims[row] or mine
        return True

    def row_of(self, path: str) -> int:
        """Return the row of a picture, as far as the pictures seen tell; -1 where there is none."""
        row, exact = self._fit(path)
        if row < 0 or exact:
            return row
        mine = hash(path) or 1
        alone = not (self._taken[row] or self._torn[row]) and self._claims[row] in {0, mine}
        return row if alone else -1

    def matched(self) -> NDArray[np.bool_]:
        """Return which rows some picture has."""
        alone: NDArray[np.bool_] = (self._claims != 0) & ~self._torn
        return alone | self._taken

    def torn(self) -> NDArray[np.int64]:
        """Return the rows that fit several pictures and belong to none of them."""
        return np.flatnonzero(self._torn & ~self._taken)

    def contested(self) -> bool:
        """Return whether a row fits more pictures than one, so that the first of them may have been given it."""
        return bool(np.any(self._torn | (self._taken & (self._claims != 0))))

    def _fit(self, path: str) -> tuple[int, bool]:
        """Return the row that fits a picture, and whether its path is the picture's to the letter."""
        row = self._find(self._exact, path)
        if row >= 0:
            return row, True
        ways = [path, path.partition(SEPARATOR)[2]] if SEPARATOR in path else [path]
        for way in ways:
            row = self._same(clean(way))
            if row >= 0:
                return row, False
        for way in ways if self._short else ():
            row = self._same(_without_suffix(clean(way)))
            if row >= 0 and _is_short(self.paths[row].as_py()):
                return row, False
        return -1, False

    def _same(self, text: str) -> int:
        """Return the row of a text, else the one that is composed like it where it is the only one; -1 for none."""
        row = self._find(self._exact, text)
        if row < 0 and not text.isascii():
            same = composed_text(text)
            rows = [row for row in self._composed[same].tolist() if composed_text(self.paths[row].as_py()) == same]
            if len({self.paths[row].as_py() for row in rows}) == 1:
                return int(rows[0])
        return row

    def _find(self, lookup: Lookup, text: str) -> int:
        return next((int(row) for row in lookup[text].tolist() if text and self.paths[row].as_py() == text), -1)


def clean(path: str, roots: Sequence[str] = ()) -> str:
    r"""Return a path as the archive's sources write it: relative, with slashes, without ``./`` and blanks around it.

    Parameters
    ----------
    roots
        Where the archive lies: an absolute path below one of them is made relative.

    >>> clean(r" .\a\b.png"), clean("/data/a/b.png", ["/data"])
    ('a/b.png', 'a/b.png')
    """
    path = path.strip().replace("\\", "/")
    for root in roots:
        below = root.replace("\\", "/").rstrip("/") + "/"
        if path.startswith(below):
            path = path[len(below) :]
            break
    return posixpath.normpath(path) if path else path


def composed_text(text: str) -> str:
    """Return a text with its accents composed (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def other_spellings(path: str) -> Iterator[str]:
    """Return the path with slashes for backslashes, and that with its accents composed and decomposed."""
    slashed = path.replace("\\", "/")
    ways = (slashed, *(unicodedata.normalize(form, slashed) for form in ("NFD", "NFC") if not path.isascii()))
    yield from (way for way in ways if way != path)


def pieces(column: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """Return a column some thousands of rows at a time: so many texts may be Python's at once."""
    for start in range(0, len(column), PIECE):
        yield column.slice(start, PIECE)


def _is_short(path: str) -> bool:
    """Return whether a path lacks the suffix that every picture of its kind has."""
    return bool(path) and is_image_name(path) is not True


def _without_suffix(path: str) -> str:
    if path.lower().endswith(".nii.gz"):
        return path[:-7]
    folder, slash, name = path.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    return folder + slash + stem if dot and stem else path
