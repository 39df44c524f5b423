"""The API, assembled: guards, tokens, errors, and the routes of each group."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import retr
from retr import ImageReadError, IndexLockedError, NoTextSideError, RetrError, UnknownIdError, UsageError
from retr.serve import routes_page, routes_pictures, routes_read, routes_state
from retr.serve.audit import Audit
from retr.serve.batching import Busy
from retr.serve.decoding import Decoders, Limits
from retr.serve.limits import Guard, Rate
from retr.serve.served import Served
from retr.serve.state import State
from retr.serve.tokens import Tokens
from retr.serve.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from retr.serve.settings import Settings

LOGGER = logging.getLogger("retr.serve")
_SYNC_EVERY = 1.0


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
    state = State(
        settings=settings,
        indexes={name: Served(name, path, dict(options or {})) for name, path in indexes.items()},
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
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        syncing = asyncio.create_task(_sync(state))
        loading = asyncio.get_running_loop().run_in_executor(state.workers, state.warm)
        try:
            yield
        finally:
            syncing.cancel()
            with contextlib.suppress(Exception):
                await loading
            state.close()

    app = FastAPI(
        title="retr",
        version=retr.__version__,
        summary="Image retrieval for medical archives",
        lifespan=lifespan,
        root_path=settings.root_path,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.state.retr = state
    for kind in (RetrError, Busy, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _explain)
    app.include_router(routes_state.router)
    app.include_router(routes_page.router)
    app.include_router(routes_read.router, prefix="/v1")
    app.include_router(routes_pictures.router, prefix="/v1")
    app.middleware("http")(_counted(state))
    app.add_middleware(
        Guard,
        hosts=settings.own_names,
        origins=settings.origins,
        max_body=settings.max_body,
        body_seconds=settings.body_seconds,
    )
    return app


def _counted(state: State) -> Callable[..., Any]:
    async def counted(request: Request, call_next: Callable[..., Any]) -> Any:
        began = time.monotonic()
        response = await call_next(request)
        route = request.scope.get("route")
        # the pattern, never the path: a path may hold an identifier
        state.metrics.observe(getattr(route, "path", "other"), response.status_code, time.monotonic() - began)
        return response

    return counted


async def _sync(state: State) -> None:
    while True:
        await asyncio.sleep(_SYNC_EVERY)
        if state.audit is not None:
            await asyncio.get_running_loop().run_in_executor(state.workers, state.audit.sync)


async def _explain(_: Request, error: Exception) -> JSONResponse:
    """Return an error as the API's one kind of object; of a fault of ours nothing but that it was one."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return _refusal(422, f"{place}: {first['msg']}")
    if isinstance(error, HTTPException):
        return _refusal(error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, Busy):
        return _refusal(503, "too many questions wait", "ask again in a second", {"retry-after": "1"})
    if isinstance(error, RetrError):
        return _refusal(_status(error), error.message, error.hint, kind=type(error).__name__)
    LOGGER.error("internal error: %s", type(error).__name__)
    return _refusal(500, f"internal error ({type(error).__name__})")


def _status(error: RetrError) -> int:
    if isinstance(error, UnknownIdError):
        return 404
    if isinstance(error, UsageError | ImageReadError | NoTextSideError):
        return 422
    return 409 if isinstance(error, IndexLockedError) else 500


def _refusal(
    status: int,
    message: str,
    hint: str | None = None,
    headers: Mapping[str, str] | None = None,
    kind: str | None = None,
) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "hint": hint, "kind": kind}}, status, headers)
