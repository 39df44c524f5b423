"""``retr eval``: evaluate an index on its own labelled rows, with intervals by patient."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retr.cli._options import (
    CsvOption,
    DeviceOption,
    GroupOption,
    IndexOption,
    ItemOption,
    ItemScoreOption,
    JsonOption,
    LabelOption,
    LabelSetOption,
    LoadOptions,
    SafeCsvOption,
    SeedOption,
    SeparatorOption,
    WhereOption,
    find_index,
    unfold,
)
from retr.cli._output import Output
from retr.index.errors import UsageError

if TYPE_CHECKING:
    from retr.retrieval.evaluation.evaluate import Task
    from retr.retrieval.evaluation.evaluation import Evaluation


@dataclass(frozen=True, kw_only=True)
class CaseOptions:
    """Which rows are labelled, and whose they are; rows of one patient never answer each other."""

    label: LabelOption
    separator: SeparatorOption = None
    group: GroupOption = None
    same_patient: Annotated[bool, typer.Option("--same-patient", help="Let rows of the query's patient answer.")] = (
        False
    )
    where: WhereOption = None


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """Who asks, and how the numbers are drawn."""

    queries: Annotated[
        str | None,
        typer.Option(
            "--queries", metavar="EXPR", help="Only rows for which this is true ask; the others still answer."
        ),
    ] = None
    subgroups: Annotated[
        str | None, typer.Option("--subgroups", metavar="COLUMNS", help="Also measure subgroups, e.g. sex,device.")
    ] = None
    seed: SeedOption = 0


OrderOption = Annotated[
    str | None,
    typer.Option(
        "--order",
        metavar="CLASSES",
        help="Grades from the least to the most, e.g. none,mild,severe: quadratic kappa is measured, too.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """How the numbers are shown."""

    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a one-page report with plots.")
    ] = None
    json_: JsonOption = False
    csv_: CsvOption = False
    safe_csv: SafeCsvOption = False


@unfold
def retrieval(
    *,
    cases: CaseOptions,
    index: IndexOption = None,
    k: Annotated[str, typer.Option("-k", help="Depths, separated by commas.")] = "1,5,10",
    gallery_size: Annotated[
        str | None,
        typer.Option(
            "--gallery-size",
            metavar="SIZES",
            help="Measure among so many rows, too, e.g. 1000,5000,all: numbers fall as a gallery grows.",
        ),
    ] = None,
    item: ItemOption = None,
    item_score: ItemScoreOption = "maxsim",
    device: DeviceOption = "auto",
    asking: QueryOptions,
    report: ReportOptions,
) -> None:
    """Measure how many of the nearest rows share the query's class.

    precision@k, any-hit@k, recall@k, mAP@k, nDCG@k and MRR@k, overall, macro over classes, per class and per subgroup.
    Rows of the query's patient are left out where the index has a group key. With --item cases ask and answer, by their
    labelled rows; one whose rows carry different labels is counted and left out.

    Example: retr eval retrieval --label label --subgroups sex,age --html report.html
    """
    depths = _names(k)
    if not depths or not all(map(_is_number, depths)):
        raise UsageError(f"-k takes whole numbers separated by commas, got: {k!r}", hint="for example -k 1,5,10")
    sizes = None if gallery_size is None else [int(one) if _is_number(one) else one for one in _names(gallery_size)]
    own: dict[str, Any] = {"k": [int(part) for part in depths], "gallery_size": sizes}
    own |= {"item": item, "item_score": item_score}
    _measure("retrieval", index, cases, asking, report, {"device": device}, **own)


@unfold
def neighbours(
    *,
    cases: CaseOptions,
    index: IndexOption = None,
    k: Annotated[int, typer.Option("-k", help="How many neighbours vote.")] = 5,
    order: OrderOption = None,
    device: DeviceOption = "auto",
    asking: QueryOptions,
    report: ReportOptions,
) -> None:
    """Measure naming by a vote of the nearest rows.

    Rows of the same patient do not vote.

    Example: retr eval neighbours --label label -k 10
    """
    _measure("neighbours", index, cases, asking, report, {"device": device}, k=k, order=_order(order))


@unfold
def probe(
    *,
    cases: CaseOptions,
    index: IndexOption = None,
    folds: Annotated[int, typer.Option("--folds", help="Into how many parts the patients are dealt.")] = 5,
    order: OrderOption = None,
    asking: QueryOptions,
    report: ReportOptions,
) -> None:
    """Measure naming by logistic regression on the vectors.

    Every patient is answered by a fit that never saw it. Its penalty is fixed. The probe of `retr classify` chooses its
    own, and says when it is trained what it reaches.

    Example: retr eval probe --label label
    """
    _measure("probe", index, cases, asking, report, folds=folds, order=_order(order))


@unfold
def zero_shot(
    *,
    cases: CaseOptions,
    labels: LabelSetOption = None,
    order: OrderOption = None,
    index: IndexOption = None,
    asking: QueryOptions,
    loading: LoadOptions,
    report: ReportOptions,
) -> None:
    """Measure naming by words alone.

    The label column only scores the answers.

    Example: retr eval zero-shot --label label --labels odir
    """
    _measure("zero-shot", index, cases, asking, report, loading.options, labels=labels, order=_order(order))


def _measure(
    task: Task,
    index: Path | None,
    cases: CaseOptions,
    asking: QueryOptions,
    report: ReportOptions,
    options: dict[str, Any] | None = None,
    **own: Any,
) -> None:
    from retr.retrieval.index import Index

    asked = {**asdict(cases), **asdict(asking), "subgroups": _names(asking.subgroups or ""), **own}
    _show(Index.open(find_index(index), **(options or {})).evaluate(task, **asked), report)


def _order(listed: str | None) -> list[str] | None:
    return None if listed is None else _names(listed)


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit()


def _names(listed: str) -> list[str]:
    return [part.strip() for part in listed.split(",") if part.strip()]


def _show(evaluation: Evaluation, report: ReportOptions) -> None:
    out = Output(json_=report.json_, csv_=report.csv_, safe_csv=report.safe_csv)
    if report.html is not None:
        from retr.index.machine.whole_file import write_output
        from retr.retrieval.evaluation.page import render

        write_output(report.html, render(evaluation).encode())
        out.note(f"report written to {report.html}")
    if out.form == "json":
        out.record(evaluation.to_json())
        return
    for note in evaluation.notes:
        out.note(note)
    unit = "patients" if "patients" in evaluation.facts else "images"
    measures = [
        {"measure": name, "value": one.value, "low": one.low, "high": one.high, "n": one.n, unit: one.groups}
        for name, one in evaluation.metrics.items()
    ]
    if out.form == "csv":
        if evaluation.per_gallery:
            measures = [{"gallery": evaluation.facts["gallery"], **row} for row in measures] + _long(evaluation, unit)
        out.rows(measures)
        return
    out.record(evaluation.facts)
    out.line("")
    out.rows(measures, title=f"intervals: {evaluation.facts['intervals']}")
    if evaluation.per_gallery:
        out.line("")
        shown = [name for name in evaluation.metrics if name.startswith(("precision@", "any_hit@"))]
        rows = [{name: row[name] for name in ("gallery", "no_relevant", *shown)} for row in evaluation.per_gallery]
        out.rows([_readable(row) for row in rows], title="per size of the gallery (no_relevant: queries without any)")
    for title, rows in (("per class", evaluation.per_class), ("per subgroup", evaluation.per_subgroup)):
        if rows:
            out.line("")
            out.rows([_readable(row) for row in rows], title=f"{title} (* rests on few {unit})")


def _long(evaluation: Evaluation, unit: str) -> list[dict[str, Any]]:
    return [
        {"gallery": row["gallery"], "measure": name, "value": one.value, "low": one.low, "high": one.high}
        | {"n": one.n, unit: one.groups}
        for row in evaluation.per_gallery
        if row["gallery"] != evaluation.facts["gallery"]
        for name, one in row.items()
        if name in evaluation.metrics
    ]


def _readable(row: dict[str, object]) -> dict[str, object]:
    """Write intervals into their cells, and mark a small cell."""
    from retr.retrieval.stats.intervals import Estimate

    cells: dict[str, object] = {
        key: f"{value:.3f}" if isinstance(value, Estimate) else value for key, value in row.items() if key != "small"
    }
    if "n" in row:
        cells["n"] = f"{row['n']}{' *' if row['small'] else ''}"
    return cells
