"""The journal as a kind of side data: what a purge leaves of sets and questions, and what a copy takes along."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.disk import journal
from retr.index.disk.journal import KIND, NOTE, SIDE_FILE, Lines
from retr.index.disk.side_data import Change, Kind
from retr.index.errors import IndexCorruptError
from retr.index.rows.purge import Inside, Words
from retr.index.rows.snapshot import Snapshot
from retr.retrieval.sets.named import KNOWN, in_space, replay, vectors_of
from retr.retrieval.transforms.transform import own_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.disk.journal import Entry
    from retr.index.disk.side_data import Move

# A question whose vector is so near a purged row's was asked with that row's picture.
_SAME = 0.999
_BLOCK = 16_384
# What of a question is looked at by itself: ids, and numbers.
_KEYS = {"own", "whole", "hits", "vector", "space"}


class Journal(Kind):
    """Sets, labels and saved questions, as they were entered."""

    name = KIND
    of_vectors = False

    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        """Return what reads the entries, and what they come to."""

        def read() -> None:
            lines = Lines.of(snapshot.file(SIDE_FILE))
            numbers = [entry.number for entry in lines.entries]
            if lines.damaged or numbers != sorted(set(numbers)) or numbers[-1:] > [journal.folded(snapshot.manifest)]:
                raise IndexCorruptError("the journal holds a line that no writer wrote", hint="run `retr index check`")
            replay(lines.entries)

        return {SIDE_FILE: read, NOTE: lambda: journal.folded(snapshot.manifest)}

    def stale(self, snapshot: Snapshot) -> list[str]:  # noqa: ARG002
        """Return nothing: what people said of rows holds for as long as these are there."""
        return []

    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:
        """Take out the rows' ids, whatever text names them, and questions asked with them."""
        words = Words.of(snapshot, gone)
        purge = _Purge(snapshot, gone, words)
        kept = [left for entry in Lines.of(snapshot.file(SIDE_FILE)).entries if (left := purge.left_of(entry))]
        said = []
        if purge.rows:
            said.append(f"{len(purge.rows)} rows of saved sets")
        if purge.questions:
            said.append(f"{purge.questions} saved questions")
        if purge.entries:
            said.append(f"{purge.entries} entries of the journal that this retr does not know")
        return Change({SIDE_FILE: b"".join(entry.to_line() for entry in kept)}, said=tuple(said))

    def carry(self, snapshot: Snapshot, move: Move) -> Change:
        """Take all entries along, also those that no commit has taken in; questions lose vectors of another space."""
        before = snapshot.file(SIDE_FILE) if SIDE_FILE in snapshot.manifest.files else b""
        entries = [*Lines.of(before).entries, *journal.tail(snapshot.path, journal.folded(snapshot.manifest))]
        if not move.same_vectors:
            entries = [_without_vector(entry) for entry in entries]
        number = entries[-1].number if entries else 0
        data = b"".join(entry.to_line() for entry in entries)
        return Change({SIDE_FILE: data}, {NOTE: journal.note_of(max(number, journal.folded(snapshot.manifest)))})


class _Purge:
    """Takes some rows out of entries, and counts what it took.

    A name of a set in which a purged text stands is replaced by the same other name wherever it stands.
    """

    def __init__(self, snapshot: Snapshot, gone: NDArray[np.int64], words: Words) -> None:
        self._snapshot, self._gone = snapshot, gone
        self._ids = frozenset(snapshot.ids(gone))
        self._names = Inside(words.texts)
        self._renamed: dict[str, str] = {}
        self.rows: set[str] = set()
        self.questions = self.entries = 0

    def left_of(self, entry: Entry) -> Entry | None:
        if entry.do not in KNOWN:
            if any(text in self._ids or self._names(text) for text in _texts(dict(entry.data))):
                self.entries += 1
                return None
            return entry
        data = dict(entry.data)
        if "rows" in data:
            self.rows.update(row for row, _ in data["rows"] if row in self._ids)
            data["rows"] = [[row, mark] for row, mark in data["rows"] if row not in self._ids]
        if "ids" in data:
            data["ids"] = self._without(data["ids"])
        if self._names(data["set"]):
            name = self._renamed.setdefault(data["set"], f"purged-{len(self._renamed) + 1}-{entry.number}")
            data["set"] = name
        if self._names(data.get("note")):
            data["note"] = None
        if self._names(data.get("label")):
            data["label"] = "purged"
        if data.get("question") is not None:
            data["question"] = self._question(dict(data["question"]))
            self.questions += data["question"] is None
        return replace(entry, data=data)

    def _question(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Return what is left of a question: nothing, where it was asked with one of the rows or names one."""
        own = question.get("own", [])
        free = {key: value for key, value in question.items() if key not in _KEYS}
        if self._without(own) != own or any(map(self._names, _texts(free))) or self._is_asked_with(question):
            return None
        return {**question, "hits": self._without(question.get("hits", []))}

    def _is_asked_with(self, question: Mapping[str, Any]) -> bool:
        vectors = vectors_of(question)
        if vectors is None:
            return False
        encoder = self._snapshot.manifest.encoder
        if not in_space(question, encoder):
            return True
        of_rows = own_vectors if vectors.shape[1] == encoder.own.dim else Snapshot.vectors
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
        for start in range(0, len(self._gone), _BLOCK):
            rows = of_rows(self._snapshot, self._gone[start : start + _BLOCK]).astype(np.float32)
            if vectors.shape[1] != rows.shape[1]:
                return True
            norms = np.maximum(np.linalg.norm(rows, axis=1), 1e-30)
            if ((rows @ vectors.T) / norms[:, None]).max(initial=-1) > _SAME:
                return True
        return False

    def _without(self, ids: Sequence[str]) -> list[str]:
        return [row for row in ids if row not in self._ids]


def _without_vector(entry: Entry) -> Entry:
    if not entry.data.get("question"):
        return entry
    return replace(entry, data={**entry.data, "question": {**entry.data["question"], "vector": None}})


def _texts(value: Any) -> list[str]:
    """Return every text inside a JSON value, keys included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, inner in value.items() for text in (key, *_texts(inner))]
    return [text for inner in value for text in _texts(inner)] if isinstance(value, list) else []
