"""The key behind hashed identifiers: it lives with the user, never in an index.

Whoever holds the key can tell which rows of an index belong to a known patient; without it the hashes say
only which rows belong together. Indexes built with one key can be joined on patient, study and series. Losing
the key loses that, and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from retr.index.errors import UsageError

_VARIABLE = "RETR_HASH_KEY_FILE"
_SHORTEST_KEY = 16


def keyed_hash(key: bytes, value: str) -> str:
    """Give HMAC-SHA256 of a text as 64 hexadecimal digits.

    Examples
    --------
    >>> keyed_hash(b"a key of our own", "patient 7")[:16]
    '644eabbf66e5d38c'
    """
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()


def hash_key_path() -> Path:
    """Give the key's file: ``RETR_HASH_KEY_FILE``, else one in the user's configuration folder."""
    import platformdirs

    given = os.environ.get(_VARIABLE)
    return Path(given) if given else platformdirs.user_config_path("retr") / "hash.key"


def load_hash_key() -> bytes:
    """Read the key; make it on first use, readable by the user alone.

    Raises
    ------
    UsageError
        ``RETR_HASH_KEY_FILE`` names a file that cannot be read, or the key is shorter than 16 bytes.
    """
    path = hash_key_path()
    if _VARIABLE not in os.environ:
        _make(path)
    try:
        key = path.read_bytes().strip()
    except OSError:
        raise UsageError(
            f"the key file {str(path)!r} cannot be read",
            hint=f"make one with `openssl rand -hex 32 > FILE` or unset {_VARIABLE}",
        ) from None
    if len(key) < _SHORTEST_KEY:
        raise UsageError(
            f"the key in {str(path)!r} has {len(key)} bytes, at least {_SHORTEST_KEY} are needed",
            hint="make one with `openssl rand -hex 32 > FILE`",
        )
    return key


def _make(path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # written whole under another name and then linked: of two processes starting at once one key wins for
    # both
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32) + "\n")
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
