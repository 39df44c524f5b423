"""What an index is told of its rows: which column tells patients apart, and what a case is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retr.retrieval.index_like import IndexLike


def set_group(index: IndexLike, column: str | None) -> None:
    """Declare the column that tells patients apart, or take the declaration back with ``None``.

    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> index.set_group("label")
    >>> index.info()["group"]
    'label'
    """
    from retr.retrieval.archive.column_types import require_group
    from retr.retrieval.archive.provenance import BuildNotes
    from retr.retrieval.novelty_renewal import renew

    require_group(column, BuildNotes.of(index.store).types)
    with index.store.writer() as writer:
        writer.set_group(column)
        writer.commit()
        renew(writer)
        writer.commit()
    index.refresh()


def set_item(index: IndexLike, rule: str | None) -> None:
    """Declare what a case is, or take the declaration back with ``None``; see `retr.index.rows.items`.

    Raises
    ------
    UsageError
        The index lacks a column of the rule.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> index.set_item("patient")
    >>> index.search(id="P00", item=True, k=2).cases
    ['P08', 'P06']
    """
    with index.store.writer() as writer:
        writer.set_item(rule)
        writer.commit()
    index.refresh()
