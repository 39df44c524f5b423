"""Convert a method's scores into calibrated probabilities, prediction sets or abstentions.

A method (`retr.retrieval.classify.methods`) gives evidence; a calibration (`retr.retrieval.classify.calibration`),
where there is one, turns it into a probability, a set that holds the truth as often as promised, and reasons to
abstain.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import IndexCorruptError, UsageError
from retr.retrieval import novelty
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.classify import calibration
from retr.retrieval.labels.labelled import Together, others
from retr.retrieval.stats import conformal
from retr.retrieval.transforms.transform import own_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.classify.methods import Method
    from retr.retrieval.hits import Hits

# A calibrated vote may count hundreds; the nearest of them are shown as evidence.
SHOWN = 20
# The rows that a picture is compared with first, to tell whether it is unlike all.
_NEAR = 8
# of a picture of whose patient a head or a bridge has seen the labels
SEEN = "not calibrated here: a fitted part of this index has seen the labels"
# where a limit on sets is asked for
UNLIMITED = "without a calibration there is no set, and no limit on its classes"


@dataclass(frozen=True)
class Answer:
    """What one picture is said to show.

    Attributes
    ----------
    classes, probabilities
        Most probable first, equal ones in the order of the classes.
    calibrated
        Whether the probabilities were scaled on held-out rows of this index.
    prediction_set, alpha
        The classes that hold the truth with a chance of ``1 - alpha``; ``None`` without calibration.
    promise
        For what that chance holds, and what was measured of it; ``None`` without calibration.
    abstain
        Why no answer should be taken, or ``None``.
    nearest
        Similarity to the nearest row of the index, as it searches.
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
    promise: str | None = None
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
        """Return one JSON-ready object with the ``top`` most probable classes and at most `SHOWN` neighbours.

        A class that nothing speaks for is not among the most probable, however few those are.
        """
        best = [(name, p) for name, p in zip(self.classes, self.probabilities, strict=True) if p > 0][:top]
        return {
            "query": self.query,
            "label": None if self.abstain else self.label,
            "classes": [{"label": name, "probability": p} for name, p in best],
            "method": self.method,
            "calibrated": self.calibrated,
            "set": None if self.prediction_set is None else list(self.prediction_set),
            "alpha": self.alpha,
            "promise": self.promise,
            "abstain": self.abstain,
            "nearest": self.nearest,
            "voters": None if self.neighbours is None else len(self.neighbours),
            "neighbours": None if self.neighbours is None else [h.to_json() for h in islice(self.neighbours, SHOWN)],
            "note": self.note,
        }


def answer_pictures(
    store: Store | None,
    method: Method,
    vectors: NDArray[np.float32],
    names: Sequence[str],
    exclude: Sequence[NDArray[np.int64]],
    *,
    own: NDArray[Any] | None = None,
    max_set: int | None = None,
    notes: Sequence[str | None] | None = None,
    fitted: NDArray[np.bool_] | None = None,
) -> list[Answer]:
    """Classify some vectors.

    Parameters
    ----------
    store
        The index; ``None`` for zero-shot without one, which is never calibrated.
    vectors
        float32 ``(n, dim)``, as the index searches them.
    names
        What to call each of the queries.
    exclude
        For each, the rows that must not speak for it: itself, its copies, its patient (`row_exclusions`).
    own
        Floats ``(n, d)``: the encoder's own vectors, where the index's transform makes others of them.
    max_set
        Abstain when the prediction set holds more classes; by default half of them, rounded up. Without a
        calibration there is no set, and the answers' notes say that it counts for nothing.
    notes
        For each, what the user should know beside the answer, or ``None``.
    fitted
        For each, whether something was fitted on its patient; also where no row of the patient is left in ``exclude``.
    """
    evidence, hits = method.evidence(vectors, exclude)
    found, stale, near = None, None, np.full(len(vectors), np.nan)
    unlike: list[str | None] = [None] * len(vectors)
    why: str | None = "not calibrated: no index"
    known = np.zeros(len(vectors), dtype=bool) if fitted is None else fitted
    if store is not None:
        found, why = calibration.find_calibration(store, method.key, method.column)
        if found is not None and found.classes != method.classes:
            raise IndexCorruptError("the calibration is of other classes", hint="run `retr calibrate` again")
        fence, stale = novelty.find_novelty(store)
        nearest = store.search(vectors, _NEAR, exclude=exclude)
        near = np.where(nearest.rows[:, 0] >= 0, nearest.scores[:, 0], np.nan)
        if fence is not None:
            each = zip(vectors if own is None else own, nearest.rows, exclude, strict=True)
            unlike = [novelty.unlike(store, fence, one, seen[seen >= 0], gone) for one, seen, gone in each]
        seen = calibration.rows_seen_by_fits(store, method.fitted_on)
        known = known | np.array([seen is not None and seen[rows].any() for rows in exclude], bool)
    plain = method.uncalibrated.probabilities(evidence)
    scaled = plain if found is None else found.scale.probabilities(evidence)
    limit = calibration.most_classes(len(method.classes)) if max_set is None else max_set
    answers = []
    for i, name in enumerate(names):
        holds = None if known[i] else found
        chances = plain[i] if holds is None else scaled[i]
        order = np.argsort(-chances, kind="stable")
        inside = None if holds is None else conformal.prediction_sets(chances, holds.thresholds)
        similarity = None if np.isnan(near[i]) else float(near[i])
        chosen = None if inside is None else tuple(method.classes[j] for j in order if inside[j])
        said = [
            SEEN if known[i] else why,
            stale,
            UNLIMITED if max_set is not None and holds is None else None,
            _tied(method.classes, chances),
            None if notes is None else notes[i],
        ]
        answers.append(
            Answer(
                query=name,
                method=method.key,
                classes=tuple(method.classes[j] for j in order),
                probabilities=tuple(round(float(chances[j]), 6) for j in order),
                calibrated=holds is not None,
                prediction_set=chosen,
                alpha=None if holds is None else holds.alpha,
                promise=None if holds is None else holds.promised(limit),
                abstain=unlike[i] or _undecided(chosen, limit),
                nearest=similarity,
                neighbours=hits[i] if hits else None,
                column=method.column,
                note="; ".join(one for one in said if one) or None,
            )
        )
    return answers


def store_answers(store: Store, method: Method, *, prefix: str, max_set: int | None = None) -> int:
    """Classify every row of the index, each without its own patient, and store the answers as columns.

    The columns are ``PREFIX_label`` (null where it abstains), ``PREFIX_probability`` and, with a calibration,
    ``PREFIX_set`` (the classes joined by `` | ``). They replace those of an earlier run.

    Returns
    -------
    int
        How many rows were answered without abstaining.

    Raises
    ------
    UsageError
        A column of that name holds what came with the archive, or the labels that are asked for.
    """
    import pyarrow as pa

    notes = BuildNotes.of(store)
    given = {name for table in notes.metadata.values() for name in table.get("columns", ())}
    given.update(notes.beside, notes.scores, [method.column, store.manifest.group])
    lost = [name for name in (f"{prefix}_label", f"{prefix}_probability", f"{prefix}_set") if name in given]
    if lost:
        raise UsageError(
            f"the answers would replace the column {lost[0]!r}, which is no answer",
            hint="begin their names otherwise (--into)",
        )
    rows = store.live_rows()
    ids = store.table(["id"], rows=rows).column("id")
    vectors = np.asarray(store.vectors(rows), dtype=np.float32)
    own = own_vectors(store, rows)
    answers = answer_pictures(store, method, vectors, ids.to_pylist(), others(store, rows), own=own, max_set=max_set)
    columns = {
        "id": ids,
        f"{prefix}_label": pa.array([None if a.abstain else a.label for a in answers], pa.string()),
        f"{prefix}_probability": pa.array([a.probabilities[0] for a in answers], pa.float32()),
    }
    # sets of an earlier run must not stand beside these answers
    if any(a.calibrated for a in answers) or f"{prefix}_set" in store.schema.names:
        sets = [None if a.prediction_set is None else " | ".join(a.prediction_set) for a in answers]
        columns[f"{prefix}_set"] = pa.array(sets, pa.string())
    with store.writer() as writer:
        writer.replace_columns(pa.table(columns))
        writer.commit()
    return sum(a.abstain is None for a in answers)


def row_exclusions(
    store: Store, own: Sequence[NDArray[np.int64]], patient: str | None = None
) -> list[NDArray[np.int64]]:
    """Return the rows that must not speak for each query: its own rows, and all rows of their patients.

    Parameters
    ----------
    own
        For each query, its own live rows (`retr.retrieval.query_identity.own_rows`), or its patient's.
    patient
        The group key's value of all queries, where the user knows it; raw where the index keeps hashes.

    Raises
    ------
    UsageError
        A patient is named and the index declares no column that tells patients apart.
    """
    named = np.empty(0, dtype=np.int64)
    key = store.manifest.group
    if patient is not None:
        if key is None:
            raise UsageError(
                f"no column tells patients apart, so rows of {patient!r} cannot be kept out",
                hint="declare one with `retr index group COLUMN`",
            )
        named = store.identity.rows(key, [patient])[0]
    together = Together.of(store)
    return [
        np.unique(np.concatenate([named, *map(together.rows, np.unique(together.number[rows]).tolist())]))
        for rows in (np.concatenate([one, named]) for one in own)
    ]


def _tied(classes: Sequence[str], chances: NDArray[np.float64]) -> str | None:
    """Return which classes are as probable as the best, so that the order of the classes alone puts one first."""
    best = np.flatnonzero(chances == chances.max())
    if len(best) < 2:
        return None
    if len(best) == len(classes):
        return "all classes are equally probable"
    return f"equally probable: {', '.join(classes[i] for i in best[:SHOWN])}{', ...' * (len(best) > SHOWN)}"


def _undecided(chosen: tuple[str, ...] | None, limit: int) -> str | None:
    """Return why a set is no answer; ``None`` where it is one, or there is none."""
    if chosen is not None and not chosen:
        return "no class is probable enough to be in the set"
    if chosen is not None and len(chosen) > limit:
        return f"undecided: {len(chosen)} classes are possible"
    return None
