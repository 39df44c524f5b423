"""A server that speaks S3, for tests of stores: moto's, on the loopback."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from retr.retrieval.archive import remote

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


@contextmanager
def s3_server() -> Iterator[str]:
    """Run a server; its address is the value."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def log_in(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all that speaks S3 ask a server, as a made-up user, and wait little between tries."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    s3fs.S3FileSystem.clear_instance_cache()
