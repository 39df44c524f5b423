"""Views of the labelled rows of an adapted index under heads fitted without some of its patients.

Of the patients that a head was fitted on, nothing can be measured through it. So `retr adapt` fits it again for each
fold of them, on the others, and keeps beside it where all labelled rows then lie. A row of such a patient is asked in
the view of its own fold, a row of any other patient in the index itself; what is found is found without its label.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retr.index.disk.npz import numbers, read_npz
from retr.index.json_fields import stored
from retr.index.vectors import unit
from retr.retrieval.labels.folds import deal
from retr.retrieval.labels.labelled import grouped, merge_groups, row_groups
from retr.retrieval.labels.trained_rows import VIEWS_FILE, seen_by_head
from retr.retrieval.labels.training_marks import row_marks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot
    from retr.index.store import Store

#: Into so many folds the patients of a head are divided, and of so many labelled rows views are kept at most.
FOLDS, MOST_ROWS = 5, 10_000
# Views that lack more of the labelled rows than this share are no picture of the index any more.
_MOST_LACKING = 0.2
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Views:
    """Views of some rows.

    Attributes
    ----------
    marks
        uint64 ``(n, 2)``: marks of the rows' ids and files.
    fold
        int64 ``(n,)``: the fold of each row's patient, -1 where the head has not seen it.
    vectors
        float16 ``(f, n, m)``, of unit length: the rows through each fold's head.
    """

    marks: NDArray[np.uint64]
    fold: NDArray[np.int64]
    vectors: NDArray[np.float16]

    @classmethod
    def of(cls, store: Store, rows: NDArray[np.int64], fold: NDArray[np.int64], moved: Sequence[NDArray[Any]]) -> Self:
        """Keep ``moved``, the rows ``(n, m)`` through each fold's head; they may differ in length."""
        vectors = np.zeros((len(moved), len(rows), max(one.shape[1] for one in moved)), np.float16)
        for at, one in enumerate(moved):
            vectors[at, :, : one.shape[1]] = unit(one)
        return cls(row_marks(store, rows), fold, vectors)

    def to_bytes(self) -> bytes:
        """Write an ``.npz``."""
        sink = io.BytesIO()
        np.savez(sink, marks=self.marks, fold=self.fold, vectors=self.vectors)
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote; `IndexCorruptError` for anything else."""
        with stored("the views beside the head", "adapt the index again"):
            arrays = read_npz(data)
            vectors = numbers(arrays, "vectors", None, None, None, kind=np.float16)
            fold = numbers(arrays, "fold", vectors.shape[1], kind=np.int64)
            if 0 in vectors.shape[::2] or not -1 <= fold.min(initial=-1) <= fold.max(initial=-1) < len(vectors):
                raise ValueError("a fold that is not there, or is empty")
            return cls(numbers(arrays, "marks", len(fold), 2, kind=np.uint64), fold, vectors)

    def only(self, store: Snapshot, rows: NDArray[np.int64]) -> Views:
        """Return the views of some rows."""
        keep = np.isin(self.marks[:, 0], row_marks(store, rows)[:, 0])
        return Views(self.marks[keep], self.fold[keep], self.vectors[:, keep])


class Unseen:
    """A snapshot's labelled rows, each asked where its label was not seen.

    Parameters
    ----------
    store
        The snapshot.
    rows
        int64, ascending: the labelled rows.
    group
        Another column than the index's that tells patients apart: what the head has seen of one, it has seen of all.

    Attributes
    ----------
    plain
        bool ``(n,)``: of patients that no head has seen; they are asked in the index itself.
    fold
        int64 ``(n,)``: in which view another row is asked; -1 where it cannot be asked, or is `plain`.
    """

    def __init__(self, store: Store, rows: NDArray[np.int64], group: str | None = None) -> None:
        self._store, self.rows = store, rows
        seen, self._groups = seen_by_head(store), row_groups(store, rows)
        if seen is not None and group not in {None, store.manifest.group}:
            live = store.live_rows()
            groups = merge_groups(row_groups(store, live), grouped(store, group, live)[0])
            wider = np.zeros(len(seen), bool)
            wider[live] = np.isin(groups, groups[seen[live]])
            seen, self._groups = wider, groups[np.searchsorted(live, rows)]
        self.plain = np.ones(len(rows), bool) if seen is None else ~seen[rows]
        self.fold = np.full(len(rows), -1, np.int64)
        self._place = np.full(len(rows), -1, np.int64)
        self.views: Views | None = None
        if not self.plain.all() and VIEWS_FILE in store.manifest.files:
            self._use(Views.from_bytes(store.file(VIEWS_FILE)))

    def _use(self, views: Views) -> None:
        at = {mark: place for place, mark in enumerate(map(tuple, views.marks.tolist()))}
        place = np.array([at.get(tuple(mark), -1) for mark in row_marks(self._store, self.rows).tolist()], np.int64)
        if (place < 0).mean() > _MOST_LACKING:
            return
        self.views, self._place = views, place
        fold = np.where(place >= 0, views.fold[place], -1)
        # a patient of today that was put into two folds has been seen by the head of either
        groups = self._groups
        least = np.full(groups.max(initial=-1) + 1, len(views.vectors))
        most = np.full(len(least), -1)
        np.minimum.at(least, groups[fold >= 0], fold[fold >= 0])
        np.maximum.at(most, groups, fold)
        one = (least == most)[groups]
        self.fold = np.where(~self.plain & one & (place >= 0), most[groups], -1)

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Which rows can be asked at all: bool ``(n,)``."""
        return self.plain | (self.fold >= 0)

    @property
    def in_view(self) -> NDArray[np.bool_]:
        """Which rows the views hold: bool ``(n,)``."""
        return self._place >= 0

    def view(self, fold: int, keep: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the rows of ``keep`` in a fold's view, which must hold them: float32 ``(k, m)``."""
        assert self.views is not None
        return np.asarray(self.views.vectors[fold, self._place[keep]], np.float32)

    def learn(self, fold: int) -> NDArray[np.bool_]:
        """Return which rows may teach something that is measured in a fold's view: bool ``(n,)``."""
        return np.asarray(self.in_view & (self.fold != fold), bool)

    def folds(self, groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """Deal the rows' groups into `FOLDS`, those that a head has seen as its views are dealt: int64 ``(n,)``."""
        folds, theirs = deal(groups, FOLDS), self.fold >= 0
        fixed = np.full(groups.max() + 1, -1, np.int64)
        fixed[groups[theirs]] = self.fold[theirs]
        return np.where(fixed[groups] >= 0, fixed[groups], folds)

    def nearest(
        self,
        places: NDArray[np.int64],
        k: int,
        own: Sequence[NDArray[np.int64]],
        *,
        answers: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the nearest labelled rows of some of them that can be asked.

        Parameters
        ----------
        places
            int64 ``(q,)``, in ``rows``.
        own
            For each, the store's rows that must not be found.
        answers
            bool over ``rows``: only these are found; ``None`` for all.

        Returns
        -------
        tuple
            Rows of the store int64 ``(q, k)``, -1 where there are no more, and their scores.
        """
        rows = np.full((len(places), k), -1, np.int64)
        scores = np.full((len(places), k), -np.inf, np.float32)
        mask = np.zeros(self._store.n_total, bool)
        mask[self.rows] = True if answers is None else answers
        plain = np.flatnonzero(self.plain[places])
        for block in np.split(plain, range(_BLOCK, len(plain), _BLOCK)):
            asked = self.rows[places[block]]
            vectors = np.asarray(self._store.vectors(asked), np.float32)
            found = self._store.search(vectors, k, mask=mask, exclude=[own[i] for i in block])
            rows[block, : found.rows.shape[1]], scores[block, : found.rows.shape[1]] = found.rows, found.scores
        for fold in np.unique(self.fold[places]).tolist():
            if fold >= 0:
                asked = np.flatnonzero(self.fold[places] == fold)
                known = self.learn(fold) if answers is None else self.learn(fold) & answers
                self._in_view(fold, known, places, asked, own, rows, scores)
        return rows, scores

    def _in_view(
        self,
        fold: int,
        known: NDArray[np.bool_],
        places: NDArray[np.int64],
        asked: NDArray[np.int64],
        own: Sequence[NDArray[np.int64]],
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> None:
        gallery = self.view(fold, known)
        of_store = np.full(self._store.n_total, -1, np.int64)
        of_store[self.rows[known]] = np.arange(len(gallery))
        depth = min(rows.shape[1], len(gallery))
        for block in np.split(asked, range(_BLOCK, len(asked), _BLOCK)):
            keep = np.zeros(len(self.rows), bool)
            keep[places[block]] = True
            order = np.argsort(places[block], kind="stable")
            found = np.empty((len(block), len(gallery)), np.float32)
            found[order] = self.view(fold, keep) @ gallery.T
            for i, one in enumerate(block):
                hidden = of_store[own[one]]
                found[i, hidden[hidden >= 0]] = -np.inf
            best = np.argsort(-found, axis=1, kind="stable")[:, :depth]
            score = np.take_along_axis(found, best, 1)
            rows[block, :depth] = np.where(np.isfinite(score), self.rows[known][best], -1)
            scores[block, :depth] = score
