"""Paths as the archive: a list of them, or a CSV, TSV or Parquet table with a path column.

The other columns of a table are labels. Its paths are relative to its own folder, those of a list to the working
folder. Absolute paths are allowed: what all of them have in common is taken away, so that none enters the index.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retr.index.errors import UsageError
from retr.index.machine.home import home
from retr.retrieval.archive.folders import read_file
from retr.retrieval.archive.matching import clean, other_spellings
from retr.retrieval.archive.metadata import read_paths
from retr.retrieval.archive.sources import Bytes, Entry, Item, Skipped, reason_of, stamp_of
from retr.retrieval.regular_files import is_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def is_list_name(name: str) -> bool:
    """Return whether a file name promises a list.

    >>> is_list_name("train.csv"), is_list_name("a.png")
    (True, False)
    """
    return name.lower().endswith((".csv", ".tsv", ".parquet"))


class _Files:
    """Files below a root, in a given order."""

    root: Path
    location: str
    _paths: list[str]

    def entries(self) -> Iterator[Entry]:
        """List the files."""
        seen: set[str] = set()
        for path in self._paths:
            if path in seen:
                yield Skipped(path, "listed twice")
                continue
            seen.add(path)
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


class ListSource(_Files):
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
        absolute = [_absolute(self._folder, path) for path in read_paths(self.file, path_column)]
        if not absolute:
            raise UsageError(f"list {str(file)!r} names no file", hint="give one row a picture")
        inside = all(Path(path).is_relative_to(self._folder) for path in absolute)
        self.root = self._folder if inside else _common(absolute)
        self.location = str(self.root)
        # rows that name one picture have equal cells, or are refused when the table is read
        self._paths = list(dict.fromkeys(_below(path, self.root) for path in absolute))

    def relative(self, path: str) -> str:
        """Return a path of the table as `entries` writes it."""
        return _below(_absolute(self._folder, path), self.root) if path.strip() else ""


class PathsSource(_Files):
    """The files of a list of paths, in its order; one that is listed again is a record.

    Parameters
    ----------
    paths
        Texts or ``os.PathLike``, relative to the working folder; sets are sorted.
    root
        The folder that the ids were relative to before, if any; by default the deepest that holds all files.

    Raises
    ------
    UsageError
        It is empty, or holds what is no path of a file.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]], root: str | None = None) -> None:
        texts = _texts(paths)
        here = Path.cwd()
        absolute = [_absolute(here, text) for text in texts]
        common = _common(absolute)
        place = common.resolve()
        kept = root is not None and "://" not in root and place.is_relative_to(root)
        self.root = Path(str(root)) if kept else place
        self.location = str(self.root)
        below = place.relative_to(self.root)
        self._paths = [(below / os.path.relpath(path, common)).as_posix() for path in absolute]
        self._spelled = dict(zip(texts, self._paths, strict=True))
        self._roots = [self.location, str(common)]

    def relative(self, path: str) -> str:
        """Return a path of a table as `entries` writes it: spelled as in the list, below the root, or absolute."""
        return self._spelled.get(path) or clean(path, self._roots)


def _texts(paths: Any) -> list[str]:
    """Return paths as texts."""
    scalar = getattr(paths, "shape", None) == ()  # an array of numpy that holds one path, which cannot be iterated
    if isinstance(paths, Mapping) or hasattr(paths, "columns") or not isinstance(paths, Iterable) or scalar:
        raise UsageError(
            f"an archive is a path, or a list of paths, got {type(paths).__name__}",
            hint="of a table give its column of paths",
        )
    found = paths.to_pylist() if hasattr(paths, "to_pylist") else list(paths)
    texts = []
    for number, path in enumerate(found, 1):
        if not isinstance(path, str | os.PathLike):
            raise UsageError(f"entry {number} of the list is no path but {type(path).__name__}", hint="leave it out")
        text = os.fsdecode(path)
        if not text.strip() or "\0" in text or "://" in text or not _can_be_a_name(text):
            raise UsageError(f"entry {number} of the list is no path of a file: {text!r}", hint="leave it out")
        texts.append(text)
    if not texts:
        raise UsageError("the list names no file", hint="give at least one path")
    return sorted(texts) if isinstance(paths, Set) else texts


def _can_be_a_name(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _common(absolute: Sequence[str]) -> Path:
    """Return the deepest folder that holds all files."""
    return Path(os.path.commonpath([str(Path(path).parent) for path in absolute]))


def _below(path: str, root: Path) -> str:
    """Return a file's path below a folder, or up from it, with slashes on every system."""
    return Path(os.path.relpath(path, root)).as_posix()


def _absolute(folder: Path, path: str) -> str:
    """Return where a file lies: as it is written, else with other accents or with slashes for backslashes."""
    path = path.strip()
    if path.startswith("~") and not os.path.lexists(folder / path):
        path = str(home(path))
    ways = [os.path.normpath(folder / way) for way in (path, *other_spellings(path))]
    return next((way for way in ways if os.path.lexists(way)), ways[-1])
