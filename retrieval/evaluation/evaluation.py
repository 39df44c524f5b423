"""The result of an evaluation: figures with intervals by patient, by class and by subgroup.

Cells that rest on few patients are marked, not hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.retrieval.labels.cases import Cases, subgroups
from retr.retrieval.labels.labelled import unit_of
from retr.retrieval.stats.intervals import FEWEST, Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from retr.index.store import Store

#: A cell with fewer patients than this is marked as small.
SMALL = 10
#: Sums of distances, which are above 0 by chance alone: no interval of one holds what a calibrated model has.
NO_INTERVAL = ("ece", "ece_by_chance")


@dataclass(frozen=True)
class EvaluationOptions:
    """What all evaluations share: a seed for whatever is dealt at random, and columns to divide the queries by."""

    seed: int = 0
    subgroups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes
    ----------
    kind
        ``"retrieval"``, ``"zero-shot"``, ``"neighbours"`` or ``"probe"``.
    facts
        What it rests on: columns, numbers of queries, patients and classes, settings.
    metrics
        The numbers over all queries.
    per_class, per_subgroup
        One row a class or subgroup: name, ``n``, ``patients`` (without a group column ``images``), ``small``, and
        numbers.
    per_gallery
        Retrieval: the numbers among smaller galleries, where they were asked for: ``gallery``, ``no_relevant``, and
        numbers.
    curves
        What the report draws: arrays, JSON-ready.
    notes
        What a reader of the numbers must know, one line each.
    """

    kind: str
    facts: dict[str, Any]
    metrics: dict[str, Estimate]
    per_class: list[dict[str, Any]]
    per_subgroup: list[dict[str, Any]]
    curves: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    per_gallery: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return one JSON-ready object."""
        return {
            "evaluation": self.kind,
            **self.facts,
            "metrics": {name: estimate.to_json() for name, estimate in self.metrics.items()},
            "per_class": [_plain(row) for row in self.per_class],
            "per_subgroup": [_plain(row) for row in self.per_subgroup],
            "per_gallery": [_plain(row) for row in self.per_gallery],
            "curves": self.curves,
            "notes": list(self.notes),
        }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value.to_json() if isinstance(value, Estimate) else value for key, value in row.items()}


def evaluation_facts(store: Store, cases: Cases, options: EvaluationOptions) -> dict[str, Any]:
    """Return what an evaluation rests on."""
    copied = len(np.unique(cases.groups)) < len(cases.rows)
    return {
        "index": store.path.name,
        "encoder": store.manifest.encoder.name,
        "label": cases.label,
        "excluded_with_the_query": cases.group or ("itself and its copies" if copied else "only itself"),
        "queries": len(cases.queries),
        f"{unit_of(cases.group)}s": len(np.unique(cases.groups[cases.queries])),
        "gallery": len(cases.gallery),
        "classes": len(cases.classes),
        "intervals": f"95 %, by {unit_of(cases.group)}",
        "seed": options.seed,
    }


def without_interval(cases: Cases, metrics: Mapping[str, Estimate]) -> tuple[str, ...]:
    """Return which numbers have no interval, and why."""
    bare = [name for name, one in metrics.items() if np.isnan(one.low) and not np.isnan(one.value)]
    bare = [name for name in bare if name not in NO_INTERVAL]
    if not bare:
        return ()
    groups = max(metrics[name].groups for name in bare)
    whom = f"{unit_of(cases.group)}s"
    if groups < FEWEST:
        return (f"fewer than {FEWEST} {whom} ask, too few for intervals: how they differ is not known",)
    return (f"no interval of {', '.join(bare)}: without one of the {whom} there is nothing to measure",)


def cell(cases: Cases, inside: NDArray[np.bool_]) -> dict[str, Any]:
    """Return what a cell of a table rests on; ``inside`` is bool ``(q,)``."""
    groups = len(np.unique(cases.groups[cases.queries][inside]))
    return {"n": int(inside.sum()), f"{unit_of(cases.group)}s": groups, "small": groups < SMALL}


def by_subgroup(
    store: Store, cases: Cases, options: EvaluationOptions, numbers: Callable[[NDArray[np.bool_]], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return one row for each value of the columns asked for; ``numbers`` takes the queries inside, bool ``(q,)``."""
    return [
        {"column": column, "value": value, **cell(cases, inside), **numbers(inside)}
        for column in options.subgroups
        for value, inside in subgroups(store, cases, column)
    ]
