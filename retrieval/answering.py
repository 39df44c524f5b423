"""Run a search: from resolved options and queries to hits."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.accelerators.config import with_effort
from retr.index.errors import UsageError
from retr.index.listed import listed
from retr.index.plan import require_k
from retr.retrieval import diversity
from retr.retrieval.encoders.index_encoder import RecordedEncoder
from retr.retrieval.exclude import each_of, same_rows
from retr.retrieval.hits import Hits
from retr.retrieval.notices import add_remarks
from retr.retrieval.query_identity import own_rows
from retr.retrieval.query_vectors import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.index.types import Neighbours
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.query import Query
    from retr.retrieval.search_options import SearchOptions
    from retr.retrieval.words.ranking import Questions

LOGGER = logging.getLogger(__name__)
# hits of so many questions, which a person looks at, keep theirs
_FEW = 16


# of nobody
_NOTHING = np.empty(0, np.int64)


def find_hits(
    index: IndexLike, queries: Sequence[Query], options: SearchOptions, *, hidden: NDArray[np.int64] = _NOTHING
) -> list[Hits]:
    """Return the hits of each query; see `Index.search`. Rows that are ``hidden``, sorted int64, are in no answer."""
    require_k(options.k)
    store, began = index.store, time.monotonic()
    _require_offset(options.offset, options.effort)
    diversity.require_share(options.diverse)
    columns = _known(store, options.columns)
    named = None if options.exclude_same is None else each_of(options.exclude_same, len(queries))
    if options.item not in {None, False}:
        from retr.retrieval.by_items import find_items

        hits = find_items(index, queries, replace(options, exclude_same=named), columns, hidden)
        return _remembering(hits, queries, options, named)
    if options.in_regions:
        from retr.retrieval.by_regions import find_regions

        hits = find_regions(index, queries, replace(options, exclude_same=named), columns, hidden)
        return _remembering(hits, queries, options, named)
    if options.effort is not None:
        # refused before a picture is read
        with_effort(store.plan.config, options.effort)
    words = _read_words(store, queries, options)
    own = own_rows(queries, store)
    recorded = RecordedEncoder(store.manifest.encoder, lambda: index.encoder)
    embedded = queries if words is None else [one.rest for one in words.questions if one.vectors]
    bridge = index.bridge if any(query.uses_text for query in embedded) else None
    resolved = resolve(embedded, recorded, store, text_encoder=bridge)
    LOGGER.debug("%d queries are vectors after %.3f s", len(queries), time.monotonic() - began)
    same, said = same_rows(store, named, queries, own, strict=options.strict_exclude, hidden=hidden)
    exclude = same if options.include_self else list(map(_both, own, same))
    first, asked = int(options.offset or 0), options
    if options.offset is not None:
        # an accelerator proposes other rows for another k: pages of its answers would not be parts of one answer
        asked = replace(options, k=int(options.k) + first, exact=True)
    if options.diverse:
        asked = replace(asked, k=max(int(asked.k), diversity.CANDIDATES))
    if words is not None:
        answers = _by_words(store, queries, words, resolved.vectors, asked, exclude, said, first)
        return _remembering(answers, queries, options, named)
    found = store.search(resolved.vectors, asked, exclude=exclude)
    how = "exactly" if found.exact else "by an accelerator"
    LOGGER.debug("searched %d rows %s, after %.3f s", len(store), how, time.monotonic() - began)
    if options.diverse:
        found = _first(diversity.diversify(store, found, options.diverse), int(options.k) + first)
    identity = store.identity
    # identifiers are texts, and texts stand in quotes
    absent = identity.absent(options.where) if options.where is not None and "'" in options.where else []
    ordered = [f"not in the order of scores: diverse {options.diverse:g}"] if options.diverse else []
    hits = add_remarks(
        store,
        queries,
        Hits.all_of(store, found, [query.describe() for query in queries], offset=first, columns=columns),
        own=resolved.own,
        exclude=exclude,
        side=bridge or recorded,
        bridge=bridge,
        all_rows=options.where is None and options.exclude_same is None and options.min_score is None,
        said=[[*ordered, *notes, *absent, *identity.warnings()] for notes in said],
    )
    return _remembering(hits, queries, options, named)


def _read_words(store: Store, queries: Sequence[Query], options: SearchOptions) -> Questions | None:
    """Return what is looked for as words; ``None`` where no column is named for them."""
    if options.in_ is None:
        if options.fuse is not None:
            hint = "name a column for the words with in_ (--in)"
            raise UsageError(f"fuse mixes words with vectors, got {options.fuse!r} and no column of words", hint=hint)
        return None
    from retr.retrieval.words.ranking import read_questions

    return read_questions(store, queries, options)


def _by_words(
    store: Store,
    queries: Sequence[Query],
    words: Questions,
    vectors: NDArray[np.float32],
    options: SearchOptions,
    exclude: Sequence[NDArray[np.int64]],
    said: Sequence[Sequence[str]],
    first: int,
) -> list[Hits]:
    from retr.retrieval.words.ranking import by_words, highlights

    found = by_words(store, words, vectors, options, exclude)
    absent, hits = [*store.identity.absent(options.where), *store.identity.warnings()], []
    for query, one, answer, notes in zip(queries, words.questions, found, said, strict=True):
        [hit] = Hits.all_of(store, answer, [query.describe()], offset=first, columns=_known(store, options.columns))
        note = "; ".join(filter(None, [answer.note, *notes, *absent]))
        hit = hit.with_note(note)
        vars(hit).update(highlights=highlights(store, hit.rows, words.columns, one), weights=one.weights)
        hits.append(hit)
    return hits


def _remembering(
    hits: list[Hits], queries: Sequence[Query], options: SearchOptions, named: Sequence[Any] | None
) -> list[Hits]:
    """Return the answers, each with what was asked."""
    for number, (one, query) in enumerate(zip(hits, queries, strict=True)):
        if len(queries) <= _FEW:
            # shown beside the hits in a notebook
            vars(one)["_question"] = query
        if not _holds_pictures(query):
            # so that they can be saved with what found them (`retr.retrieval.sets`)
            vars(one)["_asked"] = query, options, named and named[number]
    return hits


def _holds_pictures(query: Query) -> bool:
    """Return whether a query holds pictures, which take room, and not their files' names alone."""
    return any(part.kind == "image" and not isinstance(part.value, str | Path) for part in query.parts)


def _first(found: Neighbours, most: int) -> Neighbours:
    return replace(found, rows=found.rows[:, :most], scores=found.scores[:, :most])


def _both(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.union1d(one, other) if len(one) and len(other) else one if len(one) else other


def _require_offset(offset: object, effort: int | None) -> None:
    if offset is None:
        return
    if isinstance(offset, bool) or not isinstance(offset, int | np.integer) or offset < 0:
        raise UsageError(f"offset must be a whole number of at least 0, got {offset!r}")
    if effort is not None:
        raise UsageError(f"with an offset search is exact, which has no effort, got {effort!r}", hint="leave one out")


def _known(store: Store, columns: Any) -> list[str] | None:
    names = None if columns is None else listed(columns, "columns")
    for name in names or ():
        store.columns.require(name)
    return names
