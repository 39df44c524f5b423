"""Delete or purge rows: from the index, its side data, and this machine's state.

What is left of side data each kind says for itself (`retr.index.disk.side_data`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retr.index.errors import UsageError
from retr.index.listed import listed
from retr.index.rows.purge import matching
from retr.index.rows.row_ids import unknown_id
from retr.retrieval.archive import locations
from retr.retrieval.archive.kept_identifiers import KeptIdentifiers
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.ingest import file_states
from retr.retrieval.novelty import noted_sketch
from retr.retrieval.novelty_renewal import renew

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike


@dataclass(frozen=True)
class Deleted:
    """What `delete` did: rows deleted, records of skipped files forgotten, and what a purge dropped, a phrase each."""

    rows: int
    skipped: int = 0
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChosenRows:
    """What ids and a condition name: live rows (int64), and records of files that could not be read (bool)."""

    rows: NDArray[np.int64]
    skipped: NDArray[np.bool_]

    @classmethod
    def of(cls, store: Store, ids: Sequence[str] | None, where: str | None) -> ChosenRows:
        """Find them.

        Raises
        ------
        UsageError
            Neither ``ids`` nor ``where`` is given, or an id is unknown.
        FilterError
            ``where`` cannot be read or applied.
        """
        if ids is None and where is None:
            raise UsageError("neither ids nor a condition is given", hint="name rows by id or with where")
        record = store.skipped()
        rows, skipped = np.zeros(store.n_total, bool), np.zeros(record.num_rows, bool)
        if where is not None:
            rows |= store.where(where)
            skipped |= matching(record, where, store.schema)
        if ids is not None:
            ids = listed(ids, "ids")
            found = store.rows_of(ids)
            paths = record.column("path").to_pylist()
            unread = set(paths).intersection(ids)
            absent = [id_ for id_, row in zip(ids, found, strict=True) if row < 0 and id_ not in unread]
            if absent:
                raise unknown_id(store, absent[0])
            rows[found[found >= 0]] = True
            skipped |= np.fromiter((path in unread for path in paths), bool, len(paths))
        return cls(np.flatnonzero(rows), skipped)


def delete(
    index: IndexLike,
    *,
    ids: Sequence[str] | None = None,
    where: str | None = None,
    purge: bool = False,
) -> Deleted:
    """Delete rows by id, by condition, or by both; with ``purge`` for good.

    Parameters
    ----------
    ids
        Ids of rows; one that is not there is an error, and nothing is deleted. A purge also takes paths of files that
        could not be read.
    where
        A condition over the metadata; over ``path`` a purge applies it to the files that could not be read, too.
    purge
        Leave nothing of these rows, and of those deleted before, in any file of the index.

    Raises
    ------
    UsageError
        Neither ``ids`` nor ``where`` is given, or an id is unknown.
    RetrError
        A purge is refused: the index holds a head fitted on these rows. Nothing is deleted then.
    """
    index.refresh()
    store = index.store
    chosen = ChosenRows.of(store, ids, where)
    if not purge:
        if len(chosen.rows):
            with store.writer() as writer:
                writer.delete(_same_rows(store, writer.store, chosen.rows))
                writer.commit()
                renew(writer)
                writer.commit()
            index.refresh()
        return Deleted(len(chosen.rows))
    with store.writer() as writer:
        # another writer may have committed between the two looks
        chosen = ChosenRows.of(writer.store, ids, where)
        sources = BuildNotes.of(writer.store).sources
        measured = noted_sketch(writer.store) is not None
        writer.delete(chosen.rows)
        file_states.forget_states(store.uuid)
        done = writer.purge(skipped=chosen.skipped)
        renew(writer, first=measured)
        writer.commit()
        left = BuildNotes.of(writer.store).sources
        # vectors that were made elsewhere may have none
        paths = writer.store.table(["path"])["path"].to_pylist() if "path" in writer.store.schema.names else []
    KeptIdentifiers(store.uuid).retain(paths)
    for name in set(sources) - set(left):
        locations.forget_source(store.uuid, name)
    index.refresh()
    return Deleted(len(chosen.rows), done.skipped, done.dropped)


def _same_rows(old: Store, new: Store, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find rows of a snapshot in a newer one, which may number them otherwise."""
    if new.version == old.version:
        return rows
    found = new.rows_of(old.table(["id"], rows).column("id").to_pylist())
    return found[found >= 0]
