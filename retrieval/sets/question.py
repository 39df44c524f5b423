"""A question that is kept with a set: its vector, its conditions and the ids that answered it; never its pictures.

Of a question by words of columns the words are kept, and a vector of what else it holds. Of a question for cases the
vectors of its parts are kept, and the rows of its own case: asked again, it leaves this case out, grown or not.

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
from retr.index.rows.items import items_of, rule_of
from retr.retrieval.answering import find_hits
from retr.retrieval.by_items import resolve_case
from retr.retrieval.encoders.index_encoder import RecordedEncoder
from retr.retrieval.exclude import columns_of, same_rows
from retr.retrieval.hits import Hits
from retr.retrieval.json_values import to_plain
from retr.retrieval.query import Query
from retr.retrieval.query_identity import own_rows
from retr.retrieval.query_vectors import resolve
from retr.retrieval.search_options import SearchOptions
from retr.retrieval.sets.named import in_space, space_of, vectors_of
from retr.retrieval.transforms.transform import features_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from retr.index.rows.items import Items
    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.query import Part

#: So many parts of a question for cases are kept.
MOST_PARTS = 512
# So many parts of a question are named one by one.
_FEW_PARTS = 3
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
        return _kept_case(index, query, searched)
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
    hits = find_hits(index, [query], searched)[0]
    return {
        "asked": _asked_in_words(query),
        "vector": None if vector is None else _stored(vector),
        "space": space_of(info if own_vector is None else info.own),
        "own": store.ids(own[0]),
        "leave_out": _left_out(store, query, searched, own[0]),
        "options": _options(searched) | ({} if words is None else {"fuse": words["share"]}),
        **({} if words is None else {"words": words["parts"]}),
        "hits": hits.ids,
        "version": store.version,
    }


def _kept_case(index: IndexLike, query: Query, searched: SearchOptions) -> dict[str, Any]:
    """Return what is kept of a question for cases; it is asked once, as it will be again."""
    store, info = index.store, index.store.manifest.encoder
    rule = rule_of(store, searched.item or "")
    case, items = resolve_case(index, query, searched), items_of(store, rule)
    if len(case.weights) > MOST_PARTS:
        what = f"a set keeps a question of at most {MOST_PARTS} parts, got {len(case.weights)}"
        raise UsageError(what, hint="save the rows alone; the question may stand in the note")
    own_vectors = None if info.transform is None else case.own_vectors
    kept: dict[str, Any] = {
        "asked": _asked_in_words(replace(query, parts=tuple(_unnamed(part, items, store) for part in query.parts))),
        "vector": _stored(case.vectors if own_vectors is None else features_of(own_vectors)),
        "weights": case.weights.tolist(),
        "space": space_of(info if own_vectors is None else info.own),
        "own": store.ids(np.union1d(case.own, case.whole)),
        "whole": store.ids(case.whole),
        "leave_out": _left_out(store, case.query, searched, case.own),
        "options": _options(searched) | {"item": rule},
        "hits": [],
        "version": store.version,
    }
    return kept | {"hits": ask_again(index, kept).hits.ids}


def _unnamed(part: Part, items: Items, store: Store) -> Part:
    """Return a part without what its case is called outside: the index may hold a hash of that alone."""
    known = part.kind != "id" or items.number_of(part.value) >= 0 or store.rows_of([part.value])[0] >= 0
    return part if known else replace(part, kind="image", value=None)


def _asked_in_words(query: Query) -> str:
    """Return a query in words; of one with many parts how many they are."""
    parts = (*query.parts, *query.marked)
    if len(query.parts) > _FEW_PARTS:
        return f"{len(query.parts)} parts of a case" if not query.marked else f"{len(parts)} parts and marks"
    return " + ".join(_in_words(part.kind, part.value, part.weight) for part in parts)


def _stored(vectors: NDArray[Any]) -> str:
    return base64.b64encode(vectors.astype("<f4").tobytes()).decode()


def _left_out(store: Store, query: Query, searched: SearchOptions, own: NDArray[np.int64]) -> dict[str, list[Any]]:
    """Return by column the values that ``exclude_same`` takes from a question."""
    leave_out: dict[str, list[Any]] = {}
    for column, given in columns_of(searched.exclude_same).items():
        rows = same_rows(store, {column: given}, [query], [own])[0][0]
        found = store.table([column], rows).column(0).drop_null().unique().to_pylist()
        leave_out[column] = to_plain([*found, *(value for value in given if value is not None and value not in found)])
    return leave_out


def _options(searched: SearchOptions) -> dict[str, Any]:
    """Return the options that differ from the usual ones."""
    defaults = SearchOptions(k=searched.k)
    plain = {one.name: getattr(searched, one.name) for one in fields(searched) if one.name not in _NOT_KEPT}
    return {key: to_plain(value) for key, value in plain.items() if value != getattr(defaults, key)} | {
        "k": int(searched.k)
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
    items = None if asked.item in {None, False} else items_of(index.store, rule_of(index.store, asked.item or ""))
    if (question.get("words") or items is not None) and not asked.include_self:
        # left out before ranks are fused, as they were: behind them others would have other ranks
        rows = _live(index.store, own)
        if items is not None:
            # the question's own case may have grown
            numbers = np.unique(items.numbers[_live(index.store, question.get("whole", []))])
            rows = np.unique(np.concatenate([rows, *(items.rows(int(one)) for one in numbers if one >= 0)]))
        leave_out |= {ID: [*leave_out.get(ID, []), *index.store.ids(rows)]} if len(rows) else {}
    wanted = replace(asked, k=k + (0 if asked.include_self else len(own)), exclude_same=leave_out or None)
    hits = find_hits(index, [query], wanted)[0]
    places = [place for place, row in enumerate(hits.ids) if asked.include_self or row not in own][:k]
    hits = _at(hits, places, str(question.get("asked", "")))
    if items is not None:
        # a case is known by any row of it: another may be its best by now
        known = set(items.numbers[_live(index.store, before)].tolist())
        fresh = zip(hits.ids, items.numbers[hits.rows].tolist(), strict=True)
        return Reopened(hits, tuple(row for row, number in fresh if number not in known))
    return Reopened(hits, tuple(row for row in hits.ids if row not in before))


def _live(store: Store, ids: Iterable[str]) -> NDArray[np.int64]:
    """Return those of some rows that are in the index, sorted."""
    rows = store.rows_of(list(ids))
    return np.unique(rows[rows >= 0])


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
    if question.get("weights") is not None:
        hint = "ask it again with `index.sets.reopen`"
        raise UsageError("the question is for cases, whose parts are compared each by itself", hint=hint)
    [vector] = _vectors(index, question)
    with stored("a saved question"):
        own = [str(row) for row in question["own"]]
    # a picture that is a row's is that row: what is known of one is known of the other
    whole = question.get("asked") in {"picture", *(_in_words("id", row, 1) for row in own)}
    here = len(own) == 1 and index.store.rows_of(own)[0] >= 0
    return Query.id(own[0]) if here and whole else Query.vector(vector)


def _vectors(index: IndexLike, question: Mapping[str, Any]) -> NDArray[np.float32]:
    vectors = vectors_of(question)
    if vectors is None or not in_space(question, index.store.manifest.encoder):
        raise UsageError(
            "the vector of the question is of another index, or of what this one searched before",
            hint="ask it anew, and save the set with it again",
        )
    return vectors


def _words(store: Store, query: Query, options: SearchOptions) -> tuple[dict[str, Any] | None, Query | None]:
    """Return the words of a question with the share of vectors, and what of it is compared as vectors, if anything."""
    if options.in_ is None:
        return None, query
    from retr.retrieval.words.ranking import read_questions

    (asked,) = read_questions(store, [query], options).questions
    parts = [[part.value, part.weight] for part in query.parts if part.kind == "text"]
    return {"parts": parts, "share": asked.vectors}, asked.rest if asked.vectors else None


def _asked_again(index: IndexLike, question: Mapping[str, Any]) -> Query:
    """Return a kept question as what is searched with: its words, and its vectors."""
    if not question.get("words"):
        with stored("a saved question"):
            weights = [float(weight) for weight in question.get("weights", [1])]
        parts = [Query.vector(one) * weight for one, weight in zip(_vectors(index, question), weights, strict=True)]
        return reduce(add, parts)
    with stored("a saved question"):
        texts = [Query.text(text) * weight for text, weight in question["words"]]
        shared = bool(question["options"]["fuse"])
    vectors = [Query.vector(_vectors(index, question)[0])] if shared else []
    query: Query = reduce(add, [*texts, *vectors])
    return query


def _at(hits: Hits, places: list[int], asked: str) -> Hits:
    lists = {name: getattr(hits, name) for name in ("highlights", "cases", "parts", "regions")}
    some = replace(
        hits,
        query=asked,
        scores=hits.scores[places],
        rows=hits.rows[places],
        ranks=np.arange(1, len(places) + 1),
        metadata=hits.metadata.take(places),
        paths=[hits.paths[place] for place in places],
    )
    vars(some).update({name: held and [held[place] for place in places] for name, held in lists.items()})
    return some


def _in_words(kind: str, value: Any, weight: float) -> str:
    """Return a part of a question in words, without a picture's name on the disk."""
    factor = "" if weight == 1 else f"{weight:g} * "
    shown = repr(value) if kind in {"text", "id"} else ""
    return f"{factor}{'picture' if kind == 'image' else kind} {shown}".strip()
