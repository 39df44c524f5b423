"""Calibrate classification on an index's own labelled rows, keeping patients apart.

For each way to classify (neighbours, probe, zero-shot) `calibrate` scales its scores to probabilities and finds the
threshold of conformal sets in which each patient counts once (`retr.retrieval.stats.conformal`), on evidence in which
no row has seen its own patient. The figures it states are cross-fitted: scaling and threshold of four fifths of the
patients, measured on the rest. A scaling that measures worse than none is not applied. The records
(`retr.retrieval.classify.calibration`) go into the manifest.

The promise is exact for scores that were fixed before. Here they are cross-fitted: a new patient is answered by the
votes, the probe and the scaling of all rows, the thresholds come from votes and probes without each row's patient. No
theorem covers that; the coverage stated is what was measured of it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval import novelty
from retr.retrieval.classify import probe
from retr.retrieval.classify.calibration import (
    CALIBRATION_NOTE,
    Calibration,
    OfClass,
    abstains,
    kept,
    key_of,
    most_classes,
)
from retr.retrieval.classify.methods import ByWords
from retr.retrieval.classify.staleness import dependencies
from retr.retrieval.labels.folds import deal
from retr.retrieval.labels.held_out_views import Unseen
from retr.retrieval.labels.label_set import load_labels
from retr.retrieval.labels.labelled import Labelled, grouped, labelled_rows, others, unit_of
from retr.retrieval.stats import confidence, conformal
from retr.retrieval.stats.confidence import Temperature, Votes, VoteScale
from retr.retrieval.stats.metrics import ece

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.labels.label_set import LabelSet

FOLDS = 5
# More, smaller folds where four fifths of the patients are too few for a threshold.
MOST_FOLDS = 20
# Numbers of neighbours that are calibrated at once; the best of them is the default of a vote.
NEIGHBOURS = (5, 10, 20, 50, 200)
# Patients are drawn until about so many rows are measured: more change the second decimal of nothing.
MAX_ROWS = 5000


def calibrate(
    index: IndexLike,
    label: str,
    *,
    labels: LabelSet | str | Path | Sequence[str] | None = None,
    alpha: float = 0.1,
    class_conditional: bool = False,
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
        Error level of the sets: 0.1 promises 90 % of the pictures of new patients, each patient counting once.
    class_conditional
        Keep the promise for each class by itself. A class with too few patients for that is in every set.
    device_column
        The column that names each row's camera or scanner: each gets a fence of its own against what is unlike.

    Raises
    ------
    UsageError
        If the column is unknown or has fewer than two classes or groups, ``alpha`` is not between 0 and 1, or there are
        fewer patients than ``alpha`` needs (`retr.retrieval.stats.conformal.groups_needed`).
    IndexLockedError
        If another process is writing.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> found, _ = index.calibrate("label")
    >>> found[0].method, found[0].classes, found[0].groups
    ('neighbours:5', ('glaucoma', 'healthy'), 12)
    """
    alpha = float(alpha)
    conformal.groups_needed(alpha)
    moving, index = index, index.snapshot()
    index.refresh()
    words = None if labels is None else ByWords(index.text_side, load_labels(labels))
    store = index.store
    if device_column is not None:
        store.columns.require(device_column)
    labelled = labelled_rows(store, label)
    unseen = _unseen(store, labelled)
    rows = labelled.part(unseen.asked)
    sets = Sets(alpha, class_conditional, unit_of(store.manifest.group))
    sets.require_groups(rows)
    named = None if words is None else sample(labelled_rows(store, label, labels=words.labels))
    if named is not None:
        sets.require_groups(named)
    trained = probe.train(store, label)
    measured = [
        measure_calibration(f"neighbours:{k}", votes, part, sets, before=VoteScale(), fit=VoteScale.fit)
        for k, votes, part in _votes(store, labelled, rows, unseen)
    ]
    held_out = trained.held_out[unseen.asked]
    measured.append(measure_calibration("probe", held_out, rows, sets, before=Temperature(), fit=Temperature.fit))
    if words is not None and named is not None:
        logits, named = words.held_out(store, named)
        sets.require_groups(named)
        measured.append(measure_calibration(words.key, logits, named, sets, before=Temperature(), fit=Temperature.fit))
    key = store.manifest.group
    alone = 0 if key is None else int((~grouped(store, key, rows.rows)[1]).sum())
    fence = novelty.measure_novelty(store, device_column)
    files = {probe.file_name(label): trained.to_bytes()}
    measured = [
        replace(one, alone=alone, depends=dependencies(store, one.method, label, fence.to_json(), files=files))
        for one in measured
    ]
    # a record of an older version counts no longer
    records = {key: one for key, one in kept(store, "methods").items() if isinstance(one, dict) and "depends" in one}
    records |= {key_of(one.method, label): asdict(one) for one in measured}
    best = min((one for one in measured if one.method.startswith("neighbours:")), key=lambda one: one.log_loss)
    defaults = {**kept(store, "neighbours"), label: int(best.method.partition(":")[2])}
    with store.writer() as writer:
        for name, data in files.items():
            writer.add_file(name, data)
        writer.note(CALIBRATION_NOTE, {"methods": records, "neighbours": defaults})
        writer.note(novelty.NOVELTY_NOTE, novelty.novelty_note(store, fence))
        writer.commit()
    moving.refresh()
    return measured, fence


@dataclass(frozen=True)
class Sets:
    """Which sets are wanted: their error level, whether each class has its own promise, and what counts once."""

    alpha: float
    class_conditional: bool
    unit: str

    def require_groups(self, labelled: Labelled) -> None:
        """Raise `UsageError` where there are fewer groups than the level needs; by class, where no class has them."""
        need, n = conformal.groups_needed(self.alpha), labelled.n_groups
        where = f"{labelled.column!r} has"
        if self.class_conditional and n >= need:
            n, where = max(groups_of_classes(labelled)), f"no class of {labelled.column!r} has more than"
        if n < need:
            raise UsageError(
                f"alpha {self.alpha:g} needs {need} {self.unit}s, and {where} {n} to measure",
                hint=f"label more of them, or give an alpha of {math.ceil(1000 / (n + 1)) / 1000:g} or more",
            )

    def thresholds(
        self, chance: NDArray[np.float64], truth: NDArray[np.int64], groups: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Find the threshold of each class: float64 ``(c,)``."""
        own, n_classes = chance[np.arange(len(truth)), truth], chance.shape[1]
        if self.class_conditional:
            return conformal.class_thresholds(own, truth, groups, n_classes, self.alpha)
        return np.full(n_classes, conformal.threshold(own, groups, self.alpha))

    def folds(self, labelled: Labelled) -> NDArray[np.int64]:
        """Deal groups into `FOLDS`, or more where the rest of so few would be too small for a threshold."""
        need = conformal.groups_needed(self.alpha)
        counts = groups_of_classes(labelled) if self.class_conditional else [labelled.n_groups]
        least = min((n for n in counts if n > need), default=need + 1)
        return labelled.folds(min(max(FOLDS, -(-2 * least // (least - need))), MOST_FOLDS))


def measure_calibration(
    method: str,
    evidence: Any,
    labelled: Labelled,
    sets: Sets,
    *,
    before: Temperature | VoteScale,
    fit: Callable[[Any, NDArray[np.int64]], Temperature | VoteScale],
) -> Calibration:
    """Fit a scaling and conformal thresholds, and state cross-fitted figures.

    Parameters
    ----------
    evidence
        Logits ``(n, c)`` or `Votes`, one row for each labelled row, from a model that has not seen the row's group.
    before
        The scaling without calibration, kept where the fitted one measures worse.
    fit
        Finds a scaling from evidence and its truth.
    """
    truth, groups = labelled.codes, labelled.groups
    folds = sets.folds(labelled)

    def crossed(
        fit: Callable[[Any, NDArray[np.int64]], Temperature | VoteScale],
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
        """Return, each ``(n, c)``: probabilities and sets of each fold by a scaling and thresholds of the others."""
        chance = np.zeros((len(labelled), len(labelled.classes)))
        held, limits = np.zeros(chance.shape, dtype=bool), np.zeros(chance.shape)
        for fold in np.unique(folds):
            inside = folds != fold
            scale = fit(evidence[inside], truth[inside])
            limit = sets.thresholds(scale.probabilities(evidence[inside]), truth[inside], groups[inside])
            chance[~inside] = scale.probabilities(evidence[~inside])
            held[~inside] = conformal.prediction_sets(chance[~inside], limit)
            limits[~inside] = limit
        return chance, held, limits

    after, held, limits = crossed(fit)
    plain, plain_held, plain_limits = crossed(lambda *_: before)
    # a scaling that makes the probabilities worse is left out, unless it is what keeps the sets small
    if ece(plain, truth) < ece(after, truth) and plain_held.sum() <= held.sum():
        after, held, limits, final = plain, plain_held, plain_limits, before
    else:
        final = fit(evidence, truth)
    chance = final.probabilities(evidence)
    of_sets, of_classes = _figures(held, limits, sets.thresholds(chance, truth, groups), labelled)
    return Calibration(
        method=method,
        column=labelled.column,
        classes=labelled.classes,
        scaling=asdict(final),
        alpha=sets.alpha,
        threshold=conformal.threshold(chance[np.arange(len(truth)), truth], groups, sets.alpha),
        rows=len(labelled),
        groups=labelled.n_groups,
        unit=sets.unit,
        alone=0,
        ece_before=round(ece(before.probabilities(evidence), truth), 4),
        ece_after=round(ece(after, truth), 4),
        accuracy=round(float((after.argmax(axis=1) == truth).mean()), 4),
        log_loss=round(confidence.log_loss(after, truth), 4),
        class_conditional=sets.class_conditional,
        **of_sets,
        by_class=of_classes,
        risk_coverage=confidence.risk_coverage(after, truth),
        depends={},
    )


def _figures(
    held: NDArray[np.bool_], limits: NDArray[np.float64], thresholds: NDArray[np.float64], labelled: Labelled
) -> tuple[dict[str, float | None], tuple[OfClass, ...]]:
    """Measure cross-fitted sets, each group counting once.

    Parameters
    ----------
    held, limits
        bool and float64 ``(n, c)``: which classes are in the set of each row, and the thresholds they had to reach.
    thresholds
        float64 ``(c,)``: those of all rows. Where one is 0 in ``limits`` only, the rest of a fold was too small for it,
        and nothing is measured there.
    """
    truth, groups = labelled.codes, labelled.groups
    rows = np.arange(len(truth))
    known = (limits[rows, truth] > 0) | (thresholds[truth] == 0)
    covered, sizes = held[rows, truth], held.sum(axis=1)
    silent = abstains(sizes, most_classes(len(labelled.classes)))

    def mean(values: NDArray[Any], among: NDArray[np.bool_] = known) -> float | None:
        return conformal.group_mean(values[among], groups[among])

    abstained = mean(silent)
    answered = (mean(covered & ~silent) or 0.0) / (1 - (abstained or 0.0)) if (known & ~silent).any() else None
    figures = {
        "coverage": mean(covered),
        "coverage_answered": answered,
        "abstained": abstained,
        "set_size": mean(sizes),
    }
    return {name: _rounded(value) for name, value in figures.items()}, tuple(
        OfClass(
            label,
            rows=int((truth == code).sum()),
            groups=n,
            threshold=float(thresholds[code]),
            coverage=_rounded(mean(covered, known & (truth == code))),
        )
        for code, (label, n) in enumerate(zip(labelled.classes, groups_of_classes(labelled), strict=True))
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def groups_of_classes(labelled: Labelled) -> list[int]:
    """Count the groups that each class is found in, in the order of the classes."""
    return [len(np.unique(labelled.groups[labelled.codes == code])) for code in range(len(labelled.classes))]


def sample(labelled: Labelled) -> Labelled:
    """Keep at most `MAX_ROWS` rows: as many of each group as there is room for, and not all groups only beyond that."""
    n = len(labelled)
    if n <= MAX_ROWS:
        return labelled
    order = np.lexsort((np.random.default_rng(0).permutation(n), labelled.groups))
    _, starts, counts = np.unique(labelled.groups[order], return_index=True, return_counts=True)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n) - np.repeat(starts, counts)
    # the place of a row in its group, at random: the first of each group, then the second, ...
    most = np.searchsorted(np.cumsum(np.bincount(place)), MAX_ROWS, side="right")
    if most:
        return labelled.part(place < most)
    return labelled.part((place == 0) & (deal(labelled.groups, -(-len(counts) // MAX_ROWS)) == 0))


def _unseen(store: Store, labelled: Labelled) -> Unseen:
    """Return which labelled rows can be measured, and where; `UsageError` for none."""
    unseen = Unseen(store, labelled.rows)
    if not unseen.asked.any():
        raise UsageError(
            "the head of this index was fitted on every labelled row: nothing is left to measure",
            hint="adapt without refitting, or add labelled rows of others",
        )
    return unseen


def _votes(store: Store, labelled: Labelled, measured: Labelled, unseen: Unseen) -> list[tuple[int, Votes, Labelled]]:
    """Find the labelled neighbours of some rows outside their own groups, for each number of neighbours."""
    part = sample(measured)
    order = np.argsort(labelled.rows)
    places = order[np.searchsorted(labelled.rows, part.rows, sorter=order)]
    rows, scores = unseen.nearest(places, max(NEIGHBOURS), others(store, part.rows))
    codes = np.where(rows >= 0, labelled.codes_of_rows(store.n_total)[rows], -1)
    votes = Votes(np.where(codes >= 0, scores, scores[:, :1]), codes, labelled.prior)
    # More than a third of the rows is no longer a neighbourhood.
    few = [k for k in NEIGHBOURS if 3 * k <= len(labelled)] or NEIGHBOURS[:1]
    return [(k, votes.first(k), part) for k in few]
