"""What a request may be before anything of ours looks at it: its host, its origin, its size, its pace.

These are plain ASGI layers, so that they hold for every path, the page's files and errors included. A refusal is the
same JSON object as every other error of the API.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOGGER = logging.getLogger("retr.serve")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Broken(Exception):  # noqa: N818 - never leaves this module
    """The body is not read further; whatever the application makes of this error, the client is told the reason."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Guard:
    """Refuse what no request of an honest client is, and put the security headers on every answer.

    Parameters
    ----------
    hosts
        Names under which the server may be asked (``Host``), without port, in lower case. A page of another site whose
        name was made to resolve to this machine (DNS rebinding) names itself, and is refused.
    origins
        Sites whose pages may ask beside the server's own (``Origin``), e.g. ``https://viewer.hospital.org``.
    max_body
        Bytes of a body.
    body_seconds
        How long a body may take to arrive.
    max_bodies
        Bytes of the bodies of all requests that are being answered.
    """

    def __init__(
        self,
        app: App,
        *,
        hosts: frozenset[str],
        origins: frozenset[str],
        max_body: int,
        body_seconds: float,
        max_bodies: int = 1 << 30,
    ) -> None:
        self._app = app
        self._max_bodies, self._bodies = max_bodies, 0
        self._hosts, self._origins = hosts, origins
        self._max_body, self._body_seconds = max_body, body_seconds

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # no path speaks another protocol; a websocket is closed before it is accepted
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = _headers(scope)
        body = _Body(receive, self)
        started = replaced = False

        async def sending(message: Message) -> None:
            nonlocal started, replaced
            if replaced:
                return
            if body.broken is not None and not started:
                # an application may take the broken body for one that it cannot parse, and say so
                replaced = True
                await answer_error(bare, body.broken.status, body.broken.text)
                return
            await bare(message)

        async def bare(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                kept = [(name, value) for name, value in message.get("headers", ()) if name.decode() not in HEADERS]
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                if not body.complete and not _is_empty(headers):
                    # what is left of the request is not read
                    own.append((b"connection", b"close"))
                message = {**message, "headers": [*kept, *own]}
            await send(message)

        refused = self._refusal(scope, headers)
        if refused is not None:
            await answer_error(bare, *refused)
            return
        try:
            await self._app(scope, body.receive, sending)
        except Broken as broken:
            if not started:
                await answer_error(bare, broken.status, broken.text)
        except Exception as error:  # noqa: BLE001 - the message and the stack of a fault may hold an identifier
            LOGGER.error("internal error: %s", type(error).__name__)  # noqa: TRY400
            if not started:
                await answer_error(bare, 500, f"internal error ({type(error).__name__})")
        finally:
            self._bodies -= body.size

    def _refusal(self, scope: MutableMapping[str, Any], headers: dict[str, list[str]]) -> tuple[int, str] | None:
        hosts = headers.get("host", [])
        if len(hosts) != 1 or _name_of(hosts[0]) not in self._hosts:
            return 421, "this server is not asked under that name; name it with --allow-host"
        for origin in headers.get("origin", ()):
            own = {f"{scheme}://{hosts[0].lower()}" for scheme in ("http", "https")}
            if origin.lower() not in own | self._origins:
                return 403, "a page of another site may not ask this server; name it with --allow-origin"
        # browsers say where a request comes from even where they send no Origin
        if headers.get("sec-fetch-site", [""])[0] == "cross-site" and scope["method"] not in {"GET", "HEAD"}:
            return 403, "a page of another site may not ask this server; name it with --allow-origin"
        length = headers.get("content-length", ["0"])[0]
        if not length.isdecimal() or int(length) > self._max_body:
            return 413, f"a request may hold {self._max_body} bytes"
        return None

    def hold(self, size: int) -> bool:
        """Count further bytes in memory; return whether there is room for them."""
        self._bodies += size
        return self._bodies <= self._max_bodies

    @property
    def body_limits(self) -> tuple[int, float]:
        """Bytes and seconds of one body."""
        return self._max_body, self._body_seconds


class _Body:
    """The body of one request, whose bytes and seconds are counted until it is complete."""

    def __init__(self, receive: Receive, guard: Guard) -> None:
        self._receive, self._guard = receive, guard
        self._began, self.complete = time.monotonic(), False
        self.size = 0
        self.broken: Broken | None = None

    async def receive(self) -> Message:
        """Return the next message; raise `Broken` where the body is too large or too slow."""
        if self.complete:
            return await self._receive()
        if self.broken is not None:
            raise self.broken
        most, seconds = self._guard.body_limits
        left = seconds - (time.monotonic() - self._began)
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.001))
        except TimeoutError:
            raise self._breaks(408, f"a request must arrive within {seconds:g} seconds") from None
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self.size += size
            self.complete = not message.get("more_body", False)
            room = self._guard.hold(size)
            if self.size > most:
                raise self._breaks(413, f"a request may hold {most} bytes")
            if not room:
                raise self._breaks(503, "too many large requests at once; ask again in a second")
        return message

    def _breaks(self, status: int, text: str) -> Broken:
        self.broken = Broken(status, text)
        return self.broken


class Rate:
    """How often one token, or one address without a token, may ask: a bucket that refills.

    Parameters
    ----------
    a_second
        Questions a second in the long run.
    burst
        How many at once after a pause.
    """

    _most = 10_000

    def __init__(self, a_second: float, burst: int) -> None:
        self._a_second, self._burst = a_second, burst
        self._left: dict[str, tuple[float, float]] = {}
        # the routes' checks run in several threads
        self._lock = threading.Lock()

    def take(self, who: str, now: float | None = None) -> float:
        """Take one; return 0.0, or how many seconds to wait where none is left.

        >>> rate = Rate(2, 2)
        >>> [rate.take("anna", now) for now in (0.0, 0.0, 0.0, 0.5)]
        [0.0, 0.0, 0.5, 0.0]
        """
        now = time.monotonic() if now is None else now
        with self._lock:
            left, then = self._left.pop(who, (float(self._burst), now))
            left = min(float(self._burst), left + (now - then) * self._a_second)
            wait = 0.0 if left >= 1 else (1 - left) / self._a_second
            self._left[who] = (left - (wait == 0.0), now)
            while len(self._left) > self._most:
                self._left.pop(next(iter(self._left)))
        return wait


async def answer_error(send: Send, status: int, text: str, hint: str | None = None) -> None:
    """Send an error object as the whole answer."""
    body = json.dumps({"error": {"message": text, "hint": hint, "kind": None}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: MutableMapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _is_empty(headers: dict[str, list[str]]) -> bool:
    return headers.get("content-length", ["0"]) == ["0"] and "transfer-encoding" not in headers


def _name_of(host: str) -> str:
    """Return a host's name without its port, in lower case.

    >>> [_name_of(host) for host in ("Localhost:7860", "[::1]:7860", "10.0.0.7")]
    ['localhost', '::1', '10.0.0.7']
    """
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
