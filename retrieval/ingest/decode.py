"""Read, hash, decode and prepare one file, in a worker thread."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from retr.index.errors import ImageReadError
from retr.index.machine.hash_key import keyed_hash
from retr.retrieval.archive.sources import Item, Skipped, Source, reason_of
from retr.retrieval.images import read_images
from retr.retrieval.images.dicom_identity import stated_identifiers
from retr.retrieval.images.dicom_open import is_dicom

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.read_options import ReadOptions


@dataclass
class Frame:
    """One picture of a file: the network's input until it is embedded, then its vector.

    ``suffix`` is what its id has after the file's path: empty, or ``#3`` for the third frame.
    """

    suffix: str
    width: int
    height: int
    mode: str
    columns: dict[str, Any]
    prepared: NDArray[Any] | None
    vector: NDArray[np.float32] | None = None


@dataclass
class Read:
    """One file that was read: its pictures, or the rows of the index that hold the same bytes.

    ``stated`` are the hashed identifiers of a DICOM header, of a file that the index has rows of.
    """

    item: Item
    size: int
    mtime: float
    sha256: str
    frames: list[Frame] = field(default_factory=list)
    same: tuple[int, ...] = ()
    stated: dict[str, str] = field(default_factory=dict)

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
    """

    source: Source
    encoder: BaseEncoder
    key: Callable[[], bytes]
    holds: Callable[[Item, str], bool]
    same_bytes: Callable[[str], tuple[int, ...]]
    reading: ReadOptions

    def __call__(self, item: Item, rows: int = 0) -> Read | Unchanged | Skipped:
        """Read one item; whatever is wrong with it becomes a record.

        Parameters
        ----------
        rows
            How many rows the index has of the item where it looks unchanged and is read to make sure.
        """
        try:
            if item.data is not None:
                data, size, mtime = item.data, item.size, item.mtime
            else:
                data, size, changed = self.source.read(item.path)
                mtime = item.mtime if changed is None else changed
        except OSError as error:
            return Skipped(item.path, reason_of(error), item.size, item.mtime)
        except ImageReadError as error:
            return Skipped(item.path, error.reason, item.size, item.mtime)
        sha256 = hashlib.sha256(data).hexdigest()
        item = replace(item, data=None)  # what waits for its commit holds no bytes
        if rows and (size, mtime) == (item.size, item.mtime) and self.holds(item, sha256):
            return Unchanged(item, sha256, rows)
        same = self.same_bytes(sha256)
        if same:
            return Read(item, size, mtime, sha256, same=same, stated=self._stated(data))
        try:
            return Read(item, size, mtime, sha256, frames=self._frames(data))
        except ImageReadError as error:
            return Skipped(item.path, error.reason, size, mtime, was_read=True)

    def _stated(self, data: bytes) -> dict[str, str]:
        """Return the hashed identifiers of a DICOM header: rows of the same bytes may have those of a table instead."""
        return {column: keyed_hash(self.key(), value) for column, value in stated_identifiers(data).items()}

    def _frames(self, data: bytes) -> list[Frame]:
        info = self.encoder.info
        pictures = read_images(
            data,
            **self.reading.by_name(),
            draft_size=info.draft_size,
            grey16=info.grey16,
            hash_key=self.key() if is_dicom(data[:132]) else None,
        )
        return [
            Frame(
                suffix,
                picture.width,
                picture.height,
                picture.mode,
                dict(picture.columns),
                self.encoder.compact(picture.image),
            )
            for suffix, picture in pictures
        ]
