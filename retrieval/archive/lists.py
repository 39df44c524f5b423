"""A list of paths as the archive: CSV, TSV or Parquet with a path column; its other columns are a table of labels.

Paths are relative to the list's own folder. Absolute paths are allowed: what all of them have in common is taken
away, so that no absolute path enters the index.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from retr.index.errors import UsageError
from retr.index.machine.home import home
from retr.retrieval.archive.folders import read_file
from retr.retrieval.archive.matching import other_spellings
from retr.retrieval.archive.metadata import read_paths
from retr.retrieval.archive.sources import Bytes, Entry, Item, Skipped, reason_of, stamp_of
from retr.retrieval.regular_files import is_regular

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_list_name(name: str) -> bool:
    """Return whether a file name promises a list.

    >>> is_list_name("train.csv"), is_list_name("a.png")
    (True, False)
    """
    return name.lower().endswith((".csv", ".tsv", ".parquet"))


class ListSource:
    """The files that a table names, in the table's order.

    Parameters
    ----------
    file
        The table; ``file`` of it is its labels, too, for `retr.retrieval.archive.metadata.read_metadata`.
    path_column
        The column that holds paths, where its name does not tell.

    Raises
    ------
    UsageError
        The table cannot be read, has no path column, or names no file.
    """

    def __init__(self, file: Path | str, path_column: str | None = None) -> None:
        self.file = Path(file)
        self._folder = self.file.resolve().parent
        paths = read_paths(self.file, path_column)
        absolute = [self._absolute(path) for path in paths]
        if not absolute:
            raise UsageError(f"list {str(file)!r} names no file", hint="give one row a picture")
        inside = all(path.startswith(f"{self._folder}/") for path in absolute)
        self.root = self._folder if inside else Path(os.path.commonpath([str(Path(path).parent) for path in absolute]))
        self.location = str(self.root)
        self._paths = list(dict.fromkeys(os.path.relpath(path, self.root) for path in absolute))

    def relative(self, path: str) -> str:
        """Return a path of the table as `entries` writes it."""
        return os.path.relpath(self._absolute(path), self.root) if path.strip() else ""

    def _absolute(self, path: str) -> str:
        """Return where a row's file lies: as it is written, else with other accents or with slashes for backslashes."""
        path = path.strip()
        if path.startswith("~") and not os.path.lexists(self._folder / path):
            path = str(home(path))
        ways = [os.path.normpath(self._folder / way) for way in (path, *other_spellings(path))]
        return next((way for way in ways if os.path.lexists(way)), ways[-1])

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
            if not is_regular(info):
                yield Skipped(path, "not a file")
                continue
            yield Item(path, info.st_size, info.st_mtime, stamp=stamp_of(info))

    def count(self) -> int | None:
        """Return the number of paths."""
        return len(self._paths)

    def read(self, path: str) -> Bytes:
        """Read one file."""
        return read_file(self.root / path)
