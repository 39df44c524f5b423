"""The way back from a row to its study: real identifiers, kept on this machine where the user asks for it.

An index holds keyed hashes, which nobody can turn back. With ``keep_identifiers`` a build also writes down whose each
DICOM file is: patient, study, series and instance as its header (or the PACS) states them, under the row's path::

    <state folder>/identifiers/<index uuid>.sqlite

The file is readable by the user alone, never part of an index, and overwritten where a line goes. A purge takes the
lines of rows that are no longer there.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from retr import system
from retr.index.errors import RetrError
from retr.index.machine.state import state_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FIELDS = ("patient", "study", "series", "instance")
_PIECE = 500
# files that are written in one step
_AT_ONCE = 10_000


class KeptIdentifiers:
    """The identifiers that this machine keeps for an index; safe to use from several threads and processes."""

    def __init__(self, uuid: str) -> None:
        self.path = state_folder() / "identifiers" / f"{uuid}.sqlite"

    @property
    def kept(self) -> bool:
        """Return whether any are kept: a build was asked to."""
        return self.path.exists()

    def note(self, files: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """Keep the identifiers of some files, by the paths of their rows; in place of what was kept of them.

        Raises
        ------
        RetrError
            They cannot be written.
        """
        rows = [(path, *(names.get(field, "") for field in FIELDS)) for path, names in files if names]
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # before anything is in it
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | system.OWN, 0o600))
            with self._opened() as database:
                database.execute(f"CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, {', '.join(FIELDS)})")
                database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)
                database.commit()
        except (OSError, sqlite3.Error) as error:
            raise self._broken(error) from None

    def of(self, paths: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return what is kept of some rows, by path; without those of which nothing is.

        Raises
        ------
        RetrError
            The file cannot be read.
        """
        if not self.kept:
            return {}
        found: dict[str, dict[str, str]] = {}
        try:
            with self._opened() as database:
                for start in range(0, len(paths), _PIECE):
                    piece = paths[start : start + _PIECE]
                    marks = ", ".join("?" * len(piece))
                    for path, *values in database.execute(f"SELECT * FROM files WHERE path IN ({marks})", piece):  # noqa: S608
                        found[path] = {field: value for field, value in zip(FIELDS, values, strict=True) if value}
        except (sqlite3.Error, ValueError) as error:
            raise self._broken(error) from None
        return found

    def retain(self, paths: Iterable[str]) -> None:
        """Forget all files but these: what goes is overwritten.

        Raises
        ------
        RetrError
            The file cannot be written.
        """
        if not self.kept:
            return
        try:
            with self._opened() as database:
                database.execute("CREATE TEMP TABLE live (path TEXT PRIMARY KEY)")
                database.executemany("INSERT OR IGNORE INTO live VALUES (?)", ((path,) for path in paths))
                database.execute("DELETE FROM files WHERE path NOT IN (SELECT path FROM live)")
                database.commit()
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def forget(self) -> None:
        """Forget all of them, and that they were to be kept."""
        self.path.unlink(missing_ok=True)

    def _opened(self) -> closing[sqlite3.Connection]:
        database = sqlite3.connect(self.path, timeout=60)
        database.execute("PRAGMA secure_delete = ON")
        # what is sorted or joined stays in memory, not in files beside the temporary ones of others
        database.execute("PRAGMA temp_store = MEMORY")
        return closing(database)

    def _broken(self, error: Exception) -> RetrError:
        return RetrError(
            f"the identifiers that this machine keeps cannot be read or written: {type(error).__name__}",
            hint="look at identifiers/ in the state folder, or drop them with `--forget-identifiers`",
        )


class Keeping:
    """A build that keeps identifiers, or does not.

    Parameters
    ----------
    uuid
        The index's.
    asked
        Whether to keep them; ``None`` keeps them where an earlier build was asked to, ``False`` forgets what is kept.

    Attributes
    ----------
    on
        Whether they are kept.
    """

    def __init__(self, uuid: str, asked: bool | None) -> None:
        self._kept = KeptIdentifiers(uuid)
        self._new: list[tuple[str, Mapping[str, str]]] = []
        if asked is False:
            self._kept.forget()
        self.on = asked or self._kept.kept

    def add(self, path: str, identifiers: Mapping[str, str]) -> None:
        """Keep the identifiers of a file of which the index has rows."""
        if self.on:
            self._new.append((path, identifiers))
            if len(self._new) >= _AT_ONCE:
                self.write()

    def write(self) -> None:
        """Write down what was added."""
        if self.on:
            new, self._new = self._new, []
            self._kept.note(new)
