"""The manifest: which files and rows a committed version of an index consists of.

``manifests/00000012.json`` is written once and never changed; ``CURRENT`` names the live one with its sha256 and
is replaced atomically (write, fsync, rename, fsync of the folder). A process killed at any instant therefore leaves
the last committed state: files that no manifest names are leftovers, removed by the next writer.

A manifest may have been written by anybody, so it is checked: every value is of its type, every file it names has the
form of its role, and no file is named twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from retr.index.disk import schema as schemas
from retr.index.disk.files import FileRef, read_small, replace_bytes, require_folders, sync_folder
from retr.index.encoder import EncoderInfo
from retr.index.errors import FormatVersionError, IndexCorruptError, IndexNotFoundError
from retr.index.json_fields import Fields, parse, stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

FORMAT_VERSION = 1
CURRENT = "CURRENT"
MANIFESTS = "manifests"
SEGMENTS = "segments"
FILES = "files"

# The keys of the notes (`Manifest.extra`) that this package writes itself: what `tune` chose and measured,
TUNING = "tuning"
# how identifiers are hashed (`retr.index.rows.identity`),
IDENTIFIERS = "identifiers"
# and a purge, from the moment the rows are gone until the last of their files is: what is noted was not finished.
UNFINISHED_PURGE = "purge_unfinished"

Dtype = Literal["float32", "float16"]
_CURRENT = re.compile(rf"(?P<file>{MANIFESTS}/[0-9]{{8,20}}\.json) (?P<sha256>[0-9a-f]{{64}})\n")
# What `CURRENT` and a manifest hold at most: ten times the manifest of a hundred million rows.
_CURRENT_BYTES, _MANIFEST_BYTES = 200, 256 << 20
_HINT = "restore the index from a copy, or build it again"
_UUID = re.compile("[0-9A-Za-z-]{1,64}")
# The most rows a segment can number, and dimensions a vector can have.
_MOST_ROWS, _MOST_DIMS = (1 << 31) - 1, 1 << 20
_STEM = "[0-9]{8,20}-[0-9a-f]{8}"
_NAME = re.compile(_STEM)
_SIDE_FILE = re.compile(rf"{FILES}/{_STEM}-[A-Za-z0-9._-]{{1,200}}")


def _form(suffix: str) -> re.Pattern[str]:
    return re.compile(rf"{SEGMENTS}/{_STEM}\.{re.escape(suffix)}")


# What a file is called, by its role in a segment.
_FORMS = {
    "table": _form("parquet"),
    "vectors": _form("npy"),
    "ids": _form("ids.npy"),
    "deleted": _form("deleted.npy"),
    "accelerator": _form("faiss"),
    "columns": _form("arrow"),
}
# Every name that a writer gives a file; `retr.index.disk.sweep` removes those that no manifest holds on to.
OURS = re.compile(
    "|".join(
        [rf"{CURRENT}\.tmp", rf"{MANIFESTS}/[0-9]{{8,20}}\.json(?:\.tmp)?", _SIDE_FILE.pattern]
        + [form.pattern for form in _FORMS.values()]
    )
)


@dataclass(frozen=True)
class SegmentInfo:
    """What the manifest records of one segment.

    ``rows`` counts deleted rows too; ``max_norm`` is the largest Euclidean norm among its stored vectors (it bounds
    the rounding error of a score). ``ids`` finds rows by id; ``deleted`` names a sorted int64 ``.npy`` of the
    segment's deleted row numbers; ``accelerator`` a faiss index over its vectors, without which search is exact;
    ``columns`` the memory-mapped form of the columns that filters read, which large segments have.
    """

    name: str
    rows: int
    max_norm: float
    table: FileRef
    vectors: FileRef
    ids: FileRef
    deleted: FileRef | None = None
    n_deleted: int = 0
    accelerator: FileRef | None = None
    columns: FileRef | None = None

    def refs(self) -> Iterator[FileRef]:
        """Yield the files that belong to this segment."""
        yield self.table
        yield self.vectors
        yield self.ids
        if self.deleted is not None:
            yield self.deleted
        if self.accelerator is not None:
            yield self.accelerator
        if self.columns is not None:
            yield self.columns

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form."""
        return {
            "accelerator": self.accelerator.to_json() if self.accelerator else None,
            "columns": self.columns.to_json() if self.columns else None,
            "deleted": self.deleted.to_json() if self.deleted else None,
            "ids": self.ids.to_json(),
            "max_norm": self.max_norm,
            "n_deleted": self.n_deleted,
            "name": self.name,
            "rows": self.rows,
            "table": self.table.to_json(),
            "vectors": self.vectors.to_json(),
        }

    @classmethod
    def from_json(cls, data: object) -> SegmentInfo:
        """Read what `to_json` wrote; ``ValueError`` for anything else."""
        fields = Fields(data)
        rows = fields.whole("rows", least=1, most=_MOST_ROWS)
        refs = {
            role: FileRef.from_json(fields.inner(role).data(), form) if fields.has(role) else None
            for role, form in _FORMS.items()
        }
        table, vectors, ids = refs["table"], refs["vectors"], refs["ids"]
        found = cls(
            name=fields.text("name"),
            rows=rows,
            max_norm=fields.number("max_norm"),
            table=_there(table),
            vectors=_there(vectors),
            ids=_there(ids),
            deleted=refs["deleted"],
            n_deleted=fields.whole("n_deleted", most=rows),
            accelerator=refs["accelerator"],
            columns=refs["columns"],
        )
        if _NAME.fullmatch(found.name) is None or found.max_norm < 0:
            raise ValueError("a segment without a name of ours, or with a norm below zero")
        return found


def _there(ref: FileRef | None) -> FileRef:
    if ref is None:
        raise ValueError("a segment lacks a file")
    return ref


@dataclass(frozen=True)
class Manifest:
    """One committed state of an index.

    ``extra`` holds what the layers above note (adapters, calibration, tuning): JSON values under a key each;
    ``files`` their sidecar files by name. ``skipped`` names a Parquet table of what was not indexed and why.
    """

    uuid: str
    encoder: EncoderInfo
    dtype: Dtype
    schema: pa.Schema
    created: str
    committed: str
    version: int = 1
    group: str | None = None
    segments: tuple[SegmentInfo, ...] = ()
    skipped: FileRef | None = None
    n_skipped: int = 0
    files: Mapping[str, FileRef] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Path of the manifest itself, relative to the index."""
        return f"{MANIFESTS}/{self.version:08d}.json"

    def refs(self) -> list[FileRef]:
        """Return every file this state consists of, beside the manifest itself."""
        refs = [ref for segment in self.segments for ref in segment.refs()]
        if self.skipped is not None:
            refs.append(self.skipped)
        return [*refs, *self.files.values()]

    def to_bytes(self) -> bytes:
        """Return the JSON text that is written: sorted keys, so that equal states are equal files."""
        data = {
            "columns": schemas.to_json(self.schema),
            "committed": self.committed,
            "created": self.created,
            "dim": self.encoder.dim,
            "dtype": self.dtype,
            "encoder": self.encoder.to_json(),
            "extra": dict(self.extra),
            "files": {name: ref.to_json() for name, ref in self.files.items()},
            "format_version": FORMAT_VERSION,
            "group": self.group,
            "n_skipped": self.n_skipped,
            "segments": [segment.to_json() for segment in self.segments],
            "similarity": self.encoder.similarity,
            "skipped": self.skipped.to_json() if self.skipped else None,
            "uuid": self.uuid,
            "version": self.version,
        }
        return (json.dumps(data, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> Manifest:
        """Read what `to_bytes` wrote.

        Raises
        ------
        FormatVersionError
            It was written in a newer format.
        IndexCorruptError
            It is not a manifest.
        """
        with stored("the manifest", _HINT):
            fields = Fields(parse(text))
            found = fields.whole("format_version", most=1 << 62)
            if found != FORMAT_VERSION:
                raise FormatVersionError(
                    f"this index has the format version {found!r}, this retr reads version {FORMAT_VERSION}",
                    hint="upgrade retr, or build the index again",
                )
            files = fields.inner("files")
            manifest = cls(
                uuid=fields.text("uuid"),
                encoder=EncoderInfo.from_json(fields.inner("encoder").data()),
                dtype=fields.choice("dtype", ("float32", "float16")),
                schema=schemas.from_json(fields.items("columns")),
                created=fields.text("created"),
                committed=fields.text("committed"),
                version=fields.whole("version", least=1),
                group=fields.text("group") if fields.has("group") else None,
                segments=tuple(SegmentInfo.from_json(segment) for segment in fields.items("segments")),
                skipped=FileRef.from_json(fields.inner("skipped").data(), _SIDE_FILE)
                if fields.has("skipped")
                else None,
                n_skipped=fields.whole("n_skipped"),
                files={name: FileRef.from_json(files.inner(name).data(), _SIDE_FILE) for name in files},
                extra=fields.inner("extra").data(),
            )
            manifest.require_sense()
        return manifest

    def require_sense(self) -> None:
        """Raise ``ValueError`` where the values are of their types but cannot be meant together."""
        names = [ref.file for ref in self.refs()]
        if len(set(names)) < len(names):
            raise ValueError("a file is named twice")
        if _UUID.fullmatch(self.uuid) is None:
            # It names a file in the user's state folder.
            raise ValueError("the uuid is none")
        if not 1 <= self.encoder.dim <= _MOST_DIMS:
            raise ValueError("vectors of no length, or of one that no encoder has")


def read_current(root: Path) -> Manifest:
    """Read the live manifest of the index at ``root``.

    Raises
    ------
    IndexNotFoundError
        There is no index at ``root``.
    IndexCorruptError
        ``CURRENT`` or the manifest was altered.
    FormatVersionError
        It was written in a newer format.
    """
    while True:
        name, digest = _current(root)
        require_folders(root, MANIFESTS, SEGMENTS, FILES)
        try:
            text = read_small(root, name, _MANIFEST_BYTES)
        except FileNotFoundError:
            # A writer may have committed, and removed the old manifest, between the two reads.
            if _current(root)[0] != name:
                continue
            raise _corrupt(f"the manifest {name!r} is missing") from None
        if hashlib.sha256(text).hexdigest() != digest:
            raise _corrupt(f"the manifest {name!r} was changed after it was written")
        manifest = Manifest.from_bytes(text)
        if manifest.file != name:
            raise _corrupt(f"the manifest {name!r} says that it is {manifest.file!r}")
        return manifest


def _current(root: Path) -> tuple[str, str]:
    try:
        text = read_small(root, CURRENT, _CURRENT_BYTES).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        raise IndexNotFoundError(
            f"no index at {str(root)!r}",
            hint="make one with `retr index build ARCHIVE`, or name another with `--index PATH`",
        ) from None
    found = _CURRENT.fullmatch(text)
    if found is None:
        raise _corrupt(f"the file {CURRENT!r} does not name a manifest")
    return found["file"], found["sha256"]


def _corrupt(message: str) -> IndexCorruptError:
    return IndexCorruptError(message, hint=_HINT)


def is_accelerator(ref: FileRef) -> bool:
    """Return whether a file is one that an index can do without."""
    return ref.file.endswith(".faiss")


def exists(root: Path) -> bool:
    """Return whether there is an index at ``root``, readable or not."""
    return os.path.lexists(root / CURRENT)


def publish(root: Path, manifest: Manifest) -> None:
    """Make ``manifest`` the live one; every file it names is already on the disk."""
    for folder in (SEGMENTS, FILES):
        sync_folder(root / folder)
    text = manifest.to_bytes()
    replace_bytes(root / manifest.file, text)
    replace_bytes(root / CURRENT, f"{manifest.file} {hashlib.sha256(text).hexdigest()}\n".encode())
