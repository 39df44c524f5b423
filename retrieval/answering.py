"""A search, from queries to hits: what `Index.search` does once it is known what is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from retr.index.accelerators.config import with_effort
from retr.index.errors import UsageError
from retr.index.plan import require_k
from retr.retrieval.encoders.index_encoder import RecordedEncoder
from retr.retrieval.exclude import same_rows
from retr.retrieval.hits import Hits
from retr.retrieval.notices import add_remarks
from retr.retrieval.query import resolve
from retr.retrieval.query_identity import own_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retr.index.store import Store
    from retr.retrieval.exclude import Same
    from retr.retrieval.index import Index
    from retr.retrieval.query import Query


class SearchOptions(TypedDict, total=False):
    """What `Index.search` takes beside the question; its docstring says what each means."""

    k: int
    where: str | None
    exclude_same: Same
    strict_exclude: bool
    one_per: str | None
    min_score: float | None
    include_self: bool
    exact: bool
    effort: int | None
    offset: int | None
    columns: Sequence[str] | None


def answer(
    index: Index,
    queries: Sequence[Query],
    *,
    k: int,
    where: str | None,
    exclude_same: Same,
    strict_exclude: bool,
    one_per: str | None,
    min_score: float | None,
    include_self: bool,
    exact: bool,
    effort: int | None,
    offset: int | None,
    columns: Sequence[str] | None,
) -> list[Hits]:
    """Return the hits of each query; see `Index.search`."""
    require_k(k)
    store = index.store
    _require_offset(offset, effort)
    columns = _known(store, columns)
    if effort is not None:
        # refused before a picture is read
        with_effort(store.plan.config, effort)
    own = own_rows(queries, store)
    recorded = RecordedEncoder(store.manifest.encoder, lambda: index.encoder)
    bridge = index.bridge if any(query.uses_text for query in queries) else None
    vectors = resolve(queries, recorded, store, text_encoder=bridge)
    same, said = same_rows(store, exclude_same, queries, own, strict=strict_exclude)
    exclude = same if include_self else [np.union1d(*both) for both in zip(own, same, strict=True)]
    first = int(offset or 0)
    found = store.search(
        vectors,
        int(k) + first,
        where=where,
        exclude=exclude,
        one_per=one_per,
        min_score=min_score,
        # an accelerator proposes other rows for another k: pages of its answers would not be parts of one answer
        exactly=exact or offset is not None,
        effort=effort,
    )
    return add_remarks(
        store,
        queries,
        Hits.all_of(store, found, [query.describe() for query in queries], offset=first, columns=columns),
        vectors=vectors,
        exclude=exclude,
        side=bridge or recorded,
        bridge=bridge,
        all_rows=where is None and exclude_same is None and min_score is None,
        said=[[*notes, *store.identity.absent(where), *store.identity.warnings()] for notes in said],
    )


def _require_offset(offset: object, effort: int | None) -> None:
    if offset is None:
        return
    if isinstance(offset, bool) or not isinstance(offset, int | np.integer) or offset < 0:
        raise UsageError(f"offset must be a whole number of at least 0, got {offset!r}")
    if effort is not None:
        raise UsageError(f"with an offset search is exact, which has no effort, got {effort!r}", hint="leave one out")


def _known(store: Store, columns: Any) -> list[str] | None:
    if isinstance(columns, str):
        raise UsageError(f"columns are a list of names, got: {columns!r}", hint=f"write columns=[{columns!r}]")
    names = None if columns is None else list(columns)
    for name in names or ():
        if not isinstance(name, str):
            raise UsageError(f"columns are a list of names, got one of the type {type(name).__name__}")
        store.columns.require(name)
    return names
