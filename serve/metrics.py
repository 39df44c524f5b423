"""Counters for Prometheus: how many requests, how long, how they ended; no identifier in any label."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

    from retr.serve.limits import App, Message, Receive, Send


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["route", "status"]
        self._requests = Counter("retr_requests", "Requests answered", labels, registry=self.registry)
        self._seconds = Histogram("retr_request_seconds", "Seconds until the answer", ["route"], registry=self.registry)
        self.version = Gauge("retr_index_version", "Version that is served", ["index"], registry=self.registry)
        self.rows = Gauge("retr_index_rows", "Rows of an index", ["index"], registry=self.registry)

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all counters in Prometheus's text form."""
        return generate_latest(self.registry)


class Counted:
    """An application whose answers are counted; a layer of ASGI, which costs a request next to nothing."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, and count the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            route = scope.get("route")
            # the pattern, never the path: a path may hold an identifier
            self._metrics.observe(getattr(route, "path", "other"), status, time.monotonic() - began)
