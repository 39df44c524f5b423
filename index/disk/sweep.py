"""Telling apart committed, leftover and foreign files of an index's directory, and removing the leftovers.

The manifest names what belongs to the index. Anything else whose name has our form is a leftover of an older
version or of a writer that was killed; anything else again is foreign, and never touched. No link is followed: what
lies behind one is not in the index.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from retr import system
from retr.index.disk.journal import JOURNAL, JOURNAL_LOCK
from retr.index.disk.lock import LOCK_FILE
from retr.index.disk.manifest import CURRENT, FILES, MANIFESTS, OURS, SEGMENTS
from retr.index.disk.shards import found_folders, remove_empty_folders
from retr.index.errors import RetrError

if TYPE_CHECKING:
    from pathlib import Path

    from retr.index.disk.manifest import Manifest


def named(manifest: Manifest) -> set[str]:
    """Return the paths, relative to the index, of everything that belongs to a committed state."""
    own = {CURRENT, LOCK_FILE, JOURNAL, JOURNAL_LOCK, manifest.file, *(ref.file for ref in manifest.refs())}
    return own.union(f"{folder}{name}" for folder in manifest.folders for name in (CURRENT, LOCK_FILE))


def others(root: Path, *manifests: Manifest) -> tuple[list[str], list[str]]:
    """Return the leftovers and the foreign files beside these states, each sorted, relative to the index."""
    keep = set().union(*(named(manifest) for manifest in manifests))
    found = [path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir() or path.is_symlink()]
    rest = sorted(name for name in found if name not in keep)
    leftovers = [name for name in rest if OURS.fullmatch(name)]
    return leftovers, [name for name in rest if not OURS.fullmatch(name)]


def leftovers(root: Path, *manifests: Manifest) -> list[str]:
    """Return the leftovers beside these states, looking only where a writer writes; sorted."""
    keep = set().union(*(named(manifest) for manifest in manifests))
    found = []
    for folder in found_folders(root):
        own = (f"{folder}{name}" for name in (f"{CURRENT}.tmp", f"{JOURNAL}.tmp", CURRENT, LOCK_FILE))
        found += [name for name in own if os.path.lexists(root / name)]
        for inner in (MANIFESTS, SEGMENTS, FILES):
            # a writer that was killed may have made some of a shard's folders
            with suppress(FileNotFoundError), os.scandir(root / folder / inner) as entries:
                names = (entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
                found += [f"{folder}{inner}/{name}" for name in names]
    return sorted(name for name in found if name not in keep and OURS.fullmatch(name))


def sweep(root: Path, *manifests: Manifest) -> None:
    """Remove the leftovers beside these states; only the holder of the writer's lock may.

    Where a system keeps what a reader has open, that stays for a later writer.
    """
    for name in leftovers(root, *manifests):
        with suppress(*system.IN_USE):
            (root / name).unlink(missing_ok=True)
    remove_empty_folders(root, max(manifests, key=lambda manifest: manifest.shards))


def sweep_for_good(root: Path, manifest: Manifest) -> None:
    """Remove the leftovers beside a state, also from the disk's own lists of names.

    Raises
    ------
    RetrError
        One cannot be removed.
    """
    try:
        sweep(root, manifest)
        if leftovers(root, manifest):
            raise PermissionError(errno.EACCES, "others have it open")
        for folder in found_folders(root):
            for inner in (MANIFESTS, SEGMENTS, FILES):
                with suppress(FileNotFoundError):
                    system.sync_folder(root / folder / inner)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RetrError(
            f"the rows are deleted, but not purged: a file that held them cannot be removed ({reason})",
            hint="mend the permissions of the index's folders, then run `retr index compact`",
        ) from error
