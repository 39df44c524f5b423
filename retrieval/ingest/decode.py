"""Read, hash, decode and prepare one file, in a worker thread; for one index, or once for several."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from retr.index.errors import ImageReadError
from retr.index.machine.hash_key import keyed_hash
from retr.retrieval.archive.sources import UNTOLD, Item, Skipped, Source, reason_of
from retr.retrieval.images import read_images
from retr.retrieval.images.dicom_identity import file_identifiers, stated_identifiers
from retr.retrieval.images.dicom_open import is_dicom
from retr.retrieval.images.raster import decoded_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.read_options import ReadOptions
    from retr.retrieval.regions.layout import Layout


@dataclass
class Frame:
    """One picture of a file: the network's input until it is embedded, then its vector.

    ``suffix`` is what its id has after the file's path: empty, or ``#3`` for the third frame. Of an index with regions,
    ``parts`` are their inputs until they are embedded, and ``regions`` their vectors ``(regions, d)``.
    """

    suffix: str
    width: int
    height: int
    mode: str
    columns: dict[str, Any]
    prepared: NDArray[Any] | None
    vector: NDArray[np.float32] | None = None
    parts: list[NDArray[Any]] = field(default_factory=list)
    regions: NDArray[np.float32] | None = None


@dataclass
class Read:
    """One file that was read: its pictures, or the rows of the index that hold the same bytes.

    ``stated`` are the hashed identifiers of a DICOM header, of a file that the index has rows of or that was read away
    from the index; ``identifiers`` the real ones, where they are kept.
    """

    item: Item
    size: int
    mtime: float
    sha256: str
    frames: list[Frame] = field(default_factory=list)
    same: tuple[int, ...] = ()
    stated: dict[str, str] = field(default_factory=dict)
    identifiers: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows the file gives."""
        return len(self.same) or len(self.frames)


@dataclass(frozen=True)
class Unchanged:
    """One file that was read again and holds what its rows were made from."""

    item: Item
    sha256: str
    rows: int
    identifiers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Decoder:
    """Reads items of a source for an encoder; safe to call from several threads.

    Attributes
    ----------
    source, encoder
        Where from, and for whom.
    key
        Gives the key of hashed identifiers; asked for when the first file has some.
    holds
        Says whether an item's rows were made from the bytes of a sha256.
    same_bytes
        Gives, for a sha256, the rows of the index that hold these bytes, none where there are none.
    reading
        How files are read.
    keep
        Whether the real identifiers of a file are kept.
    layout
        The regions that are embedded, too.
    """

    source: Source
    encoder: BaseEncoder
    key: Callable[[], bytes]
    holds: Callable[[Item, str], bool]
    same_bytes: Callable[[str], tuple[int, ...]]
    reading: ReadOptions
    keep: bool = False
    layout: Layout | None = None

    def fetch(self, item: Item) -> tuple[bytes, int, float]:
        """Return the bytes of an item, how many there are, and when they changed."""
        if item.data is not None:
            return item.data, item.size, item.mtime
        data, size, changed = self.source.read(item.path)
        return data, size, item.mtime if changed is None else changed

    def known(self, read: Read, data: bytes | None, rows: int) -> Read | Unchanged | None:
        """Return what the index has of these bytes already, None where it has nothing; they may have been elsewhere."""
        item = read.item
        as_listed = item.size in {UNTOLD, read.size} and read.mtime == item.mtime
        if rows and as_listed and self.holds(item, read.sha256):
            return Unchanged(item, read.sha256, rows, read.identifiers)
        same = self.same_bytes(read.sha256)
        if not same:
            return None
        return replace(read, frames=[], same=same, stated=read.stated if data is None else self.stated(data))

    def identifiers(self, item: Item, data: bytes) -> Mapping[str, str]:
        """Return the real identifiers of a file, where they are kept."""
        return (item.identifiers or file_identifiers(data)) if self.keep else {}

    def options(self, data: bytes) -> dict[str, Any]:
        """Return how the pictures of a file are read."""
        info = self.encoder.info
        return {
            **self.reading.by_name(),
            "draft_size": info.draft_size,
            "grey16": info.grey16,
            "hash_key": self.key() if is_dicom(data[:132]) else None,
        }

    def stated(self, data: bytes) -> dict[str, str]:
        """Return the hashed identifiers of a DICOM header: rows of the same bytes may have those of a table instead."""
        return {column: keyed_hash(self.key(), value) for column, value in stated_identifiers(data).items()}


def read_for(asking: Sequence[tuple[Decoder, Item, int]]) -> list[Read | Unchanged | Skipped]:
    """Read one file once for every index that asks for it; whatever is wrong with it becomes a record.

    It is decoded once for all encoders for which its pictures come out the same to the last bit as when each reads them
    alone, and once more for the others.

    Parameters
    ----------
    asking
        For each index its decoder, the item, and how many rows the index has of it where it looks unchanged and is read
        to make sure.

    Returns
    -------
    list
        What came of it, for each index.
    """
    decoder, item, _ = asking[0]
    try:
        data, size, mtime = decoder.fetch(item)
    except OSError as error:
        return [Skipped(one.path, reason_of(error), max(one.size, 0), one.mtime) for _, one, _ in asking]
    except ImageReadError as error:
        return [Skipped(one.path, error.reason, max(one.size, 0), one.mtime) for _, one, _ in asking]
    sha256 = hashlib.sha256(data).hexdigest()
    # what waits for its commit holds no bytes
    reads = [
        Read(replace(one, data=None), size, mtime, sha256, identifiers=own.identifiers(one, data))
        for own, one, _ in asking
    ]
    found: list[Read | Unchanged | Skipped | None] = [
        own.known(read, data, rows) for (own, _, rows), read in zip(asking, reads, strict=True)
    ]
    for numbers in _alike(data, {number: asking[number][0] for number, one in enumerate(found) if one is None}):
        decoders = [asking[number][0] for number in numbers]
        try:
            frames = _frames(data, decoders)
        except ImageReadError as error:
            for number in numbers:
                found[number] = Skipped(item.path, error.reason, size, mtime, was_read=True)
            continue
        for number, own_frames in zip(numbers, frames, strict=True):
            found[number] = replace(reads[number], frames=own_frames)
    return [one for one in found if one is not None]


def _alike(data: bytes, decoders: dict[int, Decoder]) -> list[list[int]]:
    """Divide decoders, by their numbers, into those for which the pictures of a file come out the same."""
    if len(decoders) < 2:
        return [[number] for number in decoders]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, decoder in decoders.items():
        how = decoder.options(data)
        # only JPEGs are reduced, in few steps: other sizes asked for may come to one
        reduced = decoded_size(data, None if how["exact_decode"] else how["draft_size"])
        key = (*(value for name, value in how.items() if name not in {"exact_decode", "draft_size"}), reduced)
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def _frames(data: bytes, decoders: Sequence[Decoder]) -> list[list[Frame]]:
    """Decode a file as the first of several reads it; prepare its pictures for each."""
    frames: list[list[Frame]] = [[] for _ in decoders]
    for suffix, picture in read_images(data, **decoders[0].options(data)):
        shape = (suffix, picture.width, picture.height, picture.mode)
        for decoder, own in zip(decoders, frames, strict=True):
            own.append(Frame(*shape, dict(picture.columns), decoder.encoder.compact(picture.image)))
    for decoder, own in zip(decoders, frames, strict=True):
        if decoder.layout is not None:
            # parts of a reduced picture would be smaller than the network looks at
            how = {**decoder.options(data), "draft_size": None}
            for frame, (_, picture) in zip(own, read_images(data, **how), strict=True):
                frame.parts = [decoder.encoder.compact(part) for part in decoder.layout.crops(picture.image)]
    return frames
