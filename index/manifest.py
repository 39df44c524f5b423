"""The manifest: the one truth about what an index holds.

``manifests/00000012.json`` is written once and never changed; ``CURRENT`` names the live one with its sha256 and
is replaced atomically (write, fsync, rename, fsync of the folder). A process killed at any instant therefore leaves
the last committed state: files that no manifest names are leftovers, removed by the next writer.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from retr.index import schema as schemas
from retr.index.encoder import EncoderInfo
from retr.index.errors import FormatVersionError, IndexCorruptError, IndexNotFoundError
from retr.index.files import FileRef, replace_bytes, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

FORMAT_VERSION = 1
CURRENT = "CURRENT"
MANIFESTS = "manifests"
SEGMENTS = "segments"
FILES = "files"

Dtype = Literal["float32", "float16"]
_CURRENT = re.compile(rf"(?P<file>{MANIFESTS}/\d{{8,}}\.json) (?P<sha256>[0-9a-f]{{64}})\n")


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
        """Give the files that belong to this segment."""
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
        """Give the manifest's form."""
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
    def from_json(cls, data: Mapping[str, Any]) -> SegmentInfo:
        """Read what `to_json` wrote."""
        return cls(
            name=data["name"],
            rows=data["rows"],
            max_norm=data["max_norm"],
            table=FileRef.from_json(data["table"]),
            vectors=FileRef.from_json(data["vectors"]),
            ids=FileRef.from_json(data["ids"]),
            deleted=FileRef.from_json(data["deleted"]) if data["deleted"] else None,
            n_deleted=data["n_deleted"],
            accelerator=FileRef.from_json(data["accelerator"]) if data.get("accelerator") else None,
            columns=FileRef.from_json(data["columns"]) if data.get("columns") else None,
        )


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
        """Give every file this state consists of, beside the manifest itself."""
        refs = [ref for segment in self.segments for ref in segment.refs()]
        if self.skipped is not None:
            refs.append(self.skipped)
        return [*refs, *self.files.values()]

    def to_bytes(self) -> bytes:
        """Give the JSON text that is written: sorted keys, so that equal states are equal files."""
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
        try:
            data = json.loads(text)
            found = data["format_version"]
            if found != FORMAT_VERSION:
                raise FormatVersionError(
                    f"this index has the format version {found!r}, this retr reads version {FORMAT_VERSION}",
                    hint="upgrade retr, or build the index again",
                )
            return cls(
                uuid=data["uuid"],
                encoder=EncoderInfo.from_json(data["encoder"]),
                dtype=data["dtype"],
                schema=schemas.from_json(data["columns"]),
                created=data["created"],
                committed=data["committed"],
                version=data["version"],
                group=data["group"],
                segments=tuple(SegmentInfo.from_json(segment) for segment in data["segments"]),
                skipped=FileRef.from_json(data["skipped"]) if data["skipped"] else None,
                n_skipped=data["n_skipped"],
                files={name: FileRef.from_json(ref) for name, ref in data["files"].items()},
                extra=data["extra"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _corrupt(f"the manifest cannot be read: {type(error).__name__}") from error


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
        try:
            text = (root / name).read_bytes()
        except FileNotFoundError:
            # A writer may have committed, and removed the old manifest, between the two reads.
            if _current(root)[0] != name:
                continue
            raise _corrupt(f"the manifest {name!r} is missing") from None
        if hashlib.sha256(text).hexdigest() != digest:
            raise _corrupt(f"the manifest {name!r} was changed after it was written")
        return Manifest.from_bytes(text)


def _current(root: Path) -> tuple[str, str]:
    try:
        text = (root / CURRENT).read_text(errors="replace")
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
    return IndexCorruptError(message, hint="restore the index from a copy, or build it again")


def publish(root: Path, manifest: Manifest) -> None:
    """Make ``manifest`` the live one; every file it names is already on the disk."""
    for folder in (SEGMENTS, FILES):
        sync_folder(root / folder)
    text = manifest.to_bytes()
    replace_bytes(root / manifest.file, text)
    replace_bytes(root / CURRENT, f"{manifest.file} {hashlib.sha256(text).hexdigest()}\n".encode())
