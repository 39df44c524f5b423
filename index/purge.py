"""Which notes speak of rows that a purge removes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# An id may be as short as "1": inside another text only longer ones mean anything.
_SHORT = 8


def notes_naming(notes: Mapping[str, Any], words: set[str]) -> list[str]:
    """Give the keys of the notes in which one of ``words`` (ids, paths, hashes, file names) occurs.

    >>> notes_naming({"a": [{"id": "ward/17.png"}], "b": {"T": 1.5}, "c": "see ward/17.png"}, {"ward/17.png"})
    ['a', 'c']
    """
    long = [word for word in words if len(word) >= _SHORT]
    return [
        key
        for key, value in notes.items()
        if any(text in words or any(word in text for word in long) for text in _texts(value))
    ]


def _texts(value: Any) -> Iterator[str]:
    """Give every text inside a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)
