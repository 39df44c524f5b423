"""Verifying each file of an index once on this machine, before anything is read from it.

A file that this machine did not write is compared with its recorded hash, and its structure is checked
(`retr.index.disk.structure`), since whoever handed over the index also wrote the hashes. That takes as long as reading
the index, so it is remembered, outside the index, by the file's inode, size and time of change: a copy, a restored
backup or an altered file is looked at again, a query looks at nothing but these three numbers of each file. ::

    <state folder>/verified/<index uuid>-<place>    a line with the digest of all of it, then one line a file
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from retr.index.disk.files import regular
from retr.index.disk.manifest import is_accelerator
from retr.index.disk.segments import map_file
from retr.index.disk.structure import of_segment, of_skipped
from retr.index.errors import IndexCorruptError
from retr.index.machine.state import state_folder
from retr.index.machine.whole_file import write_if_possible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from retr.index.disk.files import FileRef
    from retr.index.disk.manifest import Manifest
    from retr.index.disk.segments import Segment

_LOGGER = logging.getLogger("retr")
# Less than this is read before anybody wonders.
_LONG, _SHORT = 1 << 30, 1 << 27
# Where the state folder cannot be written, one process at least looks once.
_this_process: set[str] = set()


def remember(root: Path, manifest: Manifest, *, but: Collection[FileRef] = ()) -> bool:
    """Record that every file of a state is as it was written: this machine has just written or verified it.

    Parameters
    ----------
    but
        Files that are not, and that the index can do without.

    Returns
    -------
    False where only this process will know, since the state folder cannot be written.
    """
    marks = _marks(root, [ref for ref in manifest.refs() if ref not in but])
    digest = _digest(marks.values())
    _this_process.add(digest)
    return write_if_possible(_memory(root, manifest), "\n".join([digest, *sorted(marks.values()), ""]).encode())


def unverified(root: Path, manifest: Manifest) -> list[FileRef]:
    """Return the files of a state that this machine has not verified in their present form.

    Raises
    ------
    FileNotFoundError
        One is gone.
    """
    marks = _marks(root, manifest.refs())
    digest = _digest(marks.values())
    if digest in _this_process:
        return []
    known = ""
    with suppress(OSError), _memory(root, manifest).open(encoding="utf-8", errors="replace") as lines:
        if lines.readline().rstrip("\n") == digest:
            _this_process.add(digest)
            return []
        known = lines.read()
    seen = set(known.splitlines())
    return [ref for ref in manifest.refs() if marks[ref.file] not in seen]


def verify_new(root: Path, manifest: Manifest, segments: Sequence[Segment]) -> None:
    """Verify the files of a state that this machine has not verified yet; an accelerator that fails is not used.

    Parameters
    ----------
    segments
        Those of the state, open.

    Raises
    ------
    IndexCorruptError
        A file is not what was written, or could not be used.
    FileNotFoundError
        One is gone.
    """
    new = unverified(root, manifest)
    if not new:
        return
    checks: dict[FileRef, Callable[[], None]] = {}
    bad = []
    for segment in segments:
        checks |= of_segment(segment, manifest.schema, cosine=manifest.encoder.similarity == "cosine")
        accelerator = segment.info.accelerator
        if accelerator in new and not (is_whole(root, accelerator) and segment.usable_accelerator()):
            segment.distrust_accelerator()
            bad.append(accelerator)
    if (skipped := manifest.skipped) is not None:
        checks[skipped] = lambda: of_skipped(map_file(root, skipped), manifest.n_skipped)
    verify(root, [ref for ref in new if not is_accelerator(ref)], checks)
    kept = remember(root, manifest, but=bad)
    if not kept and sum(ref.bytes for ref in new) > _SHORT:
        _LOGGER.warning(
            "the state folder cannot be written, so every start checks the index anew: let RETR_STATE_DIR name another"
        )


def verify(root: Path, refs: Sequence[FileRef], structure: Mapping[FileRef, Callable[[], None]]) -> None:
    """Compare files with their recorded hashes, and check how they are made.

    Parameters
    ----------
    structure
        For some of the files what raises `IndexCorruptError` where they could not be used.

    Raises
    ------
    IndexCorruptError
        One is not what was written, or could not be used.
    """
    size = sum(ref.bytes for ref in refs)
    if size > _LONG:
        _LOGGER.info("checking %.1f GB of an index that is new to this machine, once", size / 1e9)

    def one(ref: FileRef) -> None:
        if digest_of(root, ref) != ref.sha256:
            raise IndexCorruptError(f"{ref.file!r} was changed after it was written", hint="run `retr index check`")

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(one, refs))
    for ref in refs:
        if ref in structure:
            structure[ref]()


def is_whole(root: Path, ref: FileRef) -> bool:
    """Return whether a file that the index can do without is as it was written."""
    try:
        return digest_of(root, ref) == ref.sha256
    except (OSError, IndexCorruptError):
        return False


def digest_of(root: Path, ref: FileRef) -> str:
    """Return the sha256 of a file as it lies there."""
    regular(root, ref.file)
    with (root / ref.file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _memory(root: Path, manifest: Manifest) -> Path:
    place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return state_folder() / "verified" / f"{manifest.uuid}-{place}"


def _marks(root: Path, refs: Iterable[FileRef]) -> dict[str, str]:
    """Return what tells each file apart from another in its place, and from itself when it was changed."""
    marks = {}
    for ref in refs:
        try:
            found = os.lstat(f"{root}/{ref.file}")
        except FileNotFoundError:
            if not is_accelerator(ref):
                raise
            marks[ref.file] = f"{ref.file} is missing"
            continue
        # how an accelerator is made is looked at since there are lists in it
        what = "lists " if is_accelerator(ref) else ""
        marks[ref.file] = f"{ref.file} {what}{ref.sha256} {found.st_ino} {found.st_size} {found.st_ctime_ns}"
    return marks


def _digest(marks: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(marks)).encode()).hexdigest()
