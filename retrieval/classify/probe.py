"""Linear probes: logistic regression on an index's labelled vectors.

It is trained with patients kept apart: the strength of its regularisation is chosen, and its figures are measured,
on folds whose groups it has not seen. The fits of those folds are stored beside the one on all rows: a picture of a
patient among the labelled rows is answered by the fit that has not seen that patient (`Probe.logits_without`). The file
``probe-COLUMN-HASH.npz`` lies in the index and holds arrays and JSON, no pickle. It records the version of the data it
was trained on and is refused once rows, labels or groups have changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retr.index.disk.npz import numbers, read_npz
from retr.index.disk.side_data import Change, Kind, dropped, held
from retr.index.errors import IndexCorruptError, RetrError, UsageError
from retr.index.json_fields import Fields, parse_json, stored
from retr.index.machine.extras import needed
from retr.index.machine.waiting import waiting
from retr.retrieval.ignored_warnings import ignoring
from retr.retrieval.labels.held_out_views import Unseen
from retr.retrieval.labels.labelled import data_version, labelled_rows, unit_of
from retr.retrieval.stats.confidence import Temperature, log_loss, softmax

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot
    from retr.index.store import Store
    from retr.retrieval.labels.labelled import Labelled


@dataclass(frozen=True)
class Scaling:
    """How vectors are scaled for a fit, so that the useful strengths do not depend on the encoder.

    Attributes
    ----------
    each
        Whether each dimension is standardised by itself; otherwise one number divides all, so that their variances sum
        to 1.
    tried
        The strengths of which one is chosen.
    fixed
        The strength where none is chosen.
    """

    each: bool
    tried: tuple[float, ...]
    fixed: float

    @classmethod
    def of(cls, store: Snapshot) -> Scaling:
        """Return that of an index: behind a transform, which says how much each dimension counts, they stay so."""
        return STANDARDISED if store.manifest.encoder.transform is None else TOGETHER


STANDARDISED = Scaling(each=True, tried=(0.001, 0.003, 0.01, 0.03), fixed=0.01)
TOGETHER = Scaling(each=False, tried=(0.3, 1.0, 3.0, 10.0), fixed=3.0)
# The strength is chosen on at most so many rows: it settles long before the fit does.
TUNING_ROWS = 5000


@dataclass(frozen=True)
class Probe:
    """A trained probe.

    Attributes
    ----------
    column, classes
        The label column and its classes.
    coef, intercept
        float32 ``(c, dim)`` and ``(c,)``; applied to vectors as the store gives them.
    held_out
        float32 ``(n, c)``: logits of the labelled rows, each from a fold that had not seen its group; 0 where a head
        has (`retr.retrieval.labels.held_out_views.Unseen`).
    fold_of
        int64 ``(n,)``: the fold of each labelled row.
    fold_coef, fold_intercept
        float32 ``(f, c, dim)`` and ``(f, c)``: for each fold the fit on the other folds.
    data_version
        Version of the data it was trained on (`retr.retrieval.labels.labelled.data_version`).
    figures
        What was measured held-out: rows, groups, accuracy, top5 (of more than 5 classes), macro_recall, and the
        strength ``C`` chosen.
    """

    column: str
    classes: tuple[str, ...]
    coef: NDArray[np.float32]
    intercept: NDArray[np.float32]
    held_out: NDArray[np.float32]
    fold_of: NDArray[np.int64]
    fold_coef: NDArray[np.float32]
    fold_intercept: NDArray[np.float32]
    data_version: str
    figures: dict[str, Any]

    def _require_shapes(self) -> None:
        """Raise ``ValueError`` where the arrays do not belong together."""
        classes, dim = self.coef.shape
        n, folds = len(self.fold_of), len(self.fold_coef)
        fits = self.fold_coef.shape == (folds, classes, dim) and self.fold_intercept.shape == (folds, classes)
        rows = self.held_out.shape == (n, classes) and self.fold_of.shape == (n,) and self.fold_of.dtype == np.int64
        if not (fits and rows and self.intercept.shape == (classes,) and len(self.classes) == classes):
            raise ValueError("arrays of different lengths")
        if n and not 0 <= self.fold_of.min() <= self.fold_of.max() < folds:
            raise ValueError("a fold that is not there")

    def logits(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Score unit vectors (or, for dot-product indexes, vectors as they are): float32 ``(n, c)``."""
        scores: NDArray[np.float32] = np.asarray(vectors, dtype=np.float32) @ self.coef.T + self.intercept
        return scores

    def logits_without(
        self, vectors: NDArray[Any], labelled: Labelled, store: Store, exclude: Sequence[NDArray[np.int64]]
    ) -> NDArray[np.float32]:
        """Score vectors, each by a fit that has seen none of the rows in its ``exclude``: float32 ``(n, c)``.

        Parameters
        ----------
        vectors
            float ``(n, dim)``.
        labelled
            The rows it was trained on.
        exclude
            For each vector, int64 row numbers: itself and its patient.
        """
        scores = self.logits(vectors)
        fold = np.full(store.n_total, -1, dtype=np.int64)
        fold[labelled.rows] = self.fold_of
        made: dict[bytes, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        for i, rows in enumerate(exclude):
            seen = rows[fold[rows] >= 0]
            folds = np.unique(fold[seen])
            if len(folds) == 1:
                coef, intercept = self.fold_coef[folds[0]], self.fold_intercept[folds[0]]
            elif len(folds):  # several patients at once: no fold has been without all of them
                key = seen.tobytes()
                if key not in made:
                    rest = labelled.part(~np.isin(labelled.rows, seen))
                    known = np.asarray(store.vectors(rest.rows), dtype=np.float32)
                    made[key] = fit_probe(known, rest.codes, len(self.classes), self.figures["C"], Scaling.of(store))
                coef, intercept = made[key]
            else:
                continue
            scores[i] = np.asarray(vectors[i], dtype=np.float32) @ coef.T + intercept
        return scores

    def to_bytes(self) -> bytes:
        """Write an ``.npz`` without pickles."""
        header = {
            "column": self.column,
            "classes": self.classes,
            "data_version": self.data_version,
            "figures": self.figures,
        }
        sink = io.BytesIO()
        np.savez_compressed(
            sink,
            header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
            coef=self.coef,
            intercept=self.intercept,
            held_out=self.held_out,
            fold_of=self.fold_of,
            fold_coef=self.fold_coef,
            fold_intercept=self.fold_intercept,
        )
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self | None:
        """Read what `to_bytes` wrote; ``None`` for what an older version wrote, which kept no fits of folds."""
        with stored("the stored probe", "train it again"):
            arrays = read_npz(data)
            if "fold_coef" not in arrays:
                return None
            header = Fields(parse_json(arrays["header"].tobytes()))
            classes = header.texts("classes")
            fold_coef = numbers(arrays, "fold_coef", None, len(classes), None)
            n_folds, n_classes, dim = fold_coef.shape
            held_out = numbers(arrays, "held_out", None, n_classes)
            fold_of = numbers(arrays, "fold_of", len(held_out), kind=np.int64)
            if fold_of.min(initial=0) < 0 or fold_of.max(initial=-1) >= n_folds:
                raise ValueError("a fold that is not there")
            header.inner("figures").number("C")
            return cls(
                column=header.text("column"),
                classes=classes,
                coef=numbers(arrays, "coef", n_classes, dim),
                intercept=numbers(arrays, "intercept", n_classes),
                held_out=held_out,
                fold_of=fold_of,
                fold_coef=fold_coef,
                fold_intercept=numbers(arrays, "fold_intercept", n_folds, n_classes),
                data_version=header.text("data_version"),
                figures=header.inner("figures").data(),
            )


def file_name(column: str) -> str:
    """Name the probe's file in the index; no other column's has that name, in whatever case.

    >>> file_name("label"), file_name("Befund rechts")
    ('probe-label-1aca80e8b55c802f.npz', 'probe-Befund_rechts-8bb573a691efe681.npz')
    """
    shown = re.sub(r"[^A-Za-z0-9._-]", "_", column)[:40]
    return f"probe-{shown}-{hashlib.sha256(column.encode()).hexdigest()[:16]}.npz"


def train(store: Store, column: str) -> Probe:
    """Train on all labelled rows, and measure on folds of groups that were kept apart.

    Raises
    ------
    UsageError
        If the column is unknown, has fewer than two classes or two groups, or no class of several groups.
    """
    labelled = labelled_rows(store, column)
    unseen = Unseen(store, labelled.rows)
    vectors = np.asarray(store.vectors(labelled.rows), dtype=np.float32)
    folds = unseen.folds(labelled.groups)
    pairs = np.unique(np.column_stack([labelled.codes, labelled.groups]), axis=0)
    if np.bincount(pairs[:, 0]).max() < 2:
        one = unit_of(store.manifest.group)
        raise UsageError(
            f"each class of {column!r} is of one {one} alone, so nothing learned can be measured on another",
            hint="name a column of classes, not of identifiers",
        )
    with waiting(f"training a probe of {column!r} on {len(labelled)} rows"):
        scaling = Scaling.of(store)
        strength, crossed = _choose(vectors, labelled, folds, unseen, scaling)
        coef, intercept = fit_probe(vectors, labelled.codes, len(labelled.classes), strength, scaling)
    asked = unseen.asked
    # where a head has seen every patient, and no view is without one, there is nothing to measure
    measured = measure_probe(softmax(crossed.held_out[asked]), labelled.codes[asked]) if asked.any() else {}
    return Probe(
        column=column,
        classes=labelled.classes,
        coef=coef,
        intercept=intercept,
        held_out=crossed.held_out,
        fold_of=folds,
        fold_coef=crossed.coef,
        fold_intercept=crossed.intercept,
        data_version=data_version(store, column),
        figures={
            "rows": len(labelled),
            "groups": labelled.n_groups,
            "C": strength,
            "measured_rows": int(asked.sum()),
            **measured,
        },
    )


def measure_probe(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> dict[str, float]:
    """Measure probabilities ``(n, c)`` against codes ``(n,)``; top-5 accuracy only of more than 5 classes."""
    from retr.retrieval.stats.metrics import top_k_accuracy

    best = probabilities.argmax(axis=1)
    recalls = [float((best[truth == code] == code).mean()) for code in np.unique(truth)]
    return {
        "accuracy": round(float((best == truth).mean()), 4),
        **({"top5": round(top_k_accuracy(probabilities, truth, 5), 4)} if probabilities.shape[1] > 5 else {}),
        "macro_recall": round(float(np.mean(recalls)), 4),
    }


def train_and_store(store: Store, column: str) -> Probe:
    """Train a probe and commit it to the index.

    Raises
    ------
    UsageError
        As `train`.
    IndexLockedError
        If another process is writing.
    """
    probe = train(store, column)
    with store.writer() as writer:
        writer.add_file(file_name(column), probe.to_bytes())
        writer.commit()
    return probe


def find_probe(store: Snapshot, column: str) -> Probe | None:
    """Read the stored probe of a column; ``None`` where there is none.

    Raises
    ------
    RetrError
        If rows, labels or groups have changed since it was trained.
    """
    found: Probe | None = store.once(("probe", column), lambda: _find(store, column))
    return found


def _find(store: Snapshot, column: str) -> Probe | None:
    if file_name(column) not in store.manifest.files:
        return None
    probe = _read(store, file_name(column))
    if probe is None or probe.column != column:
        return None
    if probe.data_version != data_version(store, column):
        raise RetrError(
            f"the probe for {column!r} is stale: rows, labels or groups have changed since it was trained",
            hint=f"train it again with `retr classify --probe {column} --retrain`",
        )
    return probe


def _read(store: Snapshot, name: str) -> Probe | None:
    probe = Probe.from_bytes(store.file(name))
    if probe is not None and probe.coef.shape[1] != store.manifest.encoder.dim:
        raise IndexCorruptError("the stored probe is of vectors of another length", hint="train it again")
    return probe


@dataclass(frozen=True)
class _Crossed:
    """The fits of all folds, and what each says of the rows it has not seen; as in `Probe`."""

    held_out: NDArray[np.float32]
    coef: NDArray[np.float32]
    intercept: NDArray[np.float32]


def _choose(
    vectors: NDArray[np.float32], labelled: Labelled, folds: NDArray[np.int64], unseen: Unseen, scaling: Scaling
) -> tuple[float, _Crossed]:
    """Choose the strength whose held-out log loss, after scaling, is smallest; return it and its fits."""
    keep = np.ones(len(labelled), bool)
    if len(keep) > TUNING_ROWS:
        keep[np.random.default_rng(0).permutation(len(keep))[TUNING_ROWS:]] = False
    asked = keep & unseen.asked if unseen.asked.any() else keep
    codes = labelled.codes[asked]

    def crossed(kept: NDArray[np.bool_], strength: float) -> _Crossed:
        return _cross(vectors, labelled, folds, unseen, kept, partial(fit_probe, strength=strength, scaling=scaling))

    tried = {strength: crossed(keep, strength) for strength in scaling.tried}
    losses = {
        strength: log_loss(Temperature.fit(found.held_out[asked], codes).probabilities(found.held_out[asked]), codes)
        for strength, found in tried.items()
    }
    best = min(losses, key=losses.__getitem__)
    if keep.all():
        return best, tried[best]
    return best, crossed(np.ones(len(keep), bool), best)


def _cross(
    vectors: NDArray[np.float32],
    labelled: Labelled,
    folds: NDArray[np.int64],
    unseen: Unseen,
    keep: NDArray[np.bool_],
    fit: Callable[..., tuple[NDArray[np.float32], NDArray[np.float32]]],
) -> _Crossed:
    """Fit on all folds but one, for each, and score that one; rows that a head has seen in the view without them."""
    n_classes = len(labelled.classes)
    held_out = np.zeros((len(labelled), n_classes), dtype=np.float32)
    fits = []
    for fold in range(int(folds.max()) + 1):
        inside, outside = keep & (folds != fold), (folds == fold) & unseen.plain
        coef, intercept = fit(vectors[inside], labelled.codes[inside], n_classes)
        held_out[outside] = vectors[outside] @ coef.T + intercept
        fits.append((coef, intercept))
        asked = unseen.fold == fold
        if asked.any():
            inside &= unseen.in_view
            other, offset = fit(unseen.view(fold, inside), labelled.codes[inside], n_classes)
            held_out[asked] = unseen.view(fold, asked) @ other.T + offset
    return _Crossed(held_out, np.stack([coef for coef, _ in fits]), np.stack([offset for _, offset in fits]))


def fit_probe(
    vectors: NDArray[np.float32],
    codes: NDArray[np.int64],
    n_classes: int,
    strength: float,
    scaling: Scaling = STANDARDISED,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit scaled features, and fold the scaling into coefficients ``(c, dim)`` and intercepts ``(c,)``.

    Raises
    ------
    UsageError
        The rows hold a single class.
    """
    with needed():
        from sklearn import exceptions, linear_model
    present = np.unique(codes)
    if len(present) < 2:
        raise UsageError(
            "with some of the labelled rows held out the others are of a single class, so a probe cannot be measured",
            hint="label more rows of the other classes",
        )
    mean, deviation = vectors.mean(axis=0), vectors.std(axis=0)
    deviation = (deviation if scaling.each else np.full_like(deviation, np.linalg.norm(deviation))) + np.float32(1e-6)
    model = linear_model.LogisticRegression(C=strength, class_weight="balanced", max_iter=300)
    # Stopped early is still a probe, and its figures are measured held-out.
    with ignoring(exceptions.ConvergenceWarning):
        model.fit((vectors - mean) / deviation, codes)
    found, offset = model.coef_, model.intercept_
    if len(present) == 2:  # scikit-learn keeps one row for two classes
        found, offset = np.vstack([-found / 2, found / 2]), np.array([-offset[0] / 2, offset[0] / 2])
    coef = np.zeros((n_classes, vectors.shape[1]), dtype=np.float32)
    # A class that these rows lack is less probable than any they have.
    intercept = np.full(n_classes, offset.min() - 5, dtype=np.float32)
    coef[present] = found / deviation
    intercept[present] = offset - coef[present] @ mean
    return coef, intercept


class Probes(Kind):
    """The probes of an index, as a kind of side data."""

    name = "probe"

    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        """Return what reads each, and whether it is of vectors such as these."""
        return {name: partial(_read, snapshot, name) for name in held(snapshot.manifest)[self.name].files}

    def stale(self, snapshot: Snapshot) -> Iterator[str]:
        """Yield which were trained on other rows, labels or groups."""
        for name in held(snapshot.manifest)[self.name].files:
            probe = _read(snapshot, name)
            if probe is not None and probe.column in snapshot.schema.names:
                try:
                    find_probe(snapshot, probe.column)
                except RetrError as error:
                    yield str(error)

    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:  # noqa: ARG002
        """Drop them: they hold names of classes and evidence of rows."""
        names = sorted(held(snapshot.manifest)[self.name].files)
        said = [f"{name} (train it again with `retr classify --probe`)" for name in names]
        return dropped(snapshot.manifest, self.name, *said)
