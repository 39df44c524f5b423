"""Questions that an index may fare badly with: under filters that hang together with the vectors, and further down.

Filters that have nothing to do with the vectors leave some rows in every part of the space, and what is found without
them is found with them. A class, a scanner or an age does not: what is allowed then lies near to the question, or far
from it, or on one side. Such filters are made here from the rows of an index, and from its columns of few values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.accelerators.config import DEPTH
from retr.index.machine.arrow import pc
from retr.index.types import Ask
from retr.index.vectors import unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot

    Mask = NDArray[np.bool_]

# The shares of rows that filters keep.
_SHARES = (0.6, 0.25, 0.08, 0.03)
# Rows that stand for the parts of the space, and of these those from whose neighbourhood questions come.
_PIVOTS, _ANCHORS = 64, 6
# Questions under each filter.
_QUESTIONS = 32
# Values of a column that may be filters, columns that are looked at, and the least share of rows of one.
_MAX_VALUES, _MAX_COLUMNS, _MIN_SHARE = 100, 4, 0.005
# Rows of which the values of a column are looked at first.
_SAMPLE = 2000
# Deeper than `tune` measures otherwise.
_DEEP = 10 * DEPTH
_CHUNK = 4096


@dataclass(frozen=True)
class Question:
    """Some queries of one sort and what is asked of the index beside them; the exact score of each query's last row."""

    sort: str
    vectors: NDArray[np.float32]
    ask: Ask
    last: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))

    def half(self, which: int) -> Question:
        """Return every second query, from the first or the second on."""
        exclude = list(self.ask.exclude[which::2])
        ask = Ask(self.ask.k, self.ask.allowed, exclude, self.ask.one_per, self.ask.min_score)
        return Question(self.sort, self.vectors[which::2], ask, self.last[which::2])


def questions(snapshot: Snapshot, seed: int = 0) -> Iterator[Question]:
    """Make questions of every sort, without their exact answers; all queries are rows, which they must not find.

    Parameters
    ----------
    seed
        Of the rows that are drawn.
    """
    rng = np.random.default_rng(seed)
    live = snapshot.live_rows()
    alive = None if len(live) == snapshot.n_total else snapshot.alive()
    pivots = rng.choice(live, min(_PIVOTS, len(live)), replace=False)
    space = _Space(snapshot, pivots)

    def ask(sort: str, rows: NDArray[np.int64], mask: Mask | None, k: int = DEPTH) -> Question:
        allowed = mask if alive is None else alive if mask is None else mask & alive
        vectors = unit(np.asarray(snapshot.vectors(rows), np.float32)) if space.cosine else snapshot.vectors(rows)
        exclude = [np.array([row]) for row in rows.tolist()]
        return Question(sort, np.asarray(vectors, np.float32), Ask(k, allowed, exclude, None, None))

    def some(among: NDArray[np.int64]) -> NDArray[np.int64]:
        return rng.choice(among, min(_QUESTIONS, len(among)), replace=False)

    yield ask("deep", some(live), None, _DEEP)
    for share in _SHARES:
        yield ask("unrelated", some(live), rng.random(snapshot.n_total, np.float32) < share)
        side = space.pivots @ rng.standard_normal(space.pivots.shape[1], np.float32)
        yield ask("one side", some(live), space.parts(side, share))
    for anchor in rng.permutation(len(pivots))[:_ANCHORS].tolist():
        likeness = space.pivots @ space.pivots[anchor]
        # the question's own part comes first
        likeness[anchor] = np.inf
        near = np.flatnonzero(space.part == anchor)
        near = near if alive is None else near[alive[near]]
        scores = space.scores(space.pivots[anchor])
        for share in _SHARES:
            yield ask("near", some(near), space.parts(likeness, share))
            yield ask("far", some(near), space.parts(-likeness, share))
            scores.partition(last := int(share * (len(scores) - 1)))
            yield ask("all but the nearest", some(near), space.scores(space.pivots[anchor]) <= scores[last])
    for mask in _columns(snapshot):
        yield ask("columns", some(live), mask)


class _Space:
    """Every row of a snapshot by the pivot that it is most like."""

    def __init__(self, snapshot: Snapshot, rows: NDArray[np.int64]) -> None:
        self._snapshot = snapshot
        self.cosine = snapshot.manifest.encoder.similarity == "cosine"
        self.pivots = np.asarray(snapshot.vectors(rows), np.float32)
        # one byte a row
        nearest = ((part @ self.pivots.T).argmax(axis=1).astype(np.uint8) for part in self._chunks())
        self.part = np.concatenate(list(nearest))
        self._sizes = np.bincount(self.part, minlength=len(rows))

    def _chunks(self) -> Iterator[NDArray[np.float32]]:
        for block in self._snapshot.blocks():
            for start in range(0, len(block.vectors), _CHUNK):
                yield np.asarray(block.vectors[start : start + _CHUNK], np.float32)

    def scores(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the product of every row with a query: float32 ``(n_total,)``."""
        return np.concatenate([part @ query for part in self._chunks()])

    def parts(self, liking: NDArray[Any], share: float) -> Mask:
        """Return the rows of the parts that are liked best, and of the last only as many as make up the share."""
        order = np.argsort(-liking, kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        wanted = int(share * len(self.part))
        whole = int(np.searchsorted(np.cumsum(self._sizes[order]), wanted, side="right"))
        mask: Mask = (place < whole)[self.part]
        mask[np.flatnonzero((place == whole)[self.part])[: wanted - int(np.count_nonzero(mask))]] = True
        return mask


def _columns(snapshot: Snapshot) -> Iterator[Mask]:
    """Find values of columns that many rows have and many have not; of each column the commonest and the rarest."""
    looked = 0
    live = snapshot.live_rows()
    sample = live[:: max(1, len(live) // _SAMPLE)]
    for column in snapshot.schema:
        if looked == _MAX_COLUMNS:
            return
        if not (pa.types.is_string(column.type) or pa.types.is_boolean(column.type)) or column.name == "id":
            continue
        # a column that tells rows apart is not read as a whole
        if len(pc.unique(snapshot.table([column.name], rows=sample)[column.name])) > _MAX_VALUES:
            continue
        values = snapshot.columns.distinct(column.name).drop_null()
        if not 2 <= len(values) <= _MAX_VALUES:
            continue
        looked += 1
        rows = snapshot.rows_with(column.name, values)
        shares = np.array([len(part) / max(snapshot.n_total, 1) for part in rows])
        usable = np.flatnonzero((shares >= _MIN_SHARE) & (shares <= max(_SHARES)))
        for number in sorted({usable[shares[usable].argmax()], usable[shares[usable].argmin()]} if len(usable) else ()):
            mask = np.zeros(snapshot.n_total, np.bool_)
            mask[rows[number]] = True
            yield mask
