"""Counters for Prometheus: how many requests, how long, how they ended; no identifier in any label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


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
