"""How a server is set up: what ``retr serve`` reads from its options, checked."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retr import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """A server's address, guards and limits.

    Attributes
    ----------
    host, port
        Where it listens. An address that other machines reach needs ``token_file``.
    token_file
        Tokens and their scopes (`retr.serve.tokens`); without one everything is allowed, to this machine alone.
    audit_file
        Where questions are written down (`retr.serve.audit`); without one they are not.
    hash_words, plain_ids
        How the audit holds words and ids.
    read_only
        Refuse what changes an index or a set, whatever the token's scopes.
    additions
        The folder that keeps pictures which writers add; without one none can be added.
    hosts, origins
        Further names of the server, and sites whose pages may ask it (`retr.serve.limits.Guard`).
    root_path
        The path under which a proxy offers the server.
    trusted_proxies
        Addresses of proxies whose ``X-Forwarded-For`` and ``-Proto`` count.
    certificate, certificate_key
        Files for TLS.
    max_body, body_seconds, decode_seconds, answer_seconds
        Limits on a request's bytes and seconds, and on its decoding and its answer.
    rate, burst
        Questions a second of one token (or address), and how many at once.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    token_file: Path | None = None
    audit_file: Path | None = None
    hash_words: bool = False
    plain_ids: bool = False
    read_only: bool = False
    additions: Path | None = None
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    root_path: str = ""
    trusted_proxies: tuple[str, ...] = ()
    certificate: Path | None = None
    certificate_key: Path | None = None
    max_body: int = 64 << 20
    body_seconds: float = 60.0
    decode_seconds: float = 20.0
    answer_seconds: float = 60.0
    rate: float = 50.0
    burst: int = 200
    own_names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and self.token_file is None:
            raise UsageError(
                f"other machines reach the address {self.host!r}, so that a token is needed",
                hint="make one with `retr token NAME --token-file FILE`, and give --token-file FILE",
            )
        if self.trusted_proxies and self.token_file is None:
            raise UsageError(
                "other machines ask by way of a proxy, so that a token is needed",
                hint="make one with `retr token NAME --token-file FILE`, and give --token-file FILE",
            )
        if (self.certificate is None) != (self.certificate_key is None):
            raise UsageError("TLS needs a certificate and its key", hint="give --certificate and --certificate-key")
        everywhere = self.host in {"0.0.0.0", "::"}  # noqa: S104 - compared with, not listened on
        # a page of another site cannot have these names, so that whoever listens there may be asked by them
        names = {"localhost", "127.0.0.1", "::1"} if everywhere or is_loopback(self.host) else set()
        names |= set() if everywhere else {self.host.lower()}
        object.__setattr__(self, "own_names", frozenset(names | {name.lower() for name in self.hosts}))


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "retr.example.org")]
    [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
