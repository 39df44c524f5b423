"""Which files in an index's directory are whose, and the removal of those nobody needs any more.

The manifest names what belongs to the index. Anything else whose name has our form is a leftover of an older
version or of a writer that was killed; anything else again is foreign, and never touched.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from retr.index.lock import NAME as LOCK
from retr.index.manifest import CURRENT, FILES, MANIFESTS, SEGMENTS

if TYPE_CHECKING:
    from pathlib import Path

    from retr.index.manifest import Manifest

_OURS = re.compile(
    rf"(?:{CURRENT}\.tmp|{MANIFESTS}/\d{{8,}}\.json(?:\.tmp)?"
    rf"|{SEGMENTS}/\d{{8,}}-[0-9a-f]{{8}}\.(?:parquet|npy|ids\.npy|deleted\.npy|faiss|arrow)"
    rf"|{FILES}/\d{{8,}}-[0-9a-f]{{8}}-[A-Za-z0-9._-]+)"
)


def named(manifest: Manifest) -> set[str]:
    """Give the paths, relative to the index, of everything that belongs to a committed state."""
    return {CURRENT, LOCK, manifest.file, *(ref.file for ref in manifest.refs())}


def others(root: Path, *manifests: Manifest) -> tuple[list[str], list[str]]:
    """Give the leftovers and the foreign files beside these states, each sorted, relative to the index."""
    keep = set().union(*(named(manifest) for manifest in manifests))
    found = [path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir() or path.is_symlink()]
    rest = sorted(name for name in found if name not in keep)
    leftovers = [name for name in rest if _OURS.fullmatch(name)]
    return leftovers, [name for name in rest if not _OURS.fullmatch(name)]


def sweep(root: Path, *manifests: Manifest) -> None:
    """Remove the leftovers beside these states; only the holder of the writer's lock may."""
    for name in others(root, *manifests)[0]:
        (root / name).unlink(missing_ok=True)
