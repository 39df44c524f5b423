"""Answers by cases: studies, series, volumes, patients or pairs of eyes, found by their parts.

A question is the parts of one case: pictures, the files of a folder, the slices and frames of a file, words, rows,
vectors, or the id of a case, which stands for all its rows. Each is compared by itself; nothing is added up to one
vector. Conditions choose parts: a case is scored by those of its rows that are allowed.

The question's own case is left out: the one that is named by its id, and every one that holds half of the question's
pictures or more, or byte-identical copies of them. A copy in another case is no part of it for this question.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import ImageReadError, UsageError
from retr.index.item_search import search_items
from retr.index.machine.home import home
from retr.index.rows.items import items_of, rule_of
from retr.index.scan.items import ItemQuestion, require_score
from retr.index.types import Neighbours
from retr.retrieval.encoders.index_encoder import RecordedEncoder
from retr.retrieval.exclude import each_of, same_rows
from retr.retrieval.hits import Hits
from retr.retrieval.query import Part, Query
from retr.retrieval.query_identity import own_rows
from retr.retrieval.query_pictures import split_frame
from retr.retrieval.query_vectors import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo
    from retr.index.rows.items import Items
    from retr.index.scan.items import ItemAnswer
    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.query_vectors import TextEncoder
    from retr.retrieval.search_options import SearchOptions

#: So many pairs of parts are told of a hit, at most, and so many parts a question may have.
SHOWN, MOST_PARTS = 10, 4096
# Pictures that are decoded and embedded at a time.
_AT_ONCE = 64


@dataclass(frozen=True)
class AskedCase:
    """What a question for cases came to.

    Attributes
    ----------
    query
        With rows in place of the ids of cases, and files in place of folders.
    vectors, own_vectors
        Of each part, float32 ``(m, dim)``: where the index's rows lie, and as the encoder gives it; the latter is
        ``None`` where some part has none (words, a vector that is given).
    weights
        Of each part.
    own
        The rows that are the question itself, sorted int64.
    whole
        The rows of the cases that are left out as its own, sorted int64.
    unread
        What could not be read of it.
    """

    query: Query
    vectors: NDArray[np.float32]
    own_vectors: NDArray[np.float32] | None
    weights: NDArray[np.float64]
    own: NDArray[np.int64]
    whole: NDArray[np.int64]
    unread: list[str]


@dataclass(frozen=True)
class _Asked:
    """A question: what it is made of, the cases that it names, and what a person should know of both."""

    query: Query
    cases: tuple[int, ...]
    notes: tuple[str, ...]


def find_items(
    index: IndexLike,
    queries: Sequence[Query],
    options: SearchOptions,
    columns: Sequence[str] | None,
    hidden: NDArray[np.int64],
) -> list[Hits]:
    """Return the cases that answer each question.

    Parameters
    ----------
    columns
        Of the metadata that are shown, ``None`` for all.
    hidden
        Rows that are in no answer, sorted int64.

    Raises
    ------
    UsageError
        The index has no such cases, a question names neither a row nor a case, or an option means nothing with cases.
    ImageReadError
        A picture cannot be read.
    """
    store = index.store
    _require_meant(queries, options)
    rule = rule_of(store, options.item or "")
    items = items_of(store, rule)
    asked = [_asked(store, items, query) for query in queries]
    bare = [one.query for one in asked]
    named = None if options.exclude_same is None else each_of(options.exclude_same, len(queries))
    own = own_rows(bare, store)
    same, said = same_rows(store, named, bare, own, strict=options.strict_exclude, hidden=hidden)
    encoder = RecordedEncoder(store.manifest.encoder, lambda: index.encoder)
    bridge = index.bridge if any(query.uses_text for query in queries) else None
    first, questions, notes = int(options.offset or 0), [], []
    for one, mine, others, noted in zip(asked, own, same, said, strict=True):
        case = _resolved(store, items, one, mine, encoder, bridge)
        left_out = others if options.include_self else np.unique(np.concatenate([others, mine, case.whole]))
        questions.append(ItemQuestion(case.vectors, case.weights, left_out))
        notes.append([*one.notes, *case.unread, *noted, *_general(store, items, options)])
    found = search_items(
        store,
        questions,
        rule,
        int(options.k) + first,
        score=options.item_score,
        where=options.where,
        min_score=options.min_score,
        exactly=options.exact or options.offset is not None,
        partial=options.partial,
    )
    return [
        _hits(store, items, answer, query, noted, first, columns)
        for answer, query, noted in zip(found, queries, notes, strict=True)
    ]


def resolve_case(index: IndexLike, query: Query, options: SearchOptions) -> AskedCase:
    """Return what a question for cases comes to; raise as `find_items`."""
    store = index.store
    _require_meant([query], options)
    items = items_of(store, rule_of(store, options.item or ""))
    asked = _asked(store, items, query)
    encoder = RecordedEncoder(store.manifest.encoder, lambda: index.encoder)
    bridge = index.bridge if query.uses_text else None
    [own] = own_rows([asked.query], store)
    return _resolved(store, items, asked, own, encoder, bridge)


def _require_meant(queries: Sequence[Query], options: SearchOptions) -> None:
    require_score(options.item_score)
    for name in ("one_per", "diverse", "in_", "fuse", "effort"):
        if getattr(options, name) is not None:
            shown = f"--{name.strip('_').replace('_', '-')}"
            raise UsageError(f"{name} is told by rows, and cases are asked for", hint=f"leave {shown} or --item out")
    if options.in_regions:
        raise UsageError("regions are of rows, and cases are asked for", hint="leave --in-regions or --item out")
    if any(query.marked for query in queries):
        raise UsageError("marks move a question that is one vector, and cases are asked for", hint="leave them out")
    for query in queries:
        if wrong := next((part for part in query.parts if part.weight < 0), None):
            what = f"a part of a case has a weight above 0, got: {wrong.describe()}"
            raise UsageError(what, hint="leave out what is to be moved away from")
        if not query.parts:
            raise UsageError("a question has at least one part")


def _asked(store: Store, items: Items, query: Query) -> _Asked:
    """Return a question with the rows of cases in place of their ids, and the files of folders in place of these."""
    parts: list[Part] = []
    cases: list[int] = []
    notes: list[str] = []
    for part in query.parts:
        folder = _folder(part)
        if part.kind == "id":
            row, number = int(store.rows_of([part.value])[0]), items.number_of(part.value)
            if row < 0 and number < 0:
                number = items.number_of_identifier(store, part.value)
            if number >= 0:
                cases.append(number)
                rows = store.in_id_order(items.rows(number))
                parts += [replace(part, value=name) for name in store.ids(rows)]
                continue
            if row < 0:
                column = items.columns[0]
                hint = f"a case by {items.rule!r} is a value of {column!r}: see `retr index ls --columns id,{column}`"
                raise UsageError(f"neither a case nor a row of the index is called {part.value!r}", hint=hint)
        elif folder is not None:
            files = _files_of(folder)
            parts += [replace(part, value=file) for file in files]
            notes.append(f"{len(files)} files of the folder are the question")
            continue
        parts.append(part)
    _require_few(len(parts))
    return _Asked(Query(tuple(parts)), tuple(cases), tuple(notes) if len(notes) == 1 else ())


def _require_few(n: int) -> None:
    if n > MOST_PARTS:
        raise UsageError(f"a question has at most {MOST_PARTS} parts, got {n} or more", hint="give one case")


def _folder(part: Part) -> Path | None:
    """Return the folder that a part is; ``None`` for a picture."""
    if part.kind != "image" or part.embedded is not None or not isinstance(part.value, str | Path):
        return None
    place = home(part.value)
    return place if place.is_dir() else None


def _files_of(folder: Path) -> list[Path]:
    """Return the files of a folder that are pictures, by name."""
    from retr.retrieval.images.file_types import PREFIX_BYTES, UNREAD, format_of
    from retr.retrieval.regular_files import NotRegularError, open_regular

    found = []
    try:
        for file in sorted(folder.rglob("*")):
            if not file.is_file() or any(name.startswith(".") for name in file.relative_to(folder).parts):
                continue
            with open_regular(file) as stream:
                if format_of(stream.read(PREFIX_BYTES)) not in {None, UNREAD}:
                    found.append(file)
            _require_few(len(found))
    except (OSError, NotRegularError) as error:
        raise UsageError(f"the folder {str(folder)!r} cannot be read: {type(error).__name__}") from None
    if not found:
        raise UsageError(f"the folder {str(folder)!r} holds no picture that can be read", hint="give that of a series")
    return found


def _own_cases(store: Store, items: Items, asked: _Asked, own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return all rows of the cases that are the question's own; ``own`` are its pictures' rows, and their copies."""
    parts = [part for part in asked.query.parts if part.kind in {"image", "id"}]
    numbers = set(asked.cases)
    if not numbers and len(own):
        alone = own_rows([Query((part,)) for part in parts], store) if len(parts) > 1 else [own]
        held = [np.unique(items.numbers[rows]) for rows in alone]
        found, times = np.unique(np.concatenate(held), return_counts=True)
        numbers |= set(found[(found >= 0) & (2 * times >= len(parts))].tolist())
    return np.unique(np.concatenate([own[:0], *(items.rows(number) for number in sorted(numbers))]))


def _general(store: Store, items: Items, options: SearchOptions) -> list[str]:
    without = len(store) - int(np.count_nonzero(items.numbers >= 0))
    of_none = [f"{without} rows are parts of no case by {items.rule!r}"] if without else []
    return [*of_none, *store.identity.absent(options.where), *store.identity.warnings()]


def _resolved(
    store: Store,
    items: Items,
    asked: _Asked,
    own: NDArray[np.int64],
    encoder: RecordedEncoder,
    text_encoder: TextEncoder | None,
) -> AskedCase:
    """Embed the parts of a question; ``own`` are the rows that are it."""
    from retr.retrieval.archive.provenance import BuildNotes

    unread: list[str] = []
    parts = _pictures(asked.query, encoder.info, BuildNotes.of(store).reading, unread)
    vectors, own_vectors, weights = [], [], list[float]()
    while some := list(islice(parts, _AT_ONCE)):
        _require_few(len(weights) + len(some))
        found = resolve(
            [Query((replace(part, weight=1.0),)) for part in some], encoder, store, text_encoder=text_encoder
        )
        vectors.append(found.vectors)
        own_vectors += found.own
        weights += [part.weight for part in some]
    if not vectors:
        raise UsageError("no picture of the question can be read", hint=f"the first: {unread[0]}")
    known = [vector for vector in own_vectors if vector is not None]
    return AskedCase(
        query=asked.query,
        vectors=np.concatenate(vectors),
        own_vectors=np.stack(known).astype(np.float32) if len(known) == len(own_vectors) else None,
        weights=np.array(weights),
        own=own,
        whole=_own_cases(store, items, asked, own),
        unread=[f"{len(unread)} files of the question cannot be read, the first: {unread[0]}"] if unread else [],
    )


def _pictures(query: Query, info: EncoderInfo, reading: Any, unread: list[str]) -> Iterator[Part]:
    """Yield the parts of a question, of a file with several pictures each of them, as the index reads files."""
    from retr.retrieval.images import read_images

    several = len(query.parts) > 1
    for part in query.parts:
        file, frame = split_frame(part.value) if part.kind == "image" else (None, None)
        if frame is not None or part.embedded is not None or not isinstance(file, str | Path | bytes):
            yield part
            continue
        name = None if isinstance(file, bytes) else str(file)
        how: Any = {**reading.by_name(), "draft_size": info.draft_size, "grey16": info.grey16, "name": name}
        try:
            for _, picture in read_images(file, **how):
                yield replace(part, value=picture.image)
        except ImageReadError as error:
            # one file of a folder that is no picture does not make the others none
            if not (several and isinstance(part.value, Path)):
                raise
            unread.append(error.reason)


def _hits(
    store: Store,
    items: Items,
    answer: ItemAnswer,
    query: Query,
    notes: Sequence[str],
    first: int,
    columns: Sequence[str] | None,
) -> Hits:
    best = answer.pairs.argmax(axis=1) if len(answer.items) else np.empty(0, np.int64)
    rows = answer.rows[np.arange(len(best)), best]
    note = "; ".join(dict.fromkeys(filter(None, [answer.note, *notes]))) or None
    found = Neighbours(rows[None], answer.scores[None], exact=answer.exact, note=note, searched=answer.searched)
    [hits] = Hits.all_of(store, found, [query.describe()], offset=first, columns=columns)
    shown = np.argsort(-answer.pairs[first:], axis=1, kind="stable")[:, :SHOWN]
    matched = np.take_along_axis(answer.rows[first:], shown, axis=1)
    pairs = np.take_along_axis(answer.pairs[first:], shown, axis=1)
    ids = iter(store.ids(matched.ravel()))
    parts = [
        [
            {"part": int(part) + 1, "id": next(ids), "score": float(score)}
            for part, score in zip(line, mine, strict=True)
        ]
        for line, mine in zip(shown, pairs, strict=True)
    ]
    vars(hits).update(cases=[items.names[number] for number in answer.items[first:].tolist()], parts=parts)
    return hits
