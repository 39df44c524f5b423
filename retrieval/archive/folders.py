"""Sources on this machine: a folder walked recursively, one container, one picture.

Links are followed; a link to a folder above itself is recorded as "link loop". A container inside a folder is looked
into: its members are items ``shards/0001.tar::a/b.png``. A container that is the archive itself counts as a folder
would, so its members are ``a/b.png`` and a table of labels fits either.
"""

from __future__ import annotations

import os
import stat as st
import sys
import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from retr.index.errors import ImageReadError, UsageError
from retr.retrieval.archive.containers import DAMAGED, is_container_name, open_container
from retr.retrieval.archive.sources import (
    SNIFF_BYTES,
    Bytes,
    Container,
    Entry,
    Item,
    Other,
    Skipped,
    is_image_name,
    looks_like_image,
    reason_of,
    stamp_of,
)
from retr.retrieval.regular_files import is_made_up, is_regular, open_regular
from retr.system import misread

if TYPE_CHECKING:
    from collections.abc import Iterator

SEPARATOR = "::"
# Open containers are kept for the decoding threads, which are never far behind the listing.
_OPEN = 8
# A file as large as this is no picture; one a sixteenth of it must at least begin like one.
MAX_FILE_BYTES = 1 << 30


class Shelf:
    """The containers that were used last, kept open; safe to use from several threads."""

    def __init__(self, image_column: str | None = None) -> None:
        self._image_column = image_column
        self._open: OrderedDict[Path, Container | None] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, file: Path) -> Container | None:
        """Return an open container; None for a table without an image column."""
        with self._lock:
            if file not in self._open:
                self._open[file] = open_container(file, self._image_column)
                # not closed: a thread may be reading from it; the garbage collector closes it after that
                while len(self._open) > _OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(file)
            return self._open[file]


class FolderSource:
    """A folder, walked recursively in the order of the paths.

    Parameters
    ----------
    folder
        Where to start.
    leave_out
        Folders not to enter, such as the index itself.
    image_column
        The column that holds pictures, for Parquet and Arrow tables with several.

    Raises
    ------
    UsageError
        ``folder`` is not a folder.
    """

    def __init__(
        self, folder: Path | str, *, leave_out: tuple[Path, ...] = (), image_column: str | None = None
    ) -> None:
        root = Path(folder)
        if not root.is_dir():
            raise UsageError(f"archive {str(folder)!r} does not exist", hint="give the path of a folder of images")
        self.root = root.resolve()
        self.location = _as_meant(str(self.root))
        self._shelf = Shelf(image_column)
        self._leave_out = frozenset(_number(path.stat()) for path in leave_out if path.exists())

    def entries(self) -> Iterator[Entry]:
        """List the files below the folder in the order of their paths."""
        # a stack, not recursion: folders may be nested deeper than Python's call limit
        stack: list[tuple[Iterator[str], str, frozenset[tuple[int, int]]]] = []
        start = self._scan(self.root, "")
        if isinstance(start, Skipped):
            yield start
            return
        info = self.root.stat()
        stack.append((iter(start), "", frozenset({_number(info)})))
        while stack:
            listing, prefix, above = stack[-1]
            name = next(listing, None)
            if name is None:
                stack.pop()
                continue
            path = prefix + name.removesuffix("/")
            found = self._classify(path, above)
            if not isinstance(found, tuple):
                yield from found
                continue
            inside = self._scan(self.root / path, path)
            if isinstance(inside, Skipped):
                yield inside
            else:
                stack.append((iter(inside), f"{path}/", above | {found}))

    def count(self) -> int | None:
        """Count the names that promise a picture, without looking at the files; None where there are containers."""
        total = 0
        for _, folders, files in os.walk(self.location):
            folders[:] = [name for name in folders if not name.startswith(".")]
            if any(is_container_name(name) for name in files):
                return None
            total += sum(is_image_name(name) is not False for name in files if not name.startswith("."))
        return total

    def read(self, path: str) -> Bytes:
        """Read one file, or one member of a container."""
        outer, inside, member = path.partition(SEPARATOR)
        # an index from elsewhere may name anything
        if Path(outer).is_absolute() or ".." in Path(outer).parts:
            raise FileNotFoundError(path)
        # a plain file may have the separator in its name
        if not inside or not is_container_name(outer):
            return read_file(self.root / path)
        container = self._shelf.get(self.root / outer)
        if container is None:
            raise FileNotFoundError(path)
        return container.read(member)

    def _scan(self, folder: Path, path: str) -> list[str] | Skipped:
        """Return the names in a folder, and nothing but names: a folder may hold a million files."""
        try:
            with os.scandir(folder) as entries:
                # a folder sorts as "name/", so that the whole walk is in the order of the paths
                return sorted(
                    entry.name + "/" if _is_dir(entry) else entry.name
                    for entry in entries
                    if not entry.name.startswith(".")
                )
        except OSError as error:
            return Skipped(path or ".", reason_of(error))

    def _classify(self, path: str, above: frozenset[tuple[int, int]]) -> Iterator[Entry] | tuple[int, int]:
        """Return the entries of a file; for a folder to enter, its device and inode numbers."""
        try:
            _as_meant(path).encode()
        except UnicodeEncodeError:
            # the id could not be stored; backslashes show the bytes
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            return iter([Skipped(shown, "name is not UTF-8")])
        # a text, since a million Path objects are slow to make
        file = f"{self.location}/{path}"
        try:
            info = os.stat(file)  # noqa: PTH116
        except OSError as error:
            broken = isinstance(error, FileNotFoundError) and Path(file).is_symlink()
            return iter([Skipped(path, "broken link" if broken else reason_of(error))])
        if is_made_up(info):
            return iter([Skipped(path, "not a file")])
        if st.S_ISDIR(info.st_mode):
            number = _number(info)
            if number in self._leave_out or _is_index(Path(file)):
                return iter(())
            return iter([Skipped(path, "link loop")]) if number in above else number
        # a pipe or a device would be waited on for ever
        if not is_regular(info):
            return iter([Skipped(path, "not a file")])
        if is_container_name(path):
            return list_container(self._shelf, Path(file), path + SEPARATOR)
        return iter([classify_file(file, path, info)])


class ContainerSource:
    """One container as the archive: its members are items as the files of a folder would be."""

    def __init__(self, file: Path, container: Container) -> None:
        self.location = _as_meant(str(file.resolve()))
        self._container = container
        self._file = file

    @classmethod
    def open(cls, file: Path, image_column: str | None = None) -> Self | None:
        """Open a container; None for a table without an image column.

        Raises
        ------
        UsageError
            It is damaged.
        """
        try:
            container = open_container(file, image_column)
        except ImageReadError as error:
            if error.hint is not None:
                raise UsageError(error.message, hint=error.hint) from None
            raise UsageError(
                f"container {str(file)!r} cannot be opened: it is damaged or not what its name says",
                hint="copy it again from where it came",
            ) from None
        return None if container is None else cls(file, container)

    def entries(self) -> Iterator[Entry]:
        """List the members."""
        try:
            stamp = stamp_of(self._file.stat())
            for entry in self._container.entries():
                yield _stamped(entry, stamp) if entry.path else replace(entry, path=self._file.name)
        except DAMAGED:
            yield Skipped(self._file.name, "damaged")

    def count(self) -> int | None:
        """Return None: counting would be listing."""
        return None

    def read(self, path: str) -> Bytes:
        """Read one member."""
        return self._container.read(path)


class FileSource:
    """One picture file.

    Raises
    ------
    UsageError
        ``file`` is not a file.
    """

    def __init__(self, file: Path | str) -> None:
        self.file = Path(file).absolute()
        if not self.file.is_file():
            raise UsageError(f"picture {str(file)!r} does not exist", hint="give the path of a file")
        _as_meant(str(self.file))
        self.location = str(self.file.parent)

    def entries(self) -> Iterator[Entry]:
        """List the file; given on its own it counts as a picture whatever its name."""
        info = self.file.stat()
        yield Item(self.file.name, info.st_size, info.st_mtime, stamp=stamp_of(info))

    def count(self) -> int | None:
        """Return 1."""
        return 1

    def read(self, path: str) -> Bytes:
        """Read the file."""
        return read_file(self.file.parent / path)


def _as_meant(path: str) -> str:
    """Return a path; refuse it where the locale makes another name of it, since the file would get another id."""
    if misread(path):
        raise UsageError(
            f"names of files here are UTF-8, and the locale reads them as {sys.getfilesystemencoding()!r}",
            hint="set LC_ALL=C.UTF-8, or PYTHONUTF8=1, and run again",
        )
    return path


def read_file(path: Path) -> Bytes:
    """Return a file's bytes with the size and mtime of exactly these bytes, whatever was listed before."""
    with open_regular(path) as stream:
        info = os.fstat(stream.fileno())
        if info.st_size > MAX_FILE_BYTES:
            raise ImageReadError("a file is too large to be a picture", reason="too large")
        if info.st_size > MAX_FILE_BYTES // 16:
            if not looks_like_image(stream.read(SNIFF_BYTES)) and is_image_name(path.name) is not True:
                raise ImageReadError("a large file does not begin like a picture", reason="not an image")
            stream.seek(0)
        data = stream.read()
    return data, len(data), info.st_mtime


def classify_file(file: str, path: str, info: os.stat_result) -> Entry:
    """Return what a regular file is by its name, or by its first bytes where the name does not tell."""
    promised = is_image_name(path)
    if promised is None:
        try:
            with open_regular(file) as stream:
                promised = looks_like_image(stream.read(SNIFF_BYTES))
        except OSError as error:
            return Skipped(path, reason_of(error), info.st_size, info.st_mtime)
    return Item(path, info.st_size, info.st_mtime, stamp=stamp_of(info)) if promised else Other(path)


def is_picture_file(file: Path) -> bool:
    """Return whether a file is listed as a picture: by its name, or by its first bytes where the name does not tell."""
    try:
        info = file.stat()
    except OSError:
        return False
    return is_regular(info) and isinstance(classify_file(str(file), file.name, info), Item)


def list_container(shelf: Shelf, file: Path, prefix: str) -> Iterator[Entry]:
    """List a container inside a folder; a table without an image column is an "other" file."""
    path = prefix.removesuffix(SEPARATOR)
    try:
        stamp = stamp_of(file.stat())  # before it is opened: what comes between is noticed the next time
        container = shelf.get(file)
        if container is None:
            yield Other(path)
            return
        for entry in container.entries():
            yield replace(_stamped(entry, stamp), path=prefix + entry.path if entry.path else path)
    except ImageReadError as error:
        yield Skipped(path, error.reason)
    except DAMAGED:
        yield Skipped(path, "damaged")


def _stamped(entry: Entry, stamp: str) -> Entry:
    """Return an entry of a container with the stamp of the container before its own."""
    return replace(entry, stamp=f"{stamp}/{entry.stamp or ''}") if isinstance(entry, Item) else entry


def _number(info: os.stat_result) -> tuple[int, int]:
    """Return what identifies a folder whichever way it was reached."""
    return info.st_dev, info.st_ino


def _is_index(folder: Path) -> bool:
    return (folder / "CURRENT").is_file() and (folder / "manifests").is_dir()


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
