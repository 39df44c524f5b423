"""Answers: what a method says of a picture, made a probability where it was calibrated, or a reason to abstain.

A method (`retr.retrieval.classify.methods`) gives evidence; a calibration (`retr.retrieval.classify.calibration`),
where there is one, turns it into a probability, a set that holds the truth as often as promised, and reasons to
abstain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.retrieval.classify import calibration
from retr.retrieval.classify.methods import ByProbe
from retr.retrieval.labels.labelled import others
from retr.retrieval.stats import confidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.classify.methods import Method
    from retr.retrieval.hits import Hits

# A calibrated vote may count hundreds; the nearest of them are shown as evidence.
SHOWN = 20


@dataclass(frozen=True)
class Answer:
    """What one picture is said to show.

    Attributes
    ----------
    classes, probabilities
        Most probable first.
    calibrated
        Whether the probabilities were scaled on held-out rows of this index.
    prediction_set, alpha
        The classes that hold the truth with a chance of ``1 - alpha``; ``None`` without calibration.
    abstain
        Why no answer should be taken, or ``None``.
    nearest
        Similarity to the nearest row of the index.
    neighbours, column
        The rows that voted, and the column of their labels.
    note
        What the user should know, or ``None``.
    """

    query: str
    method: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    calibrated: bool
    prediction_set: tuple[str, ...] | None = None
    alpha: float | None = None
    abstain: str | None = None
    nearest: float | None = None
    neighbours: Hits | None = None
    column: str | None = None
    note: str | None = None

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[0]

    def to_json(self, top: int = 5) -> dict[str, Any]:
        """Give one JSON-ready object with the ``top`` most probable classes and at most `SHOWN` neighbours."""
        best = zip(self.classes[:top], self.probabilities, strict=False)
        return {
            "query": self.query,
            "label": None if self.abstain else self.label,
            "classes": [{"label": name, "probability": p} for name, p in best],
            "method": self.method,
            "calibrated": self.calibrated,
            "set": None if self.prediction_set is None else list(self.prediction_set),
            "alpha": self.alpha,
            "abstain": self.abstain,
            "nearest": self.nearest,
            "voters": None if self.neighbours is None else len(self.neighbours),
            "neighbours": None if self.neighbours is None else [h.to_json() for h in islice(self.neighbours, SHOWN)],
            "note": self.note,
        }


def answer(
    store: Store | None,
    method: Method,
    vectors: NDArray[np.float32],
    names: Sequence[str],
    exclude: Sequence[NDArray[np.int64]],
    *,
    max_set: int | None = None,
) -> list[Answer]:
    """Classify some vectors.

    Parameters
    ----------
    store
        The index; ``None`` for zero-shot without one, which is never calibrated.
    vectors
        float32 ``(n, dim)``.
    names
        What to call each of the queries.
    exclude
        For each, the rows that must not speak for it: itself, its copies, its patient (`row_exclusions`).
    max_set
        Abstain when the prediction set holds more classes; by default more than half of all, rounded up.
    """
    evidence, hits = method.evidence(vectors, exclude)
    found, novelty, near = None, None, np.full(len(vectors), np.nan)
    why: str | None = "not calibrated: no index"
    if store is not None:
        found, why = calibration.find(store, method.key, method.column)
        novelty = calibration.find_novelty(store)
        nearest = store.search(vectors, 1, exclude=exclude)
        near = np.where(nearest.rows[:, 0] >= 0, nearest.scores[:, 0], np.nan)
    scale: confidence.Scaling = method.uncalibrated if found is None else found.scale
    probabilities = scale.probabilities(evidence)
    limit = max_set or math.ceil(len(method.classes) / 2)
    answers = []
    for i, name in enumerate(names):
        order = np.argsort(-probabilities[i], kind="stable")
        own = confidence.prediction_sets(probabilities[i], found.threshold) if found else None
        similarity = None if np.isnan(near[i]) else float(near[i])
        chosen = None if own is None else tuple(method.classes[j] for j in order if own[j])
        answers.append(
            Answer(
                query=name,
                method=method.key,
                classes=tuple(method.classes[j] for j in order),
                probabilities=tuple(round(float(probabilities[i, j]), 6) for j in order),
                calibrated=found is not None,
                prediction_set=chosen,
                alpha=found.alpha if found else None,
                abstain=_reason(similarity, novelty, chosen, limit),
                nearest=similarity,
                neighbours=hits[i] if hits else None,
                column=method.column,
                note=why,
            )
        )
    return answers


def store_answers(store: Store, method: Method, *, prefix: str) -> int:
    """Classify every row of the index, each without its own patient, and store the answers as columns.

    The columns are ``PREFIX_label`` (null where it abstains), ``PREFIX_probability`` and, with a calibration,
    ``PREFIX_set`` (the classes joined by `` | ``).

    Returns
    -------
    int
        How many rows were answered without abstaining.
    """
    import pyarrow as pa

    rows = store.live_rows()
    ids = store.table(["id"], rows=rows).column("id")
    vectors = np.asarray(store.vectors(rows), dtype=np.float32)
    answers = answer(store, _Known(method, store, rows), vectors, ids.to_pylist(), others(store, rows))
    columns = {
        "id": ids,
        f"{prefix}_label": pa.array([None if a.abstain else a.label for a in answers], pa.string()),
        f"{prefix}_probability": pa.array([a.probabilities[0] for a in answers], pa.float32()),
    }
    if answers and answers[0].calibrated:
        columns[f"{prefix}_set"] = pa.array([" | ".join(a.prediction_set or ()) for a in answers], pa.string())
    with store.writer() as writer:
        writer.replace_columns(pa.table(columns))
        writer.commit()
    return sum(a.abstain is None for a in answers)


class _Known:
    """A method whose queries are rows of the index: a probe answers them as if it had not been trained on them."""

    def __init__(self, method: Method, store: Store, rows: NDArray[np.int64]) -> None:
        self._method, self._store, self._rows = method, store, rows
        self.key, self.column, self.classes = method.key, method.column, method.classes
        self.uncalibrated = method.uncalibrated

    def evidence(
        self, vectors: NDArray[np.float32], exclude: Sequence[NDArray[np.int64]]
    ) -> tuple[Any, list[Hits] | None]:
        evidence, hits = self._method.evidence(vectors, exclude)
        if isinstance(self._method, ByProbe):
            trained, logits = self._method.held_out(self._store)
            place = np.full(self._store.n_total, -1, dtype=np.int64)
            place[trained] = np.arange(len(trained))
            known = place[self._rows] >= 0
            evidence[known] = logits[place[self._rows][known]]
        return evidence, hits


def row_exclusions(
    store: Store, own: Sequence[NDArray[np.int64]], values: Sequence[object] | None = None
) -> list[NDArray[np.int64]]:
    """Give the rows that must not speak for each query: its own rows, and all rows of their patient.

    Parameters
    ----------
    own
        For each query, its own rows (`retr.retrieval.query.own_rows`).
    values
        For each query, the group key's value where the user knows it.
    """
    everyone = others(store, np.concatenate([*own, np.empty(0, dtype=np.int64)]).astype(np.int64))
    split = np.split(np.arange(len(everyone)), np.cumsum([len(rows) for rows in own])[:-1])
    excluded = [
        np.unique(np.concatenate([*(everyone[i] for i in part), rows])) for part, rows in zip(split, own, strict=True)
    ]
    key = store.manifest.group
    if values is not None and key is not None:
        live = store.live_rows()
        column = [None if v is None else str(v) for v in store.table([key], rows=live).column(key).to_pylist()]
        for i, value in enumerate(values):
            if value is not None:
                same = live[[v == str(value) for v in column]]
                excluded[i] = np.union1d(excluded[i], same)
    return [rows.astype(np.int64) for rows in excluded]


def _reason(
    similarity: float | None, novelty: calibration.Novelty | None, chosen: tuple[str, ...] | None, limit: int
) -> str | None:
    """Say why not to answer; ``None`` where there is no reason."""
    if novelty is not None and similarity is not None and similarity < novelty.threshold:
        near, fence = f"{similarity:.3f}", f"{novelty.threshold:.3f}"
        return f"unlike anything in this archive: its nearest row scores {near}, its own kind {fence} or more"
    if chosen is not None and not chosen:
        return "no class is probable enough to be in the set"
    if chosen is not None and len(chosen) > limit:
        return f"undecided: {len(chosen)} classes are possible"
    return None
