"""The key of hashed identifiers: stored with the user, never in an index.

Whoever holds the key can tell which rows of an index belong to a known patient; without it the hashes say only which
rows belong together. The key is as precious as the index: another key gives the same patient other hashes. So an index
records a fingerprint of its key (`fingerprint`), and another key, or none, is refused (`agreed_key`) before anything is
hashed with it and before a new one is made.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import unicodedata
from pathlib import Path

from retr.index.errors import UsageError
from retr.index.machine.home import home
from retr.index.machine.whole_file import write_first

VARIABLE = "RETR_KEY_FILE"
# What the variable was called first.
_ALIAS = "RETR_HASH_KEY_FILE"
_SHORTEST_KEY = 16
_LONGEST_KEY = 1 << 16
_MAKE_ONE = "make one with `openssl rand -hex 32 > FILE`"


def keyed_hash(key: bytes, value: str) -> str:
    """Return HMAC-SHA256 of an identifier as 64 hexadecimal digits.

    Spaces and NULs around it are padding in a DICOM header and no part of it; accents count the same composed and
    decomposed. Case counts.

    Examples
    --------
    >>> keyed_hash(b"a key of our own", "patient 7")[:16], keyed_hash(b"a key of our own", " patient 7 ")[:16]
    ('644eabbf66e5d38c', '644eabbf66e5d38c')
    """
    text = unicodedata.normalize("NFC", value).strip(" \0\t\r\n")
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def fingerprint(key: bytes) -> str:
    """Return 16 hexadecimal digits that tell keys apart and say nothing about them.

    >>> fingerprint(b"a key of our own")
    '6225eda7122793f9'
    """
    return hmac.new(key, b"retr: fingerprint of the key", hashlib.sha256).hexdigest()[:16]


def hash_key_path() -> Path:
    """Return the key's file: ``RETR_KEY_FILE``, else one in the user's configuration folder.

    Raises
    ------
    UsageError
        The variable and its older name ``RETR_HASH_KEY_FILE`` name two files, or one of them is empty.
    """
    import platformdirs

    given = _given()
    return platformdirs.user_config_path("retr") / "hash.key" if given is None else home(given)


def load_hash_key(*, make: bool = True) -> bytes:
    """Read the key.

    Parameters
    ----------
    make
        Where no variable names a file and there is none yet, make it, readable by the user alone.

    Raises
    ------
    UsageError
        There is no key, its file cannot be read or made, or it has fewer than 16 bytes.
    """
    path = hash_key_path()
    if make and _given() is None:
        _make(path)
    try:
        # looked at before it is opened: a pipe would keep the program waiting
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"the key file {_shown(path)!r} is not a file", hint=_MAKE_ONE)
        with path.open("rb") as file:
            key = file.read(_LONGEST_KEY).strip()
    except FileNotFoundError:
        named = _given()
        if named is not None and os.sep not in named and len(named) >= _SHORTEST_KEY and "." not in named:
            # most likely the key itself, which no error may show
            raise UsageError(
                f"{VARIABLE} names no file: it must hold the path of a key file, not the key", hint=_MAKE_ONE
            ) from None
        raise UsageError(
            f"there is no key file {_shown(path)!r}", hint=f"{_MAKE_ONE}, or name one in {VARIABLE}"
        ) from None
    except OSError as error:
        raise UsageError(
            f"the key file {_shown(path)!r} cannot be read: {error.strerror}", hint=f"name another in {VARIABLE}"
        ) from None
    if len(key) < _SHORTEST_KEY:
        raise UsageError(
            f"the key in {_shown(path)!r} has {len(key)} bytes, at least {_SHORTEST_KEY} are needed", hint=_MAKE_ONE
        )
    return key


def agreed_key(recorded: str | None, *, make: bool = False) -> bytes:
    """Read the key an index was built with.

    Parameters
    ----------
    recorded
        The fingerprint in the index, if there is one: no key is made then.
    make
        For an index without a fingerprint: make a key where there is none.

    Raises
    ------
    UsageError
        The key is another one, or is not here; what to do is said.
    """
    bring = f"bring the key file from where the index was built and name it in {VARIABLE} (docs/privacy.md)"
    try:
        key = load_hash_key(make=make and recorded is None)
    except UsageError as error:
        if recorded is None:
            raise
        raise UsageError(
            f"the identifiers of this index are hashed with the key {recorded!r}, which is not here: {error.message}",
            hint=bring,
        ) from None
    if recorded not in {None, fingerprint(key)}:
        raise UsageError(
            f"the identifiers of this index are hashed with the key {recorded!r}, and the key in "
            f"{_shown(hash_key_path())!r} is {fingerprint(key)!r}",
            hint=bring,
        )
    return key


def exposure() -> str | None:
    """Return a warning where others can read the key; ``None`` where they cannot."""
    path = hash_key_path()
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH):
        return f"the key file {_shown(path)!r} can be read by other users; close it with `chmod 600`"
    return None


def _shown(path: Path) -> str:
    """Name a file without the user's own name, which the home folder often is."""
    if _given() is None and path.is_relative_to(home := Path("~").expanduser()):
        return f"~/{path.relative_to(home)}"
    return str(path)


def _given() -> str | None:
    """Return the file that the environment names."""
    files = {name: os.environ[name] for name in (VARIABLE, _ALIAS) if name in os.environ}
    for name, file in files.items():
        if not file.strip():
            raise UsageError(f"{name} is set and names no file", hint="name the key's file in it, or unset it")
    if len(set(files.values())) > 1:
        raise UsageError(f"{VARIABLE} and {_ALIAS} name two key files", hint=f"keep {VARIABLE}")
    return next(iter(files.values()), None)


def _make(path: Path) -> None:
    if path.exists() or path.is_symlink():
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # of two processes starting at once one key wins for both
        write_first(path, f"{secrets.token_hex(32)}\n".encode(), mode=0o600)
    except OSError as error:
        raise UsageError(
            f"the key of hashed identifiers cannot be made at {_shown(path)!r}: {error.strerror}",
            hint=f"make one where it stays with `openssl rand -hex 32 > FILE` and name it in {VARIABLE}",
        ) from None
