"""The protocol of all sources of pictures, and the entries they list.

The protocol is small: `Source.entries` lists what is there, lazily and always in the same order, as `Item` (may be a
picture), `Skipped` (cannot be read, with the reason) or `Other` (not meant to be a picture), and `Source.read`
gives an item's bytes. Whatever is wrong with one entry becomes a record; listing never stops for it.

A file counts as a picture when its name says so, or when it has no telling suffix and its first bytes say so. So a
text file named ``.jpg`` is recorded as unreadable, and ``labels.csv`` is an "other" file. Hidden files and folders
are left out.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from retr.retrieval.regular_files import NotRegularError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

# Names that promise a picture.
_PICTURES = """
    .jpg .jpeg .jpe .jfif .png .tif .tiff .bmp .webp .gif .jp2 .j2k .jpx .pbm .pgm .ppm .pnm
    .jpf .jpm .jls .jxl .pfm .heic .heif .avif .dcm .dicom .ima .nii .nii.gz
"""
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
# Names that promise something else: not worth opening to look.
_OTHERS = """
    .csv .tsv .txt .md .rst .json .jsonl .xml .html .htm .yaml .yml .toml .ini .cfg .log .pdf .doc .docx .xls .xlsx
    .parquet .arrow .feather .npy .npz .pt .pth .h5 .hdf5 .pkl .py .ipynb .sh .zip .tar .tgz .bz2 .xz .7z
    .mp4 .avi .mov .db .sqlite .sha256 .md5 .cls .part .tmp .lock
"""
IMAGE_SUFFIXES = frozenset(_PICTURES.split())
OTHER_SUFFIXES = frozenset(_OTHERS.split())
UNTOLD = -1
"""The size of an item whose archive does not tell it; such an item has a mark."""
SNIFF_BYTES = 352  # NIfTI's mark stands last, at 344


@dataclass(frozen=True, slots=True)
class Item:
    """Something that may be a picture.

    Attributes
    ----------
    path
        Posix path relative to the source; the row's id is made from it.
    size
        Bytes; `UNTOLD` where only reading tells.
    mtime
        Seconds since 1970, as the file system or the container gives it.
    columns
        Metadata that came with the item (siblings in a container).
    mark
        What the store says of the content, such as an ETag; None where size and mtime have to do.
    stamp
        What else the file system or the container says of the state, to notice a swap that keeps size and mtime; None
        where it says nothing. It holds on this machine only and is no part of the item's identity.
    data
        The bytes, where listing had to read them anyway (compressed tar, Parquet); else None.
    identifiers
        Whose it is, unhashed, where the archive says so without its being read: ``patient``, ``study``, ``series``,
        ``instance``. They enter no index.
    """

    path: str
    size: int
    mtime: float
    columns: Mapping[str, Any] = field(default_factory=dict)
    mark: str | None = None
    stamp: str | None = field(default=None, compare=False, repr=False)
    data: bytes | None = field(default=None, repr=False)
    identifiers: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def with_columns(self, columns: Mapping[str, Any]) -> Item:
        """Return the item with the metadata that stands beside it."""
        return replace(self, columns={**self.columns, **columns})

    def with_data(self, data: bytes) -> Item:
        """Return the item with its bytes."""
        return replace(self, data=data)


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
# a picture's bytes, with the size and mtime of exactly these bytes; None where the mtime is the listed one
Bytes = tuple[bytes, int, float | None]


class Source(Protocol):
    """Pictures in one place."""

    location: str
    """Absolute path or URL; remembered on this machine, never written into an index."""

    def entries(self) -> Iterator[Entry]:
        """List what is there, lazily, in the same order every time."""

    def count(self) -> int | None:
        """Return roughly how many items `entries` will list, for the progress display; None when that is unknown."""

    def read(self, path: str) -> Bytes:
        """Return an item's bytes with the size and mtime they had when read; raises OSError or ImageReadError."""


class Container(Protocol):
    """Pictures in one file."""

    def entries(self) -> Iterator[Entry]:
        """List the members, in the same order every time."""

    def read(self, member: str) -> Bytes:
        """Return one member's bytes, their number and the container's mtime.

        Raises
        ------
        FileNotFoundError
            There is no such member.
        ImageReadError
            The member cannot be read.
        """


def reason_of(error: OSError) -> str:
    """Name an operating system error in the words of the skipped record.

    >>> reason_of(PermissionError(13, "Permission denied"))
    'no permission'
    """
    if isinstance(error, NotRegularError):
        return "not a file"
    if isinstance(error, PermissionError):
        return "no permission"
    if error.errno == errno.ELOOP:
        return "link loop"
    if isinstance(error, FileNotFoundError):
        return "missing"
    return "unreadable"


def stamp_of(info: os.stat_result) -> str:
    """Return the stamp of a file: its inode, and the time when the inode was last changed, which no program sets."""
    return f"{info.st_ino}:{info.st_ctime_ns}"


def is_image_name(name: str) -> bool | None:
    """Return whether a file name promises a picture: True, False, or None when it does not tell.

    >>> is_image_name("a.JPG"), is_image_name("labels.csv"), is_image_name("IM0001"), is_image_name("v.nii.gz")
    (True, False, None, True)
    """
    lower = name.lower()
    suffix = PurePosixPath(lower).suffix
    if suffix in IMAGE_SUFFIXES or lower.endswith(".nii.gz"):
        return True
    return False if suffix in OTHER_SUFFIXES else None


def may_be_dicom(name: str) -> bool:
    """Return whether a file's name leaves it possible that it is DICOM: by a suffix of it, or by none that tells.

    >>> may_be_dicom("a.DCM"), may_be_dicom("IM0001"), may_be_dicom("a.png")
    (True, True, False)
    """
    return name.lower().endswith(DICOM_SUFFIXES) or is_image_name(name) is None


def looks_like_image(prefix: bytes) -> bool:
    r"""Return whether a file that begins with ``prefix`` (`SNIFF_BYTES` of it) is of a format that holds pictures.

    >>> looks_like_image(b"\x89PNG\r\n\x1a\n"), looks_like_image(b"BMW is a car maker")
    (True, False)
    """
    from retr.retrieval.images.file_types import format_of

    return format_of(prefix) is not None
