"""The API, assembled: guards, tokens, errors, and the routes of each group."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import retr
from retr import ImageReadError, IndexLockedError, NoTextSideError, RetrError, UnknownIdError, UsageError
from retr.serve import (
    routes_long,
    routes_map,
    routes_page,
    routes_pictures,
    routes_read,
    routes_sets,
    routes_state,
    routes_write,
)
from retr.serve.audit import Audit
from retr.serve.batching import Busy
from retr.serve.decoding import Decoders, Limits
from retr.serve.freed import give_back
from retr.serve.limits import Guard, Rate
from retr.serve.messages import without_paths
from retr.serve.metrics import Counted
from retr.serve.served import Served
from retr.serve.state import State
from retr.serve.tokens import Tokens
from retr.serve.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from fastapi import Request

    from retr.serve.settings import Settings

LOGGER = logging.getLogger("retr.serve")
_SYNC_EVERY = 1.0
_TRIM_EVERY = 30.0


def create_app(indexes: Mapping[str, Path], settings: Settings, options: Mapping[str, Any] | None = None) -> FastAPI:
    """Return the server's application.

    Parameters
    ----------
    indexes
        Index folders by the names under which they are served.
    options
        Of `retr.Index.open`, for all of them.

    Raises
    ------
    RetrError
        An index cannot be opened, or a file that the settings name cannot be used.
    """
    state = _state(indexes, settings, options or {})
    app = FastAPI(
        title="retr",
        version=retr.__version__,
        summary="Image retrieval for medical archives",
        lifespan=functools.partial(_lifespan, state),
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        # FastAPI's own would hand stacks and messages to a collector that the environment names
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.state.retr = state
    for kind in (RetrError, Busy, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _explain)
    for module in (routes_state, routes_page):
        app.include_router(module.router)
    for module in (routes_read, routes_map, routes_pictures, routes_write, routes_long, routes_sets):
        app.include_router(module.router, prefix="/v1")
    app.add_middleware(Counted, metrics=state.metrics)
    app.add_middleware(
        Guard,
        hosts=settings.own_names,
        origins=settings.origins,
        max_body=settings.max_body,
        body_seconds=settings.body_seconds,
    )
    return app


def _state(indexes: Mapping[str, Path], settings: Settings, options: Mapping[str, Any]) -> State:
    """Open what the routes share."""
    return State(
        settings=settings,
        indexes={name: Served(name, path, dict(options)) for name, path in indexes.items()},
        tokens=None if settings.token_file is None else Tokens(settings.token_file),
        audit=None
        if settings.audit_file is None
        else Audit(settings.audit_file, hash_ids=not settings.plain_ids, hash_text=settings.hash_words),
        decoders=Decoders(limits=Limits(seconds=settings.decode_seconds)),
        uploads=Uploads(),
        rate=Rate(settings.rate, settings.burst),
        # nobody mistypes a token more often
        wrong_tokens=Rate(0.5, 20),
        workers=ThreadPoolExecutor(8, thread_name_prefix="retr"),
        readers=ThreadPoolExecutor(4, thread_name_prefix="retr-read"),
    )


@contextlib.asynccontextmanager
async def _lifespan(state: State, _: FastAPI) -> AsyncIterator[None]:
    """Load encoders behind the first questions, bring the audit to the disk, and close everything at the end."""
    syncing = asyncio.create_task(_sync(state))
    loading = asyncio.get_running_loop().run_in_executor(state.workers, state.warm)
    try:
        yield
    finally:
        syncing.cancel()
        with contextlib.suppress(Exception):
            await loading
        state.close()


async def _sync(state: State) -> None:
    loop = asyncio.get_running_loop()
    trimmed = loop.time()
    while True:
        await asyncio.sleep(_SYNC_EVERY)
        if loop.time() - trimmed > _TRIM_EVERY:
            trimmed = loop.time()
            await loop.run_in_executor(state.workers, give_back)
        if state.audit is not None:
            try:
                await loop.run_in_executor(state.workers, state.audit.sync)
            except OSError as error:
                LOGGER.error("the audit is not brought to the disk: %s", error.strerror)  # noqa: TRY400
        for served in state.indexes.values():
            # also where nobody asks: files of rows that were purged are mapped no longer
            await loop.run_in_executor(state.workers, served.look)


async def _explain(_: Request, error: Exception) -> Response:
    """Return an error as the API's one kind of object."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return _refusal(422, f"{place}: {first['msg']}")
    if isinstance(error, HTTPException):
        return _refusal(error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, Busy):
        return _refusal(503, "too many questions wait", "ask again in a second", {"retry-after": "1"})
    if isinstance(error, RetrError):
        hint = None if error.hint is None else without_paths(error.hint)
        return _refusal(_status(error), without_paths(error.message), hint, kind=type(error).__name__)
    # `Guard` answers for every other one
    raise error


def _status(error: RetrError) -> int:
    if isinstance(error, UnknownIdError):
        return 404
    if isinstance(error, UsageError | ImageReadError | NoTextSideError):
        return 422
    # what the server lacks: an archive that was moved, an index that is damaged
    return 409 if isinstance(error, IndexLockedError) else 503


def _refusal(
    status: int,
    message: str,
    hint: str | None = None,
    headers: Mapping[str, str] | None = None,
    kind: str | None = None,
) -> Response:
    # escaped, since a request may hold half a character, which UTF-8 cannot
    body = json.dumps({"error": {"message": message, "hint": hint, "kind": kind}})
    return Response(body, status, headers, media_type="application/json")
