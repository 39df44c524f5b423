"""What was measured of an index's answers, and whether it still counts.

The records are JSON in the manifest under ``extra["calibration"]``, one for each method and column, with all that they
depend on (`retr.retrieval.classify.depends`); `retr.retrieval.classify.calibrate` writes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from retr.index.records import Fields, stored
from retr.retrieval import novelty
from retr.retrieval.classify.depends import changed, dependencies
from retr.retrieval.labels.seen import seen_by_bridge, seen_by_head
from retr.retrieval.stats.confidence import Temperature, VoteScale

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.index.writer import Writer

NOTE = "calibration"
# How the files of probes begin.
PROBE = "probe-"
_NOTED = ("the calibration", "run `retr calibrate` again")
_FIGURES = ("ece_before", "ece_after", "coverage", "set_size", "accuracy", "log_loss")
_MOST_NEIGHBOURS = 1 << 20


@dataclass(frozen=True)
class Calibration:
    """What was measured of one way to classify.

    Attributes
    ----------
    method, column, classes
        What was measured, on which labels.
    scaling
        ``{"temperature", "slope", "offset"}`` or ``{"bandwidth", "prior_weight"}``.
    alpha, threshold
        The error level promised, and the probability a class must reach to be in the set.
    rows, groups
        How many were measured.
    ece_before, ece_after, coverage, set_size, accuracy, log_loss
        Cross-fitted figures; ``coverage`` is to be compared with ``1 - alpha``.
    risk_coverage
        See `retr.retrieval.stats.confidence.risk_coverage`.
    depends
        What it was measured on, a hash of each thing; where one of them is another now, the record no longer counts.
    """

    method: str
    column: str
    classes: tuple[str, ...]
    scaling: dict[str, float]
    alpha: float
    threshold: float
    rows: int
    groups: int
    ece_before: float
    ece_after: float
    coverage: float
    set_size: float
    accuracy: float
    log_loss: float
    risk_coverage: list[dict[str, float]]
    depends: dict[str, str]

    @classmethod
    def from_json(cls, data: Fields) -> Self:
        """Read what a manifest holds; ``ValueError`` or ``KeyError`` for anything else."""
        scaling = data.numbers("scaling")
        if set(scaling) not in ({"temperature", "slope", "offset"}, {"bandwidth", "prior_weight"}):
            raise ValueError("no scaling")
        return cls(
            method=data.text("method"),
            column=data.text("column"),
            classes=data.texts("classes"),
            scaling=scaling,
            alpha=data.number("alpha"),
            threshold=data.number("threshold"),
            rows=data.whole("rows"),
            groups=data.whole("groups"),
            **{name: data.number(name) for name in _FIGURES},
            risk_coverage=[Fields({"at": point}).numbers("at") for point in data.items("risk_coverage")],
            depends=_texts(data.inner("depends", {})),
        )

    @property
    def scale(self) -> Temperature | VoteScale:
        """The fitted scaling."""
        return VoteScale(**self.scaling) if "bandwidth" in self.scaling else Temperature(**self.scaling)


def find(store: Store, method: str, column: str | None) -> tuple[Calibration | None, str | None]:
    """Read the calibration of a method on a column, and say why there is none: one of the two is ``None``.

    ``column=None``, of an answer that depends on no column (zero-shot), takes the record of the only column that the
    method was calibrated on; of several columns one must be named.
    """
    records = _noted(store, "methods")
    named = [_asked(key) for key in records]
    columns = [one for way, one in named if way == method and column in {None, one}]
    if not columns:
        return None, "not calibrated; see `retr calibrate`"
    if len(columns) > 1:
        return None, f"calibrated on {' and '.join(map(repr, columns))}: name one of them (--calibrated-on)"
    with stored(*_NOTED):
        found = Calibration.from_json(records.inner(key_of(method, columns[0])))
        if (found.method, found.column) != (method, columns[0]):
            raise ValueError("a record of something else")
    other = changed(found.depends, _present(store, found))
    if other:
        what = "; ".join(other)
        return None, f"the calibration on {found.column!r} is stale ({what} changed); run `retr calibrate` again"
    return found, None


def _present(store: Store, found: Calibration) -> dict[str, str]:
    return dependencies(store, found.method, found.column, novelty.recorded(store))


def default_neighbours(store: Store, column: str) -> int | None:
    """Give the number of neighbours that was measured best for a column."""
    numbers = _noted(store, "neighbours")
    with stored(*_NOTED):
        return numbers.whole(column, least=1, most=_MOST_NEIGHBOURS) if numbers.has(column) else None


def _noted(store: Store, part: str) -> Fields:
    with stored(*_NOTED):
        return Fields(store.manifest.extra.get(NOTE, {})).inner(part, {})


def key_of(method: str, column: str) -> str:
    """Return the name that the record of a method on a column has; no other pair has it.

    >>> key_of("probe", "label")
    '["probe", "label"]'
    """
    return json.dumps([method, column])


def _asked(key: str) -> tuple[str, str]:
    """Return the method and the column of a record's name; blanks for the names of older versions."""
    try:
        method, column = json.loads(key)
    except (ValueError, TypeError):
        return "", ""
    return str(method), str(column)


def _texts(fields: Fields) -> dict[str, str]:
    return {key: fields.text(key) for key in fields}


def seen(store: Store, fitted_on: str | None) -> NDArray[np.bool_] | None:
    """Return the rows of patients whose labels a fitted part of the index has seen: bool ``(n_total,)``, or ``None``.

    That is the head of an adapted index, and the bridge that words go through where ``fitted_on`` names its texts.
    """
    masks = [seen_by_head(store), None if fitted_on is None else seen_by_bridge(store)]
    known = [mask for mask in masks if mask is not None]
    return np.logical_or.reduce(known) if known else None


class Calibrations:
    """What was measured of answers and the probes, as a kind of side data (`retr.index.purge.Kind`)."""

    def holds(self, name: str) -> bool:
        """Say whether it is the note, or the file of a probe."""
        return name == NOTE or name.startswith(PROBE)

    def purge(self, store: Store, gone: NDArray[np.int64], writer: Writer) -> Iterator[str]:  # noqa: ARG002
        """Drop them: they hold names of classes and evidence of rows, and count no longer once rows are gone."""
        if NOTE in writer.draft.extra:
            writer.note(NOTE, None)
            yield "what was measured of answers (measure it again with `retr calibrate`)"
        for name in sorted(filter(self.holds, writer.draft.files)):
            writer.remove_file(name)
            yield f"{name} (train it again with `retr classify --probe`)"
