"""How far an answer can be trusted: measured on the index's own labelled rows, patients kept apart.

For each way to classify (neighbours, probe, zero-shot) `calibrate` scales its scores to probabilities and finds the
threshold of split-conformal sets, on evidence in which no row has seen its own patient. The figures it states are
cross-fitted: scaling and threshold of four fifths of the patients, measured on the rest. A scaling that measures worse
than none is not applied. The records (`retr.retrieval.classify.calibration`) go into the manifest.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval import novelty
from retr.retrieval.classify import calibration, probe
from retr.retrieval.classify.calibration import NOTE, Calibration, key_of
from retr.retrieval.classify.depends import dependencies
from retr.retrieval.classify.methods import ByWords
from retr.retrieval.labels.label_set import load_labels
from retr.retrieval.labels.labelled import Labelled, deal, labelled_rows, others
from retr.retrieval.stats import confidence
from retr.retrieval.stats.confidence import Temperature, Votes, VoteScale
from retr.retrieval.stats.metrics import ece

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.engine import Index
    from retr.retrieval.labels.label_set import LabelSet

FOLDS = 5
# Numbers of neighbours that are calibrated at once; the best of them is the default of a vote.
NEIGHBOURS = (5, 10, 20, 50, 200)
# Patients are drawn until about so many rows are measured: more change the second decimal of nothing.
MAX_ROWS = 5000


def calibrate(
    index: Index,
    label: str,
    *,
    labels: LabelSet | str | Path | Sequence[str] | None = None,
    alpha: float = 0.1,
    device_column: str | None = None,
) -> tuple[list[Calibration], novelty.Novelty]:
    """Measure every way to classify by a column, and how near the archive's own rows are to each other.

    The neighbours' vote is measured for each of `NEIGHBOURS`, the probe is trained anew, zero-shot is measured where
    there is a label set. Everything is committed to the index.

    Parameters
    ----------
    label
        Column of class names.
    labels
        Label set for zero-shot; the column's values are matched by name and alias.
    alpha
        Error level of the sets: 0.1 promises 90 %.
    device_column
        The column that names each row's camera or scanner: each gets a fence of its own against what is unlike.

    Raises
    ------
    UsageError
        If the column is unknown or has fewer than two classes or groups, or ``alpha`` is not between 0 and 1.
    IndexLockedError
        If another process is writing.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha must lie between 0 and 1, got {alpha!r}", hint="0.1 promises 90 %")
    words = None if labels is None else ByWords(index.text_side, load_labels(labels))
    if words is not None and words.fitted_on is not None:
        raise UsageError(
            f"words go through a bridge that was fitted on the {words.fitted_on!r} of these very rows",
            hint="calibrate without labels; the bridge states its held-out recall",
        )
    store = index.store
    labelled = labelled_rows(store, label)
    unseen = _unseen(store, labelled)
    trained = probe.train(store, label)
    measured = [
        measure(f"neighbours:{k}", votes, part, alpha, before=VoteScale(), fit=VoteScale.fit)
        for k, votes, part in _votes(store, labelled, labelled.part(unseen))
    ]
    held_out, rows = trained.held_out[unseen], labelled.part(unseen)
    measured.append(measure("probe", held_out, rows, alpha, before=Temperature(), fit=Temperature.fit))
    if words is not None:
        named = sample(labelled_rows(store, label, labels=words.labels))
        logits = words.logits(store.vectors(named.rows))
        measured.append(measure(words.key, logits, named, alpha, before=Temperature(), fit=Temperature.fit))
    fence = novelty.measure(store, device_column)
    files = {probe.file_name(label): trained.to_bytes()}
    measured = [
        replace(one, depends=dependencies(store, one.method, label, fence.to_json(), files=files)) for one in measured
    ]
    noted = store.manifest.extra.get(NOTE, {})
    kept = {key: one for key, one in noted.get("methods", {}).items() if isinstance(one, dict) and "depends" in one}
    records = {**kept, **{key_of(one.method, label): asdict(one) for one in measured}}
    best = min((one for one in measured if one.method.startswith("neighbours:")), key=lambda one: one.log_loss)
    defaults = {**noted.get("neighbours", {}), label: int(best.method.partition(":")[2])}
    with store.writer() as writer:
        for name, data in files.items():
            writer.add_file(name, data)
        writer.note(NOTE, {"methods": records, "neighbours": defaults})
        writer.note(novelty.NOTE, novelty.noted(store, fence))
        writer.commit()
    index.refresh()
    return measured, fence


def measure(
    method: str,
    evidence: Any,
    labelled: Labelled,
    alpha: float,
    *,
    before: Temperature | VoteScale,
    fit: Callable[[Any, NDArray[np.int64]], Temperature | VoteScale],
) -> Calibration:
    """Fit a scaling and a conformal threshold, and state cross-fitted figures.

    Parameters
    ----------
    evidence
        Logits ``(n, c)`` or `Votes`, one row for each labelled row, from a model that has not seen the row's group.
    before
        The scaling without calibration, kept where the fitted one measures worse.
    fit
        Finds a scaling from evidence and its truth.
    """
    truth = labelled.codes
    folds = labelled.folds(FOLDS)

    def crossed(
        fit: Callable[[Any, NDArray[np.int64]], Temperature | VoteScale],
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Give the probabilities and the sets of each fold, by a scaling and a threshold of the others."""
        chance = np.zeros((len(labelled), len(labelled.classes)))
        sets = np.zeros(chance.shape, dtype=bool)
        for fold in np.unique(folds):
            inside = folds != fold
            scale = fit(evidence[inside], truth[inside])
            limit = confidence.conformal_threshold(scale.probabilities(evidence[inside]), truth[inside], alpha)
            chance[~inside] = scale.probabilities(evidence[~inside])
            sets[~inside] = confidence.prediction_sets(chance[~inside], limit)
        return chance, sets

    after, sets = crossed(fit)
    plain, plain_sets = crossed(lambda *_: before)
    # a scaling that makes the probabilities worse is left out, unless it is what keeps the sets small
    if ece(plain, truth) < ece(after, truth) and plain_sets.sum() <= sets.sum():
        after, sets, final = plain, plain_sets, before
    else:
        final = fit(evidence, truth)
    return Calibration(
        method=method,
        column=labelled.column,
        classes=labelled.classes,
        scaling=asdict(final),
        alpha=alpha,
        threshold=confidence.conformal_threshold(final.probabilities(evidence), truth, alpha),
        rows=len(labelled),
        groups=labelled.n_groups,
        ece_before=round(ece(before.probabilities(evidence), truth), 4),
        ece_after=round(ece(after, truth), 4),
        coverage=round(float(sets[np.arange(len(truth)), truth].mean()), 4),
        set_size=round(float(sets.sum(axis=1).mean()), 2),
        accuracy=round(float((after.argmax(axis=1) == truth).mean()), 4),
        log_loss=round(confidence.log_loss(after, truth), 4),
        risk_coverage=confidence.risk_coverage(after, truth),
        depends={},
    )


def sample(labelled: Labelled) -> Labelled:
    """Keep about `MAX_ROWS` rows, whole groups of them."""
    if len(labelled) <= MAX_ROWS:
        return labelled
    n = -(-len(labelled) // MAX_ROWS)
    keep = deal(labelled.groups, n) == 0
    return labelled.part(keep)


def _unseen(store: Store, labelled: Labelled) -> NDArray[np.bool_]:
    """Return which labelled rows can be measured: those of patients that no head was fitted on; bool ``(n,)``."""
    seen = calibration.seen(store, None)
    unseen = np.ones(len(labelled), bool) if seen is None else ~seen[labelled.rows]
    if not unseen.any():
        raise UsageError(
            "the head of this index was fitted on every labelled patient: nothing is left to measure",
            hint="adapt without refitting, or add labelled rows of other patients",
        )
    return unseen


def _votes(store: Store, labelled: Labelled, measured: Labelled) -> list[tuple[int, Votes, Labelled]]:
    """Find the labelled neighbours of some rows outside their own groups, for each number of neighbours."""
    part = sample(measured)
    mask = np.zeros(store.n_total, dtype=bool)
    mask[labelled.rows] = True
    found = store.search(
        np.asarray(store.vectors(part.rows), dtype=np.float32),
        max(NEIGHBOURS),
        mask=mask,
        exclude=others(store, part.rows),
    )
    codes = np.where(found.rows >= 0, labelled.codes_of_rows(store.n_total)[found.rows], -1)
    votes = Votes(np.where(codes >= 0, found.scores, found.scores[:, :1]), codes, labelled.prior)
    # More than a third of the rows is no longer a neighbourhood.
    few = [k for k in NEIGHBOURS if 3 * k <= len(labelled)] or NEIGHBOURS[:1]
    return [(k, votes.first(k), part) for k in few]
