"""Where pictures come from: a folder walked recursively, or one file.

The protocol is small: `Source.entries` lists what is there, lazily and always in the same order, as `Item` (may be a
picture), `Skipped` (cannot be read, with the reason) or `Other` (not meant to be a picture), and `Source.read`
gives an item's bytes. Whatever is wrong with one entry becomes a record; listing never stops for it.

A file counts as a picture when its name says so, or when it has no telling suffix and its first bytes say so. So a
text file named ``.jpg`` is recorded as unreadable, and ``labels.csv`` is an "other" file. Hidden files and folders
are left out. Links are followed; a link to a folder above itself is recorded as "link loop".
"""

from __future__ import annotations

import errno
import os
import stat as st
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from retr.index.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Names that promise a picture.
_PICTURES = """
    .jpg .jpeg .jpe .jfif .png .tif .tiff .bmp .webp .gif .jp2 .j2k .jpx .pbm .pgm .ppm .pnm
    .heic .heif .avif .dcm .dicom .ima .nii .nii.gz
"""
# Names that promise something else: not worth opening to look.
_OTHERS = """
    .csv .tsv .txt .md .rst .json .jsonl .xml .html .htm .yaml .yml .toml .ini .cfg .log .pdf .doc .docx .xls .xlsx
    .parquet .arrow .feather .npy .npz .pt .pth .bin .h5 .hdf5 .pkl .py .ipynb .sh .zip .tar .gz .tgz .bz2 .xz .7z
    .mp4 .avi .mov .db .sqlite .sha256 .md5 .cls .part .tmp .lock
"""
IMAGE_SUFFIXES = frozenset(_PICTURES.split())
OTHER_SUFFIXES = frozenset(_OTHERS.split())
SNIFF_BYTES = 132  # DICOM's mark "DICM" stands at 128


@dataclass(frozen=True, slots=True)
class Item:
    """Something that may be a picture.

    Attributes
    ----------
    path
        Posix path relative to the source; the row's id is made from it.
    size
        Bytes.
    mtime
        Seconds since 1970, as the file system or the container gives it.
    columns
        Metadata that came with the item (siblings in a container).
    mark
        What else tells whether the content changed, such as an ETag; None where size and mtime have to do.
    """

    path: str
    size: int
    mtime: float
    columns: Mapping[str, Any] = field(default_factory=dict)
    mark: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that cannot be read, and why (one of a small set of words).

    ``was_read`` is true where the bytes could be had but hold no picture: then an older picture of the same path is
    no longer there, while a disk or a permission may come back.
    """

    path: str
    reason: str
    size: int = 0
    mtime: float = 0.0
    was_read: bool = False


@dataclass(frozen=True, slots=True)
class Other:
    """A file that is not meant to be a picture."""

    path: str


Entry = Item | Skipped | Other


class Source(Protocol):
    """Pictures in one place."""

    location: str
    """Absolute path or URL; remembered on this machine, never written into an index."""

    def entries(self) -> Iterator[Entry]:
        """List what is there, lazily, in the same order every time."""

    def count(self) -> int | None:
        """Give roughly how many items `entries` will list, for the progress display; None when that is unknown."""

    def read(self, path: str) -> tuple[bytes, int, float]:
        """Give an item's bytes with the size and mtime they had when read; raises OSError."""


def reason_of(error: OSError) -> str:
    """Name an operating system error in the words of the skipped record.

    >>> reason_of(PermissionError(13, "Permission denied"))
    'no permission'
    """
    if isinstance(error, PermissionError):
        return "no permission"
    if error.errno == errno.ELOOP:
        return "link loop"
    if isinstance(error, FileNotFoundError):
        return "missing"
    return "unreadable"


def is_image_name(name: str) -> bool | None:
    """Say whether a file name promises a picture: True, False, or None when it does not tell.

    >>> is_image_name("a.JPG"), is_image_name("labels.csv"), is_image_name("IM0001"), is_image_name("v.nii.gz")
    (True, False, None, True)
    """
    lower = name.lower()
    suffix = PurePosixPath(lower).suffix
    if suffix in IMAGE_SUFFIXES or lower.endswith(".nii.gz"):
        return True
    return False if suffix in OTHER_SUFFIXES else None


def looks_like_image(prefix: bytes) -> bool:
    r"""Say whether a file's first `SNIFF_BYTES` bytes are those of a picture, beyond doubt.

    >>> looks_like_image(b"\x89PNG\r\n\x1a\n"), looks_like_image(b"BMW is a car maker")
    (True, False)
    """
    from retr.retrieval.images.raster import plugin_for

    # two letters are no proof: text may begin with them
    sure = not prefix.startswith((b"BM", b"P")) and plugin_for(prefix) is not None
    return sure or prefix[128:132] == b"DICM"


class FolderSource:
    """A folder, walked recursively in the order of the paths.

    Parameters
    ----------
    folder
        Where to start.
    leave_out
        Folders not to enter, such as the index itself.

    Raises
    ------
    UsageError
        ``folder`` is not a folder.
    """

    def __init__(self, folder: Path | str, *, leave_out: tuple[Path, ...] = ()) -> None:
        root = Path(folder)
        if not root.is_dir():
            raise UsageError(f"archive {str(folder)!r} does not exist", hint="give the path of a folder of images")
        self.root = root.resolve()
        self.location = str(self.root)
        self._leave_out = frozenset(_number(path.stat()) for path in leave_out if path.exists())

    def entries(self) -> Iterator[Entry]:
        """List the files below the folder in the order of their paths."""
        # a stack, not recursion: folders may be nested deeper than Python's call limit
        stack: list[tuple[Iterator[os.DirEntry[str]], str, frozenset[tuple[int, int]]]] = []
        start = self._scan(self.location, "")
        if isinstance(start, Skipped):
            yield start
            return
        info = self.root.stat()
        stack.append((iter(start), "", frozenset({_number(info)})))
        while stack:
            listing, prefix, above = stack[-1]
            entry = next(listing, None)
            if entry is None:
                stack.pop()
                continue
            found = self._classify(entry, prefix + entry.name, above)
            if not isinstance(found, tuple):
                if found is not None:
                    yield found
                continue
            inside = self._scan(entry.path, prefix + entry.name)
            if isinstance(inside, Skipped):
                yield inside
            else:
                stack.append((iter(inside), f"{prefix}{entry.name}/", above | {found}))

    def count(self) -> int | None:
        """Count the names that promise a picture, without looking at the files."""
        total = 0
        for _, folders, files in os.walk(self.location):
            folders[:] = [name for name in folders if not name.startswith(".")]
            total += sum(is_image_name(name) is not False for name in files if not name.startswith("."))
        return total

    def read(self, path: str) -> tuple[bytes, int, float]:
        """Read one file."""
        return read_file(self.root / path)

    def _scan(self, folder: str, path: str) -> list[os.DirEntry[str]] | Skipped:
        try:
            with os.scandir(folder) as entries:
                listing = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            return Skipped(path or ".", reason_of(error))
        # a folder sorts as "name/", so that the whole walk is in the order of the paths
        listing.sort(key=lambda entry: entry.name + "/" if _is_dir(entry) else entry.name)
        return listing

    def _classify(
        self, entry: os.DirEntry[str], path: str, above: frozenset[tuple[int, int]]
    ) -> Entry | tuple[int, int] | None:
        """Give what an entry is; for a folder to enter, its device and inode numbers."""
        try:
            path.encode()
        except UnicodeEncodeError:
            # the id could not be stored; backslashes show the bytes
            return Skipped(os.fsencode(path).decode("utf-8", "backslashreplace"), "name is not UTF-8")
        try:
            info = entry.stat()
        except OSError as error:
            broken = isinstance(error, FileNotFoundError) and entry.is_symlink()
            return Skipped(path, "broken link" if broken else reason_of(error))
        if st.S_ISDIR(info.st_mode):
            number = _number(info)
            if number in self._leave_out or _is_index(entry.path):
                return None
            return Skipped(path, "link loop") if number in above else number
        # a pipe or a device would be waited on for ever
        if not st.S_ISREG(info.st_mode):
            return Other(path)
        return classify_file(Path(entry.path), path, info)


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
        self.location = str(self.file.parent)

    def entries(self) -> Iterator[Entry]:
        """List the file; given on its own it counts as a picture whatever its name."""
        info = self.file.stat()
        yield Item(self.file.name, info.st_size, info.st_mtime)

    def count(self) -> int | None:
        """Give 1."""
        return 1

    def read(self, path: str) -> tuple[bytes, int, float]:
        """Read the file."""
        return read_file(self.file.parent / path)


def open_source(archive: Path | str, *, leave_out: tuple[Path, ...] = ()) -> Source:
    """Choose the source for what the user named: a folder or a file."""
    path = Path(archive)
    return FileSource(path) if path.is_file() else FolderSource(path, leave_out=leave_out)


def read_file(path: Path) -> tuple[bytes, int, float]:
    """Give a file's bytes with the size and mtime of exactly these bytes, whatever was listed before."""
    with path.open("rb") as stream:
        info = os.fstat(stream.fileno())
        data = stream.read()
    return data, len(data), info.st_mtime


def classify_file(file: Path, path: str, info: os.stat_result) -> Entry:
    """Give what a regular file is by its name, or by its first bytes where the name does not tell."""
    promised = is_image_name(file.name)
    if promised is None:
        try:
            with file.open("rb") as stream:
                promised = looks_like_image(stream.read(SNIFF_BYTES))
        except OSError as error:
            return Skipped(path, reason_of(error), info.st_size, info.st_mtime)
    return Item(path, info.st_size, info.st_mtime) if promised else Other(path)


def _number(info: os.stat_result) -> tuple[int, int]:
    """Give what identifies a folder whichever way it was reached."""
    return info.st_dev, info.st_ino


def _is_index(folder: str) -> bool:
    return Path(folder, "CURRENT").is_file() and Path(folder, "manifests").is_dir()


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
