"""Stored calibrations: their records in the manifest, and whether they are stale.

The records are JSON in the manifest under ``extra["calibration"]``, one for each method and column, with all that they
depend on (`retr.retrieval.classify.staleness`); `retr.retrieval.classify.calibrate` writes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retr.index.disk.side_data import Change, Kind, dropped
from retr.index.errors import IndexCorruptError
from retr.index.json_fields import Fields, parse_json, stored
from retr.retrieval import novelty
from retr.retrieval.classify.staleness import changed, dependencies
from retr.retrieval.labels.trained_rows import seen_by_bridge, seen_by_head
from retr.retrieval.stats.confidence import Temperature, VoteScale
from retr.retrieval.stats.conformal import groups_needed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot
    from retr.index.store import Store

CALIBRATION_NOTE = "calibration"
# How the files of probes begin.
PROBE = "probe-"
_NOTED = ("the calibration", "run `retr calibrate` again")
_SHARES = ("ece_before", "ece_after", "accuracy")
# What a scaling may be: no float of the evidence over- or underflows by it.
_LEAST, _MOST = 1e-30, 1e30
_OF_LOGITS = {"temperature": (_LEAST, _MOST), "slope": (-_MOST, _MOST), "offset": (-_MOST, _MOST)}
_OF_VOTES = {"bandwidth": (_LEAST, _MOST), "prior_weight": (0, _MOST)}
_MOST_NEIGHBOURS = 1 << 20
# As `retr.retrieval.labels.labelled.unit_of` gives them.
UNITS = ("patient", "image")


@dataclass(frozen=True)
class OfClass:
    """What was measured of one class.

    Attributes
    ----------
    label, rows, groups
        The class, and how many were measured.
    threshold
        The probability it must reach to be in the set; 0 and it is in every set.
    coverage
        Share of its images whose set holds it; ``None`` where it was not measured.
    """

    label: str
    rows: int
    groups: int
    threshold: float
    coverage: float | None

    @classmethod
    def from_json(cls, data: Fields) -> Self:
        """Read what a manifest holds; ``ValueError`` or ``KeyError`` for anything else."""
        return cls(
            label=data.text("label"),
            rows=data.whole("rows"),
            groups=data.whole("groups"),
            threshold=_between(data, "threshold"),
            coverage=_measured(data, "coverage"),
        )


@dataclass(frozen=True)
class Calibration:
    """What was measured of one way to classify.

    Attributes
    ----------
    method, column, classes
        What was measured, on which labels.
    scaling
        ``{"temperature", "slope", "offset"}`` or ``{"bandwidth", "prior_weight"}``; a bandwidth of ``None`` is each
        query's own.
    alpha, threshold
        The error level promised, and the probability a class must reach to be in the set where one threshold serves
        all classes (`thresholds` are those in use).
    rows, groups, unit
        How many were measured; a group is a ``"patient"``, or an ``"image"`` where no column tells patients apart.
    alone
        How many of the rows that could be measured have no patient in that column, so that each counts by itself.
    ece_before, ece_after, accuracy, log_loss
        Cross-fitted figures, each row counting once.
    class_conditional
        Whether each class has a threshold of its own.
    coverage, coverage_answered, abstained, set_size
        Cross-fitted figures, each group counting once: the share of sets that hold the truth, to be compared with
        ``1 - alpha``; the same share among those that `abstains` lets pass (``None`` where none does); the share of
        the others; and the mean number of classes in a set. All ``None`` where no group is left to measure them on.
    by_class
        One for each of ``classes``.
    risk_coverage
        See `retr.retrieval.stats.confidence.risk_coverage`.
    depends
        What it was measured on, a hash of each thing; where one of them is another now, the record no longer counts.
    """

    method: str
    column: str
    classes: tuple[str, ...]
    scaling: dict[str, Any]
    alpha: float
    threshold: float
    rows: int
    groups: int
    unit: str
    alone: int
    ece_before: float
    ece_after: float
    accuracy: float
    log_loss: float
    class_conditional: bool
    coverage: float | None
    coverage_answered: float | None
    abstained: float | None
    set_size: float | None
    by_class: tuple[OfClass, ...]
    risk_coverage: list[dict[str, float]]
    depends: dict[str, str]

    @classmethod
    def from_json(cls, data: Fields) -> Self:
        """Read what a manifest holds; ``ValueError`` or ``KeyError`` for anything else."""
        method, classes, parts = data.text("method"), data.texts("classes"), data.inner("scaling")
        limits = _OF_VOTES if method.startswith("neighbours:") else _OF_LOGITS
        if set(parts) != set(limits):
            raise ValueError("another scaling than the method has")
        # the vote that is weighed by each query's own spread has no bandwidth
        scaling = {
            name: None if name == "bandwidth" and not parts.has(name) else _between(parts, name, *limits[name])
            for name in parts
        }
        by_class = tuple(OfClass.from_json(Fields(one)) for one in data.items("by_class"))
        if tuple(one.label for one in by_class) != classes:
            raise ValueError("figures of other classes")
        if not 0 < data.number("alpha") < 1 or data.whole("groups") < groups_needed(data.number("alpha")):
            raise ValueError("a promise that so few cannot make")
        return cls(
            method=method,
            column=data.text("column"),
            classes=classes,
            scaling=scaling,
            alpha=data.number("alpha"),
            threshold=_between(data, "threshold"),
            rows=data.whole("rows"),
            groups=data.whole("groups"),
            unit=data.choice("unit", UNITS),
            alone=data.whole("alone", 0),
            class_conditional=data.flag("class_conditional"),
            by_class=by_class,
            **{name: _between(data, name) for name in _SHARES},
            log_loss=_between(data, "log_loss", 0, _MOST),
            coverage=_measured(data, "coverage"),
            coverage_answered=_measured(data, "coverage_answered"),
            abstained=_measured(data, "abstained"),
            set_size=_measured(data, "set_size", len(classes)),
            risk_coverage=[Fields({"at": point}).numbers("at") for point in data.items("risk_coverage")],
            depends=_texts(data.inner("depends", {})),
        )

    @property
    def scale(self) -> Temperature | VoteScale:
        """The fitted scaling."""
        return VoteScale(**self.scaling) if "bandwidth" in self.scaling else Temperature(**self.scaling)

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """The probability each class must reach to be in a set: float64 ``(c,)``."""
        return np.array([one.threshold for one in self.by_class])

    @property
    def in_every_set(self) -> tuple[str, ...]:
        """The classes with fewer groups than a threshold of their own needs."""
        if not self.class_conditional:
            return ()
        return tuple(one.label for one in self.by_class if one.groups < groups_needed(self.alpha))

    @property
    def promise(self) -> str:
        """For what share of whom the sets hold the truth, and what was measured of it, in a line."""
        return self.promised(most_classes(len(self.classes)))

    def promised(self, most: int) -> str:
        """Return `promise` where sets of more than ``most`` classes are no answer: for others than measured, less."""
        whom = "new patients, a picture of each" if self.unit == "patient" else "new images"
        how = "each class by itself" if self.class_conditional else "all classes together"
        figures = {"measured": self.coverage}
        if most == most_classes(len(self.classes)):
            figures["where answered"] = self.coverage_answered
        told = [f"{name} {100 * share:.3g} %" for name, share in figures.items() if share is not None]
        known = [one for one in self.by_class if one.coverage is not None and one.label not in self.in_every_set]
        if known:
            least = min(known, key=lambda one: one.coverage or 0.0)
            told.append(f"least {100 * (least.coverage or 0.0):.3g} % (of {least.label!r})")
        parts = [f"{100 * (1 - self.alpha):g} % of {whom}, {how}", ", ".join(told) or "not measured"]
        if self.in_every_set:
            parts.append(f"in every set for want of {self.unit}s: {', '.join(self.in_every_set)}")
        return "; ".join(parts)


def find_calibration(store: Snapshot, method: str, column: str | None) -> tuple[Calibration | None, str | None]:
    """Read the calibration of a method on a column, and say why there is none: one of the two is ``None``.

    ``column=None``, of an answer that depends on no column (zero-shot), takes the record of the only column that the
    method was calibrated on; of several columns one must be named.
    """
    records = _noted(store, "methods")
    named = [_asked(key) for key in records]
    columns = [one for way, one in named if way == method and column in {None, one}]
    if not columns:
        return None, _uncalibrated(method, [way for way, one in named if one == column])
    if len(columns) > 1:
        return None, f"calibrated on {' and '.join(map(repr, columns))}: name one of them (--calibrated-on)"
    with stored(*_NOTED):
        record = records.inner(key_of(method, columns[0]))
        if not record.has("unit"):
            return None, "the calibration is of an older version, which counted images; run `retr calibrate` again"
        found = Calibration.from_json(record)
        if (found.method, found.column) != (method, columns[0]):
            raise ValueError("a record of something else")
    other = changed(found.depends, _present(store, found))
    if other:
        what = "; ".join(other)
        return None, f"the calibration on {found.column!r} is stale ({what} changed); run `retr calibrate` again"
    return found, None


def _uncalibrated(method: str, ways: list[str]) -> str:
    """Return why there is no calibration of a method, where a column has those of other ``ways``."""
    numbers = sorted(
        int(k) for way, _, k in (one.partition(":") for one in ways) if way == "neighbours" and k.isdecimal()
    )
    way, _, k = method.partition(":")
    if way != "neighbours" or not numbers:
        return "not calibrated; see `retr calibrate`"
    which = f"{k} neighbours" if k.isdecimal() else "neighbours among some of the rows"
    return (
        f"not calibrated: a vote of {which} is another than was measured (all rows, -k {', '.join(map(str, numbers))})"
    )


def _present(store: Snapshot, found: Calibration) -> dict[str, str]:
    return dependencies(store, found.method, found.column, novelty.noted_novelty(store))


def stale(store: Snapshot) -> list[str]:
    """Return, of each record that no longer counts, why; each reason once."""
    reasons: dict[str | None, None] = {}
    for method, column in filter(all, map(_asked, _noted(store, "methods"))):
        try:
            reasons[find_calibration(store, method, column)[1]] = None
        except IndexCorruptError:
            reasons[f"the calibration on {column!r} cannot be read; run `retr calibrate` again"] = None
    return [why for why in reasons if why is not None]


def default_neighbours(store: Snapshot, column: str) -> int | None:
    """Return the number of neighbours that was measured best for a column."""
    numbers = _noted(store, "neighbours")
    with stored(*_NOTED):
        return numbers.whole(column, least=1, most=_MOST_NEIGHBOURS) if numbers.has(column) else None


def kept(store: Store, part: str) -> dict[str, Any]:
    """Return what a new measurement leaves as it is: of the ``"methods"`` the records, or the best ``"neighbours"``.

    A note that cannot be read is nothing: measuring again is what mends it.
    """
    noted = store.manifest.extra.get(CALIBRATION_NOTE)
    found = noted.get(part) if isinstance(noted, dict) else None
    return dict(found) if isinstance(found, dict) else {}


def most_classes(n_classes: int) -> int:
    """Return how many classes a set may hold without abstention: half of them, rounded up.

    >>> most_classes(4), most_classes(5)
    (2, 3)
    """
    return -(-n_classes // 2)


def abstains(sizes: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Return which sets name no answer, by their numbers of classes: empty ones, and those of more than ``most``."""
    silent: NDArray[np.bool_] = (sizes == 0) | (sizes > most)
    return silent


def _between(data: Fields, name: str, least: float = 0, most: float = 1) -> float:
    """Read a number; ``ValueError`` where it is not between two bounds."""
    found = data.number(name)
    if not least <= found <= most:
        raise ValueError(f"{name} is not between {least} and {most}")
    return found


def _measured(data: Fields, name: str, most: float = 1) -> float | None:
    return _between(data, name, 0, most) if data.has(name) else None


def _noted(store: Snapshot, part: str) -> Fields:
    with stored(*_NOTED):
        return Fields(store.manifest.extra.get(CALIBRATION_NOTE, {})).inner(part, {})


def key_of(method: str, column: str) -> str:
    """Return the name that the record of a method on a column has; no other pair has it.

    >>> key_of("probe", "label")
    '["probe", "label"]'
    """
    return json.dumps([method, column])


def _asked(key: str) -> tuple[str, str]:
    """Return the method and the column of a record's name; blanks for the names of older versions."""
    try:
        method, column = parse_json(key)
    except (ValueError, TypeError):
        return "", ""
    return str(method), str(column)


def _texts(fields: Fields) -> dict[str, str]:
    return {key: fields.text(key) for key in fields}


def rows_seen_by_fits(store: Store, fitted_on: str | None) -> NDArray[np.bool_] | None:
    """Return the rows of patients whose labels a fitted part of the index has seen: bool ``(n_total,)``, or ``None``.

    That is the head of an adapted index, and the bridge that words go through where ``fitted_on`` names its texts.
    """
    masks = [seen_by_head(store), None if fitted_on is None else seen_by_bridge(store)]
    known = [mask for mask in masks if mask is not None]
    return np.logical_or.reduce(known) if known else None


class Calibrations(Kind):
    """What was measured of answers, as a kind of side data."""

    name = "calibration"

    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        """Return what reads every record."""

        def look() -> None:
            for method, label in map(_asked, _noted(snapshot, "methods")):
                if method and label:
                    find_calibration(snapshot, method, label)
            for column in _noted(snapshot, "neighbours"):
                default_neighbours(snapshot, column)

        return {CALIBRATION_NOTE: look}

    def stale(self, snapshot: Snapshot) -> list[str]:
        """Return why records count no longer."""
        return stale(snapshot)

    def revectored(self, snapshot: Snapshot) -> Change:  # noqa: ARG002
        """Keep it: its fingerprint holds whose vectors it was measured on, so that it finds itself stale."""
        return Change()

    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:  # noqa: ARG002
        """Drop it: it holds names of classes and evidence of rows, and counts no longer once rows are gone."""
        what = "what was measured of answers (measure it again with `retr calibrate`)"
        return dropped(snapshot.manifest, self.name, what)
