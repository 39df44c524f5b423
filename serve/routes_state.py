"""Whether the server lives, is ready, and how it fares."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Response

from retr.serve.schemas import REFUSALS
from retr.serve.state import EarlyRoute, Reader, TheState

router = APIRouter(tags=["server"], responses=REFUSALS, route_class=EarlyRoute)


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer as long as the process does."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(state: TheState) -> dict[str, str]:
    """Answer with success once every index is open and its encoder loaded."""
    if not state.ready:
        raise HTTPException(503, "an encoder is still being loaded")
    return {"status": "ready"}


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(state: TheState, _: Reader) -> Response:
    """Return counters in Prometheus's text form."""
    for name, served in state.indexes.items():
        state.metrics.version.labels(name).set(served.index.version)
        state.metrics.rows.labels(name).set(len(served.index))
    return Response(state.metrics.text(), media_type="text/plain; version=0.0.4")
