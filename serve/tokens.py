"""Who may do what: tokens with scopes, kept as hashes in a text file.

One token a line, ``NAME SCOPES SHA256``, ``#`` begins a comment::

    # name  scopes      sha256 of the token
    anna    read,label  9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

A token is 256 random bits, so its plain SHA-256 cannot be guessed back; the token itself is shown once, when it is
made, and stored nowhere. The file is read again whenever it changes, so that a token ends when its line is taken out.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retr import UsageError, system

if TYPE_CHECKING:
    from pathlib import Path

# `label` writes sets and labels, `write` adds and deletes rows
SCOPES = ("read", "label", "write")
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Token:
    """One holder: a name for the audit, and the scopes granted."""

    name: str
    scopes: frozenset[str]


# who asks where no token is needed: the machine's own user, over the loopback
LOCAL = Token("local", frozenset(SCOPES))


class Tokens:
    """The tokens of a file.

    Raises
    ------
    UsageError
        The file is missing, can be written by others, or a line cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._state: tuple[int, int, int] | None = None
        self._known: list[tuple[bytes, Token]] = []
        self._read()

    def of(self, presented: str) -> Token | None:
        """Return whose token this is, or ``None``; takes as long for a wrong one as for a right one."""
        self._read()
        digest = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()
        found = None
        for known, token in self._known:
            if hmac.compare_digest(known, digest):
                found = token
        return found

    def _read(self) -> None:
        with self._lock:
            try:
                status = self._path.stat()
                if _state_of(status) == self._state:
                    return
                # what is checked is what is read, whatever the name leads to by then; a pipe is not waited for
                with os.fdopen(os.open(self._path, os.O_RDONLY | system.NAMED), "rb") as file:
                    status = os.fstat(file.fileno())
                    data = file.read(_LARGEST + 1) if stat.S_ISREG(status.st_mode) else b""
                if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
                    raise UsageError(f"the token file {self._path.name!r} is no small text file")
                if system.others_write(status):
                    raise UsageError(
                        f"others may write to the token file {self._path.name!r}", hint=f"chmod 600 {self._path.name}"
                    )
                if system.others_own(status):
                    raise UsageError(f"the token file {self._path.name!r} belongs to somebody else")
                text = data.decode("utf-8")
            except OSError as error:
                raise UsageError(
                    f"cannot read the token file {self._path.name!r}: {error.strerror}",
                    hint="make one with `retr token NAME --token-file FILE`",
                ) from error
            except UnicodeDecodeError:
                raise UsageError(f"the token file {self._path.name!r} is not UTF-8") from None
            self._known = [entry for number, line in enumerate(text.splitlines(), 1) if (entry := _entry(line, number))]
            self._state = _state_of(status)


def make_token(path: Path, name: str, scopes: frozenset[str]) -> str:
    """Add a new token to a file, made if missing (mode 0600), and return the token.

    Raises
    ------
    UsageError
        A name or scope that cannot be, or a name that is taken.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"a token's name is made of letters, digits and . _ @ -, got: {name!r}")
    unknown = sorted(scopes - set(SCOPES))
    if unknown or not scopes:
        raise UsageError(f"scopes are {', '.join(SCOPES)}, got: {', '.join(unknown) or 'none'}")
    if path.exists() and any(token.name == name for _, token in Tokens(path)._known):
        raise UsageError(f"there is a token of the name {name!r}", hint="take its line out first, or choose another")
    token = secrets.token_urlsafe(32)
    granted = ",".join(scope for scope in SCOPES if scope in scopes)
    line = f"{name} {granted} {hashlib.sha256(token.encode()).hexdigest()}\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | system.NAMED, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8", newline="\n") as file:
        # a file that somebody edited may lack the end of its last line
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            file.write("\n")
        file.write(line)
    return token


def _state_of(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _entry(line: str, number: int) -> tuple[bytes, Token] | None:
    words = line.partition("#")[0].split()
    if not words:
        return None
    if len(words) != 3 or not _NAME.fullmatch(words[0]) or not re.fullmatch("[0-9a-f]{64}", words[2]):
        raise UsageError(f"line {number} of the token file is not NAME SCOPES SHA256")
    scopes = frozenset(words[1].split(","))
    if not scopes <= set(SCOPES):
        raise UsageError(f"line {number} of the token file has the scopes {words[1]!r}", hint=f"of {', '.join(SCOPES)}")
    return bytes.fromhex(words[2]), Token(words[0], scopes)
