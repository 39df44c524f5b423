"""Comparing an index's files with its manifest: sizes, sha256, counts, alignment, and files nobody asked for.

Leftovers of an interrupted writer are not findings, but for those of a purge: the next writer removes them, and while
a writer is at work they are its business.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from retr.index.disk import journal
from retr.index.disk.current import read_current
from retr.index.disk.files import regular
from retr.index.disk.lock import LOCK_FILE
from retr.index.disk.manifest import CURRENT, UNFINISHED_PURGE, Manifest
from retr.index.disk.schema import ID, texts
from retr.index.disk.segments import Segment, id_hashes, map_file
from retr.index.disk.side_data import find_kind, held
from retr.index.disk.structure import of_segment, of_skipped
from retr.index.disk.sweep import others
from retr.index.disk.verified import digest_of
from retr.index.errors import IndexCorruptError, RetrError
from retr.index.json_fields import stored
from retr.index.rows.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.disk.files import FileRef
    from retr.index.disk.manifest import SegmentInfo

Kind = Literal["missing", "truncated", "altered", "misaligned", "foreign", "unreadable", "unpurged"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its kind, the file (relative to the index), and a sentence."""

    kind: Kind
    file: str
    message: str


def check(snapshot: Snapshot) -> list[Finding]:
    """Check a snapshot's version as it lies on the disk."""
    return check_path(snapshot.path, snapshot.manifest)


def check_path(root: Path, manifest: Manifest | None = None) -> list[Finding]:
    """Check an index that may be too damaged to open.

    Parameters
    ----------
    root
        The index's directory.
    manifest
        The version to check; the live one where ``None``.

    Raises
    ------
    IndexNotFoundError, FormatVersionError
        There is no manifest to compare with.
    """
    try:
        live = read_current(root)
    except IndexCorruptError as error:
        return [Finding("altered", CURRENT, error.message)]
    manifest = manifest or live
    findings = []
    damaged = set()
    for ref in manifest.refs():
        finding = _file(root, ref)
        if finding is not None:
            findings.append(finding)
            damaged.add(ref.file)
    with contextlib.suppress(FileNotFoundError):
        try:
            regular(root, LOCK_FILE)
        except IndexCorruptError as error:
            findings.append(Finding("unreadable", LOCK_FILE, error.message))
    findings.extend(_journal(root))
    for info in manifest.segments:
        if damaged.isdisjoint(ref.file for ref in info.refs()):
            findings.extend(_segment(root, manifest, info))
    if (skipped := manifest.skipped) is not None and skipped.file not in damaged:
        try:
            of_skipped(map_file(root, skipped), manifest.n_skipped)
        except RetrError as error:
            findings.append(Finding("misaligned", skipped.file, error.message))
    if not findings:
        findings.extend(_ids(root, manifest))
    if not findings:
        findings.extend(_side_data(Snapshot(root, manifest)))
    if manifest.version == live.version:
        leftovers, foreign = others(root, manifest)
        if UNFINISHED_PURGE in manifest.extra:
            findings += [Finding("unpurged", name, f"{name!r} is left from an interrupted purge") for name in leftovers]
        findings += [Finding("foreign", name, f"{name!r} does not belong to the index") for name in foreign]
    return findings


def _journal(root: Path) -> Iterator[Finding]:
    """Check the entries that no commit has taken in yet."""
    try:
        for number in journal.Lines.of(journal.read_bytes(root)).damaged:
            yield Finding("altered", journal.JOURNAL, f"line {number} of {journal.JOURNAL!r} was changed")
        with contextlib.suppress(FileNotFoundError):
            regular(root, journal.JOURNAL_LOCK)
    except RetrError as error:
        yield Finding("unreadable", journal.JOURNAL, error.message)
    except OSError as error:
        yield Finding("unreadable", journal.JOURNAL, f"{journal.JOURNAL!r} cannot be read: {error.strerror}")


def stale(snapshot: Snapshot) -> list[str]:
    """Return what of the side data was made for another state of the index and counts no longer, a phrase each."""
    kinds = filter(None, map(find_kind, held(snapshot.manifest)))
    return [phrase for kind in kinds for phrase in kind.stale(snapshot)]


def unknown_kinds(snapshot: Snapshot) -> list[str]:
    """Return the kinds of side data of which only the files can be checked, since nothing here knows more of them."""
    return [name for name in held(snapshot.manifest) if find_kind(name) is None]


def _side_data(snapshot: Snapshot) -> Iterator[Finding]:
    """Check what hangs on the index, as far as its kinds are known here."""
    manifest = snapshot.manifest
    for kind in filter(None, map(find_kind, held(manifest))):
        for name, look in kind.checks(snapshot).items():
            file = manifest.files[name].file if name in manifest.files else manifest.file
            try:
                with stored(f"{name!r}, side data of the kind {kind.name!r},"):
                    look()
            except RetrError as error:
                yield Finding("unreadable", file, error.message)


def _file(root: Path, ref: FileRef) -> Finding | None:
    try:
        size = regular(root, ref.file).st_size
        if size != ref.bytes:
            return Finding("truncated", ref.file, f"{ref.file!r} has {size} bytes instead of {ref.bytes}")
        digest = digest_of(root, ref)
    except FileNotFoundError:
        return Finding("missing", ref.file, f"{ref.file!r} is missing")
    except IndexCorruptError as error:
        return Finding("unreadable", ref.file, error.message)
    except OSError as error:
        return Finding("unreadable", ref.file, f"{ref.file!r} cannot be read: {error.strerror}")
    if digest != ref.sha256:
        return Finding("altered", ref.file, f"{ref.file!r} was changed: its sha256 is not the recorded one")
    return None


def _segment(root: Path, manifest: Manifest, info: SegmentInfo) -> Iterator[Finding]:
    """Check that the files of one segment are made as they should be, and fit each other."""
    try:
        segment = Segment(root, info, manifest.layout)
    except RetrError as error:
        yield Finding("misaligned", info.name, error.message)
        return
    checks = of_segment(segment, manifest.schema, cosine=manifest.encoder.similarity == "cosine")
    del checks[info.ids]  # which is what `_ids` looks at
    for look in [*checks.values(), segment.require_same_columns, segment.require_accelerator]:
        try:
            look()
        except RetrError as error:
            yield Finding("misaligned", info.name, error.message)
            return


def _ids(root: Path, manifest: Manifest) -> Iterator[Finding]:
    """Check that the hashes are those of the ids, and that no id stands twice among the live rows."""
    schema = pa.schema([manifest.schema.field(ID)])
    earlier: list[tuple[Segment, NDArray[np.bool_]]] = []
    for info in manifest.segments:
        segment = Segment(root, info, manifest.layout)
        hashes = np.concatenate([id_hashes(texts(piece.column(ID))) for piece in segment.tables(schema)])
        rows = segment.hashed_rows.astype(np.int64)
        if not np.array_equal(np.sort(rows), np.arange(info.rows)) or not _sorted_as(hashes[rows], segment.hashes):
            yield Finding("misaligned", info.ids.file, f"{info.ids.file!r} does not find the ids of its segment")
            continue
        live = np.ones(info.rows, bool)
        live[segment.deleted()] = False
        rows = rows[live[rows]]
        if _repeated(segment, rows, hashes[rows], earlier):
            yield Finding("misaligned", info.table.file, f"an id of {info.table.file!r} stands for two rows")
        earlier.append((segment, live))


def _sorted_as(hashes: NDArray[np.uint64], stored: NDArray[np.uint64]) -> bool:
    return np.array_equal(hashes, stored) and bool(np.all(hashes[1:] >= hashes[:-1]))


def _repeated(
    segment: Segment,
    rows: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    earlier: Sequence[tuple[Segment, NDArray[np.bool_]]],
) -> bool:
    """Return whether an id of ``rows``, in the order of their ``hashes``, stands twice, here or in ``earlier``."""
    equal = np.flatnonzero(hashes[1:] == hashes[:-1])
    if any(a == b for a, b in zip(segment.ids(rows[equal]), segment.ids(rows[equal + 1]), strict=True)):
        return True
    return any(len(other.look_up(hashes, lambda at: segment.ids(rows[at]), live)[0]) for other, live in earlier)
