"""The key of a build: the one the index was made with, or, for an index without hashes, the user's own.

An index notes the fingerprint of its key with the first rows that are hashed with it. A build with another key, or
without it, is refused at its start: it would give patients of the index a second hash. An index that an older version
wrote has hashes and no note. Its key is compared with what the files of its rows state, and noted; where no file can be
read again, the key is noted all the same, and that is said.
"""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import RetrError, UsageError
from retr.index.machine.hash_key import VARIABLE, agreed_key, exposure, fingerprint, keyed_hash
from retr.index.rows.identity import COLUMNS
from retr.retrieval.images.dicom_identity import stated_identifiers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from retr.index.store import Store

# Of an older index so many files are looked at again.
_COMPARED = 5


class BuildKey:
    """The key, read when the first file asks for it; safe to ask from several threads.

    Parameters
    ----------
    store
        The index as it is before the build.
    read
        Returns the bytes of a row's file by its path; raises where it is out of reach.

    Raises
    ------
    UsageError
        The index was made with another key, or with one that is not here.
    """

    def __init__(self, store: Store, read: Callable[[str], bytes]) -> None:
        self.notes: list[str] = []
        self._recorded = store.identity.fingerprint
        self._columns = set(store.identity.hashed_columns)
        self._lock = threading.Lock()
        self._key: bytes | None = None
        if self._recorded is not None:
            self._key = agreed_key(self._recorded)
        elif self._columns:
            self._adopt(store, read)
        self._say_open()

    def __call__(self) -> bytes:
        """Return the key; the first build of all makes one where the user has none."""
        with self._lock:
            if self._key is None:
                # hashes of a key that is not here: another one would be a second
                self._key = agreed_key(None, make=not self._columns)
                self._say_open()
            return self._key

    def note(self, columns: Iterable[str], kept: Any) -> dict[str, Any] | None:
        """Return what the manifest is to note, beside what it notes already; ``None`` where nothing is hashed."""
        found = {*self._columns, *columns, *((kept or {}).get("columns", ()))} & set(COLUMNS)
        return {"key": fingerprint(self._key), "columns": sorted(found)} if self._key and found else kept

    def _say_open(self) -> None:
        said = exposure() if self._key is not None else None
        self.notes += [said] if said else []

    def _adopt(self, store: Store, read: Callable[[str], bytes]) -> None:
        """Take the key here for that of an older index, where its files do not speak against it."""
        try:
            key = agreed_key(None)
        except UsageError:
            return  # asked for again when the first file is to be hashed
        same = _agrees(store, key, sorted(self._columns), read)
        if same is False:
            raise UsageError(
                "the identifiers of this index are hashed with another key than the one here",
                hint=f"bring the key file from where the index was built and name it in {VARIABLE} (docs/privacy.md)",
            )
        how = "its files agree" if same else "no file of its rows could be read again to compare"
        self.notes.append(f"the key {fingerprint(key)!r} is noted as the one of this index's hashes: {how}")
        self._key = key


def _agrees(store: Store, key: bytes, columns: list[str], read: Callable[[str], bytes]) -> bool | None:
    """Return whether a key gives the hashes of some rows again; ``None`` where no file of theirs is as it was."""
    rows = store.live_rows()
    table = store.table(["path", "sha256", *columns], rows)
    hashed = np.zeros(len(rows), bool)
    for column in columns:
        hashed |= table[column].is_valid().to_numpy(zero_copy_only=False)
    compared = 0
    for row in table.take(np.flatnonzero(hashed)[:_COMPARED]).to_pylist():
        try:
            data = read(row["path"])
        except (OSError, RetrError):
            continue
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            continue
        stated = stated_identifiers(data)
        for column in columns:
            if column in stated and row[column] not in {None, stated[column]}:
                if row[column] != keyed_hash(key, stated[column]):
                    return False
                compared += 1
    return True if compared else None
