"""Read a row's picture from its archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retr.index.errors import RetrError
from retr.retrieval.archive.locations import open_item
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.images import read_images
from retr.retrieval.read_options import FRAME

if TYPE_CHECKING:
    from retr.index.store import Store
    from retr.retrieval.images import Picture


def picture_of(store: Store, row_id: str, **reading: Any) -> Picture:
    """Read the picture a row was made from, decoded in full; ``reading`` as `picture_in` takes it.

    Raises
    ------
    UsageError
        No row has the id.
    RetrError
        The archive's place is not known on this machine, or the file is gone or no longer holds the picture.
    ImageReadError
        The file can no longer be read.
    """
    return picture_in(open_item(store, row_id), row_id, BuildNotes.of(store), **reading)


def picture_in(data: bytes, row_id: str, notes: BuildNotes, **reading: Any) -> Picture:
    """Find a row's picture among those of its file; ``reading`` as `retr.retrieval.images.read_images` takes it.

    Raises
    ------
    RetrError
        The file no longer holds the picture.
    ImageReadError
        The file can no longer be read.
    """
    found = FRAME.search(row_id)
    wanted = found[0] if found else ""
    # as the build read it, which also decided what may be read; all frames, for their names
    asked = {
        **notes.reading.by_name(),
        "frames": 1,
        "slices": "all",
        "allow_burned_in": True,
        "name": row_id,
        **reading,
    }
    for suffix, picture in read_images(data, **asked):
        # a neighbour of the row's frame in the same file is asked for by its number
        if suffix == wanted or asked.get("frame"):
            return picture
    raise RetrError(f"the file of {row_id!r} no longer holds this picture", hint="bring the index up to date")
