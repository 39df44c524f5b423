"""Classify the members of a container, and resolve duplicate names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from retr.index.errors import ImageReadError
from retr.retrieval.archive.siblings import Siblings, is_sibling, labels_of
from retr.retrieval.archive.sources import Entry, Item, Other, Skipped, is_image_name, looks_like_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_MEMBER_BYTES = 1 << 28
TWICE = "id of another picture"
_OUTSIDE = re.compile(r"/|[A-Za-z]:/")


def member_name(name: str) -> str:
    r"""Return a member's name as if it lay in a folder: with slashes, without ``./``.

    >>> member_name("./a//b.png"), member_name(r"cases\a.png"), member_name("/etc/passwd")
    ('a/b.png', 'cases/a.png', '/etc/passwd')
    """
    slashed = name.replace("\\", "/")
    parts = [part for part in slashed.split("/") if part not in {"", "."}]
    return "/" * slashed.startswith("/") + "/".join(parts)


def last_of_each(names: Iterable[str]) -> tuple[dict[str, int], list[str]]:
    """Return where the member of each name stands, and the names that are spelled in two ways.

    Of two members of one name the last counts, as for every unpacker.
    """
    places: dict[str, int] = {}
    spelled: dict[str, str] = {}
    clashes = []
    for place, raw in enumerate(names):
        name = member_name(raw)
        if spelled.get(name, raw) != raw:
            clashes.append(name)
        places[name], spelled[name] = place, raw
    return places, clashes


def classify_member(name: str, size: int, mtime: float, prefix: Callable[[], bytes]) -> Entry | None:
    """Return what a member is by its name, or by its first bytes where the name does not tell; None for a hidden one.

    Parameters
    ----------
    prefix
        Return the member's first bytes.
    """
    parts = name.split("/")
    if ".." in parts or _OUTSIDE.match(name) or "\0" in name:
        return Skipped(name.replace("\0", "\\0"), "name leads out of the container", size, mtime)
    try:
        name.encode()
    except UnicodeEncodeError:
        return Skipped(name.encode("utf-8", "backslashreplace").decode(), "name is not UTF-8", size, mtime)
    if any(part.startswith(".") for part in parts) or "__MACOSX" in parts:
        return None
    promised = is_image_name(name)
    if promised is None:
        promised = looks_like_image(prefix())
    if promised and size > MAX_MEMBER_BYTES:
        return Skipped(name, "too large", size, mtime)
    return Item(name, size, mtime) if promised else Other(name)


class Samples:
    """Pictures with what stands beside them.

    Parameters
    ----------
    names
        All members that are files.
    read
        Return the bytes of one that stands beside pictures; raises where it cannot be read.
    """

    def __init__(self, names: Iterable[str], read: Callable[[str], bytes]) -> None:
        self._names = [name for name in names if is_sibling(name)]
        self._siblings = Siblings(names)
        self._read = read
        self._used: set[str] = set()
        self._refused: set[str] = set()

    def picture(self, item: Item) -> Iterator[Entry]:
        """Return a picture with its labels, behind the record of a label that cannot be read."""
        columns: dict[str, Any] = {}
        for name, called in self._siblings.of(item.path).items():
            self._used.add(name)
            try:
                columns.update(labels_of(name, called, self._read(name)))
            except (ValueError, OSError, ImageReadError):
                if name not in self._refused:
                    self._refused.add(name)
                    yield Skipped(name, "unreadable labels", 0, item.mtime)
        yield item.with_columns(columns)

    def rest(self, classify_name: Callable[[str], Entry | None]) -> Iterator[Entry]:
        """Return the members that could be labels and stand beside no picture."""
        left = (classify_name(name) for name in self._names if name not in self._used)
        yield from (entry for entry in left if entry is not None)


def unreadable(reason: str) -> ImageReadError:
    """Return the error of a member."""
    return ImageReadError("a member of a container cannot be read", reason=reason)
