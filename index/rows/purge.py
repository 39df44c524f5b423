"""What of an index speaks of rows that a purge removes.

The rows themselves are rewritten without the purged ones (`retr.index.disk.compaction`). Beside them an index holds a
record of what could not be read, and side data, whose kinds (`retr.index.disk.side_data`) say for themselves what is
left of them.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.disk import schema as schemas
from retr.index.disk.manifest import UNFINISHED_PURGE
from retr.index.disk.side_data import held, known_kind, of_no_kind
from retr.index.machine.arrow import pc
from retr.index.where.evaluate import Condition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from retr.index.rows.draft import Draft
    from retr.index.rows.snapshot import Snapshot

_LOGGER = logging.getLogger("retr")
# Columns whose values speak of one file, whoever else has them.
_OF_A_FILE = (schemas.ID, "path", "sha256")
# An id may be as short as "1": inside another text only longer ones mean anything.
_SHORT = 8


@dataclass(frozen=True)
class Purged:
    """What a purge did: rows removed, records of skipped files forgotten, and what was dropped, a phrase each."""

    rows: int
    skipped: int
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """The texts by which some rows are known.

    Attributes
    ----------
    texts
        Ids, paths and hashes of the rows, and every text that no other row holds: a name, a class of its own.
    groups
        Of those, the values of the group column: patients that leave the index altogether.
    folders
        Folders of the archive, as paths without a slash at the end, in which no other row lies.
    """

    texts: frozenset[str]
    groups: frozenset[str]
    folders: frozenset[str]

    @classmethod
    def of(cls, store: Snapshot, gone: NDArray[np.int64]) -> Words:
        """Collect what speaks of the rows ``gone``, and of no other."""
        stays = np.ones(store.n_total, bool)
        stays[gone] = False
        others = np.flatnonzero(stays)
        texts: set[str] = set()
        groups: set[str] = set()
        for field in store.schema:
            if pa.types.is_string(field.type) or field.type == pa.list_(pa.string()):
                mine = _only_here(store, field.name, gone, others)
                texts |= mine
                groups |= mine if field.name == store.manifest.group else set()
        return cls(frozenset(texts), frozenset(groups), _folders(store, gone, others))

    def forget(self, skipped: pa.Table) -> NDArray[np.bool_]:
        """Return which records of skipped files speak of the rows: bool ``(n,)``."""
        inside = Inside(self.texts)
        paths = skipped.column("path").to_pylist()
        found = np.fromiter(map(self._is_theirs, paths), bool, len(paths))
        for column in skipped.columns:
            if pa.types.is_string(column.type):
                found |= np.fromiter(map(inside, column.to_pylist()), bool, len(found))
        return found

    def _is_theirs(self, path: str | None) -> bool:
        """Return whether a path lies in one of the folders, or has a patient's identifier as a word."""
        if path is None:
            return False
        above = path.replace("::", "/").split("/")
        return any("/".join(above[:depth]) in self.folders for depth in range(1, len(above) + 1)) or (
            bool(self.groups) and not self.groups.isdisjoint([*above, *re.split(r"[\W_]+", path)])
        )


def say_unfinished(notes: Mapping[str, Any]) -> None:
    """Log where a purge was killed before the last file that held its rows was removed."""
    if UNFINISHED_PURGE in notes:
        _LOGGER.warning("a purge of this index was interrupted: `retr index compact` removes what it left")


def take_out(draft: Draft[Any], gone: NDArray[np.int64], skipped: NDArray[np.bool_] | None) -> tuple[int, list[str]]:
    """Take out of a draft what hangs on the index and may hold something of the rows ``gone``.

    Each kind of side data says what is left of it. A file of no kind is dropped, since it may be computed from the
    rows, and so is a note of no kind that holds one of their texts: both come from format version 1, which knew none.
    Where nothing but records of ``skipped`` files is purged, side data stays.

    Returns
    -------
    tuple
        How many records of skipped files were forgotten, and what was dropped, a phrase each.

    Raises
    ------
    RetrError
        A kind refuses, or is not known.
    """
    snapshot = draft.preview()
    words = Words.of(snapshot, gone)
    record = snapshot.skipped()
    forget = words.forget(record)
    if skipped is not None:
        forget |= skipped
    if forget.any():
        draft.record_skipped(record.filter(pa.array(~forget)))
        if not len(gone):
            return int(forget.sum()), []
    kinds = [known_kind(name, "what it holds of rows cannot be purged") for name in held(draft.draft)]
    dropped: list[str] = []
    for kind in kinds:
        change = kind.purge(snapshot, gone)
        draft.apply(change, kind)
        dropped += change.said
    files, notes = of_no_kind(draft.draft)
    for name in files:
        draft.remove_file(name)
    named = notes_naming({key: draft.draft.extra[key] for key in notes}, words.texts | set(files))
    for key in named:
        draft.note(key, None)
    return int(forget.sum()), [*dropped, *files, *named]


def matching(skipped: pa.Table, where: str, schema: pa.Schema) -> NDArray[np.bool_]:
    """Return the records of skipped files for which a where-expression is true: bool ``(n,)``.

    A record has a path, which is its id, and no metadata: an expression over that alone speaks of none.

    Raises
    ------
    FilterError
        The expression cannot be read or applied.
    """
    asked: set[str] = set()

    def column(name: str) -> pa.ChunkedArray[Any]:
        asked.add(name)
        known = "path" if name == schemas.ID else name
        kind = schema.field(name).type
        if known not in skipped.column_names:
            return pa.chunked_array([pa.nulls(skipped.num_rows, kind)])
        return skipped.column(known).cast(kind)

    found = Condition(where, dict(zip(schema.names, schema.types, strict=True))).mask(skipped.num_rows, column)
    return found if asked & {schemas.ID, *skipped.column_names} else np.zeros(skipped.num_rows, bool)


def notes_naming(notes: Mapping[str, Any], words: Iterable[str]) -> list[str]:
    """Return the keys of the notes in which one of ``words`` (ids, paths, hashes, file names) occurs.

    >>> notes_naming({"a": [{"id": "ward/17.png"}], "b": {"T": 1.5}, "c": "see ward/17.png"}, {"ward/17.png"})
    ['a', 'c']
    """
    inside = Inside(words)
    return [key for key, value in notes.items() if any(map(inside, _texts({key: value})))]


class Inside:
    """Tells whether one of some words is a text, or stands in it where it is long enough to mean something."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words = frozenset(words)
        self._long = [word for word in self._words if len(word) >= _SHORT]

    def __call__(self, text: str | None) -> bool:
        """Return whether one of the words is the text, or stands in it."""
        return text is not None and (text in self._words or any(word in text for word in self._long))


def _texts(value: Any) -> Iterator[str]:
    """Yield every text inside a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def _only_here(store: Snapshot, name: str, gone: NDArray[np.int64], others: NDArray[np.int64]) -> set[str]:
    """Return the texts that a column holds in the rows ``gone`` alone; of a file's own, all."""
    mine = _flat(store.table([name], gone)).unique().drop_null()
    if name not in _OF_A_FILE and len(mine):
        rest = _flat(store.table([name], others))
        mine = mine.filter(pc.invert(pc.is_in(mine, value_set=rest.unique())))
    return {text for text in mine.to_pylist() if text}


def _flat(table: pa.Table) -> pa.Array[Any]:
    column = table.column(0).combine_chunks()
    return column.flatten() if pa.types.is_list(column.type) else column


def _folders(store: Snapshot, gone: NDArray[np.int64], others: NDArray[np.int64]) -> frozenset[str]:
    """Return the folders above the files of some rows in which no other row lies, but for the archive itself."""
    if "path" not in store.schema.names:
        return frozenset()
    mine: set[str] = set()
    for path in store.table(["path"], gone).column(0).drop_null().unique().to_pylist():
        above = path.replace("::", "/").split("/")[:-1]
        mine.update("/".join(above[:depth]) for depth in range(1, len(above) + 1))
    for path in store.table(["path"], others).column(0).drop_null().unique().to_pylist():
        if not mine:
            break
        above = path.replace("::", "/").split("/")[:-1]
        mine.difference_update("/".join(above[:depth]) for depth in range(1, len(above) + 1))
    return frozenset(mine)
