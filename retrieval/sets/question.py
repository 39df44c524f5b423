"""A question that is kept with a set: its vector, its conditions and the ids that answered it; never its pictures.

Of a question by words of columns the words are kept, and a vector of what else it holds.

Whose the question is was told by its pictures and rows. Of that stays which rows are the question itself, and the
values that ``exclude_same`` took from it: asked again, it leaves out the same patient, also rows that came later.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, fields, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.disk.schema import ID
from retr.index.errors import UsageError
from retr.index.json_fields import stored
from retr.index.options import taken
from retr.retrieval.answering import find_hits
from retr.retrieval.encoders.index_encoder import RecordedEncoder
from retr.retrieval.exclude import columns_of, same_rows
from retr.retrieval.hits import Hits
from retr.retrieval.json_values import to_plain
from retr.retrieval.query import Query
from retr.retrieval.query_identity import own_rows
from retr.retrieval.query_vectors import resolve
from retr.retrieval.search_options import SearchOptions
from retr.retrieval.sets.named import in_space, space_of, vector_of
from retr.retrieval.transforms.transform import features_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike

# What does not say which rows are meant, or is kept in its own way.
_NOT_KEPT = {"exclude_same", "strict_exclude", "columns", "offset", "effort", "given"}


@dataclass(frozen=True)
class Reopened:
    """A saved question, asked again.

    Attributes
    ----------
    hits
        The answer of today.
    new
        The ids among them that were not in the answer when it was saved.
    """

    hits: Hits
    new: tuple[str, ...]


def kept_question(index: IndexLike, question: Query | Hits, options: Mapping[str, Any]) -> dict[str, Any]:
    """Ask a question, and return what is kept of it, as JSON holds it.

    Parameters
    ----------
    question
        A query; or the hits of one, whose query and options are taken.
    options
        Fields of `SearchOptions`.

    Raises
    ------
    UsageError
        As `Index.search`; or the hits do not know their query any more.
    """
    if isinstance(question, Hits):
        asked = vars(question).get("_asked")
        if asked is None or options:
            raise UsageError(
                "these hits do not hold the question that found them",
                hint="give the retr.Query, and the options of its search",
            )
        query, searched = asked[0], replace(asked[1], exclude_same=asked[2])
    else:
        query, searched = question, taken(SearchOptions, dict(options), "save")
    if searched.item not in {None, False}:
        what = "a question for cases is several vectors, and a set keeps one"
        raise UsageError(what, hint="save the rows alone; the question may stand in the note")
    store = index.store
    own = own_rows([query], store)
    recorded = RecordedEncoder(store.manifest.encoder, lambda: index.encoder)
    info = store.manifest.encoder
    words, compared = _words(store, query, searched)
    vector, own_vector = None, None
    if compared is not None:
        bridge = index.bridge if compared.uses_text else None
        resolved = resolve([compared], recorded, store, text_encoder=bridge)
        # the encoder's own outlives the fitting of a transform
        own_vector = None if info.transform is None else resolved.own[0]
        vector = resolved.vectors[0] if own_vector is None else features_of(own_vector[None])[0]
    leave_out: dict[str, list[Any]] = {}
    for column, given in columns_of(searched.exclude_same).items():
        rows = same_rows(store, {column: given}, [query], own)[0][0]
        found = store.table([column], rows).column(0).drop_null().unique().to_pylist()
        leave_out[column] = to_plain([*found, *(value for value in given if value is not None and value not in found)])
    hits = find_hits(index, [query], searched)[0]
    defaults = SearchOptions(k=searched.k)
    plain = {one.name: getattr(searched, one.name) for one in fields(searched) if one.name not in _NOT_KEPT}
    return {
        "asked": " + ".join(_in_words(part.kind, part.value, part.weight) for part in (*query.parts, *query.marked)),
        "vector": None if vector is None else base64.b64encode(vector.astype("<f4").tobytes()).decode(),
        "space": space_of(info if own_vector is None else info.own),
        "own": store.ids(own[0]),
        "leave_out": leave_out,
        "options": {key: to_plain(value) for key, value in plain.items() if value != getattr(defaults, key)}
        | {"k": int(searched.k)}
        | ({} if words is None else {"fuse": words["share"]}),
        **({} if words is None else {"words": words["parts"]}),
        "hits": hits.ids,
        "version": store.version,
    }


def ask_again(index: IndexLike, question: Mapping[str, Any]) -> Reopened:
    """Ask a kept question of what the index holds today.

    Raises
    ------
    UsageError
        Its vector was not kept, or a column of its conditions is gone.
    """
    query = _asked_again(index, question)
    with stored("a saved question"):
        names = {one.name for one in fields(SearchOptions)} - _NOT_KEPT
        options = {key: value for key, value in dict(question["options"]).items() if key in names}
        own, before = set(question["own"]), set(question["hits"])
        leave_out = {column: values for column, values in dict(question["leave_out"]).items() if values}
    asked = taken(SearchOptions, options, "reopen")
    k = int(asked.k)
    if question.get("words") and not asked.include_self:
        # left out before ranks are fused, as they were: behind them others would have other ranks
        here = [row for row in sorted(own) if index.store.rows_of([row])[0] >= 0]
        leave_out |= {ID: [*leave_out.get(ID, []), *here]} if here else {}
    wanted = replace(asked, k=k + (0 if asked.include_self else len(own)), exclude_same=leave_out or None)
    hits = find_hits(index, [query], wanted)[0]
    places = [place for place, row in enumerate(hits.ids) if asked.include_self or row not in own][:k]
    hits = _at(hits, places, str(question.get("asked", "")))
    return Reopened(hits, tuple(row for row in hits.ids if row not in before))


def query_of(index: IndexLike, question: Mapping[str, Any]) -> Query:
    """Return a kept question as a query: as the row of the index that it was, if it was one, else as its vector.

    Raises
    ------
    UsageError
        As `ask_again`; or it is by words of columns, which are an option of a search and no part of a query.
    """
    if question.get("words"):
        hint = "ask it again with `index.sets.reopen`"
        raise UsageError("the question is by words of columns, which is more than a query holds", hint=hint)
    vector = _vector(index, question)
    with stored("a saved question"):
        own = [str(row) for row in question["own"]]
    # a picture that is a row's is that row: what is known of one is known of the other
    whole = question.get("asked") in {"picture", *(_in_words("id", row, 1) for row in own)}
    here = len(own) == 1 and index.store.rows_of(own)[0] >= 0
    return Query.id(own[0]) if here and whole else Query.vector(vector)


def _vector(index: IndexLike, question: Mapping[str, Any]) -> NDArray[np.float32]:
    vector = vector_of(question)
    if vector is None or not in_space(question, index.store.manifest.encoder):
        raise UsageError(
            "the vector of the question is of another index, or of what this one searched before",
            hint="ask it anew, and save the set with it again",
        )
    return vector


def _words(store: Store, query: Query, options: SearchOptions) -> tuple[dict[str, Any] | None, Query | None]:
    """Return the words of a question with the share of vectors, and what of it is compared as vectors, if anything."""
    if options.in_ is None:
        return None, query
    from retr.retrieval.words.ranking import read_questions

    (asked,) = read_questions(store, [query], options).questions
    parts = [[part.value, part.weight] for part in query.parts if part.kind == "text"]
    return {"parts": parts, "share": asked.vectors}, asked.rest if asked.vectors else None


def _asked_again(index: IndexLike, question: Mapping[str, Any]) -> Query:
    """Return a kept question as what is searched with: its words, and its vector."""
    if not question.get("words"):
        return Query.vector(_vector(index, question))
    with stored("a saved question"):
        texts = [Query.text(text) * weight for text, weight in question["words"]]
        shared = bool(question["options"]["fuse"])
    vectors = [Query.vector(_vector(index, question))] if shared else []
    query: Query = reduce(add, [*texts, *vectors])
    return query


def _at(hits: Hits, places: list[int], asked: str) -> Hits:
    return replace(
        hits,
        query=asked,
        scores=hits.scores[places],
        rows=hits.rows[places],
        ranks=np.arange(1, len(places) + 1),
        metadata=hits.metadata.take(places),
        paths=[hits.paths[place] for place in places],
        highlights=hits.highlights and [hits.highlights[place] for place in places],
    )


def _in_words(kind: str, value: Any, weight: float) -> str:
    """Return a part of a question in words, without a picture's name on the disk."""
    factor = "" if weight == 1 else f"{weight:g} * "
    shown = repr(value) if kind in {"text", "id"} else ""
    return f"{factor}{'picture' if kind == 'image' else kind} {shown}".strip()
