"""What a reader asks of an index: what it holds, which rows are near, what a picture shows."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from retr import UsageError
from retr.answers import MEDIA_TYPE, to_arrow
from retr.serve import facets as facets_
from retr.serve.questions import is_decoded, picture_of, query_of, told
from retr.serve.remembered import Forgotten
from retr.serve.schemas import (
    REFUSALS,
    ClassifyAnswer,
    ClassifyRequest,
    Facets,
    Rows,
    SearchAnswer,
    SearchRequest,
    TokenAnswer,
)
from retr.serve.state import EarlyRoute, Reader, TheIndex, TheState
from retr.serve.tokens import SCOPES

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from retr import Hits, Picture
    from retr.serve.served import Found, Served
    from retr.serve.state import State
    from retr.serve.tokens import Token

router = APIRouter(tags=["read"], responses=REFUSALS, route_class=EarlyRoute)
# hits whose JSON takes less than a millisecond
_FEW_HITS = 100
Where = Annotated[str | None, Query(max_length=10_000)]


@router.get("/indexes")
async def indexes(state: TheState, _: Reader) -> list[dict[str, Any]]:
    """List the indexes that are served."""
    return [{"index": name, **await state.run(served.index.info)} for name, served in state.indexes.items()]


@router.get("/token")
async def whose(state: TheState, token: Reader) -> TokenAnswer:
    """Return who asks and what they may do, so that a page can say so before somebody works in vain."""
    may = [scope for scope in SCOPES if scope in token.scopes and (scope == "read" or not state.settings.read_only)]
    return TokenAnswer.model_validate({"name": token.name, "may": may, "read_only": state.settings.read_only})


@router.get("/indexes/{index}")
async def info(served: TheIndex, state: TheState, _: Reader) -> dict[str, Any]:
    """Say what an index holds: ``retr index info --json``."""
    return {"index": served.name, **await state.run(served.index.info)}


@router.post("/indexes/{index}/search", response_model=SearchAnswer, responses={200: {"content": {MEDIA_TYPE: {}}}})
async def search(
    asked: SearchRequest, served: TheIndex, state: TheState, token: Reader, accept: Annotated[str, Header()] = ""
) -> Any:
    """Find the rows nearest to one or several questions.

    The answer is JSON, or an Arrow stream where ``Accept`` names its media type.
    """
    options = asked.options()
    try:
        # words of columns are not embedded, and nothing beside them is remembered
        found = await _found(asked, served, state, token, None if asked.in_ is not None else served.known)
    except Forgotten:
        found = await _found(asked, served, state, token, None)
    if state.audit is not None:
        told_ = [told(question, state.audit, state.uploads) for question in asked.questions]
        ids = [_shown(one.hits) for one in found]
        await state.record(token, served, "search", {"questions": told_, **options}, ids)
    if accept == MEDIA_TYPE:
        return Response(await state.run(to_arrow, [one.hits for one in found]), media_type=MEDIA_TYPE)
    # a hop to another thread and back costs more than a few hits
    few = sum(len(one.hits) for one in found) <= _FEW_HITS
    body = _as_json(served.name, found) if few else await state.run(_as_json, served.name, found)
    return Response(body, media_type="application/json")


async def _found(
    asked: SearchRequest,
    served: Served,
    state: State,
    token: Token,
    known: Callable[[Hashable], Picture | None] | None,
) -> list[Found]:
    """Return the answers; a picture that is known is not decoded again."""
    if all(map(is_decoded, asked.questions)):
        queries = [query_of(question, state, token) for question in asked.questions]
    else:
        decoded = (state.decode(query_of, question, state, token, known) for question in asked.questions)
        queries = await asyncio.gather(*decoded)
    options = asked.options()
    futures = [asyncio.wrap_future(served.search(query, options)) for query in queries]
    return await state.within(asyncio.gather(*futures))


def _shown(hits: Hits) -> list[str]:
    """Return the ids of all rows that an answer shows: its hits, and of cases their parts beside these."""
    parts = (part["id"] for one in hits.parts or [] for part in one)
    return list(dict.fromkeys([*hits.ids, *parts]))


def _as_json(name: str, found: list[Found]) -> bytes:
    """Return a `SearchAnswer`, written at once: its model is for the description, and costs as much again."""
    # of several questions, some may have been answered by a version before
    version = min(one.version for one in found)
    answers = [one.hits.to_json() for one in found]
    return json.dumps({"index": name, "version": version, "answers": answers}).encode()


@router.post("/indexes/{index}/classify")
async def classify(asked: ClassifyRequest, served: TheIndex, state: TheState, token: Reader) -> ClassifyAnswer:
    """Name what pictures show, and say how sure that is."""
    notes: list[str] = []
    may_train = "write" in token.scopes and not state.settings.read_only

    pictures = await asyncio.gather(*(state.decode(picture_of, part, state, token) for part in asked.pictures))

    def answer() -> list[dict[str, Any]]:
        _require_set_name(asked.labels)
        way = asked.model_dump(exclude={"pictures", "top"}) | {"train": may_train}
        found = served.index.classify(pictures, **way, say=notes.append)
        # what was decoded before can be read: no answer is an error
        return [one.to_json(asked.top) for one in found if not isinstance(one, tuple)]

    answers = await state.run(answer)
    await state.record(token, served, "classify", asked.model_dump(exclude={"pictures"}), [])
    return ClassifyAnswer(index=served.name, version=served.index.version, answers=answers, notes=notes)


def _require_set_name(labels: str | list[str] | None) -> None:
    """Raise `UsageError` for a label set that would be read from a file of the server's disk."""
    if isinstance(labels, str) and (not labels.replace("-", "").isalnum() or Path(labels).exists()):
        raise UsageError(f"{labels!r} is not the name of a label set", hint="give the classes' names as a list")


@router.get("/indexes/{index}/rows")
async def rows(
    served: TheIndex,
    state: TheState,
    token: Reader,
    where: Where = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> Rows:
    """Return the rows that a condition allows, in the order of the index, a page at a time."""
    found = await state.run(facets_.page, served.index, where, offset, limit)
    await state.record(token, served, "rows", {"where": where}, [[row["id"] for row in found.rows]])
    return found.model_copy(update={"index": served.name})


@router.get("/indexes/{index}/row")
async def row(
    served: TheIndex,
    state: TheState,
    token: Reader,
    id: Annotated[str, Query(max_length=4096)],  # noqa: A002
) -> dict[str, Any]:
    """Return everything the index holds of one row: ``retr show --json``."""
    found = await state.run(facets_.one, served.index, id)
    await state.record(token, served, "row", {}, [[id]])
    return found


@router.get("/indexes/{index}/facets")
async def facets(served: TheIndex, state: TheState, token: Reader, where: Where = None) -> Facets:
    """Say what each column holds among the rows that a condition allows: the most frequent values, or the range."""
    found = await state.run(served.facets, where)
    await state.record(token, served, "facets", {"where": where}, [])
    return found.model_copy(update={"index": served.name})
