"""The map: every row a point in the plane, rows that are alike close together (UMAP; McInnes, Healy and Melville 2018).

It is fitted once and kept in the index as side data: coordinates and clusters by marks of the rows' ids and files.
Rows that come later are put where the mapped rows nearest to them lie, weighted as UMAP weighs them; the others stay
where they are. No label enters. What clusters are called is read off the labels of today, and stored nowhere.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.disk.npz import numbers, read_npz
from retr.index.disk.side_data import Change, Kind, dropped
from retr.index.errors import RetrError, UsageError
from retr.index.json_fields import stored
from retr.index.machine.extras import needed
from retr.index.machine.waiting import waiting
from retr.retrieval.curation.map_clusters import find_clusters, name_clusters
from retr.retrieval.ignored_warnings import ignoring
from retr.retrieval.labels.labelled import classes_of
from retr.retrieval.labels.training_marks import row_marks
from retr.retrieval.raw_vectors import raw_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot
    from retr.retrieval.index_like import IndexLike

#: The side file.
FILE = "map.npz"
#: UMAP's settings; a seed makes it the same each time on one machine, with one thread.
SETTINGS: Mapping[str, Any] = {
    "n_neighbors": 15,
    "min_dist": 0.1,
    "metric": "euclidean",
    "random_state": 0,
    "n_jobs": 1,
}
#: A map of fewer rows would say nothing.
FEWEST = 20
# UMAP works on so many principal components: neighbours hardly change, and it takes a tenth of the time.
_COMPONENTS = 50
_BLOCK, _GALLERY = 2048, 16_384


@dataclass(frozen=True)
class Map:
    """A map of an index's rows.

    Attributes
    ----------
    ids
        The rows' ids, in row order.
    xy
        float32 ``(n, 2)``: where each lies.
    clusters
        int64 ``(n,)``: the cluster of each, -1 for none.
    names
        What each cluster is called.
    labels
        The value of the label column of each row, ``""`` for none.
    label
        That column; ``None`` without one.
    placed
        bool ``(n,)``: rows that came after the map was made.
    """

    ids: list[str]
    xy: NDArray[np.float32]
    clusters: NDArray[np.int64]
    names: tuple[str, ...]
    labels: list[str]
    label: str | None
    placed: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class _Stored:
    """What the side file holds: marks uint64 ``(n, 2)``, ``xy`` float32 ``(n, 2)``, clusters int64 ``(n,)``."""

    marks: NDArray[np.uint64]
    xy: NDArray[np.float32]
    clusters: NDArray[np.int64]
    placed: NDArray[np.bool_]

    def to_bytes(self) -> bytes:
        sink = io.BytesIO()
        np.savez(sink, marks=self.marks, xy=self.xy, clusters=self.clusters, placed=self.placed)
        return sink.getvalue()

    @classmethod
    def read(cls, store: Snapshot) -> _Stored | None:
        if FILE not in store.manifest.files:
            return None
        with stored("the map", "make it again with `retr map --refit`"):
            arrays = read_npz(store.file(FILE))
            xy = numbers(arrays, "xy", None, 2)
            clusters = numbers(arrays, "clusters", len(xy), kind=np.int64)
            if clusters.min(initial=0) < -1:
                raise ValueError("no clusters")
            marks = numbers(arrays, "marks", len(xy), 2, kind=np.uint64)
            return cls(marks, xy, clusters, numbers(arrays, "placed", len(xy), kind=np.bool_))

    def places(self, store: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where each of some rows is in the file: int64 ``(n,)``, -1 for nowhere."""
        known = {(one, file): at for at, (one, file) in enumerate(self.marks.tolist())}
        return np.array([known.get((one, file), -1) for one, file in row_marks(store, rows).tolist()], np.int64)


def map(  # noqa: A001 - the field's own word, and the command line's
    index: IndexLike, label: str | None = None, *, separator: str | None = None, refit: bool = False, fit: bool = True
) -> Map:
    """Return the map of an index, made at the first call and kept in it.

    Parameters
    ----------
    label
        The column by which clusters are named; by default ``label``, where there is one.
    separator
        What joins several classes in one value of it.
    refit
        Make it anew, of all rows.
    fit
        Make a map where there is none, and keep the places of new rows; otherwise nothing is written.

    Raises
    ------
    UsageError
        The column is unknown, or the index has fewer than `FEWEST` rows.
    RetrError
        There is no map, and ``fit`` is false.
    MissingExtraError
        umap-learn is not installed.
    IndexLockedError
        Another process is writing.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> index.map(fit=False)
    Traceback (most recent call last):
    ...
    retr.index.errors.RetrError: ...
    """
    if fit:
        index.refresh()
    store = index.store
    if label is not None:
        store.columns.require(label)
    elif "label" in store.schema.names:
        label = "label"
    rows = store.live_rows()
    kept = None if refit else _Stored.read(store)
    if kept is None:
        if not fit:
            raise RetrError("the index has no map", hint="make one with `retr map`")
        kept = _fitted(store, rows)
        fresh = True
    else:
        kept, fresh = _with_new_rows(store, rows, kept)
    if fit and fresh:
        with store.writer() as writer:
            writer.add_file(FILE, kept.to_bytes(), kind=MapKind())
            writer.commit()
        index.refresh()
    values = [()] * len(rows) if label is None else store.table([label], rows).column(0).to_pylist()
    named = [classes_of(value, separator) for value in values]
    return Map(
        ids=store.ids(rows),
        xy=kept.xy,
        clusters=kept.clusters,
        names=name_clusters(kept.clusters, named),
        labels=[(separator or ", ").join(names) for names in named],
        label=label,
        placed=kept.placed,
    )


def _fitted(store: Snapshot, rows: NDArray[np.int64]) -> _Stored:
    if len(rows) < FEWEST:
        raise UsageError(f"a map needs at least {FEWEST} rows, the index has {len(rows)}", hint="index more pictures")
    with needed(), ignoring(Warning):
        from umap import UMAP
    with waiting(f"making a map of {len(rows)} rows"):
        parts = _principal(store, rows)
        start = parts[:, :2] * (10 / max(float(np.abs(parts[:, :2]).max()), 1e-6))
        start += np.random.default_rng(0).normal(0, 1e-3, start.shape)  # rows of one vector come apart
        settings = {**SETTINGS, "n_neighbors": min(SETTINGS["n_neighbors"], len(rows) - 1)}
        with ignoring(Warning):
            xy = UMAP(**settings, init=start.astype(np.float32)).fit_transform(parts)
        xy = np.nan_to_num(np.asarray(xy, np.float32))
        clusters = find_clusters(xy, store.ids(rows))
    return _Stored(row_marks(store, rows), xy, clusters, np.zeros(len(rows), bool))


def _principal(store: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the first principal components of raw vectors: float32 ``(n, c)``."""
    blocks = [rows[start : start + _GALLERY] for start in range(0, len(rows), _GALLERY)]
    total, gram = np.zeros(()), np.zeros(())
    for block in blocks:
        exact = raw_vectors(store, block).astype(np.float64)
        total, gram = total + exact.sum(axis=0), gram + exact.T @ exact
    mean = total / len(rows)
    vectors = np.linalg.eigh(gram / len(rows) - np.outer(mean, mean))[1][:, ::-1][:, :_COMPONENTS]
    # the largest entry of each is positive: eigenvectors have no sign of their own
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    found = [(raw_vectors(store, block) - mean) @ vectors for block in blocks]
    return np.concatenate(found).astype(np.float32)


def _with_new_rows(store: Snapshot, rows: NDArray[np.int64], kept: _Stored) -> tuple[_Stored, bool]:
    """Return the map of just these rows, and whether some of them were not on it."""
    places = kept.places(store, rows)
    new = np.flatnonzero(places < 0)
    mapped = np.flatnonzero(places >= 0)
    if len(mapped) < FEWEST:
        raise RetrError("hardly a row of the map is left in the index", hint="make it again with `retr map --refit`")
    xy, clusters, placed = kept.xy[places], kept.clusters[places], kept.placed[places]
    for start in range(0, len(new), _BLOCK):
        asked = new[start : start + _BLOCK]
        near, cosines = _nearest(store, rows[asked], rows[mapped])
        far = 1 - cosines
        far -= far[:, :1]
        weight = np.exp(-far / np.maximum(far.mean(axis=1, keepdims=True), 1e-9))
        weight /= weight.sum(axis=1, keepdims=True)
        xy[asked] = np.einsum("nk,nkd->nd", weight, kept.xy[places[mapped[near]]])
        clusters[asked] = kept.clusters[places[mapped[near[:, 0]]]]
        placed[asked] = True
    return _Stored(row_marks(store, rows), xy, clusters, placed), bool(len(new))


def _nearest(
    store: Snapshot, asked: NDArray[np.int64], mapped: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the places of the mapped rows nearest to some rows, int64 ``(m, k)``, and their cosines."""
    k = min(SETTINGS["n_neighbors"], len(mapped))
    vectors = raw_vectors(store, asked)
    places, cosines = np.empty((len(asked), 0), np.int64), np.empty((len(asked), 0), np.float32)
    for begin in range(0, len(mapped), _GALLERY):
        found = vectors @ raw_vectors(store, mapped[begin : begin + _GALLERY]).T
        places = np.concatenate([places, np.tile(np.arange(found.shape[1]) + begin, (len(asked), 1))], axis=1)
        cosines = np.concatenate([cosines, found], axis=1)
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        places, cosines = np.take_along_axis(places, best, 1), np.take_along_axis(cosines, best, 1)
    return places, cosines


class MapKind(Kind):
    """The map, as a kind of side data."""

    name = "map"

    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        """Return what reads it."""
        return {FILE: lambda: _Stored.read(snapshot)}

    def stale(self, snapshot: Snapshot) -> list[str]:
        """Return how many rows have no place on it."""
        kept = _Stored.read(snapshot)
        new = 0 if kept is None else int((kept.places(snapshot, snapshot.live_rows()) < 0).sum())
        return [f"{new} rows have no place on the map: `retr map` gives them one"] if new else []

    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:  # noqa: ARG002
        """Drop it: where the others lie was worked out from the rows, too."""
        return dropped(snapshot.manifest, self.name, "the map (make it again with `retr map`)")
