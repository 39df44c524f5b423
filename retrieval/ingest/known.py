"""What an index holds already: which files are unchanged, and which bytes it has seen.

A file is unchanged when its size and mtime are (or, for sources that give one, its mark). Bytes that the index has
under any path, by sha256, are not embedded again: a renamed, copied or merely touched file reuses its vector.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from retr.retrieval.archive.places import source_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retr.index.store import Store
    from retr.retrieval.archive.sources import Item


# The column of what a store says of an object's content; only rows from such stores have it.
MARK = "etag"


class Known:
    """The rows of one source of an index, by path; and of the whole index, by sha256.

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
        self.by_hash: dict[str, tuple[int, ...]] = {}
        self._states: dict[str, tuple[int, float, str | None, tuple[int, ...]]] = {}
        self._seen: set[str] = set()
        if not len(store):
            return
        rows = store.live_rows().tolist()
        table = store.table(["path", "size", "mtime", "sha256"])
        columns = [table[column].to_pylist() for column in table.column_names]
        marks = store.table([MARK])[MARK].to_pylist() if MARK in store.schema.names else [None] * len(rows)
        members = zip(*columns, marks, rows, strict=True)
        for (path, size, mtime, sha256, mark), group in groupby(members, key=itemgetter(0, 1, 2, 3, 4)):
            numbers = tuple(member[5] for member in group)
            self.by_hash[sha256] = numbers
            if source_of(path, names)[0] == name:
                self._states[path] = (size, mtime, mark, numbers)

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, path: str) -> bool:
        return path in self._states

    def rows(self, path: str) -> tuple[int, ...]:
        """Give the rows of a file, none where the index does not have it."""
        return self._states[path][3] if path in self._states else ()

    def ids(self, paths: list[str]) -> list[str]:
        """Give the ids of the rows of some files."""
        rows = [row for path in paths for row in self.rows(path)]
        return self.store.table(["id"], np.array(rows, np.int64))["id"].to_pylist() if rows else []

    def unchanged(self, path: str, item: Item) -> bool:
        """Say whether the index has the file in this state, and note that it is still there."""
        self._seen.add(path)
        if path not in self._states:
            return False
        size, mtime, mark, _ = self._states[path]
        return size == item.size and (mtime == item.mtime if item.mark is None else mark == item.mark)

    def vanished(self, unreadable: list[str]) -> Iterator[str]:
        """Give the files that were not seen, but for those below a folder that could not be listed."""
        below = tuple(f"{folder}/" for folder in unreadable)
        for path in self._states:
            if path not in self._seen and path not in unreadable and not path.startswith(below):
                yield path
