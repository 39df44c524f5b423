"""uvicorn's HTTP protocol with the two time limits that it lacks: for a request's head, and for a reader that stops.

A connection that never completes a head (slow loris), and one that takes no more of its answer, would each hold a
place for ever. Bodies have their own limit in `retr.serve.limits.Guard`.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.h11_impl import RequestResponseCycle


class TimedProtocol(H11Protocol):
    """One connection, closed where its head or its reader takes too long."""

    head_seconds = 15.0
    stalled_seconds = 60.0
    _head: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head; send what there is at once."""
        super().connection_made(transport)
        # asyncio asks for that itself, but not of a socket that was bound before: an answer's body would wait until
        # the client has confirmed its head, and the client waits 40 ms before it does
        own = transport.get_extra_info("socket")
        if own is not None and own.family in {socket.AF_INET, socket.AF_INET6}:
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; wait no longer once a head is complete."""
        super().data_received(data)
        if self._answering():
            self._end_wait()
        elif self._head is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget both limits."""
        self._end_wait()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to wait for a client that does not read."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.stalled_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Wait no longer: the client reads on."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _await_head(self) -> None:
        self._head = self.loop.call_later(self.head_seconds, self._late)

    def _end_wait(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _late(self) -> None:
        self._head = None
        # a request that came in the same moment is answered
        if not self._answering():
            self.transport.abort()

    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete
