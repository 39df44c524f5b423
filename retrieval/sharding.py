"""Spreading the rows of an index over shards, and back into one folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike


@dataclass(frozen=True)
class Sharded:
    """What `shard` did.

    Attributes
    ----------
    rows
        How many rows each shard holds; of one folder, all.
    accelerators
        How many accelerators went with the rows that moved: search is exact there until it is tuned again.
    """

    rows: tuple[int, ...]
    accelerators: int


def shard(index: IndexLike, into: int) -> Sharded:
    """Spread the rows over so many folders, each an ordinary index, or with 1 bring them back into one.

    The rows of a patient lie in one shard (`retr.index.disk.shards`). Ids, vectors, metadata and answers stay as they
    are, to the bit. One commit changes over; with the number that the index has, rows that lie elsewhere than they
    should are brought to their shard.

    Parameters
    ----------
    into
        How many shards, from 1 to 1024.

    Raises
    ------
    UsageError
        It is no number of shards.
    IndexLockedError
        Another process is writing to the index.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> len(index.shard(3).rows), index.search(id="healthy/P01-left.png", k=1).ids
    (3, ['healthy/P11-right.png'])
    >>> index.shard(1).rows
    (24,)
    """
    with index.store.writer() as writer:
        before = _accelerators(writer.store)
        writer.shard(into)
        after = writer.commit()
    index.refresh()
    folders = dict.fromkeys(after.manifest.folders, 0)
    for info in after.manifest.segments:
        folders[info.folder] += info.rows - info.n_deleted
    return Sharded(tuple(folders.values()), before - _accelerators(after))


def _accelerators(store: Store) -> int:
    return sum(info.accelerator is not None for info in store.manifest.segments)
