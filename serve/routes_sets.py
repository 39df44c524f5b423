"""Sets and labels: who has the scope ``label`` saves them, also while the index is being built; readers read them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Path, Query, Response
from fastapi.responses import StreamingResponse

from retr.answers import to_plain
from retr.serve.questions import query_of
from retr.serve.schemas import (
    REFUSALS,
    Answer,
    LabelRequest,
    RemoveRequest,
    Rows,
    SaveRequest,
    SetAnswer,
    SetContents,
    SetSummary,
)
from retr.serve.state import EarlyRoute, Labeller, Reader, TheIndex, TheState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retr.serve.served import Served

router = APIRouter(tags=["sets"], responses=REFUSALS, route_class=EarlyRoute)
Where = Annotated[str | None, Query(max_length=10_000)]
Name = Annotated[str, Path(min_length=1, max_length=100)]
_TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet", "zip": "application/zip"}


@router.get("/indexes/{index}/sets")
async def sets(served: TheIndex, state: TheState, _: Reader) -> list[SetSummary]:
    """List the sets, in the order in which they were made."""
    found = await state.run(lambda: [one.summary() for one in served.index.sets.all()])
    return [SetSummary(**one) for one in found]


@router.get("/indexes/{index}/sets/{name}")
async def contents(served: TheIndex, state: TheState, token: Reader, name: Name) -> SetContents:
    """Return a set: its rows' ids, labels, note and question."""
    found = await state.run(_contents, served, name)
    await state.record(token, served, "set", {"set": name}, [found.ids])
    return found


@router.get("/indexes/{index}/sets/{name}/rows")
async def rows(
    served: TheIndex,
    state: TheState,
    token: Reader,
    name: Name,
    where: Where = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> Rows:
    """Return everything the index holds of a set's rows that a condition allows, a page at a time."""

    def page() -> Rows:
        _require(served, name)
        index = served.index.snapshot()
        ids = list(index.sets[name].ids)
        if where is not None:
            allowed = set(index.table(["id"], where=where)["id"].to_pylist())
            ids = [row for row in ids if row in allowed]
        found = [to_plain(index[row]) for row in ids[offset : offset + limit] if row in index]
        return Rows(index=served.name, version=index.version, total=len(ids), rows=found)

    answer = await state.run(page)
    await state.record(token, served, "rows", {"set": name, "where": where}, [[row["id"] for row in answer.rows]])
    return answer


@router.put("/indexes/{index}/sets/{name}")
async def save(asked: SaveRequest, served: TheIndex, state: TheState, token: Labeller, name: Name) -> SetContents:
    """Put rows into a set, which is made where there is none of the name."""
    given: dict[str, Any] = {}
    if asked.question is not None:
        query, _ = await state.decode(query_of, asked.question.questions[0], state, token)
        given = {"question": query}
        given |= asked.question.options()

    def write() -> SetContents:
        served.index.sets.save(name, asked.ids, author=token.name, note=asked.note, **given)
        return _contents(served, name)

    found = await state.run(write)
    await state.record(token, served, "save", {"set": name}, [asked.ids])
    return found


@router.post("/indexes/{index}/sets/{name}/labels")
async def label(asked: LabelRequest, served: TheIndex, state: TheState, token: Labeller, name: Name) -> SetContents:
    """Give rows a label, or take it from them; they join the set."""

    def write() -> SetContents:
        change = served.index.sets.label
        if asked.remove:
            _require(served, name)
            change = served.index.sets.unlabel
        change(asked.ids, asked.label, set=name, author=token.name)
        return _contents(served, name)

    found = await state.run(write)
    action = "unlabel" if asked.remove else "label"
    await state.record(token, served, action, {"set": name, "label": asked.label}, [asked.ids])
    return found


@router.post("/indexes/{index}/sets/{name}/remove")
async def remove(asked: RemoveRequest, served: TheIndex, state: TheState, token: Labeller, name: Name) -> SetContents:
    """Take rows out of a set, with their labels there."""

    def write() -> SetContents:
        _require(served, name)
        served.index.sets.remove(name, asked.ids, author=token.name)
        return _contents(served, name)

    found = await state.run(write)
    await state.record(token, served, "remove", {"set": name}, [asked.ids])
    return found


@router.delete("/indexes/{index}/sets/{name}", status_code=204)
async def drop(served: TheIndex, state: TheState, token: Labeller, name: Name) -> None:
    """Take a set away; its rows stay in the index."""

    def write() -> None:
        _require(served, name)
        served.index.sets.remove(name, author=token.name)

    await state.run(write)
    await state.record(token, served, "drop", {"set": name}, [])


@router.get("/indexes/{index}/sets/{name}/answer")
async def answer(served: TheIndex, state: TheState, token: Reader, name: Name) -> SetAnswer:
    """Ask a set's question again, and say what is new."""

    def ask() -> SetAnswer:
        _require(served, name)
        index = served.index.snapshot()
        found = index.sets.reopen(name)
        hits = Answer(**found.hits.to_json())
        return SetAnswer(index=served.name, version=index.version, answer=hits, new=list(found.new))

    found = await state.run(ask)
    await state.record(token, served, "reopen", {"set": name}, [[hit["id"] for hit in found.answer.hits]])
    return found


@router.get("/indexes/{index}/sets/{name}/file", response_class=Response)
async def file(
    served: TheIndex, state: TheState, token: Reader, name: Name, form: Literal["csv", "parquet", "zip"] = "csv"
) -> Response:
    """Return a set with all columns and its labels, as CSV or Parquet; or copies of its pictures and CSV in a zip."""

    def write() -> tuple[Iterator[bytes], list[str]]:
        _require(served, name)
        sets = served.index.snapshot().sets
        pieces = sets.as_zip(name) if form == "zip" else iter([sets.as_file(name, form)])
        # an archive that is away is an error, and no beginning of a file
        return chain([next(pieces)], pieces), list(sets[name].ids)

    pieces, ids = await state.run(write)
    await state.record(token, served, "export", {"set": name}, [ids])
    headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}.{form}"}
    return StreamingResponse(pieces, media_type=_TYPES[form], headers=headers)


def _require(served: Served, name: str) -> None:
    if name not in served.index.sets:
        raise HTTPException(404, "there is no set of that name")


def _contents(served: Served, name: str) -> SetContents:
    _require(served, name)
    index = served.index
    return SetContents(index=served.name, version=index.version, **index.sets[name].to_json())
