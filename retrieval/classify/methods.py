"""Three ways to name what a picture shows, and one form of answer.

Zero-shot compares a vector with the prompts of classes, neighbours vote with the labels of the nearest rows, a probe
is a trained classifier. Each gives evidence; a calibration (`retr.retrieval.classify.calibration`), where there is one,
turns it into a probability, a set that holds the truth as often as promised, and reasons to abstain.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.classify import calibration
from retr.retrieval.classify.prompts import class_vectors
from retr.retrieval.hits import Hits
from retr.retrieval.labels.labelled import labelled_rows, others
from retr.retrieval.stats import confidence
from retr.retrieval.stats.confidence import Temperature, Votes, VoteScale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.classify.probe import Probe
    from retr.retrieval.classify.prompts import TextSide
    from retr.retrieval.labels.label_set import LabelSet

DEFAULT_NEIGHBOURS = 5
# A calibrated vote may count hundreds; the nearest of them are shown as evidence.
SHOWN = 20


class Method(Protocol):
    """A way to classify."""

    @property
    def key(self) -> str:
        """Name under which its calibration is kept."""

    @property
    def column(self) -> str | None:
        """The label column it answers for, if any."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""

    @property
    def uncalibrated(self) -> confidence.Scaling:
        """How its evidence becomes probabilities without a calibration."""

    def evidence(
        self, vectors: NDArray[np.float32], exclude: Sequence[NDArray[np.int64]]
    ) -> tuple[Any, list[Hits] | None]:
        """Give logits ``(n, c)`` or `Votes`, and the rows that speak for them."""


class ByWords:
    """Zero-shot: similarity to the prompts of each class, in the encoder's own scale."""

    column = None
    uncalibrated = Temperature()

    def __init__(self, encoder: TextSide, labels: LabelSet) -> None:
        if labels.multilabel:
            raise UsageError(
                f"the classes of {labels.name!r} may be present together, so they do not share one probability",
                hint="leave `multilabel` out of the label set to make them exclude each other",
            )
        self.labels = labels
        self._encoder = encoder
        self._texts = class_vectors(encoder, [one.prompts for one in labels.classes])

    @property
    def key(self) -> str:
        """The set's name, and a fingerprint of its prompts."""
        prompts = repr([(one.name, one.prompts) for one in self.labels.classes])
        return f"zero-shot:{self.labels.name}:{hashlib.sha256(prompts.encode()).hexdigest()[:8]}"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.labels.names)

    def logits(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Give float32 ``(n, c)``."""
        return self._encoder.similarity_logits(np.asarray(vectors, dtype=np.float32), self._texts)

    def evidence(
        self,
        vectors: NDArray[np.float32],
        exclude: Sequence[NDArray[np.int64]],  # noqa: ARG002
    ) -> tuple[NDArray[np.float32], None]:
        """Give logits ``(n, c)``."""
        return self.logits(vectors), None


class ByNeighbours:
    """The labelled rows nearest to a query vote, the nearer the more.

    Parameters
    ----------
    k
        How many vote; by default the number that was calibrated best, else 5.
    where
        Only rows for which this expression is true vote.
    """

    uncalibrated = VoteScale()

    def __init__(self, store: Store, column: str, k: int | None = None, *, where: str | None = None) -> None:
        self._store = store
        self._labelled = labelled_rows(store, column, where=where)
        self._mask = np.zeros(store.n_total, dtype=bool)
        self._mask[self._labelled.rows] = True
        self.column = column
        self.k = k or calibration.default_neighbours(store, column) or DEFAULT_NEIGHBOURS
        # A vote among some of the rows only is another vote than the one that was calibrated.
        self.key = f"neighbours:{self.k}" if where is None else "neighbours:some"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self._labelled.classes

    def evidence(self, vectors: NDArray[np.float32], exclude: Sequence[NDArray[np.int64]]) -> tuple[Votes, list[Hits]]:
        """Give the votes, and the neighbours."""
        found = self._store.search(vectors, self.k, mask=self._mask, exclude=exclude)
        codes = np.where(found.rows >= 0, self._labelled.codes_of_rows(self._store.n_total)[found.rows], -1)
        votes = Votes(np.where(codes >= 0, found.scores, found.scores[:, :1]), codes, self._labelled.prior)
        hits = Hits.all_of(self._store, found, [""] * len(vectors))
        return votes, hits


class ByProbe:
    """A trained probe; rows it was trained on are answered by the fold that had not seen them."""

    key = "probe"
    uncalibrated = Temperature()

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self.column = probe.column

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self._probe.classes

    def evidence(
        self,
        vectors: NDArray[np.float32],
        exclude: Sequence[NDArray[np.int64]],  # noqa: ARG002
    ) -> tuple[NDArray[np.float32], None]:
        """Give logits ``(n, c)``."""
        return self._probe.logits(vectors), None

    def held_out(self, store: Store) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Give the rows it was trained on, and their held-out logits."""
        return labelled_rows(store, self._probe.column).rows, self._probe.held_out


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
