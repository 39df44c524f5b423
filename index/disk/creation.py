"""Making an index: a folder with a first manifest and no rows."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from retr.index.disk.current import exists, publish
from retr.index.disk.files import disk_errors
from retr.index.disk.lock import writer_lock
from retr.index.disk.manifest import LEAST_SHARDS, MOST_SHARDS, Manifest
from retr.index.disk.schema import ID
from retr.index.disk.shards import make_folders, point
from retr.index.errors import RetrError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from retr.index.disk.manifest import Dtype
    from retr.index.encoder import EncoderInfo


def create(
    root: Path, called: str, encoder: EncoderInfo, *, group: str | None, dtype: Dtype, shards: int = 1
) -> Manifest:
    """Write the first manifest of an index, and return it; see `Store.create`.

    Parameters
    ----------
    called
        What the caller named the folder, for an error.
    """
    if dtype not in {"float32", "float16"}:
        raise UsageError(f"vectors are stored as 'float32' or 'float16', got {dtype!r}")
    if encoder.dim < 1:
        raise UsageError(f"an embedding needs at least one dimension, got {encoder.dim!r}")
    now = timestamp()
    manifest = Manifest(
        uuid=str(uuid.uuid4()),
        encoder=encoder,
        dtype=dtype,
        schema=pa.schema([pa.field(ID, pa.string())]),
        created=now,
        committed=now,
        group=group,
        shards=number_of_shards(shards),
    )
    with disk_errors("making the index's folder"):
        make_folders(root, manifest)
    with writer_lock(root):
        if exists(root):
            raise RetrError(f"there is an index at {called!r} already", hint="add to it, or choose another place")
        with disk_errors("making the index"):
            manifest = publish(root, manifest)
            point(root, manifest)
    return manifest


def number_of_shards(asked: int) -> int:
    """Return what a manifest says of an index in so many shards: one shard is an ordinary index, which has none.

    Raises
    ------
    UsageError
        It is no number of shards.
    """
    if type(asked) is not int or not 1 <= asked <= MOST_SHARDS:
        raise UsageError(f"an index has from 1 to {MOST_SHARDS} shards, got: {asked!r}")
    return asked if asked >= LEAST_SHARDS else 0


def timestamp() -> str:
    """Return the present moment in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
