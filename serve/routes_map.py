"""The map that `retr map` made: every row a point, and what the points' columns hold."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Response

from retr import RetrError
from retr.serve import maps
from retr.serve.schemas import REFUSALS, MapColumn
from retr.serve.state import EarlyRoute, Reader, TheIndex, TheState

router = APIRouter(tags=["map"], responses=REFUSALS, route_class=EarlyRoute)


async def _held(served: TheIndex, state: TheState) -> maps.ServedMap:
    try:
        return await state.run(served.maps.of, served.index)
    except RetrError as error:
        # of a map that is damaged the class says so
        if type(error) is not RetrError:
            raise
        raise HTTPException(404, f"{error.message}; {error.hint}") from None


TheMap = Annotated[maps.ServedMap, Depends(_held)]


@router.get(
    "/indexes/{index}/map",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}, "description": "float32, x and y of each row."}},
)
async def places(
    served: TheIndex, state: TheState, token: Reader, found: TheMap, if_none_match: Annotated[str, Header()] = ""
) -> Response:
    """Return where each row lies on the map: little-endian float32, x and y of each row, in the order of the index."""
    version = found.index.version
    headers = {
        "etag": f'"{served.name.encode().hex()}-{version}"',
        "cache-control": "private, no-cache",
        "x-retr-version": str(version),
    }
    await state.record(token, served, "map", {}, [])
    if if_none_match == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(found.xy, media_type="application/octet-stream", headers=headers)


@router.get("/indexes/{index}/map/column")
async def column(
    served: TheIndex,
    state: TheState,
    token: Reader,
    found: TheMap,
    name: Annotated[str | None, Query(max_length=1000, description="``id``, or a column; none: the clusters.")] = None,
) -> MapColumn:
    """Return what a column says of each point, in the order of the index."""
    answer = await state.run(maps.column, found, name)
    await state.record(token, served, "map column", {"column": name}, [])
    return answer.model_copy(update={"index": served.name, "version": found.index.version})
