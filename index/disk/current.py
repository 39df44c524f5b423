"""The live state of an index: reading it, and making another one live.

``CURRENT`` names the live manifest with its sha256 and is replaced atomically (write, fsync, rename, fsync of the
folder). A process killed at any instant therefore leaves the last committed state: files that no manifest names are
leftovers, removed by the next writer.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

from retr import system
from retr.index.disk import shards
from retr.index.disk.files import read_small, replace_bytes, require_folders
from retr.index.disk.manifest import CURRENT, FILES, MANIFESTS, MENDING, SEGMENTS, Manifest
from retr.index.errors import IndexCorruptError, IndexNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

_CURRENT = re.compile(rf"(?P<file>{MANIFESTS}/[0-9]{{8,20}}\.json) (?P<sha256>[0-9a-f]{{64}})\n")
_CURRENT_BYTES = 200
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


def read_current(root: Path) -> Manifest:
    """Read the live manifest of the index at ``root``, with the rows of all its shards.

    Raises
    ------
    IndexNotFoundError
        There is no index at ``root``.
    IndexCorruptError
        ``CURRENT`` or a manifest was altered.
    FormatVersionError
        It was written in a newer format.
    """
    while True:
        name, digest = _current(root)
        require_folders(root, MANIFESTS, SEGMENTS, FILES)
        try:
            return shards.assembled(root, shards.read_manifest(root, name, digest))
        except FileNotFoundError:
            # A writer may have committed, and removed the old manifests, between the reads.
            if _current(root)[0] != name:
                continue
            raise IndexCorruptError(f"the manifest {name!r}, or one that it names, is missing", hint=MENDING) from None


def _current(root: Path) -> tuple[str, str]:
    try:
        text = read_small(root, CURRENT, _CURRENT_BYTES).decode(errors="replace")
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise IndexNotFoundError(
            f"no index at {str(root)!r}",
            hint="make one with `retr index build ARCHIVE`, or name another with `--index PATH`",
        ) from None
    found = _CURRENT.fullmatch(text)
    if found is None:
        raise IndexCorruptError(f"the file {CURRENT!r} does not name a manifest", hint=MENDING)
    return found["file"], found["sha256"]


def exists(root: Path) -> bool:
    """Return whether there is an index at ``root``, readable or not."""
    return os.path.lexists(root / CURRENT)


def publish(root: Path, manifest: Manifest) -> Manifest:
    """Make ``manifest`` the live one, and return it with its shards' manifests; its other files are on the disk."""
    for folder in dict.fromkeys(["", *manifest.folders]):
        for inner in (SEGMENTS, FILES):
            system.sync_folder(root / folder / inner)
    manifest = shards.written(root, manifest)
    replace_bytes(root / manifest.file, manifest.to_bytes())
    replace_bytes(root / CURRENT, shards.pointer(manifest))
    return manifest
