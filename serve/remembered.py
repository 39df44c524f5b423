"""Vectors of questions that were asked: with another filter, or another number of hits, a question costs a search only.

Known by what was asked (the hash of a picture's bytes and the part that is meant, words), never by a row; of one
version of the index, so that nothing outlives a purge or another encoder. With a picture's vector goes whose it is, and
no pixel: one that comes again is not decoded again either.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from retr import Picture

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from retr import Index, Query

    #: A query, and of each of its parts a key, or None for one that has nothing to be embedded.
    Asked = tuple[Query, tuple[Hashable | None, ...]]


class Forgotten(Exception):  # noqa: N818 - no fault: the picture has to be decoded
    """A picture was known when its question came, and its vector is not any more."""


class Remembered:
    """The vectors of an index's last questions.

    Parameters
    ----------
    most
        Bytes of all vectors; the least recently asked go first. One takes some kilobytes.
    """

    def __init__(self, most: int = 16 << 20) -> None:
        self._most, self._bytes = most, 0
        self._lock = threading.Lock()
        self._version = -1
        # by what was asked: its vector, and of a picture which file it is
        self._held: OrderedDict[Hashable, tuple[Any, Picture | None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def knows(self, asked: Asked) -> bool:
        """Return whether nothing of a question has to be embedded, as of now: a newer version knows nothing."""
        query, keys = asked
        # a row and a vector have no key, nor has a picture of which no hash is known
        given = [part.kind in {"id", "vector"} for part in query.parts]
        if all(given):
            return True
        with self._lock:
            return all(one or key in self._held for one, key in zip(given, keys, strict=True))

    def picture(self, key: Hashable) -> Picture | None:
        """Return a picture whose vector is known, without its pixels; ``None`` for others."""
        with self._lock:
            return self._held.get(key, (None, None))[1]

    def embedded(self, index: Index, asked: Sequence[Asked]) -> list[Query]:
        """Return the queries with their vectors; what is not held is embedded, in one batch.

        Raises
        ------
        Forgotten
            A picture came without its pixels, and its vector is not held any more.
        """
        queries = [self._with_known(index.version, query, keys) for query, keys in asked]
        missing = [
            number
            for number, (query, (_, keys)) in enumerate(zip(queries, asked, strict=True))
            if any(key is not None and part.embedded is None for part, key in zip(query.parts, keys, strict=True))
        ]
        if any(part.embedded is None and _is_bare(part.value) for number in missing for part in queries[number].parts):
            raise Forgotten
        for number, query in zip(missing, index.embed([queries[number] for number in missing]), strict=True):
            queries[number] = query
            self._keep(index.version, query, asked[number][1])
        return queries

    def _with_known(self, version: int, query: Query, keys: tuple[Hashable | None, ...]) -> Query:
        with self._lock:
            if version != self._version:
                self._held.clear()
                self._version, self._bytes = version, 0
            parts = []
            for part, key in zip(query.parts, keys, strict=True):
                held = None if key is None else self._held.get(key, (None, None))[0]
                if held is not None:
                    self._held.move_to_end(key)
                parts.append(part if held is None else replace(part, embedded=held))
        return replace(query, parts=tuple(parts))

    def _keep(self, version: int, query: Query, keys: tuple[Hashable | None, ...]) -> None:
        with self._lock:
            # another thread may have seen a newer version meanwhile
            if version != self._version:
                return
            for part, key in zip(query.parts, keys, strict=True):
                if key is not None and part.embedded is not None:
                    self._bytes += _size(part.embedded) - _size(self._held.get(key, (None, None))[0])
                    self._held[key] = part.embedded, _bare(part.value)
            while self._bytes > self._most:
                self._bytes -= _size(self._held.popitem(last=False)[1][0])


def _bare(value: Any) -> Picture | None:
    """Return a picture without pixels: with none at all, so that it cannot be compared by mistake."""
    nothing: Any = None
    return replace(value, image=nothing, notes={}, columns={}) if isinstance(value, Picture) else None


def _is_bare(value: Any) -> bool:
    return isinstance(value, Picture) and value.image is None


def _size(held: Any) -> int:
    # a key and what surrounds an array take half a kilobyte
    return 0 if held is None else held.vector.nbytes + 512
