"""One index as a server offers it: its newest version, and questions answered in batches."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from retr import Index, IndexNotFoundError, RetrError
from retr.serve.batching import Batcher
from retr.serve.facets import facets
from retr.serve.maps import ServedMaps
from retr.serve.remembered import Remembered

if TYPE_CHECKING:
    from collections.abc import Hashable
    from concurrent.futures import Future
    from pathlib import Path

    from retr import Hits, Picture
    from retr.serve.remembered import Asked
    from retr.serve.schemas import Facets

_LOOK_EVERY = 1.0
_FACETS_KEPT = 64
# vectors are scanned for so many questions by the loops that leave the other cores to others
_LOOPED = 24


class Found(NamedTuple):
    """The answer to one question, and the version of the index that gave it."""

    hits: Hits
    version: int


class Served:
    """An index of a server, by its name.

    Parameters
    ----------
    name
        What the API calls it.
    path
        The index folder.
    options
        Of `retr.Index.open`: ``device=``, ``weights=`` ...
    """

    def __init__(self, name: str, path: Path, options: dict[str, Any] | None = None) -> None:
        self.name = name
        self._index = Index.open(path, **(options or {}))
        self._looked, self._version = time.monotonic(), self._index.version
        self._looking = threading.Lock()
        # of this server's own writers, one after another
        self.writing = threading.Lock()
        self.explaining = threading.Lock()
        # one at a time: a count over a million rows takes a core for a second
        self._counting = threading.Lock()
        self._keep_nothing()
        # a search does not wait behind a network
        self._searching: Batcher[Asked, Found] = Batcher(self._answer, most=_LOOPED)
        self._embedding: Batcher[Asked, Found] = Batcher(self._answer)

    @property
    def index(self) -> Index:
        """The index, at the newest version; what a writer commits is seen within a second."""
        if time.monotonic() - self._looked > _LOOK_EVERY and self._looking.acquire(blocking=False):
            try:
                self._index.refresh()
                self._looked = time.monotonic()
                # also where a writer of this server has moved on already
                if self._index.version != self._version:
                    self._version = self._index.version
                    self._keep_nothing()
            finally:
                self._looking.release()
        return self._index

    def look(self) -> None:
        """Move on to the newest version where nobody asks; what hinders it is said to who asks next."""
        with contextlib.suppress(RetrError, OSError):
            _ = self.index

    def search(self, asked: Asked, options: dict[str, Any]) -> Future[Found]:
        """Ask; questions with equal options that arrive together are answered together."""
        known = options.get("in_") is not None or self._remembered.knows(asked)
        batcher = self._searching if known else self._embedding
        return batcher.submit(tuple(sorted((name, _frozen(value)) for name, value in options.items())), asked)

    def known(self, key: Hashable) -> Picture | None:
        """Return a picture whose vector is remembered, without its pixels; see `Remembered.picture`."""
        return self._remembered.picture(key)

    def facets(self, where: str | None) -> Facets:
        """Return the facets under a condition; those of the newest version's last conditions are kept."""
        # before the index: what is counted of a version that goes meanwhile is kept nowhere
        kept = self._facets
        index = self.index.snapshot()
        key = (index.version, where)
        with self._counting:
            found = kept.get(key)
            if found is None:
                found = kept[key] = facets(index, where)
                while len(kept) > _FACETS_KEPT:
                    kept.pop(next(iter(kept)))
        return found

    def warm(self) -> None:
        """Load the encoder, so that the first question does not wait for it."""
        _ = self._index.encoder

    def close(self) -> None:
        """Answer what waits, then let go of the index."""
        self._searching.close()
        self._embedding.close()
        self._index.close()

    def _keep_nothing(self) -> None:
        """Begin anew with what is kept of a version: with the old go its mapped files, and rows that were purged."""
        self._facets: dict[tuple[int, str | None], Facets] = {}
        self.maps = ServedMaps()
        self._remembered = Remembered()

    def _answer(self, key: Hashable, asked: list[Asked]) -> list[Found]:
        assert isinstance(key, tuple)
        options = {name: _thawed(value) for name, value in key}
        index = self.index.snapshot()
        try:
            return self._found(index, asked, options)
        except IndexNotFoundError:
            # a machine that came back holds no version that has been replaced meanwhile
            if not self._index.refresh():
                raise
            return self._found(self._index.snapshot(), asked, options)

    def _found(self, index: Index, asked: list[Asked], options: dict[str, Any]) -> list[Found]:
        # words that are looked for in a column are not embedded, and the encoder may have no text side
        words = options.get("in_") is not None
        queries = [query for query, _ in asked] if words else self._remembered.embedded(index, asked)
        answers = []
        for hits in index.search(queries, **options):
            # read here, for all questions at once
            _ = hits.metadata, hits.paths
            answers.append(Found(hits, index.version))
        return answers


def _frozen(value: Any) -> Hashable:
    if isinstance(value, dict):
        return (dict, tuple(sorted(value.items())))
    return (list, tuple(value)) if isinstance(value, list) else (None, value)


def _thawed(value: Any) -> Any:
    kind, held = value
    return held if kind is None else kind(held)
