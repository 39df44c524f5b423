"""Rows to annotate first, for a budget of some number of rows.

* ``diverse``: greedy k-centre (Sener and Savarese 2018, "Active learning for convolutional neural networks: a core-set
  approach"): each next row is the farthest from those chosen. It meets every kind of picture, the odd ones first.
* ``coverage``: greedy facility location (Wei, Iyer and Bilmes 2015, "Submodularity in data subset selection and active
  learning"): each next row raises most how similar the archive's rows are to their nearest chosen one. It meets the
  frequent kinds first.
* ``uncertain``: the rows that a discriminant fitted on the labelled rows is least sure of, by the margin between its
  two most probable classes.

A second row of a patient comes after a first of every other. Rows that have a label already are never chosen; for the
first two strategies they count as chosen before. The same index gives the same rows.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from retr.index.disk.segments import id_hashes
from retr.index.errors import UsageError
from retr.retrieval.curation.discriminant import fitted
from retr.retrieval.curation.findings import Findings
from retr.retrieval.curation.outliers import require_count
from retr.retrieval.curation.suspects import refuse_fitted
from retr.retrieval.labels.cases import find_cases
from retr.retrieval.labels.labelled import classes_of, row_groups
from retr.retrieval.raw_vectors import raw_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike

Strategy = Literal["diverse", "uncertain", "coverage"]
# So many rows can be chosen from, and so many stand for the archive that is to be covered; of more, those of the
# smallest hashes of their ids.
_MOST = {"diverse": 100_000, "coverage": 20_000, "uncertain": 1_000_000}
_COVERED = 4000
_BLOCK = 4096


def sample(
    index: IndexLike,
    n: int = 100,
    *,
    strategy: Strategy = "diverse",
    label: str | None = None,
    separator: str | None = None,
    where: str | None = None,
) -> Findings:
    """Choose rows to annotate.

    Parameters
    ----------
    n
        How many; fewer come back where there are no more.
    strategy
        ``"diverse"``, ``"coverage"`` or ``"uncertain"``.
    label
        The column that annotations go into: rows with a value are done. ``"uncertain"`` learns from them.
    separator
        What joins several classes in one value of it.
    where
        Only rows for which this is true are chosen.

    Returns
    -------
    Findings
        In the order of choice. Of each row a ``score``: the cosine to the nearest row chosen before (``diverse``), the
        gain in mean similarity (``coverage``), or the margin between the two most probable classes (``uncertain``).

    Raises
    ------
    UsageError
        The strategy or a column is unknown, no row is left, or ``"uncertain"`` has nothing to learn from.
    FilterError
        The expression cannot be read.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> chosen = index.sample(3, strategy="diverse")
    >>> [index[name]["patient"] for name in chosen.ids]
    ['P05', 'P02', 'P06']
    """
    store = index.snapshot().store
    require_count(n)
    if strategy not in get_args(Strategy):
        raise UsageError(
            f"a strategy is one of {', '.join(get_args(Strategy))}, got: {strategy!r}", hint="name one with --strategy"
        )
    rows = store.live_rows() if where is None else np.flatnonzero(store.where(where))
    done = np.empty(0, np.int64) if label is None else _labelled(store, label, separator)
    rows = np.setdiff1d(rows, done)
    if not len(rows):
        why = f"every row has a {label!r}" if label is not None and len(done) else "no row fits"
        raise UsageError(f"nothing is left to annotate: {why}", hint="choose among other rows")
    notes = [] if store.manifest.group else ["the index has no group key: pictures of one person are not kept apart"]
    kept = _first_by_hash(store, rows, _MOST[strategy])
    if len(kept) < len(rows):
        notes.append(f"chosen from {len(kept)} of {len(rows)} rows, drawn by the hashes of their ids")
    groups = row_groups(store, np.concatenate([kept, done]))
    turns = _Turns(groups[: len(kept)], groups[len(kept) :])
    n = min(n, len(kept))
    if strategy == "uncertain":
        if label is None:
            raise UsageError("'uncertain' needs labelled rows to learn from", hint="name their column with --label")
        chosen = _uncertain(store, kept, turns, n, label, separator)
    elif strategy == "diverse":
        chosen = _diverse(raw_vectors(store, kept), raw_vectors(store, _first_by_hash(store, done, _COVERED)), turns, n)
    else:
        covered = raw_vectors(store, _first_by_hash(store, np.concatenate([rows, done]), _COVERED))
        before = raw_vectors(store, _first_by_hash(store, done, _MOST["coverage"]))
        chosen = _covering(raw_vectors(store, kept), covered, before, turns, n)
    places = [at for at, _ in chosen]
    records: list[dict[str, Any]] = [
        {"rank": rank, "id": name, "score": round(score, 4)}
        for rank, (name, (_, score)) in enumerate(zip(store.ids(kept[places]), chosen, strict=True), start=1)
    ]
    facts = {"strategy": strategy, "rows": len(rows), "labelled": len(done), "groups": len(np.unique(groups[places]))}
    return Findings(f"To annotate, {strategy}", tuple(records), facts, tuple(notes))


class _Turns:
    """Whose turn it is: patients of whom the fewest rows are chosen."""

    def __init__(self, groups: NDArray[np.int64], done: NDArray[np.int64]) -> None:
        self.groups = groups
        size = int(max(groups.max(initial=-1), done.max(initial=-1))) + 1
        self._taken = (np.bincount(done, minlength=size) > 0).astype(np.int64)
        self._chosen = np.zeros(len(groups), bool)

    def allowed(self) -> NDArray[np.bool_]:
        """Return which rows may be chosen next: bool ``(n,)``."""
        counts = np.where(self._chosen, np.iinfo(np.int64).max, self._taken[self.groups])
        return np.asarray(counts == counts.min())

    def allows(self, at: int, least: int) -> bool:
        """Return whether a row's patient has not more than so many rows chosen."""
        return bool(self._taken[self.groups[at]] <= least)

    def least(self) -> int:
        """Return how many rows are chosen of the patients whose turn it is."""
        return int(self._taken[self.groups[~self._chosen]].min())

    def choose(self, at: int) -> None:
        """Note that a row is chosen."""
        self._chosen[at] = True
        self._taken[self.groups[at]] += 1


def _labelled(store: Store, label: str, separator: str | None) -> NDArray[np.int64]:
    live = store.live_rows()
    values = store.table([label], live).column(0).to_pylist()
    found = np.array([bool(classes_of(value, separator)) for value in values], bool)
    return np.asarray(live[found])


def _first_by_hash(store: Store, rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    if len(rows) <= most:
        return rows
    order = np.argsort(id_hashes(store.ids(rows)), kind="stable")[:most]
    return np.sort(rows[order])


def _diverse(
    vectors: NDArray[np.float32], before: NDArray[np.float32], turns: _Turns, n: int
) -> list[tuple[int, float]]:
    """Choose the farthest from what is chosen; the first is the most ordinary row."""
    chosen: list[tuple[int, float]] = []
    nearest = np.full(len(vectors), -np.inf, np.float32)
    for start in range(0, len(before), _BLOCK):
        nearest = np.maximum(nearest, (vectors @ before[start : start + _BLOCK].T).max(axis=1))
    while len(chosen) < n:
        allowed = turns.allowed()
        if not len(before) and not chosen:
            at = int(np.where(allowed, vectors @ vectors.mean(axis=0), -np.inf).argmax())
        else:
            at = int(np.where(allowed, nearest, np.inf).argmin())
        chosen.append((at, float(nearest[at]) if np.isfinite(nearest[at]) else 1.0))
        turns.choose(at)
        nearest = np.maximum(nearest, vectors @ vectors[at])
    return chosen


def _covering(
    vectors: NDArray[np.float32], covered: NDArray[np.float32], before: NDArray[np.float32], turns: _Turns, n: int
) -> list[tuple[int, float]]:
    """Choose what raises the mean similarity of ``covered`` to its nearest chosen row most; gains only ever shrink."""
    best = np.zeros(len(covered), np.float32)
    for start in range(0, len(before), _BLOCK):
        best = np.maximum(best, (covered @ before[start : start + _BLOCK].T).max(axis=1))
    similar = vectors @ covered.T

    def gain(at: int) -> float:
        return float(np.maximum(similar[at] - best, 0).sum())

    gains = [(-float(one), at) for at, one in enumerate(np.maximum(similar - best, 0).sum(axis=1))]
    heapq.heapify(gains)
    chosen: list[tuple[int, float]] = []
    while len(chosen) < n:
        least, aside = turns.least(), []
        while True:
            _, at = heapq.heappop(gains)
            if not turns.allows(at, least):
                aside.append((-gain(at), at))
                continue
            now = gain(at)
            if not gains or (-now, at) <= gains[0]:
                break
            heapq.heappush(gains, (-now, at))
        chosen.append((at, now / max(len(covered), 1)))
        turns.choose(at)
        best = np.maximum(best, similar[at])
        for one in aside:
            heapq.heappush(gains, one)
    return chosen


def _uncertain(
    store: Store, rows: NDArray[np.int64], turns: _Turns, n: int, label: str, separator: str | None
) -> list[tuple[int, float]]:
    """Choose the rows of the smallest margins."""
    refuse_fitted(store)
    cases = find_cases(store, label, separator=separator, same_patient=True)
    predict = fitted(raw_vectors(store, cases.rows), cases.member, several=cases.several)
    margins = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        found = predict(raw_vectors(store, rows[start : start + _BLOCK]))
        if cases.several:
            margins[start : start + _BLOCK] = np.abs(2 * found - 1).min(axis=1)
        else:
            two = np.sort(found, axis=1)[:, -2:]
            margins[start : start + _BLOCK] = two[:, 1] - two[:, 0]
    chosen: list[tuple[int, float]] = []
    while len(chosen) < n:
        at = int(np.where(turns.allowed(), margins, np.inf).argmin())
        chosen.append((at, float(margins[at])))
        turns.choose(at)
    return chosen
