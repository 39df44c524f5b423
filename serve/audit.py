"""Who asked what, when: an append-only file of JSON lines, each sealed with the line before it.

Every line ends in ``"seal"``: HMAC-SHA256, under the audit's own key, of the previous line's seal and this line without
its seal. A line that was changed, dropped, put in or moved breaks the chain at that place (`verify`). What was cut off
at the end shows in ``FILE.head``, which holds the number of lines and the last seal and is replaced at every sync.

An entry holds the token's name, the question (the SHA-256 of a picture's bytes, never pixels; words as given, or hashed
if the server was told so), the index and its version, and the ids answered as keyed hashes unless told otherwise. The
file lies outside of every index and survives purges. The key, ``FILE.key``, is readable by its owner alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from retr import UsageError, system

if TYPE_CHECKING:
    from pathlib import Path

_FIRST = "0" * 64
# the rest of a text that is not closed is taken as one
_QUOTED = re.compile(r"'(?:[^']|'')*(?:'|$)|\"(?:[^\"]|\"\")*(?:\"|$)")


@dataclass(frozen=True)
class Verdict:
    """What `verify` found: how many lines hold, and what is wrong with the first that does not."""

    lines: int
    problem: str | None = None


class Audit:
    """An open audit file, for one server; several threads may write.

    Parameters
    ----------
    path
        The file, made if missing; its folder must exist.
    hash_ids, hash_text
        Whether ids and words are written as keyed hashes.

    Raises
    ------
    UsageError
        It cannot be opened, another server holds it, or its last lines are not as they were written.
    """

    def __init__(self, path: Path, *, hash_ids: bool = True, hash_text: bool = False) -> None:
        self._path = path
        self._hash_ids, self._hash_text = hash_ids, hash_text
        self._lock = threading.Lock()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | system.OWN, 0o600)
            self._key = _key_of(path, make=True)
        except OSError as error:
            raise UsageError(f"cannot open the audit file {path.name!r}: {error.strerror}") from error
        if not _locked(self._file):
            os.close(self._file)
            raise UsageError(f"another server writes to the audit file {path.name!r}", hint="name another")
        self._drop_torn_end()
        verdict = verify(path)
        if verdict.problem is not None:
            os.close(self._file)
            raise UsageError(f"the audit file {path.name!r} was changed: {verdict.problem}", hint="begin a new one")
        self._count, self._seal = verdict.lines, _last_seal(path)

    def write(self, entry: dict[str, Any]) -> None:
        """Append one entry; it is with the system when this returns, and on disk after `sync`."""
        with self._lock:
            body = {"number": self._count + 1, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **entry}
            text = json.dumps(body, sort_keys=True, separators=(",", ":"))
            seal = _sealed(self._key, self._seal, text)
            self._append(f'{text[:-1]},"seal":"{seal}"}}\n'.encode())
            self._count, self._seal = self._count + 1, seal

    def sync(self) -> None:
        """Bring all entries to the disk, and the note of the last one beside the file."""
        with self._lock:
            count, seal = self._count, self._seal
        # entries are written on meanwhile: the note is of those that are surely on disk
        os.fsync(self._file)
        head = self._path.with_name(self._path.name + ".head")
        scratch = head.with_name(f".{head.name}.{secrets.token_hex(8)}")
        # a name that cannot be foreseen, and no link followed
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.NAMED, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii", newline="\n") as file:
            file.write(f"{count} {seal}\n")
        system.replace(scratch, head)

    def close(self) -> None:
        """Sync, and let another server write."""
        self.sync()
        os.close(self._file)

    def ids(self, ids: list[str]) -> list[str]:
        """Return ids as the entries hold them."""
        return [self.hashed(one) for one in ids] if self._hash_ids else ids

    def condition(self, where: str | None) -> str | None:
        """Return a condition as the entries hold it: its texts, among which ids may be, are hashed as ids are."""
        if where is None or not self._hash_ids:
            return where
        return _QUOTED.sub(lambda found: f"'{self.hashed(found[0])}'", where)

    def words(self, text: str) -> str:
        """Return words as the entries hold them."""
        return self.hashed(text) if self._hash_text else text

    def hashed(self, text: str) -> str:
        """Return the keyed hash of a text: 32 hexadecimal digits."""
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]

    def _append(self, line: bytes) -> None:
        """Write a whole line or none of it: a torn one would break the chain for all that follow."""
        size = os.fstat(self._file).st_size
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, size)
            raise

    def _drop_torn_end(self) -> None:
        """Cut off a line whose writing was interrupted: nobody was answered on it."""
        size = os.fstat(self._file).st_size
        tail = system.read_at(self._file, min(size, 1 << 20), max(0, size - (1 << 20)))
        if tail and not tail.endswith(b"\n"):
            os.ftruncate(self._file, size - len(tail) + tail.rfind(b"\n") + 1)


def verify(path: Path) -> Verdict:
    """Follow the chain of an audit file from its first line to its last.

    Raises
    ------
    UsageError
        There is no such file, or its key is not beside it.
    """
    try:
        key = _key_of(path, make=False)
        lines = path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read the audit file {path.name!r} or its key: {error.strerror}") from error
    count, last = _head_of(path)
    seal, number = _FIRST, 0
    with lines:
        for number, line in enumerate(lines, 1):
            text, _, own = line.removesuffix(b'"}\n').rpartition(b',"seal":"')
            expected = _sealed(key, seal, text.decode("utf-8", "replace") + "}")
            if not line.endswith(b'"}\n') or not hmac.compare_digest(own, expected.encode()):
                return Verdict(number - 1, f"line {number} is not the one that was written after line {number - 1}")
            seal = expected
            if number == count and seal != last:
                return Verdict(number - 1, f"line {number} is not the one that was noted beside the file")
    if number < count:
        return Verdict(number, f"it ends at line {number}, and there were {count}")
    return Verdict(number)


def _locked(file: int) -> bool:
    try:
        return system.lock(file)
    except OSError:
        return False


def _head_of(path: Path) -> tuple[int, str]:
    """Return how many lines there were at the last sync, and the last one's seal."""
    try:
        count, last = path.with_name(path.name + ".head").read_text(encoding="ascii").split()
        return int(count), last
    except (OSError, ValueError):
        return 0, _FIRST


def _sealed(key: bytes, before: str, text: str) -> str:
    return hmac.new(key, f"{before}\n{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _last_seal(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return _FIRST
        file.seek(max(0, size - 80))
        return file.read().rpartition(b',"seal":"')[2].removesuffix(b'"}\n').decode("ascii")


def _key_of(path: Path, *, make: bool) -> bytes:
    file = path.with_name(path.name + ".key")
    if make and not file.exists():
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.NAMED, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii", newline="\n") as out:
            out.write(secrets.token_hex(32) + "\n")
    return bytes.fromhex(file.read_text(encoding="ascii").strip())
