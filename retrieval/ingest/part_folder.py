"""The parts of a build on disk, each in a folder of its own beside the index that they are to become.

::

    fundus.retr.parts/0003-of-0008/000000051f9a60c2.unit   some files, read and embedded (`staged`)
    fundus.retr.parts/0003-of-0008/part.json               written last: what the part is of, and which units it has

A file's part is a hash of its path, so every job finds its own by listing the archive, and needs no other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from retr.index.disk.files import disk_errors, regular
from retr.index.encoder import EncoderInfo
from retr.index.errors import IndexCorruptError, UsageError
from retr.index.json_fields import Fields, parse_json, stored
from retr.index.machine.whole_file import write_whole
from retr.index.rows.placing import shard_of
from retr.retrieval.ingest.staged import Unit, mark_of, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from retr.retrieval.archive.sources import Item

MOST_PARTS = 9999
RECORD = "part.json"
_FOLDER = re.compile(r"(?P<number>[0-9]{4})-of-(?P<of>[0-9]{4})")
_UNIT = re.compile(r"[0-9a-f]{16}\.unit")
_SPELLED = re.compile(r"(?P<number>[0-9]{1,4})/(?P<of>[0-9]{1,4})")


def parts_folder(index: Path) -> Path:
    """Return the folder beside an index in which its parts are."""
    return index.with_name(f"{index.name}.parts")


@dataclass(frozen=True)
class Part:
    """One of so many parts of an archive.

    >>> Part.spelled("3/8")
    Part(number=3, of=8)
    >>> [part for part in (1, 2) if Part(part, 2).holds("healthy/P01.png")]
    [1]
    """

    number: int
    of: int

    @classmethod
    def spelled(cls, text: str) -> Self:
        """Read ``3/8``; `UsageError` for anything that is no part."""
        found = _SPELLED.fullmatch(str(text).strip())
        part = cls(int(found["number"]), int(found["of"])) if found else None
        if part is None or not 1 <= part.number <= part.of <= MOST_PARTS:
            hint = "1/8 is the first of eight; of an array job, --part $SLURM_ARRAY_TASK_ID/8"
            raise UsageError(
                f"a part is NUMBER/OF, at least 1/1 and at most {MOST_PARTS} parts, got: {text!r}", hint=hint
            )
        return part

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def holds(self, path: str) -> bool:
        """Return whether a file is of this part."""
        return shard_of(path, self.of) == self.number - 1

    def folder(self, index: Path) -> Path:
        """Return where it is kept."""
        return parts_folder(index) / f"{self.number:04d}-of-{self.of:04d}"


@dataclass
class Listing:
    """What an archive's listing says of the files of a part, in any order: how many, and a sum of their marks."""

    files: int = 0
    marks: int = 0

    def add(self, item: Item) -> int:
        """Take a file in; return its mark."""
        mark = mark_of(state_of(item))
        self.files, self.marks = self.files + 1, (self.marks + mark) % (1 << 64)
        return mark


@dataclass(frozen=True)
class PartRecord:
    """What a finished part says of itself.

    Attributes
    ----------
    part
        Which it is.
    archive
        Where the archive lay.
    encoder, batch, device
        Who embedded, how many pictures at once, and on what.
    settings
        What decides the rows of a file, see `settings_of`.
    asked
        The options of the build, by name.
    listing
        Of the archive.
    key
        The fingerprint of the key of hashed identifiers, empty where there are none.
    units
        The sha256 of each unit, by the file's name.
    """

    part: Part
    archive: str
    encoder: EncoderInfo
    batch: int
    settings: dict[str, Any]
    asked: dict[str, Any]
    listing: Listing
    key: str = ""
    units: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it, durably: from here on the part is finished."""
        text = {
            "format_version": 1,
            "part": str(self.part),
            "archive": self.archive,
            "encoder": self.encoder.to_json(),
            "batch": self.batch,
            "settings": self.settings,
            "asked": self.asked,
            "files": self.listing.files,
            "marks": f"{self.listing.marks:016x}",
            "key": self.key,
            "units": self.units,
        }
        write_whole(folder / RECORD, json.dumps(text, indent=1, sort_keys=True).encode(), durable=True)

    @classmethod
    def read(cls, folder: Path, part: Part) -> Self | None:
        """Read the record of a part; ``None`` where it is not finished, `IndexCorruptError` where it is none."""
        try:
            regular(folder, RECORD)
            data = (folder / RECORD).read_bytes()
        except FileNotFoundError:
            return None
        with stored(f"the record of part {part}", f"remove it, and build the part again with --part {part}"):
            given = Fields(parse_json(data))
            units = given.inner("units")
            found = cls(
                part=Part.spelled(given.text("part")),
                archive=given.text("archive"),
                encoder=EncoderInfo.from_json(given.inner("encoder").data()),
                batch=given.whole("batch", least=1),
                settings=given.inner("settings").data(),
                asked=given.inner("asked").data(),
                listing=Listing(given.whole("files"), int(given.text("marks"), 16)),
                key=given.text("key"),
                units={name: units.text(name) for name in units},
            )
            if given.whole("format_version") != 1 or found.part != part or not all(map(_UNIT.fullmatch, found.units)):
                raise ValueError("the record of another part")
            return found


def unit_name(number: int) -> str:
    """Return a name for the new unit behind so many others: what stands last of a file counts."""
    return f"{number:08x}{os.urandom(4).hex()}.unit"


def unit_names(folder: Path) -> list[str]:
    """Return the units that lie in a part's folder, finished or not."""
    return sorted(entry.name for entry in os.scandir(folder) if _UNIT.fullmatch(entry.name))


def read_unit(folder: Path, name: str, sha256: str | None = None) -> Unit:
    """Map a unit; `IndexCorruptError` where it is none, is gone, or has another sha256."""
    try:
        regular(folder, name)
        with disk_errors("reading a part of the build"), pa.memory_map(str(folder / name)) as file:
            data = file.read_buffer()
    except FileNotFoundError:
        raise _damaged(folder, "is missing") from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise _damaged(folder, "was changed after it was written")
    return Unit.of(data)


def _damaged(folder: Path, what: str) -> IndexCorruptError:
    found = _FOLDER.fullmatch(folder.name)
    part = f"{int(found['number'])}/{int(found['of'])}" if found else folder.name
    return IndexCorruptError(f"a file of part {part} {what}", hint=f"build the part again with --part {part}")


def found_parts(index: Path) -> Iterator[Part]:
    """Yield the parts that were begun beside an index."""
    try:
        names = sorted(entry.name for entry in os.scandir(parts_folder(index)) if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        if found := _FOLDER.fullmatch(name):
            yield Part(int(found["number"]), int(found["of"]))
