"""The manifest: which files and rows a committed version of an index consists of.

``manifests/00000012.json`` is written once and never changed; `retr.index.disk.current` makes one the live one.

A manifest may have been written by anybody, so it is checked: every value is of its type, every file it names has the
form of its role, and no file is named twice.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from retr.index.disk import row_arrays, side_data
from retr.index.disk import schema as schemas
from retr.index.disk.files import FileRef
from retr.index.disk.row_arrays import RowArray, RowLayout
from retr.index.disk.side_data import SideData, told_by_name
from retr.index.encoder import EncoderInfo
from retr.index.errors import FormatVersionError
from retr.index.json_fields import Fields, parse_json, stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

# The second has kinds of side data and row arrays, which a writer of the first would lose: what has none is of the
# first, for older readers to go on. The third has its rows in shards (`retr.index.disk.shards`).
FORMAT_VERSIONS = (1, 2, 3)
CURRENT = "CURRENT"
MANIFESTS = "manifests"
SEGMENTS = "segments"
FILES = "files"
SHARDS = "shards"

# The keys of the notes (`Manifest.extra`) that this package writes itself: what `tune` chose and measured,
TUNING = "tuning"
# how identifiers are hashed (`retr.index.rows.identity`),
IDENTIFIERS = "identifiers"
# and a purge, from the moment the rows are gone until the last of their files is: what is noted was not finished.
UNFINISHED_PURGE = "purge_unfinished"

Dtype = Literal["float32", "float16"]
MENDING = "restore the index from a copy, or build it again"
_UUID = re.compile("[0-9A-Za-z-]{1,64}")
# The most rows a segment can number, and dimensions a vector can have.
_MOST_ROWS, _MOST_DIMS = (1 << 31) - 1, 1 << 20
# Of shards more than one; each costs a folder and a manifest.
LEAST_SHARDS, MOST_SHARDS = 2, 1024
_STEM = "[0-9]{8,20}-[0-9a-f]{8}"
_NAME = re.compile(_STEM)
_FOLDER = rf"{SHARDS}/[0-9]{{4}}/"
_SHARD_FILE = re.compile(rf"{_FOLDER}{MANIFESTS}/[0-9]{{8,20}}\.json")
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
_ARRAY = re.compile(rf"{SEGMENTS}/{_STEM}\.rows-{row_arrays.NAME.pattern}\.npy")
# Every name that a writer gives a file; `retr.index.disk.sweep` removes those that no manifest holds on to.
_ONCE = [rf"{CURRENT}\.tmp", rf"{MANIFESTS}/[0-9]{{8,20}}\.json(?:\.tmp)?", _SIDE_FILE.pattern]
_IN_A_FOLDER = "|".join(_ONCE + [form.pattern for form in (*_FORMS.values(), _ARRAY)])
OURS = re.compile(rf"journal\.jsonl\.tmp|{_IN_A_FOLDER}|{_FOLDER}(?:{CURRENT}|lock|{_IN_A_FOLDER})")


def shard_folder(number: int) -> str:
    """Return the folder of a shard, relative to the index, with a slash at its end."""
    return f"{SHARDS}/{number:04d}/"


@dataclass(frozen=True)
class SegmentInfo:
    """What the manifest records of one segment.

    ``rows`` counts deleted rows too; ``max_norm`` is the largest Euclidean norm among its stored vectors (it bounds
    the rounding error of a score). ``ids`` finds rows by id; ``deleted`` names a sorted int64 ``.npy`` of the
    segment's deleted row numbers; ``accelerator`` a faiss index over its vectors, without which search is exact;
    ``columns`` the memory-mapped form of the columns that filters read, which all but the smallest segments have;
    ``arrays`` the ``.npy`` of each row array of the index.
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
    arrays: Mapping[str, FileRef] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folder of its files, relative to the index: empty, or that of a shard."""
        return self.table.file[: self.table.file.rindex(f"{SEGMENTS}/")]

    def moved(self, folder: str) -> SegmentInfo:
        """Return what is recorded of it where its files lie in another folder."""
        here = self.folder

        def there(ref: FileRef) -> FileRef:
            return replace(ref, file=folder + ref.file.removeprefix(here))

        refs: dict[str, Any] = {role: there(ref) for role in _FORMS if (ref := getattr(self, role)) is not None}
        return replace(self, **refs, arrays={name: there(ref) for name, ref in self.arrays.items()})

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
        yield from self.arrays.values()

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form."""
        return {
            **({"arrays": {name: ref.to_json() for name, ref in self.arrays.items()}} if self.arrays else {}),
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
        arrays = fields.inner("arrays", {})
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
            arrays={name: FileRef.from_json(arrays.inner(name).data(), _array_form(name)) for name in arrays},
        )
        if _NAME.fullmatch(found.name) is None or found.max_norm < 0:
            raise ValueError("a segment without a name of ours, or with a norm below zero")
        return found


def _array_form(name: str) -> re.Pattern[str]:
    return _form(f"rows-{name}.npy")


def _there(ref: FileRef | None) -> FileRef:
    if ref is None:
        raise ValueError("a segment lacks a file")
    return ref


@dataclass(frozen=True)
class Manifest:
    """One committed state of an index.

    ``extra`` holds what the layers above note (adapters, calibration, tuning): JSON values under a key each;
    ``files`` their sidecar files by name; ``side_data`` says which of both are of which kind, beside those that format
    version 1 knew by name, and ``row_arrays`` which arrays every segment has. ``skipped`` names a Parquet table of what
    was not indexed and why. ``shards`` says over how many shards the rows are spread, 0 for none, and ``shard_files``
    names the manifest of each; ``segments`` are those of all, shard by shard. ``item`` says what a case is, where that
    was declared (`retr.index.rows.items`).
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
    side_data: Mapping[str, SideData] = field(default_factory=dict)
    row_arrays: Mapping[str, RowArray] = field(default_factory=dict)
    shards: int = 0
    shard_files: tuple[FileRef, ...] = ()
    item: str | None = None

    @property
    def folders(self) -> list[str]:
        """The folders that files of its rows may lie in: those of the shards, or the index's own."""
        return [shard_folder(number) for number in range(self.shards)] or [""]

    @property
    def format_version(self) -> int:
        """The lowest format version that holds all of this."""
        return 3 if self.shards else 2 if self.side_data or self.row_arrays else 1

    @property
    def layout(self) -> RowLayout:
        """What each row has beside its metadata."""
        return RowLayout(self.encoder.dim, self.dtype, self.row_arrays)

    @property
    def file(self) -> str:
        """Path of the manifest itself, relative to the index."""
        return f"{MANIFESTS}/{self.version:08d}.json"

    def refs(self) -> list[FileRef]:
        """Return every file this state consists of, beside the manifest itself."""
        refs = [ref for segment in self.segments for ref in segment.refs()]
        if self.skipped is not None:
            refs.append(self.skipped)
        return [*refs, *self.files.values(), *self.shard_files]

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
            "format_version": self.format_version,
            "group": self.group,
            "n_skipped": self.n_skipped,
            # those of shards stand in the shards' own manifests
            "segments": [] if self.shards else [segment.to_json() for segment in self.segments],
            "similarity": self.encoder.similarity,
            "skipped": self.skipped.to_json() if self.skipped else None,
            "uuid": self.uuid,
            "version": self.version,
        }
        if self.format_version > 1:
            data["side_data"] = {name: one.to_json() for name, one in self.side_data.items()}
            data["row_arrays"] = {name: one.to_json() for name, one in self.row_arrays.items()}
        if self.item is not None:
            data["item"] = self.item
        if self.shards:
            data["shards"] = [ref.to_json() for ref in self.shard_files]
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
        with stored("the manifest", MENDING):
            fields = Fields(parse_json(text))
            found = fields.whole("format_version", most=1 << 62)
            if found not in FORMAT_VERSIONS:
                raise FormatVersionError(
                    f"this index has the format version {found!r}, this retr reads versions "
                    + " and ".join(map(str, FORMAT_VERSIONS)),
                    hint="upgrade retr, or build the index again",
                )
            files = fields.inner("files")
            # what a writer of version 1 never wrote, its readers do not read
            kinds, arrays = (fields.inner(key) if found > 1 else Fields({}) for key in ("side_data", "row_arrays"))
            shards = tuple(FileRef.from_json(one, _SHARD_FILE) for one in (fields.items("shards") if found > 2 else []))
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
                side_data={name: SideData.from_json(kinds.inner(name).data()) for name in kinds},
                row_arrays={name: RowArray.from_json(arrays.inner(name).data()) for name in arrays},
                shards=len(shards),
                shard_files=shards,
                item=fields.text("item") if fields.has("item") else None,
            )
            manifest.require_sense()
            if found > 2 and (not LEAST_SHARDS <= len(shards) <= MOST_SHARDS or manifest.segments):
                raise ValueError("too few shards, or too many, or rows outside of them")
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
        if any(not ref.file.startswith(shard_folder(number)) for number, ref in enumerate(self.shard_files)):
            raise ValueError("shards in another order, or the same one twice")
        self._require_kinds()

    def _require_kinds(self) -> None:
        kinds = [*self.side_data, *(array.kind for array in self.row_arrays.values())]
        if not all(side_data.NAME.fullmatch(name) for name in kinds):
            raise ValueError("a kind without a name")
        for named, there in (("files", self.files), ("notes", self.extra)):
            names = [name for kind in self.side_data.values() for name in getattr(kind, named)]
            if len(set(names)) < len(names) or not set(names) <= there.keys():
                raise ValueError(f"{named} of two kinds, or that are not there")
        if any(map(told_by_name, (name for kind in self.side_data.values() for name in (*kind.files, *kind.notes)))):
            raise ValueError("what version 1 knows by its name is of that kind")
        if not all(map(row_arrays.NAME.fullmatch, self.row_arrays)):
            raise ValueError("a row array without a name")
        if any(segment.arrays.keys() != self.row_arrays.keys() for segment in self.segments):
            raise ValueError("a segment with other row arrays than the index")


def is_accelerator(ref: FileRef) -> bool:
    """Return whether a file is one that an index can do without."""
    return ref.file.endswith(".faiss")
