"""What takes longer than a search: what matches on a hit; evaluations and findings, as jobs behind the answer."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, HTTPException, Response

from retr import UsageError
from retr.serve.batching import Busy
from retr.serve.messages import without_paths
from retr.serve.questions import query_of, told
from retr.serve.schemas import REFUSALS, EvaluateRequest, ExplainRequest, FindingsRequest, GradedRequest, Job
from retr.serve.state import EarlyRoute, Reader, TheIndex, TheState

if TYPE_CHECKING:
    from collections.abc import Callable

    from retr.serve.state import State
    from retr.serve.tokens import Token

router = APIRouter(tags=["long"], responses=REFUSALS, route_class=EarlyRoute)
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}


@router.post("/indexes/{index}/explain", response_class=Response, responses=PNG)
async def explain(asked: ExplainRequest, served: TheIndex, state: TheState, token: Reader) -> Response:
    """Show which parts of a row's picture match a question: as PNG, bright where they do.

    ``x-retr-way`` says how it was looked at, ``x-retr-peak`` how far the best place reaches on the scale, 0 to 1.
    """
    if (asked.question is None) == (asked.set is None):
        raise UsageError("what matches is asked with a question or with a set")
    query = None if asked.question is None else (await state.decode(query_of, asked.question, state, token))[0]

    def answer() -> tuple[bytes, dict[str, str]]:
        index = served.index.snapshot()
        # it embeds a hundred pictures: one at a time
        if not served.explaining.acquire(blocking=False):
            raise Busy
        try:
            found = index.explain(index.sets.question(asked.set or "") if query is None else query, asked.id)
        finally:
            served.explaining.release()
        file = io.BytesIO()
        (found.layer if asked.layer else found.overlay)(asked.size).save(file, "PNG")
        return file.getvalue(), {"x-retr-way": found.way, "x-retr-peak": f"{found.peak:.3f}"}

    data, headers = await state.run(answer)
    shown: dict[str, Any] = {"set": asked.set}
    if asked.question is not None and state.audit is not None:
        shown = {"questions": [told(asked.question, state.audit, state.uploads)]}
    await state.record(token, served, "explain", shown, [[asked.id]])
    return Response(data, media_type="image/png", headers={"cache-control": "private, no-store", **headers})


@router.post("/indexes/{index}/evaluations", status_code=202)
async def evaluate(asked: EvaluateRequest, served: TheIndex, state: TheState, token: Reader) -> Job:
    """Measure an index on its own labels, patients kept apart; the answer names a job. One runs at a time."""
    options = asked.model_dump()

    def work() -> dict[str, Any]:
        found: dict[str, Any] = served.index.evaluate(**options).to_json()
        return found

    await state.record(token, served, "evaluate", options, [])
    return _begun(state, token, work)


@router.post("/indexes/{index}/evaluations/graded", status_code=202)
async def evaluate_graded(asked: GradedRequest, served: TheIndex, state: TheState, token: Reader) -> Job:
    """Measure search against judged relevance by nDCG, by vectors, by words or both; the answer names a job."""

    def work() -> dict[str, Any]:
        options = asked.model_dump(exclude={"judged"})
        return served.index.snapshot().evaluate_graded(asked.judged, **options).to_json()

    options = asked.model_dump(exclude={"judged", "questions"})
    await state.record(token, served, "evaluate", options, [])
    return _begun(state, token, work)


@router.post("/indexes/{index}/findings", status_code=202)
async def findings(asked: FindingsRequest, served: TheIndex, state: TheState, token: Reader) -> Job:
    """Look for rows that are unlike the archive, or whose label looks wrong; the answer names a job."""

    def work() -> dict[str, Any]:
        index = served.index.snapshot()
        found = (
            index.outliers(asked.n, where=asked.where)
            if asked.label is None
            else index.suspects(asked.label, asked.n, where=asked.where)
        )
        return {"title": found.title, "version": index.version, "rows": list(found), "notes": list(found.notes)}

    await state.record(token, served, "findings", asked.model_dump(), [])
    return _begun(state, token, work)


def _begun(state: State, token: Token, work: Callable[[], dict[str, Any]]) -> Job:
    try:
        name = state.jobs.begin(token.name, work)
    except Busy:
        raise HTTPException(429, "too many jobs wait", {"retry-after": "10"}) from None
    return state.jobs.of(name, token.name, without_paths)


@router.get("/jobs/{job}")
async def job(job: str, state: TheState, token: Reader) -> Job:
    """Return how a job stands; its result, once it is done, is what ``retr eval --json`` prints."""
    return state.jobs.of(job, token.name, without_paths)
