"""The terms of a column, row by row, as they are stored; and by term, as BM25 takes them (Robertson and Zaragoza 2009).

What is stored says nothing of other rows: new rows are appended, rows go and get other numbers, and no score is stored
that would then be wrong. Frequencies and lengths are those of the rows that are not deleted, so that an answer does
not depend on when an index was compacted. The formula is Lucene's, without its rounding of lengths.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from retr.index.disk.npz import numbers, read_npz
from retr.retrieval.words.analysis import terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

#: Lucene's settings.
K1, B = 1.2, 0.75


@dataclass(frozen=True, eq=False)
class Postings:
    """The terms of rows.

    Attributes
    ----------
    vocabulary
        The terms.
    offsets
        int64 ``(n + 1,)``: where the terms of each row begin.
    which, counts
        int32 ``(m,)``: the places of a row's distinct terms in the vocabulary, and how often each is there.
    """

    vocabulary: tuple[str, ...] = ()
    offsets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    which: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    counts: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def with_texts(self, texts: Iterable[str | None]) -> Postings:
        """Return these and the terms of further rows behind them.

        >>> postings = Postings().with_texts(["no effusion", None]).with_texts(["effusions"])
        >>> postings.vocabulary, postings.offsets.tolist()
        (('!effusion', 'effusion'), [0, 1, 1, 2])
        """
        places = {term: at for at, term in enumerate(self.vocabulary)}
        which: list[int] = []
        counts: list[int] = []
        ends = []
        for text in texts:
            found: dict[int, int] = {}
            for term in terms(text or ""):
                place = places.setdefault(term.text, len(places))
                found[place] = found.get(place, 0) + 1
            which += found
            counts += found.values()
            ends.append(len(which))
        return Postings(
            tuple(places),
            np.concatenate([self.offsets, self.offsets[-1] + np.array(ends, np.int64)]),
            np.concatenate([self.which, np.array(which, np.int32)]),
            np.concatenate([self.counts, np.array(counts, np.int32)]),
        )

    def renumbered(self, numbers: NDArray[np.int64]) -> Postings:
        """Return them with other row numbers, ``(n,)``, -1 for a row that goes; no term stays that no row has.

        >>> postings = Postings().with_texts(["drusen", "laser scars"]).renumbered(np.array([-1, 0]))
        >>> postings.vocabulary, len(postings)
        (('laser', 'scar'), 1)
        """
        length = int(numbers.max(initial=-1)) + 1
        before = np.full(length, -1, np.int64)
        before[numbers[numbers >= 0]] = np.flatnonzero(numbers >= 0)
        sizes = np.where(before >= 0, np.diff(self.offsets)[before], 0) if len(self) else np.zeros(length, np.int64)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        # the place of each entry of the new order in the old
        starts = self.offsets[:-1][before] if len(self) else np.zeros(length, np.int64)
        entries = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
        used, which = np.unique(self.which[entries], return_inverse=True)
        vocabulary = tuple(self.vocabulary[at] for at in used.tolist())
        return Postings(vocabulary, offsets, which.astype(np.int32), self.counts[entries])

    def without(self, rows: NDArray[np.bool_]) -> Postings:
        """Return them with nothing left of some rows, bool ``(n,)``, which keep their numbers.

        >>> postings = Postings().with_texts(["drusen", "scars"]).without(np.array([True, False]))
        >>> postings.vocabulary, len(postings)
        (('scar',), 2)
        """
        keep = ~np.repeat(rows, np.diff(self.offsets))
        sizes = np.where(rows, 0, np.diff(self.offsets))
        used, which = np.unique(self.which[keep], return_inverse=True)
        vocabulary = tuple(self.vocabulary[at] for at in used.tolist())
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return Postings(vocabulary, offsets, which.astype(np.int32), self.counts[keep])

    def to_bytes(self) -> bytes:
        """Return the side file's form."""
        sink = io.BytesIO()
        words = np.frombuffer("\n".join(self.vocabulary).encode(), np.uint8)
        np.savez(sink, vocabulary=words, offsets=self.offsets, which=self.which, counts=self.counts)
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Postings:
        """Read what `to_bytes` wrote; ``ValueError`` or ``KeyError`` for anything else."""
        arrays = read_npz(data)
        text = numbers(arrays, "vocabulary", None, kind=np.uint8).tobytes().decode()
        vocabulary = tuple(text.split("\n")) if text else ()
        which = numbers(arrays, "which", None, kind=np.int32)
        counts = numbers(arrays, "counts", len(which), kind=np.int32)
        offsets = numbers(arrays, "offsets", None, kind=np.int64)
        whole = len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == len(which) and (np.diff(offsets) >= 0).all()
        known = which.min(initial=0) >= 0 and which.max(initial=-1) < len(vocabulary)
        if not (whole and known and counts.min(initial=1) >= 1 and len(set(vocabulary)) == len(vocabulary)):
            raise ValueError("no postings")
        return cls(vocabulary, offsets, which, counts)

    def same_as(self, other: Postings) -> bool:
        """Return whether the rows have the same terms, however the vocabularies are ordered.

        >>> Postings().with_texts(["a b"]).same_as(Postings().with_texts(["b a"]))
        True
        """
        if not np.array_equal(self.offsets, other.offsets):
            return False
        return self._entries() == other._entries()

    def _entries(self) -> set[tuple[int, str, int]]:
        rows = np.repeat(np.arange(len(self)), np.diff(self.offsets)).tolist()
        words = (self.vocabulary[at] for at in self.which.tolist())
        return set(zip(rows, words, self.counts.tolist(), strict=True))


class Bm25:
    """The rows' terms by term, with which questions are scored.

    Parameters
    ----------
    postings
        Of all rows.
    alive
        bool ``(n,)``: the rows that count.
    """

    def __init__(self, postings: Postings, alive: NDArray[np.bool_]) -> None:
        rows = np.repeat(np.arange(len(postings), dtype=np.int32), np.diff(postings.offsets))
        kept = alive[rows]
        rows, which, counts = rows[kept], postings.which[kept], postings.counts[kept]
        order = np.argsort(which, kind="stable")
        self._rows, self._counts = rows[order], counts[order]
        self._starts = np.searchsorted(which[order], np.arange(len(postings.vocabulary) + 1))
        self._vocabulary = postings.vocabulary
        self._lengths = np.bincount(rows, counts, minlength=len(postings))
        #: How many rows have any term.
        self.n = int(np.count_nonzero(self._lengths))

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {term: at for at, term in enumerate(self._vocabulary)}

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        """The part of the denominator that a row's length gives."""
        mean = self._lengths.sum() / max(self.n, 1)
        shares: NDArray[np.float64] = K1 * (1 - B + B * self._lengths / max(mean, 1))
        return shares

    def scores(self, asked: Sequence[str]) -> NDArray[np.float64]:
        """Return the score of every row for the terms of a question, each as often as it is asked: ``(n,)``.

        >>> postings = Postings().with_texts(["large effusion", "no effusion", "effusion"])
        >>> Bm25(postings, np.ones(3, bool)).scores(["effusion"]).round(3).tolist()
        [0.177, 0.0, 0.238]
        """
        found = np.zeros(len(self._lengths))
        for term in asked:
            place = self._places.get(term)
            if place is None:
                continue
            part = slice(int(self._starts[place]), int(self._starts[place + 1]))
            rows, counts = self._rows[part], self._counts[part]
            weight = np.log(1 + (self.n - len(rows) + 0.5) / (len(rows) + 0.5))
            found[rows] += weight * counts / (counts + self._shares[rows])
        return found
