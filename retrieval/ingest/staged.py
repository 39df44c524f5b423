"""A unit of a build: some files as they were read and embedded, as the bytes of one Arrow file.

A line a file: what was read, as JSON, and the vectors of its pictures one behind the other. The file's own metadata say
with which settings it was made (`settings_of`), and with which key identifiers were hashed: units of other settings, or
of another key, never meet.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.json_fields import Fields, stored
from retr.retrieval.archive.sources import Item, Skipped
from retr.retrieval.ingest.decode import Frame, Read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.ingest.away import How

_SCHEMA = pa.schema([("record", pa.string()), ("vectors", pa.list_(pa.float32()))])
_SETTINGS, _KEY = b"settings", b"key"
_DAMAGED = ("a unit of a build", "remove the folder of its part and build that part again")
# what an encoder's information says beside what decides its vectors
_FOR_PEOPLE = {"device", "licence", "source", "noncommercial", "modality"}


def settings_of(encoder: BaseEncoder, how: How, image_column: str | None, index: Store | None) -> dict[str, Any]:
    """Return what decides the rows that files become, JSON-ready; of an index that is there which state it is in."""
    from retr import __version__

    info = encoder.info.to_json()
    return {
        "retr": __version__,
        "encoder": {name: value for name, value in info.items() if name not in _FOR_PEOPLE},
        "batch": encoder.batch_size,
        "reading": {name: value for name, value in how.reading.by_name().items() if name != "given"},
        "scores": list(how.scores),
        "image_column": image_column,
        "index": None if index is None else [index.uuid, index.version],
    }


def digest(settings: dict[str, Any]) -> str:
    """Return the sha256 of settings.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def mark_of(listed: tuple[str, int, float, str | None]) -> int:
    """Return 64 bits that stand for what the archive's listing says of a file, the same on every machine.

    >>> mark_of(("a.png", 3, 1.0, None)) == mark_of(("a.png", 3, 2.0, None))
    False
    """
    return int.from_bytes(hashlib.blake2b(json.dumps(listed).encode(), digest_size=8).digest(), "little")


def state_of(item: Item) -> tuple[str, int, float, str | None]:
    """Return what the archive's listing says of a file: path, size, time of change and mark."""
    return item.path, item.size, float(item.mtime), item.mark


def to_bytes(items: Sequence[Item], found: Sequence[Read | Skipped], settings: str, key: str | None) -> bytes:
    """Return the bytes of a unit.

    Parameters
    ----------
    items
        As the archive listed them.
    found
        What came of each.
    settings
        The `digest` of the settings.
    key
        The fingerprint of the key with which identifiers are hashed, where some are.
    """
    records, vectors = [], []
    for item, one in zip(items, found, strict=True):
        record: dict[str, Any] = {"listed": state_of(item), "stamp": _hashed(item.stamp)}
        frames: list[Frame] = []
        if isinstance(one, Skipped):
            record["skipped"] = {key: value for key, value in asdict(one).items() if key != "path"}
        else:
            frames = one.frames
            record |= {"size": one.size, "mtime": one.mtime, "sha256": one.sha256, "stated": one.stated}
            record["frames"] = [
                [frame.suffix, frame.width, frame.height, frame.mode, frame.columns] for frame in frames
            ]
        records.append(json.dumps(record))
        vectors.append(np.concatenate([np.empty(0, np.float32), *(frame.vector for frame in frames)]))
    schema = _SCHEMA.with_metadata({_SETTINGS: settings.encode(), _KEY: (key or "").encode()})
    offsets = np.cumsum([0, *map(len, vectors)], dtype=np.int32)
    flat = np.concatenate([np.empty(0, np.float32), *vectors])
    lines = [pa.array(records, pa.string()), pa.ListArray.from_arrays(offsets, flat)]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(lines, schema=schema))
    data: bytes = sink.getvalue().to_pybytes()
    return data


@dataclass(frozen=True)
class Unit:
    """A unit that was read back.

    Attributes
    ----------
    settings
        The digest of what it was made with.
    key
        The fingerprint of the key of hashed identifiers, empty where there are none.
    """

    settings: str
    key: str
    _records: pa.Array
    _vectors: pa.Array

    @classmethod
    def of(cls, data: bytes | pa.Buffer) -> Unit:
        """Read the bytes of one; `IndexCorruptError` for anything else."""
        with stored(*_DAMAGED):
            file = pa.ipc.open_file(data if isinstance(data, pa.Buffer) else pa.py_buffer(data))
            if file.schema.remove_metadata() != _SCHEMA or file.num_record_batches != 1:
                raise ValueError("no unit")
            lines, notes = file.get_batch(0), file.schema.metadata or {}
            lines.validate(full=True)
            return cls(notes[_SETTINGS].decode(), notes[_KEY].decode(), lines.column(0), lines.column(1))

    def __len__(self) -> int:
        return len(self._records)

    def listed(self, at: int) -> tuple[str, int, float, str | None]:
        """Return what the archive's listing said of a file, see `state_of`."""
        with stored(*_DAMAGED):
            path, size, mtime, mark = self._record(at)["listed"]
            return path, size, mtime, mark

    def skipped(self, at: int) -> bool:
        """Return whether a file could not be read."""
        return "skipped" in self._record(at)

    def lasting(self, at: int) -> bool:
        """Return whether a file was read, rather than out of reach for the moment."""
        return bool(self._record(at).get("skipped", {"was_read": True})["was_read"])

    def found(self, at: int, item: Item, dim: int) -> Read | Skipped:
        """Return what came of a file that the archive lists as ``item``, with vectors of ``dim`` numbers."""
        with stored(*_DAMAGED):
            given = Fields(record := self._record(at))
            if given.has("skipped"):
                why = given.inner("skipped")
                was_read = why.flag("was_read")
                return Skipped(item.path, why.text("reason"), why.whole("size"), why.number("mtime"), was_read)
            vectors: NDArray[np.float32] = self._vectors[at].values.to_numpy().reshape(-1, dim)
            make = partial(Frame, prepared=None)
            frames = [make(*one, vector=vector) for one, vector in zip(record["frames"], vectors, strict=True)]
            stated = given.inner("stated").data()
            facts = given.whole("size"), float(given.number("mtime")), given.text("sha256")
            # of a file that was replaced meanwhile nothing is remembered: the next build looks at it again
            stamp = item.stamp if record["stamp"] == _hashed(item.stamp) else None
            return Read(replace(item, data=None, stamp=stamp), *facts, frames=frames, stated=dict(stated))

    def _record(self, at: int) -> dict[str, Any]:
        with stored(*_DAMAGED):
            record: dict[str, Any] = json.loads(self._records[at].as_py())
            return record


def _hashed(stamp: str | None) -> str | None:
    return None if stamp is None else hashlib.blake2b(stamp.encode(), digest_size=8).hexdigest()
