"""Folders of the user: the home that ``~`` stands for, and the cache.

``~`` is the home wherever a path is given: on the command line, in a variable, in a batch, in Python. A shell expands
it only where it stands alone: not in ``--index=~/x``, and never in a file or in Python.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from retr.index.errors import UsageError

# of the slashes behind it pathlib leaves one, or none at the end; one letter is a drive
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?:/(.*))?", re.DOTALL)


def home(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` or ``~user`` in front replaced by that home; a user who is unknown is a file's name.

    Raises
    ------
    UsageError
        It begins with ``~/`` and there is no home, or it is nothing that a file can be called.
    """
    try:
        path = os.fsdecode(path)
    except TypeError:
        raise UsageError(f"a path is a text or a pathlib.Path, got: {path!r}") from None
    try:
        possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise UsageError(f"no file is called {path!r}", hint="check the path")
    expanded = os.path.expanduser(path)  # noqa: PTH111 - Path's own raises for a file whose name begins with ~
    if expanded == "~" or expanded.startswith("~/"):
        raise UsageError(f"there is no home folder for {path!r}", hint="set HOME, or write the whole path")
    return Path(expanded)


def index_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder of an index as `home` does, and refuse a URL, which would be a folder called ``s3:``.

    Raises
    ------
    UsageError
        It is a URL, or `home` raises.

    >>> index_folder("s3://bucket/hospital.retr")
    Traceback (most recent call last):
    ...
    retr.index.errors.UsageError: an index is a folder, got the URL 's3://bucket/hospital.retr'; ...
    """
    folder = home(path)
    if found := _URL.fullmatch(os.fspath(folder)):
        scheme, rest = found[1], found[2] or ""
        of_file = scheme.lower() == "file"
        hint = (
            f"write '/{rest}'"
            if of_file
            else "build in a folder, and `retr index push` it there; `retr index pull` brings it down"
        )
        raise UsageError(f"an index is a folder, got the URL '{scheme}:{'///' if of_file else '//'}{rest}'", hint=hint)
    return folder


def cache_folder() -> Path:
    """Folder for what can be made again: ``RETR_CACHE_DIR``, else the user's cache; made if missing and possible."""
    given = os.environ.get("RETR_CACHE_DIR")
    if given:
        path = home(given)
    else:
        from platformdirs import user_cache_path

        path = user_cache_path("retr")
    with suppress(OSError):
        path.mkdir(parents=True, exist_ok=True)
    return path
