"""A linear head: a fitted projection in which rows of one class lie closer together.

Shrunk linear discriminant analysis. The scatter within classes, shrunk towards a multiple of the identity, whitens the
space; in it the directions between class means are stretched until they carry most of the similarity, and the rest
keeps what pictures of one class differ in. How much to shrink is found by cross-validation over patients, so that few
pictures of many classes are fitted as safely as many of few: the similarities of the `AVERAGED` best ones are averaged,
since which of them comes first is chance. It is one matrix: any vector of the encoder, of an old or a new picture,
passes through it.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retr.index.disk.npz import numbers, read_npz
from retr.index.errors import UsageError
from retr.index.json_fields import Fields, parse_json, stored
from retr.index.vectors import unit
from retr.retrieval.labels.folds import by_class
from retr.retrieval.labels.training_marks import Marks
from retr.retrieval.stats.metrics import reciprocal_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SHRINKAGES = (0.05, 0.15, 0.3, 0.5, 0.7, 0.9)
#: Share of the similarity (as a ratio of lengths) left to what is not between classes.
REST = 0.6
MOST_DIMS = 512
#: So many shrinkages are averaged.
AVERAGED = 3
FOLDS = 4
_TUNING_ROWS = 2000
_DEPTH = 10


@dataclass(frozen=True)
class Head:
    """A fitted head.

    Attributes
    ----------
    mean
        float32 ``(d,)``: the middle of the classes.
    weights
        float32 ``(d, m)``.
    about
        What it was fitted on, JSON-ready; holds ``"label"``.
    seen
        Who was fitted on; ``None`` in an index of an older version.
    """

    mean: NDArray[np.float32]
    weights: NDArray[np.float32]
    about: dict[str, Any]
    seen: Marks | None = None

    @property
    def dim(self) -> int:
        """Length of what comes out."""
        return int(self.weights.shape[1])

    @property
    def sha256(self) -> str:
        """Hash of the numbers."""
        return hashlib.sha256(self.mean.tobytes() + self.weights.tobytes()).hexdigest()

    def __call__(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Transform vectors as the store keeps them, float ``(n, d)``: float32 ``(n, m)``."""
        return np.asarray((np.asarray(vectors, np.float32) - self.mean) @ self.weights, np.float32)

    def to_bytes(self) -> bytes:
        """Write an ``.npz`` without pickles."""
        sink = io.BytesIO()
        about = np.frombuffer(json.dumps(self.about).encode(), dtype=np.uint8)
        marks: dict[str, NDArray[Any]] = {} if self.seen is None else self.seen.to_arrays()
        np.savez(sink, mean=self.mean, weights=self.weights, about=about, **marks)  # type: ignore[arg-type]
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises
        ------
        IndexCorruptError
            It is something else.
        """
        with stored("the stored head"):
            arrays = read_npz(data)
            mean = numbers(arrays, "mean", None)
            about = Fields(parse_json(arrays["about"].tobytes()))
            return cls(mean, numbers(arrays, "weights", len(mean), None), about.data(), Marks.from_arrays(arrays))


def fit_head(
    vectors: NDArray[Any], codes: NDArray[np.int64], groups: NDArray[np.int64], *, seed: int = 0
) -> tuple[Head, dict[float, float]]:
    """Fit a head.

    Parameters
    ----------
    vectors
        float ``(n, d)``, as the store keeps them.
    codes
        int64 ``(n,)``: the class of each row.
    groups
        int64 ``(n,)``: the patient of each row; what one patient's rows teach is judged on others.
    seed
        For the folds, and the rows tuned on where there are very many.

    Returns
    -------
    tuple
        The head, and for each shrinkage tried the mean reciprocal rank in cross-validation; none where no fold's rows
        differ.

    Raises
    ------
    UsageError
        All rows have one vector.
    """
    if not np.ptp(vectors, axis=0).any():
        raise UsageError(
            f"the {len(vectors)} rows that the head would be fitted on have one and the same vector",
            hint="give other pictures, or another encoder",
        )
    tried = _cross_validate(np.asarray(vectors, np.float64), codes, groups, seed)
    best = sorted(SHRINKAGES, key=lambda shrinkage: (tried.get(shrinkage, 0.0), shrinkage))[-AVERAGED:]
    return head_of_shrinkages(vectors, codes, sorted(best)), tried


def head_of_shrinkages(vectors: NDArray[Any], codes: NDArray[np.int64], shrinkages: Sequence[float]) -> Head:
    """Fit a head of some shrinkages, between 0 and 1, on rows ``(n, d)`` that differ."""
    return _Scatter(np.asarray(vectors, np.float64), codes).head(shrinkages)


def _cross_validate(
    vectors: NDArray[np.float64], codes: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> dict[float, float]:
    rows = np.arange(len(codes))
    if len(rows) > _TUNING_ROWS:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:_TUNING_ROWS])
        vectors, codes, groups = vectors[rows], codes[rows], groups[rows]
    ranks: dict[float, list[NDArray[np.float64]]] = {shrinkage: [] for shrinkage in SHRINKAGES}
    for inside, outside in by_class(codes, groups, FOLDS, seed):
        if not np.ptp(vectors[inside], axis=0).any():
            continue
        scatter = _Scatter(vectors[inside], codes[inside])
        coordinates = scatter.coordinates(vectors)
        for shrinkage in SHRINKAGES:
            moved = unit(coordinates @ scatter.metric(shrinkage))
            scores = moved[outside] @ moved.T
            scores[groups[outside, None] == groups] = -np.inf
            depth = min(_DEPTH, len(codes) - 1)
            best = np.argpartition(-scores, depth, axis=1)[:, :depth]
            order = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1), 1)
            ranks[shrinkage].append(reciprocal_rank(codes[order] == codes[outside, None]))
    return {shrinkage: float(np.concatenate(parts).mean()) for shrinkage, parts in ranks.items() if parts}


class _Scatter:
    """The scatter of labelled rows within and between classes, taken apart once for all shrinkages."""

    def __init__(self, vectors: NDArray[np.float64], codes: NDArray[np.int64]) -> None:
        present, codes = np.unique(codes, return_inverse=True)
        self._basis = _span(vectors - vectors.mean(axis=0))
        rows = vectors @ self._basis
        means = np.stack([rows[codes == c].mean(axis=0) for c in range(len(present))])
        self._middle = means.mean(axis=0)
        self._rows, self._between = rows - self._middle, means - self._middle
        within = rows - means[codes]
        spread, self._axes = np.linalg.eigh(within.T @ within / max(len(rows) - len(present), 1))
        self._spread = np.maximum(spread, 0)

    def coordinates(self, vectors: NDArray[Any]) -> NDArray[np.float64]:
        """Place any vectors ``(n, d)`` in the span of the fitted rows, around the middle of the classes: ``(n, k)``."""
        return np.asarray(vectors @ self._basis - self._middle, np.float64)

    def metric(self, shrinkage: float) -> NDArray[np.float64]:
        """Return the matrix ``(k, k)`` in whose image the dot product is the similarity."""
        level = (1 - shrinkage) * self._spread + shrinkage * self._spread.mean()
        whiten = self._axes / np.sqrt(np.maximum(level, 1e-12 * level.max() or 1.0))
        _, strength, axes = np.linalg.svd(self._between @ whiten, full_matrices=False)
        axes = axes[strength > 1e-6 * strength[0]]  # (classes - 1, k)
        rows = self._rows @ whiten
        # the rows of a fold may all be of one class
        stretch, rest = 1 / _length(rows @ axes.T) if len(axes) else 0.0, REST / _length(rows)
        # stretch^2 <parts between classes> + rest^2 <everything>, as the square of one symmetric matrix
        return np.asarray(rest * whiten + (np.hypot(stretch, rest) - rest) * (whiten @ axes.T) @ axes, np.float64)

    def head(self, shrinkages: Sequence[float]) -> Head:
        """Build the head for some shrinkages, between 0 and 1, on the directions that matter most."""
        total = np.zeros((len(self._spread), len(self._spread)))
        for metric in map(self.metric, shrinkages):
            total += metric @ metric.T / (_length(self._rows @ metric) ** 2 or 1.0)
        strength, axes = np.linalg.eigh(total / len(shrinkages))
        metric = axes * np.sqrt(np.maximum(strength, 0))
        moved = self._rows @ metric
        directions = np.linalg.eigh(moved.T @ moved)[1][:, ::-1][:, :MOST_DIMS]
        return Head(
            mean=(self._basis @ self._middle).astype(np.float32),
            weights=(self._basis @ (metric @ directions)).astype(np.float32),
            about={"shrinkage": list(shrinkages)},
        )


def _span(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal basis of the rows' span ``(d, k)``: with fewer rows than dimensions nothing else can be fitted."""
    n, d = centred.shape
    if n >= d:
        return np.eye(d)
    value, vector = np.linalg.eigh(centred @ centred.T)
    kept = value > 1e-9 * value[-1]
    return np.asarray(centred.T @ (vector[:, kept] / np.sqrt(value[kept])), np.float64)


def _length(rows: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(rows).sum(axis=1).mean()))
