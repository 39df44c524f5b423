"""A picture by its address: fetched from there alone, bounded, and never from a private address that a server names."""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from retr.index.errors import RetrError, UsageError
from retr.retrieval.images import fetched
from retr.retrieval.images.fetched import fetch_picture


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        path = self.path.partition("?")[0]
        if path == "/slow":
            self.send_response(200)
            self.end_headers()
            # as long as somebody listens
            while True:
                self.wfile.write(b"x")
                time.sleep(0.02)
        status, headers, body = self.server.answers[path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

    def handle(self):
        with suppress(OSError):
            super().handle()


@contextmanager
def serving(answers):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.answers, server.asked, server.daemon_threads = answers, [], True
    thread = threading.Thread(target=lambda: server.serve_forever(0.01))
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def refused(address: str) -> str:
    with pytest.raises(RetrError) as caught:
        fetch_picture(address)
    line = str(caught.value)
    assert "\n" not in line
    assert "secret" not in line
    return line


def test_the_bytes_of_an_address(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving({"/a.png": (200, {}, b"picture")}) as (server, url):
        assert fetch_picture(f"{url}/a.png?size=full") == b"picture"
    ((path, headers),) = server.asked
    assert path == "/a.png?size=full"
    assert set(headers) == {"Host", "User-Agent", "Accept-Encoding"}


@pytest.mark.parametrize(
    "target",
    [
        "/b.png",
        "http://127.0.0.1:1/",
        "http://[::1]/",
        "http://localhost/",
        "http://10.0.0.1/",
        "http://169.254.169.254/",
    ],
)
def test_no_server_sends_us_on_to_a_private_address(target):
    with serving({"/a.png": (302, {"Location": target}, b""), "/b.png": (200, {}, b"inside")}) as (server, url):
        assert "sends us on to a private address" in refused(f"{url}/a.png?token=secret")
    assert [path for path, _ in server.asked] == ["/a.png?token=secret"]


def test_what_is_public_is_followed_and_looked_up_once(monkeypatch):
    """Where the name of a host is looked up again it may be another place: it is connected to where was looked."""
    with serving({"/a.png": (302, {"Location": "http://pictures.example/b.png"}, b""), "/b.png": (200, {}, b"x")}) as (
        server,
        url,
    ):
        looked_up = []

        def lookup(host, port, **_):
            looked_up.append(host)
            return [(2, 1, 6, "", (host if host == "127.0.0.1" else "93.184.215.14", port))]

        connected = []

        def connect(place, timeout):
            connected.append(place)
            import socket

            sock = socket.socket()
            sock.connect(("127.0.0.1", server.server_port))
            return sock

        monkeypatch.setattr(fetched.socket, "getaddrinfo", lookup)
        monkeypatch.setattr(fetched.socket, "create_connection", connect)
        assert fetch_picture(f"{url}/a.png") == b"x"
    assert looked_up == ["127.0.0.1", "pictures.example"]
    assert connected == [("127.0.0.1", server.server_port), ("93.184.215.14", 80)]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, {}, b""), "the server answers 404"),
        ((200, {"Content-Encoding": "gzip"}, b"x"), "compressed"),
        ((200, {"Content-Length": "2000"}, b"x"), "it is larger than 0 MiB"),
        ((200, {}, b"x" * 2000), "it is larger than 0 MiB"),
        ((200, {"Content-Length": "900"}, b"x"), "no answer (IncompleteRead)"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "to what is no address"),
        ((302, {"Location": "gopher://x/"}, b""), "to what is no address"),
        ((302, {}, b""), "sends us on to a private address"),
    ],
)
def test_an_answer_that_is_not_taken(monkeypatch, answer, said):
    monkeypatch.setattr(fetched, "MOST_BYTES", 1000)
    with serving({"/a.png": answer}) as (_, url):
        assert said in refused(f"{url}/a.png?key=secret")


def test_a_server_that_never_ends(monkeypatch):
    monkeypatch.setattr(fetched, "PATIENCE", 0.2)
    with serving({}) as (_, url):
        assert "it took more than 0.2 seconds" in refused(f"{url}/slow")


def test_a_loop_ends(monkeypatch):
    monkeypatch.setattr(fetched, "_is_public", lambda _: True)
    with serving({"/a.png": (302, {"Location": "/a.png"}, b"")}) as (server, url):
        assert "more than 3 times" in refused(f"{url}/a.png")
    assert len(server.asked) == 4


def test_a_certificate_counts(monkeypatch):
    def unverified(self):
        raise ssl.SSLCertVerificationError

    monkeypatch.setattr(fetched._Encrypted, "connect", unverified)
    assert "certificate is not valid" in refused("https://127.0.0.1/a.png")


@pytest.mark.parametrize(
    "address",
    ["https://", "https:///a.png", "https://h:99999/a", "https://h/a b", "https://h/\n", "https://user:pw@h/a"],
)
def test_what_is_no_address(address):
    with pytest.raises(UsageError):
        fetch_picture(address)


def test_a_host_that_is_not_there():
    assert "its host is not known" in refused("https://no-such-host.invalid/a.png")
    assert "no answer" in refused("http://127.0.0.1:1/a.png")
