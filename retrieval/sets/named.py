"""What the entries of a journal come to: sets by name, with their rows, labels, notes and questions.

Entries do one of these, each to one set:

==========  ======================================================================================
``save``    makes the set where there is none, adds rows, and replaces note and question if given
``label``   adds a label to rows, which join the set
``unlabel`` takes a label from rows
``remove``  takes rows out of the set, with their labels
``drop``    takes the set away
==========  ======================================================================================

An entry that does anything else is of a newer version: it is kept, and passed over.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import IndexCorruptError
from retr.index.json_fields import stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from retr.index.disk.journal import Entry
    from retr.index.encoder import EncoderInfo


@dataclass(frozen=True)
class Label:
    """A label that somebody gave a row of a set."""

    id: str
    label: str
    author: str
    time: str


@dataclass
class SetDraft:
    """A set while entries are read.

    Attributes
    ----------
    files
        A mark of each row's file as it was put in, by id; ``None`` where the index knows no file.
    labels
        By id and text.
    """

    name: str
    author: str
    created: str
    updated: str = ""
    note: str | None = None
    question: Mapping[str, Any] | None = None
    files: dict[str, str | None] = field(default_factory=dict)
    labels: dict[tuple[str, str], Label] = field(default_factory=dict)

    def take(self, entry: Entry) -> None:
        """Do what an entry says."""
        data = entry.data
        self.updated = entry.time
        for row, mark in data.get("rows", ()):
            self.files[row] = mark
        if entry.do == "save":
            self.note = data.get("note") or self.note
            self.question = data.get("question") or self.question
        elif entry.do == "label":
            for row, _ in data["rows"]:
                self.labels.setdefault((row, data["label"]), Label(row, data["label"], entry.author, entry.time))
        elif entry.do == "unlabel":
            for row in data["ids"]:
                self.labels.pop((row, data["label"]), None)
        elif entry.do == "remove":
            gone = set(data["ids"])
            self.files = {row: mark for row, mark in self.files.items() if row not in gone}
            self.labels = {key: label for key, label in self.labels.items() if key[0] not in gone}


#: What an entry may do.
KNOWN = frozenset({"save", "label", "unlabel", "remove", "drop"})


def replay(entries: Iterable[Entry]) -> dict[str, SetDraft]:
    """Return the sets by name, in the order in which they were made.

    Raises
    ------
    IndexCorruptError
        An entry that this version writes is not as it writes it.
    """
    sets: dict[str, SetDraft] = {}
    for entry in entries:
        if entry.do not in KNOWN:
            continue
        try:
            name = _text(entry.data["set"])
            if entry.do == "drop":
                sets.pop(name, None)
            elif entry.do in {"save", "label"} or name in sets:
                _require_texts(entry)
                sets.setdefault(name, SetDraft(name, entry.author, entry.time)).take(entry)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise IndexCorruptError(
                f"entry {entry.number} of the journal cannot be read", hint="run `retr index check`"
            ) from error
    return sets


def _require_texts(entry: Entry) -> None:
    data = entry.data
    for row, mark in data.get("rows", ()):
        _text(row)
        if mark is not None:
            _text(mark)
    for text in (*data.get("ids", ()), *_given(data, "label"), *_given(data, "note")):
        _text(text)
    if not isinstance(data.get("question", {}), dict | None):
        raise TypeError("no question")
    if entry.do in {"unlabel", "remove"} and not isinstance(data["ids"], list):
        raise TypeError("no list of ids")


def _given(data: Mapping[str, Any], key: str) -> Iterator[Any]:
    if data.get(key) is not None:
        yield data[key]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def space_of(encoder: EncoderInfo) -> str:
    """Return what tells the vectors of an encoder, with an index's transform, from all others: 16 hex digits."""
    return hashlib.sha256(json.dumps(encoder.identity).encode()).hexdigest()[:16]


def in_space(question: Mapping[str, Any], encoder: EncoderInfo) -> bool:
    """Return whether a kept question's vector is of those that an index has now, or of its encoder's own."""
    # questions of before say nothing
    return question.get("space") in {None, space_of(encoder), space_of(encoder.own)}


def vectors_of(question: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """Return the vectors of a kept question, float32 ``(m, dim)``; ``None`` where it has none any more.

    It is one; of a question for cases, which has ``weights``, one for each part.
    """
    if question.get("vector") is None:
        return None
    with stored("a saved question"):
        numbers = np.frombuffer(base64.b64decode(question["vector"], validate=True), "<f4").astype(np.float32)
        vectors = numbers.reshape(len(question.get("weights", [1])), -1)
        if not np.isfinite(vectors).all():
            raise ValueError("no vector")
        return vectors
