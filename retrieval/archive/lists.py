"""A list of paths as the archive: CSV, TSV or Parquet with a path column; its other columns become metadata.

Paths are relative to the list's own folder. Absolute paths are allowed: what all of them have in common is taken
away, so that no absolute path enters the index.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from retr.index.errors import UsageError
from retr.retrieval.archive.folders import read_file
from retr.retrieval.archive.metadata import read_table
from retr.retrieval.archive.sources import Bytes, Entry, Item, Other, Skipped, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_list_name(name: str) -> bool:
    """Say whether a file name promises a list.

    >>> is_list_name("train.csv"), is_list_name("a.png")
    (True, False)
    """
    return name.lower().endswith((".csv", ".tsv", ".parquet"))


class ListSource:
    """The files that a table names, in the table's order.

    Raises
    ------
    UsageError
        The table cannot be read, has no path column, or names no file.
    """

    def __init__(self, file: Path | str) -> None:
        self.file = Path(file)
        paths, self._columns = read_table(self.file)
        folder = self.file.resolve().parent
        absolute = [os.path.normpath(folder / path) for path in paths]
        if not absolute:
            raise UsageError(f"list {str(file)!r} names no file", hint="give one row a picture")
        inside = all(path.startswith(f"{folder}/") for path in absolute)
        self.root = folder if inside else Path(os.path.commonpath([str(Path(path).parent) for path in absolute]))
        self.location = str(self.root)
        self._paths = list(dict.fromkeys(os.path.relpath(path, self.root) for path in absolute))
        self._row = {os.path.relpath(path, self.root): row for row, path in reversed(list(enumerate(absolute)))}

    def entries(self) -> Iterator[Entry]:
        """List the files that the table names."""
        for path in self._paths:
            file = self.root / path
            try:
                info = file.stat()
            except OSError as error:
                broken = isinstance(error, FileNotFoundError) and file.is_symlink()
                yield Skipped(path, "broken link" if broken else reason_of(error))
                continue
            if not file.is_file():
                yield Other(path)
                continue
            columns = self._columns.slice(self._row[path], 1).to_pylist()[0]
            yield Item(path, info.st_size, info.st_mtime, columns)

    def count(self) -> int | None:
        """Give the number of paths."""
        return len(self._paths)

    def read(self, path: str) -> Bytes:
        """Read one file."""
        return read_file(self.root / path)
