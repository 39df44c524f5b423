"""A search whose shards are held elsewhere: each is asked for its own best rows, and these are ranked together.

Whoever asks holds a snapshot of the whole index (its manifest, its metadata) and reads no vectors. A shard's rows are
one run of the whole's, so that conditions, exclusion and answers travel by row numbers, and what comes back is ranked
as one scan would have ranked it: by score, equal scores by id, one of a group. Rows are scored the same wherever that
is done, so answers are equal to the bit.

What holds the shards is behind `Remote`: threads in a test, processes of a cluster (`retr.retrieval.cluster.holders`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from retr.index.plan import ask_of, excluded, prepared
from retr.index.scan.ranking import ranked
from retr.index.types import Ask, Neighbours

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.disk.manifest import Manifest
    from retr.index.search_options import RankOptions
    from retr.index.store import Store

Found = TypeVar("Found")
Found_co = TypeVar("Found_co", covariant=True)


@dataclass(frozen=True)
class Span:
    """The rows of one shard: ``start <= row < stop`` of the whole, of which ``live`` are not deleted."""

    number: int
    start: int
    stop: int
    live: int

    def mask(self, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """Return the shard's part of a mask of all rows."""
        return None if mask is None else mask[self.start : self.stop]

    def rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of some rows, sorted, that are the shard's, counted from its first."""
        first, last = np.searchsorted(rows, [self.start, self.stop])
        return rows[first:last] - self.start

    def whole(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return rows of the shard as rows of the whole; -1 stays."""
        return np.where(rows >= 0, rows + self.start, -1)


def spans(manifest: Manifest) -> list[Span]:
    """Return the rows of each shard; an index without shards is one."""
    found, start = [], 0
    for number, folder in enumerate(manifest.folders):
        mine = [info for info in manifest.segments if info.folder == folder]
        rows = sum(info.rows for info in mine)
        found.append(Span(number, start, start + rows, rows - sum(info.n_deleted for info in mine)))
        start += rows
    return found


class Question(Protocol[Found_co]):
    """What one shard is asked, in its own row numbers; pickled on its way."""

    def answer(self, shard: Store) -> Found_co:
        """Answer it from the shard's snapshot."""


class Remote(Protocol):
    """What holds the shards of an index, each in a process of its own, and asks them."""

    def ask(self, store: Store, questions: Sequence[Question[Found]], *, partial: bool) -> list[Found | None]:
        """Ask every shard of a snapshot, all at once; return their answers in order.

        Parameters
        ----------
        questions
            One for each shard.
        partial
            A shard that does not answer gives ``None``, unless none does.

        Raises
        ------
        RetrError
            A shard does not answer, named; or what it says itself.
        """

    def prepare(self, store: Store) -> None:
        """Have the shards of a newer snapshot opened before anybody asks; what hinders that is said to who asks."""

    def close(self) -> None:
        """End the processes."""


@dataclass(frozen=True)
class Gathered(Generic[Found]):
    """What the shards answered.

    Attributes
    ----------
    answers
        Of each shard that did, with its rows.
    searched
        The share of the live rows that these hold.
    note
        Which others there are, or ``None``.
    """

    answers: list[tuple[Span, Found]]
    searched: float
    note: str | None


def gather(store: Store, ask: Callable[[Span], Question[Found]], *, partial: bool) -> Gathered[Found]:
    """Ask every shard of a snapshot that is held elsewhere; raises as `Remote.ask`."""
    assert store.remote is not None
    every = spans(store.manifest)
    found = store.remote.ask(store, [ask(span) for span in every], partial=partial)
    there = [(span, answer) for span, answer in zip(every, found, strict=True) if answer is not None]
    if len(there) == len(every):
        return Gathered(there, 1.0, None)
    missing = [span.number for span, answer in zip(every, found, strict=True) if answer is None]
    searched = sum(span.live for span, _ in there) / max(len(store), 1)
    which = f"shard {missing[0]}" if len(missing) == 1 else f"the shards {', '.join(map(str, missing))}"
    # not rounded up to all
    share = min(np.floor(1000 * searched) / 10, 99.9)
    return Gathered(there, searched, f"partial: {share:g} % of the rows were searched, {which} did not answer")


def notes(*said: str | None) -> str | None:
    """Return what a person should know, each once, or ``None``."""
    return "; ".join(dict.fromkeys(note for note in said if note)) or None


def merge(store: Store, got: Gathered[Neighbours], ask: Ask) -> Neighbours:
    """Rank the best rows of each shard together."""
    rows = np.concatenate([span.whole(one.rows) for span, one in got.answers], axis=1)
    scores = np.concatenate([one.scores for _, one in got.answers], axis=1)
    best, top = ranked(rows, scores, ask, store.ids)
    exact = all(one.exact for _, one in got.answers) and got.searched == 1
    return Neighbours(best, top, exact, notes(*(one.note for _, one in got.answers), got.note), got.searched)


@dataclass(frozen=True)
class _Rows:
    """What `Store.search` is asked of one shard."""

    queries: NDArray[np.float32]
    options: RankOptions
    mask: NDArray[np.bool_] | None
    exclude: list[NDArray[np.int64]]

    def answer(self, shard: Store) -> Neighbours:
        return shard.search(self.queries, self.options, mask=self.mask, exclude=self.exclude)


def search(
    store: Store,
    queries: NDArray[np.float32],
    options: RankOptions,
    *,
    mask: NDArray[np.bool_] | None,
    exclude: Sequence[NDArray[np.int64]] | None,
    exclude_same: Mapping[str, Sequence[object]],
) -> Neighbours:
    """Answer `Store.search`, whose docstring says what the arguments mean, by shards that are held elsewhere."""
    # what cannot be asked is refused here; the shards are given the queries as they are, and round them once
    prepared(queries, store.manifest.encoder.dim, cosine=store.manifest.encoder.similarity == "cosine")
    left_out = excluded(store, len(queries), exclude, exclude_same)
    ask = ask_of(store, len(queries), replace(options, where=None), mask=mask)
    queries = np.ascontiguousarray(queries, np.float32)

    def part(span: Span) -> _Rows:
        return _Rows(queries, options, span.mask(mask), [span.rows(rows) for rows in left_out])

    return merge(store, gather(store, part, partial=options.partial), ask)
