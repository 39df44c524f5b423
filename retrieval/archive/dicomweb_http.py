"""Requests to one DICOMweb server: nothing is sent elsewhere, and no answer is larger than it may be.

What `dicomweb_client` needs of a session of requests is its `get`. Here it follows no redirect, reads no proxy and no
``.netrc``, asks for no compression and takes none, and stops at an answer that is too large or does not end.
Credentials come from the environment alone (`VARIABLES`); neither they nor an address with its UIDs enter an error.
"""

from __future__ import annotations

import io
import ipaddress
import os
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from retr.index.errors import UsageError
from retr.index.machine.extras import needed
from retr.index.machine.home import home

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN, USER, PASSWORD = "RETR_DICOMWEB_TOKEN", "RETR_DICOMWEB_USER", "RETR_DICOMWEB_PASSWORD"
CA_FILE = "RETR_DICOMWEB_CA_FILE"
SCHEMES = {"dicomweb": "http", "dicomwebs": "https"}
# what a question about studies may be narrowed by; `retr.retrieval.archive.dicomweb` looks whether it was
FILTERS = ("StudyDate", "ModalitiesInStudy", "PatientID", "AccessionNumber", "StudyInstanceUID")

MAX_LISTING = 32 << 20
MAX_INSTANCE = 1 << 30
# seconds: to connect, between two pieces, and for an answer beside one per so many bytes
CONNECT, SILENCE, PATIENCE, SLOWEST = 10.0, 60.0, 120.0, 20_000
_PIECE = 1 << 18
_DATES = re.compile(r"\d{8}|\d{8}-(\d{8})?|-\d{8}")


class RefusedAnswerError(OSError):
    """An answer that no honest server gives; asking again would not change it."""


@dataclass(frozen=True)
class Address:
    """Where a server is: ``url`` as HTTP has it, ``location`` as it was named, without what narrows it."""

    url: str
    location: str
    filters: Mapping[str, str]

    @classmethod
    def of(cls, text: str) -> Address:
        """Read ``dicomweb://host[:port]/path`` or ``dicomwebs://...``.

        Raises
        ------
        UsageError
            It is none, holds a password, or is narrowed by what is not in `FILTERS`.
        """
        scheme = text.partition("://")[0].lower()
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        if "@" in parts.netloc:
            raise UsageError(
                f"a {scheme}:// address holds no user and no password",
                hint=f"set {USER} and {PASSWORD}, or {TOKEN}, and leave them out",
            )
        if not host or parts.fragment or not text.isascii() or not text.isprintable() or " " in text:
            raise UsageError(f"{scheme}:// is followed by no address", hint=f"give {scheme}://HOST[:PORT]/PATH")
        name = f"[{host}]" if ":" in host else host
        place = f"{name}:{port}{parts.path.rstrip('/')}" if port else f"{name}{parts.path.rstrip('/')}"
        filters = dict(parse_qsl(parts.query, keep_blank_values=True))
        for key, value in filters.items():
            if key not in FILTERS or not value:
                raise UsageError(
                    f"studies cannot be chosen by {key!r}", hint=f"the names after ? are {', '.join(FILTERS)}"
                )
        if not _DATES.fullmatch(filters.get("StudyDate", "20000101")):
            raise UsageError(
                f"StudyDate is a day or a range of days, got: {filters['StudyDate']!r}",
                hint="write 20240131, 20240101-20240131, 20240101- or -20240131",
            )
        return cls(f"{SCHEMES[scheme]}://{place}", f"{scheme}://{place}", filters)

    @property
    def encrypted(self) -> bool:
        """Return whether nobody on the way can read what is sent: it goes over TLS, or stays on this machine."""
        parts = urlsplit(self.url)
        host = str(parts.hostname)
        try:
            own = ipaddress.ip_address(host).is_loopback
        except ValueError:
            own = host == "localhost"
        return own or parts.scheme == "https"


class Exchange:
    """What asks a server; as much of a session of requests as `dicomweb_client` uses, safe to use from several threads.

    Raises
    ------
    UsageError
        The environment holds credentials that cannot be meant, or that would be sent where others can read them.
    MissingExtraError
        The extra ``pacs`` is not installed.
    """

    def __init__(self, address: Address, connections: int) -> None:
        with needed():
            import requests
        self._base = address.url
        self._session = requests.Session()
        # no proxy, no .netrc, no bundle of certificates that other variables name
        self._session.trust_env = False
        self._session.mount(f"{urlsplit(self._base).scheme}://", requests.adapters.HTTPAdapter(1, connections))
        self._session.verify = _certificates()
        headers, self._session.auth = _credentials(address)
        self._session.headers.update({"Accept-Encoding": "identity", "User-Agent": "retr", **headers})
        self._answer = threading.local()
        # whoever asks, of however many threads
        self._turn = threading.BoundedSemaphore(connections)

    @property
    def more(self) -> bool:
        """Return whether the last answer that this thread got said that there is more than it holds."""
        return getattr(self._answer, "more", False)

    def get(self, url: str, headers: Mapping[str, str] | None = None, **_: Any) -> Any:
        """Return the response, with its content read.

        Raises
        ------
        FileNotFoundError, PermissionError
            The server says so.
        RefusedAnswerError
            It leads elsewhere, is compressed, or is too large.
        OSError
            There was no answer, or one of a server in trouble.
        """
        import requests
        import urllib3

        if not url.startswith(f"{self._base}/"):
            raise RefusedAnswerError("an address outside of the server's")
        asked = {name: value for name, value in (headers or {}).items() if name != "Host"}
        most = MAX_INSTANCE if "multipart" in asked.get("Accept", "") else MAX_LISTING
        try:
            with self._turn:
                return self._answered(url, asked, most)
        except requests.exceptions.SSLError:
            raise RefusedAnswerError(
                f"its certificate is not trusted; {CA_FILE} names the certificate of who signed it"
            ) from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            raise OSError(f"no answer ({type(error).__name__})") from None

    def _answered(self, url: str, headers: Mapping[str, str], most: int) -> Any:
        response = self._session.get(
            url, headers=headers, stream=True, allow_redirects=False, timeout=(CONNECT, SILENCE)
        )
        try:
            _require_good(response.status_code, response.headers)
            self._answer.more = "299" in response.headers.get("Warning", "")
            data = _body(response.raw, response.headers, most)
        except BaseException:
            response.close()
            raise
        response.raw.release_conn()
        response.raw = io.BytesIO(data)
        return response


def single_part(content_type: str, body: bytes) -> bytes:
    """Return the one part of a ``multipart/related`` answer.

    `dicomweb_client` gives instances decoded; an index compares files by their bytes.

    Raises
    ------
    RefusedAnswerError
        It is of another type, or does not have exactly one part.
    """
    found = re.search(r';\s*boundary=(?:"([^"\r\n]{1,200})"|([^\s;"]{1,200}))', content_type, re.IGNORECASE)
    if not content_type.lower().startswith("multipart/related") or found is None:
        raise RefusedAnswerError("the answer is no multipart/related")
    mark = b"--" + (found[1] or found[2]).encode("latin-1", "replace")
    start = body.find(mark, 0, 4096)
    head = body.find(b"\r\n\r\n", start + len(mark), start + len(mark) + 4096)
    end = body.find(b"\r\n" + mark, head + 2)
    if start < 0 or head < 0 or end < 0:
        raise RefusedAnswerError("the answer is cut short")
    if body[end + 2 + len(mark) :][:2] != b"--":
        raise RefusedAnswerError("the answer has several parts")
    return body[head + 4 : end]


def _require_good(status: int, headers: Mapping[str, str]) -> None:
    if status in {401, 403, 407}:
        raise PermissionError(status, f"it asks for a login; {TOKEN}, or {USER} and {PASSWORD}, hold one")
    if status in {404, 410}:
        raise FileNotFoundError(status, "it has no such place")
    if 300 <= status < 400:
        raise RefusedAnswerError("it leads to another address, which is not followed")
    if 400 <= status < 500 and status not in {408, 425, 429}:
        raise RefusedAnswerError(f"it refuses with status {status}")
    if status not in {200, 204, 206}:
        raise OSError(f"it answers with status {status}")
    if headers.get("Content-Encoding", "identity").lower() not in {"identity", ""}:
        raise RefusedAnswerError("it answers compressed, which was not asked for")


def _body(raw: Any, headers: Mapping[str, str], most: int) -> bytes:
    """Read an answer of at most so many bytes."""
    length = headers.get("Content-Length", "0")
    if not length.isdecimal() or len(length) > 15 or int(length) > most:
        raise RefusedAnswerError(f"its answer has more than {most >> 20} MiB")
    read, start = bytearray(), time.monotonic()
    while piece := raw.read1(_PIECE, decode_content=False):
        read += piece
        if len(read) > most:
            raise RefusedAnswerError(f"its answer has more than {most >> 20} MiB")
        if time.monotonic() - start > PATIENCE + len(read) / SLOWEST:
            raise RefusedAnswerError("its answer does not end")
    if "Content-Length" in headers and len(read) != int(length):
        raise OSError("its answer is cut short")
    return bytes(read)


def _certificates() -> bool | str:
    """Return whose certificates are trusted: those of a file, or the usual ones."""
    given = os.environ.get(CA_FILE)
    if given is None:
        return True
    file = home(given)
    if not given or not file.is_file():
        raise UsageError(f"{CA_FILE} names no file: {given!r}", hint="name a file of certificates in PEM, or unset it")
    import ssl

    try:
        ssl.create_default_context(cafile=str(file))
    except (OSError, ssl.SSLError):
        raise UsageError(f"{CA_FILE} names no certificates: {given!r}", hint="name a file of them in PEM") from None
    return str(file)


def _credentials(address: Address) -> tuple[dict[str, str], tuple[bytes, bytes] | None]:
    """Return what the environment has of credentials, as a header and as a user with a password."""
    token, user, password = (os.environ.get(name) for name in (TOKEN, USER, PASSWORD))
    if token is not None and (user is not None or password is not None):
        raise UsageError(f"{TOKEN} and {USER} are both set", hint="unset the one that is not meant")
    if (user is None) != (password is None):
        raise UsageError(f"of {USER} and {PASSWORD} one alone is set", hint="set both, or none")
    if (token or user) and not address.encrypted:
        raise UsageError(
            f"the login for {address.location!r} would be sent unencrypted", hint="use dicomwebs://, or unset the login"
        )
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
        raise UsageError(f"{TOKEN} holds what no token has, such as a blank", hint="set it to the token alone")
    if user is not None and (not user or ":" in user):
        raise UsageError(f"{USER} is no name of a user: it is empty or has a colon", hint="set the name alone")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return headers, (user.encode(), str(password).encode()) if user else None
