"""The files an index holds already: unchanged files, and content that was seen before.

A file looks unchanged when its size and mtime are (or, for sources that give one, its mark); whether that is
believed is another question (`retr.retrieval.ingest.file_states`). Bytes that the index has under any path, by sha256,
are not embedded again: a renamed, copied or merely touched file reuses its vector.

Of each file about 60 bytes are in memory (110 while they are sorted): where its rows begin, its size and mtime, 64-bit
hashes of its path and of its sha256, the beginning of its sha256. What a hash finds is compared with the text in the
index before anything is done about it; only "looks unchanged" is believed where the path's hash, the size and the mtime
(or mark) all agree.
"""

from __future__ import annotations

from operator import ne
from typing import TYPE_CHECKING

import numpy as np

from retr.retrieval.archive.hashed_lookup import Lookup, hashes_of
from retr.retrieval.archive.locations import source_of
from retr.retrieval.archive.sources import UNTOLD
from retr.retrieval.ingest.file_states import content_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.archive.sources import Item


# The column of what a store says of an object's content; only rows from such stores have it.
MARK = "etag"
# Rows whose texts are in memory at a time.
PIECE = 20_000


class SeenFiles:
    """The files of one source of an index, by path; and of the whole index, by sha256.

    Safe to ask from several threads.

    Parameters
    ----------
    store
        A snapshot of the index: row numbers are its, and stay readable whatever is committed later.
    name
        The source whose files are compared.
    names
        All sources of the index.
    """

    def __init__(self, store: Store, name: str, names: list[str]) -> None:
        self.store = store
        self._alive = store.alive()
        most = len(store)
        paths, contents, mine = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.bool_)
        self._keys = np.empty(most, np.uint64)
        self._sizes, self._mtimes = np.empty(most, np.int64), np.empty(most, np.float64)
        self._marks = np.empty(most, np.int64) if MARK in store.schema.names else None
        # a file's live rows lie between its first one and that of the next file
        self._first = np.empty(most + 1, np.int64)
        end = 0
        last: tuple[str, str] | None = None
        for rows in self._pieces():
            table = store.table(["path", "size", "mtime", "sha256"], rows)
            texts = list(zip(table["path"].to_pylist(), table["sha256"].to_pylist(), strict=True))
            at = np.flatnonzero(np.fromiter(map(ne, texts, [last, *texts]), np.bool_, len(rows)))
            last = texts[-1]
            new = slice(end, end + len(at))
            begins = [texts[row] for row in at.tolist()]
            paths[new] = hashes_of(path for path, _ in begins)
            contents[new] = hashes_of(sha256 for _, sha256 in begins)
            self._keys[new] = list(map(content_key, (sha256 for _, sha256 in begins)))
            self._first[new] = rows[at]
            self._sizes[new] = table["size"].fill_null(-1).to_numpy()[at]
            self._mtimes[new] = table["mtime"].to_numpy()[at]
            if self._marks is not None:
                self._marks[new] = hashes_of(store.table([MARK], rows)[MARK].to_pylist())[at]
            mine[new] = [names == [name] or source_of(path, names)[0] == name for path, _ in begins]
            end = new.stop
        self._first[end] = store.n_total
        files = np.arange(end, dtype=np.uint32)
        self._by_path = Lookup(paths[:end][mine[:end]], files[mine[:end]])
        del paths  # before room is taken for the other
        self._by_content = Lookup(contents[:end], files)
        self._seen = np.zeros(end, np.bool_)

    def _pieces(self) -> Iterator[NDArray[np.int64]]:
        """Yield the live rows, some at a time."""
        for start in range(0, len(self._alive), PIECE):
            rows = start + np.flatnonzero(self._alive[start : start + PIECE])
            if len(rows):
                yield rows

    def __len__(self) -> int:
        return len(self._by_path.rows)

    def unchanged(self, path: str, item: Item) -> tuple[int, int]:
        """Note that a file is still there; return what the index has of it where it looks unchanged.

        Returns
        -------
        tuple
            How many rows, 0 where it is new or changed; and the key of the content they were made from.
        """
        rows, key = 0, 0
        for file in self._by_path[path].tolist():
            self._seen[file] = True
            if item.mark is None:
                same = self._mtimes[file] == item.mtime
            else:
                same = self._marks is not None and self._marks[file] == hash(item.mark)
            if same and item.size in {UNTOLD, self._sizes[file]}:
                rows = int(np.count_nonzero(self._alive[self._first[file] : self._first[file + 1]]))
                key = int(self._keys[file])
        return rows, key

    def holds(self, path: str, sha256: str) -> bool:
        """Return whether the rows of a path were made from these bytes."""
        files = self._by_path[path].tolist()
        paths, contents = self._texts("path", files), self._texts("sha256", files)
        return (path, sha256) in zip(paths, contents, strict=True)

    def content(self, path: str) -> str | None:
        """Return the sha256 of the bytes that the rows of a path were made from; None where there are none."""
        files = self._by_path[path].tolist()
        pairs = zip(self._texts("path", files), self._texts("sha256", files), strict=True)
        return next((sha256 for text, sha256 in pairs if text == path), None)

    def seen(self, path: str) -> bool:
        """Return whether `unchanged` was asked about the file already."""
        seen = [file for file in self._by_path[path].tolist() if self._seen[file]]
        return path in self._texts("path", seen)

    def may_hold(self, path: str) -> bool:
        """Return whether the index may have the file; `rows` reads whether it has."""
        return len(self._by_path[path]) > 0

    def rows(self, paths: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return the rows of each file, int64; none where the index does not have it."""
        found = [np.empty(0, np.int64)] * len(paths)
        pairs = [(at, file) for at, path in enumerate(paths) for file in self._by_path[path].tolist()]
        texts = self._texts("path", [file for _, file in pairs])
        for (at, file), text in zip(pairs, texts, strict=True):
            if text == paths[at]:
                found[at] = self._rows(file)
        return found

    def same_bytes(self, sha256: str) -> tuple[int, ...]:
        """Return the rows of a file that has these bytes, none where there is no such file."""
        files = self._by_content[sha256].tolist()
        same = [file for file, text in zip(files, self._texts("sha256", files), strict=True) if text == sha256]
        return tuple(self._rows(same[-1]).tolist()) if same else ()

    def ids(self, files: Sequence[NDArray[np.int64]]) -> list[str]:
        """Return the ids of some files, each by its rows."""
        rows = np.concatenate([np.empty(0, np.int64), *files])
        ids: list[str] = self.store.table(["id"], rows)["id"].to_pylist()
        return ids

    def vanished(self, unreadable: Collection[str]) -> Iterator[list[NDArray[np.int64]]]:
        """Yield the rows of each file that was not seen, but for those inside a place that could not be read.

        They come some thousands of files at a time.
        """
        files = np.sort(self._by_path.rows)
        missing = files[~self._seen[files]]
        for start in range(0, len(missing), PIECE):
            piece = missing[start : start + PIECE].tolist()
            paths = self._texts("path", piece)
            yield [self._rows(file) for file, path in zip(piece, paths, strict=True) if not _lies_in(path, unreadable)]

    def _rows(self, file: int) -> NDArray[np.int64]:
        first, stop = self._first[file : file + 2]
        rows: NDArray[np.int64] = first + np.flatnonzero(self._alive[first:stop])
        return rows

    def _texts(self, column: str, files: Sequence[int]) -> Iterator[str]:
        """Read a column's text of each file."""
        for start in range(0, len(files), PIECE):
            rows = self._first[np.array(files[start : start + PIECE], np.int64)]
            yield from self.store.table([column], rows)[column].to_pylist()


def _lies_in(path: str, places: Collection[str]) -> bool:
    """Return whether a file is one of ``places``, or lies in one: a folder, or a container.

    >>> [_lies_in(path, {"a", "b.tar"}) for path in ("a", "a/b/c.png", "b.tar::c.png", "ab/c.png")]
    [True, True, True, False]
    """
    if places:
        for inner in (path, path.partition("::")[0]):
            place = inner
            while place:
                if place in places:
                    return True
                place = place.rpartition("/")[0]
    return False
