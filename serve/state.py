"""What the routes of one server share, and how a request finds it."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Depends, HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from retr import EncoderNotFoundError, RetrError, UsageError
from retr.serve.jobs import Jobs
from retr.serve.metrics import Metrics
from retr.serve.served import Served
from retr.serve.tokens import LOCAL, Token

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from concurrent.futures import ThreadPoolExecutor

    from retr.serve.audit import Audit
    from retr.serve.decoding import Decoders
    from retr.serve.limits import Rate
    from retr.serve.settings import Settings
    from retr.serve.tokens import Tokens
    from retr.serve.uploads import Uploads

LOGGER = logging.getLogger("retr.serve")
Result = TypeVar("Result")
_MOST_VALUES = 1_000_000


@dataclass
class State:
    """The parts of a running server."""

    settings: Settings
    indexes: dict[str, Served]
    tokens: Tokens | None
    audit: Audit | None
    decoders: Decoders
    uploads: Uploads
    rate: Rate
    wrong_tokens: Rate
    workers: ThreadPoolExecutor
    # pictures that are slow to decode wait for one another, and nothing else waits for them
    readers: ThreadPoolExecutor
    jobs: Jobs = field(default_factory=Jobs)
    metrics: Metrics = field(default_factory=Metrics)
    ready: bool = False

    def warm(self) -> None:
        """Load every index's encoder; one that cannot be loaded is logged, and the server is never ready."""
        try:
            for served in self.indexes.values():
                try:
                    served.warm()
                except EncoderNotFoundError as error:
                    # vectors that were made elsewhere: rows and vectors are asked without one, and nothing else waits
                    LOGGER.warning("%s", error)
        except RetrError as error:
            LOGGER.error("not ready: %s", error)  # noqa: TRY400 - a line of a log, for who runs the server
        except Exception as error:  # noqa: BLE001 - said by its kind alone, as every other fault
            LOGGER.error("not ready: internal error (%s)", type(error).__name__)  # noqa: TRY400
        else:
            self.ready = True

    async def record(
        self, token: Token, served: Served, action: str, asked: Mapping[str, Any], ids: Sequence[Sequence[str]]
    ) -> None:
        """Write a question and the ids that answered it into the audit, if there is one."""
        if self.audit is None:
            return
        entry = {"who": token.name, "action": action, "index": served.name, "version": served.index.version}
        answered = [self.audit.ids(list(some)) for some in ids]
        shown = {name: self._shown(self.audit, name, value) for name, value in asked.items() if value is not None}
        # a disk may be slow, and the loop waits for nothing
        writing = asyncio.get_running_loop().run_in_executor(
            self.workers, self.audit.write, entry | {"asked": shown, "ids": answered}
        )
        try:
            await writing
        except OSError:
            # what cannot be written down is not answered
            raise HTTPException(503, "the audit cannot be written") from None

    @staticmethod
    def _shown(audit: Audit, name: str, value: Any) -> Any:
        """Return one option of a question as the audit holds it."""
        if name == "where":
            return audit.condition(value)
        if name in {"set", "label"}:
            return audit.words(value)
        if name == "exclude_same":
            return {column: own if own is None else audit.ids([own])[0] for column, own in value.items()}
        return audit.ids([value])[0] if name == "patient" else value

    def close(self) -> None:
        """Answer what waits, then let go of everything."""
        self.jobs.close()
        for served in self.indexes.values():
            served.close()
        self.decoders.close()
        self.workers.shutdown()
        self.readers.shutdown()
        if self.audit is not None:
            self.audit.close()

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run something that takes long in a thread, for at most the time an answer may take."""
        running = asyncio.get_running_loop().run_in_executor(self.workers, function, *arguments)
        return await self.within(running)

    async def decode(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run something that decodes pictures of strangers, likewise."""
        running = asyncio.get_running_loop().run_in_executor(self.readers, function, *arguments)
        return await self.within(running)

    async def within(self, running: asyncio.Future[Result]) -> Result:
        """Wait for an answer for at most the time it may take."""
        try:
            return await asyncio.wait_for(running, self.settings.answer_seconds)
        except TimeoutError:
            raise HTTPException(504, f"no answer within {self.settings.answer_seconds:g} seconds") from None


def state_of(request: Request) -> State:
    """Return the state of the server that was asked."""
    state: State = request.app.state.retr
    return state


class Holder:
    """A dependency: the token of a request, which must have a scope."""

    def __init__(self, scope: str) -> None:
        self._scope = scope

    async def __call__(self, request: Request) -> Token:
        """Return the token; it is looked at once a request, by `EarlyRoute` before the body is read."""
        held: Token | None = getattr(request.state, "token", None)
        if held is None:
            held = request.state.token = self._checked(request)
        return held

    def _checked(self, request: Request) -> Token:
        state = state_of(request)
        token = _token(request, state)
        address = request.client.host if request.client else ""
        wait = state.rate.take(token.name if token is not LOCAL else address)
        if wait:
            raise HTTPException(429, "too many requests", {"retry-after": str(max(1, round(wait)))})
        if self._scope not in token.scopes:
            raise HTTPException(403, f"the token {token.name!r} has not the scope {self._scope!r}")
        if self._scope != "read" and state.settings.read_only:
            raise HTTPException(403, "this server changes nothing (--read-only)")
        return token


class _Read(Request):
    """A request whose JSON is read by pydantic's reader, in a third of the time."""

    async def json(self) -> Any:
        """Return the body's JSON; what that reader refuses (half a character, UTF-16) is left to Python's."""
        try:
            return from_json(await self.body())
        except ValueError:
            return await super().json()


class EarlyRoute(APIRoute):
    """A route that looks at the token before it reads a byte of the body, which FastAPI does the other way round.

    Of a body of JSON it counts the values before they are parsed.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        answer = super().get_route_handler()
        holders = [one.call for one in self.dependant.dependencies if isinstance(one.call, Holder)]

        async def handle(request: Request) -> Response:
            request = _Read(request.scope, request.receive)
            for holder in holders:
                await holder(request)
            # nothing else is answered while JSON is parsed: a million numbers take a tenth of a second, a picture none
            if self.body_field is not None and (await request.body()).count(b",") > _MOST_VALUES:
                raise HTTPException(413, f"a request may hold {_MOST_VALUES} values")
            return await answer(request)

        return handle


def _token(request: Request, state: State) -> Token:
    given = request.headers.get("authorization", "")
    kind, _, presented = given.partition(" ")
    address = request.client.host if request.client else ""
    if state.tokens is None:
        return LOCAL
    try:
        token = state.tokens.of(presented.strip()) if kind.lower() == "bearer" else None
    except UsageError:
        # a file that is being edited; why it cannot be read is nothing for strangers
        raise HTTPException(503, "the tokens cannot be read") from None
    if token is None:
        if given and state.wrong_tokens.take(_network(address)):
            raise HTTPException(429, "too many wrong tokens", {"retry-after": "10"})
        raise HTTPException(401, "a token is needed", {"www-authenticate": "Bearer"})
    return token


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network(f"{found}/64", strict=False)) if found.version == 6 else address


async def served_of(index: str, request: Request) -> Served:
    """Return the index that a path names."""
    served = state_of(request).indexes.get(index)
    if served is None:
        raise HTTPException(404, "no index of that name is served")
    return served


async def _the_state(request: Request) -> State:
    # FastAPI would call a plain function in a thread
    return state_of(request)


Reader = Annotated[Token, Depends(Holder("read"))]
Labeller = Annotated[Token, Depends(Holder("label"))]
Writer = Annotated[Token, Depends(Holder("write"))]
TheState = Annotated[State, Depends(_the_state)]
TheIndex = Annotated[Served, Depends(served_of)]
