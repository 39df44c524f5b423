"""Fetch one picture from an address that a person named, and from nowhere else.

Nothing is fetched on its own: a path in a table, a batch or a link in a page is never an address. What is named may be
inside a hospital; where its server sends us on must be outside, so that no stranger's server has us ask a machine that
only we can reach. An address is looked up once, and that is where the connection goes. No proxy, cookie or login of the
environment is used, and no answer is larger or slower than it may be.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from retr.index.errors import RetrError, UsageError
from retr.index.machine.waiting import waiting

if TYPE_CHECKING:
    from urllib.parse import SplitResult

MOST_BYTES = 256 << 20
# seconds: without a byte, and for all of it
SILENCE, PATIENCE = 10.0, 120.0
REDIRECTS = 3
_PIECE = 1 << 18


def is_address(text: str) -> bool:
    """Return whether a text is an address of the web.

    >>> is_address("https://example.org/a.png"), is_address("https.png"), is_address("s3://bucket/a.png")
    (True, False, False)
    """
    return text.lower().startswith(("http://", "https://"))


def fetch_picture(address: str) -> bytes:
    """Return the bytes at an ``http://`` or ``https://`` address.

    Raises
    ------
    UsageError
        It is no address, or holds a login.
    RetrError
        There is no answer, or one that is not taken: too large, too slow, or sent on to a private address.
    """
    named, since = _parts(address), time.monotonic()
    parts, shown = named, _shown(named)
    with waiting(f"fetching {shown!r}"):
        for hop in range(REDIRECTS + 1):
            left = PATIENCE - (time.monotonic() - since)
            status, target, data = _ask(parts, _place(parts, shown, sent_on=hop > 0), shown, left)
            if target is None:
                if status != http.client.OK:
                    raise _refused(shown, f"the server answers {status}", "look at it in a browser")
                return data
            try:
                there = _parts(urljoin(parts.geturl(), target))
            except UsageError:
                raise _refused(shown, "the server sends us on to what is no address") from None
            if parts.scheme == "https" and there.scheme != "https":
                raise _refused(shown, "the server sends us on without encryption")
            parts = there
    raise _refused(shown, f"the server sends us on more than {REDIRECTS} times")


def _parts(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    good = parts.scheme in {"http", "https"} and parts.hostname and port != 0 and address.isascii()
    if not good or not address.isprintable() or " " in address:
        raise UsageError("a picture's address is no address", hint="give https://HOST/PATH, spaces written as %20")
    if "@" in parts.netloc:
        raise UsageError("a picture's address holds no login", hint="save the picture, and give the file")
    return parts


def _shown(parts: SplitResult) -> str:
    """Return an address without what may be a secret in it."""
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _refused(shown: str, why: str, hint: str | None = "save the picture, and give the file") -> RetrError:
    return RetrError(f"cannot fetch {shown!r}: {why}", hint=hint)


def _place(parts: SplitResult, shown: str, *, sent_on: bool) -> tuple[str, int]:
    """Look an address up; refuse a private one that a server sent us on to."""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _refused(shown, "its host is not known", "check the address, and the network") from None
    places = [str(one[4][0]) for one in found]
    if sent_on and not all(_is_public(place) for place in places):
        raise _refused(shown, "the server sends us on to a private address", "give that address itself if it is meant")
    return places[0], port


def _is_public(place: str) -> bool:
    """Return whether an IP address is one of the open internet.

    >>> [_is_public(place) for place in ("93.184.215.14", "10.0.0.7", "::1", "::ffff:127.0.0.1", "169.254.169.254")]
    [True, False, False, False, False]
    """
    address = ipaddress.ip_address(place.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_global and not (mapped or address).is_multicast


class _Plain(http.client.HTTPConnection):
    """A connection to a place that was looked up before."""

    def __init__(self, host: str, place: tuple[str, int]) -> None:
        super().__init__(host, place[1], timeout=SILENCE)
        self._place = place
        # http.client forgets its socket where the answer is the last one on it
        self.opened: socket.socket | None = None

    def connect(self) -> None:
        """Connect to that place."""
        self.sock = self.opened = socket.create_connection(self._place, self.timeout)


class _Encrypted(_Plain):
    """The same over TLS, with the certificate of the host that was named."""

    def connect(self) -> None:
        """Connect to that place."""
        super().connect()
        self.sock = self.opened = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def _ask(parts: SplitResult, place: tuple[str, int], shown: str, seconds: float) -> tuple[int, str | None, bytes]:
    """Ask once; return the status, where the server sends us on to, and the bytes."""
    connection = (_Encrypted if parts.scheme == "https" else _Plain)(str(parts.hostname), place)
    # a server that sends a byte now and then is never silent
    late = threading.Event()
    end = threading.Timer(max(seconds, 0), _cut, [connection, late])
    end.daemon = True
    end.start()
    try:
        target = parts.path or "/"
        host = parts.netloc
        connection.putrequest("GET", f"{target}?{parts.query}" if parts.query else target, True, True)
        for name, value in {"Host": host, "User-Agent": "retr", "Accept-Encoding": "identity"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        with connection.getresponse() as answer:
            if answer.status in {301, 302, 303, 307, 308}:
                return answer.status, answer.getheader("Location", ""), b""
            if answer.status != http.client.OK:
                return answer.status, None, b""
            return answer.status, None, _read(answer, shown, late)
    except ssl.SSLCertVerificationError:
        raise _refused(shown, "the server's certificate is not valid") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = f"it took more than {PATIENCE:g} seconds" if late.is_set() else f"no answer ({type(error).__name__})"
        raise _refused(shown, why, "check the address, and the network") from None
    finally:
        end.cancel()
        connection.close()


def _cut(connection: _Plain, late: threading.Event) -> None:
    late.set()
    if connection.opened is not None:
        with suppress(OSError):
            connection.opened.shutdown(socket.SHUT_RDWR)


def _read(answer: http.client.HTTPResponse, shown: str, late: threading.Event) -> bytes:
    if answer.getheader("Content-Encoding", "identity") != "identity":
        raise _refused(shown, "the server answers compressed, which was not asked for")
    if (answer.length or 0) > MOST_BYTES:
        raise _refused(shown, f"it is larger than {MOST_BYTES >> 20} MiB")
    pieces, size = [], 0
    while piece := answer.read(_PIECE):
        size += len(piece)
        if size > MOST_BYTES:
            raise _refused(shown, f"it is larger than {MOST_BYTES >> 20} MiB")
        pieces.append(piece)
    if answer.length:
        raise http.client.IncompleteRead(b"")
    if late.is_set():
        # cut off: without a length the end of an answer says nothing
        raise TimeoutError
    return b"".join(pieces)
