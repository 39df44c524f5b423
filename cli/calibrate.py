"""``retr calibrate``: calibrate an index's answers on its labelled rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from retr.cli._options import IndexOption, JsonOption, LabelOption, LabelSetOption, LoadOptions, find_index, unfold
from retr.cli._output import Output

if TYPE_CHECKING:
    from retr.retrieval.classify.calibration import Calibration


@unfold
def calibrate(
    *,
    label: LabelOption,
    labels: LabelSetOption = None,
    alpha: Annotated[float, typer.Option("--alpha", help="Error level of the sets: 0.1 promises 90 %.")] = 0.1,
    class_conditional: Annotated[
        bool,
        typer.Option("--class-conditional", help="Promise it for each class by itself; the sets are larger."),
    ] = False,
    device_column: Annotated[
        str | None,
        typer.Option(
            "--device-column",
            metavar="COLUMN",
            help="The column of cameras or scanners: a picture is unlike the archive where it is unlike each of them.",
        ),
    ] = None,
    index: IndexOption = None,
    loading: LoadOptions,
    json_: JsonOption = False,
) -> None:
    """Measure how far the answers of `retr classify` can be trusted.

    Measured on the index's own labelled rows, with patients kept apart and counted once each. Neighbours, probe and,
    with --labels, zero-shot are scaled to probabilities and given prediction sets; and the similarity is found below
    which a query is unlike anything in the archive. `retr classify` uses what is stored here.

    The promise of --alpha is one average over all classes; --class-conditional gives each class its own. An alpha that
    has too few patients (fewer than 1/alpha - 1) is refused.

    Example: retr calibrate --label label --alpha 0.1
    """
    from dataclasses import asdict

    from retr.retrieval.classify.calibration import stale
    from retr.retrieval.index import Index
    from retr.retrieval.labels.labelled import sharing

    out = Output(json_=json_)
    opened = Index.open(find_index(index), **loading.options)
    measured, fence = opened.calibrate(
        label, labels=labels, alpha=alpha, class_conditional=class_conditional, device_column=device_column
    )
    if opened.store.manifest.group is None:
        out.note("no column says whose a picture is, so each counts by itself; see `retr index group`")
    if out.form == "json":
        out.record({"methods": [asdict(one) for one in measured], "novelty": fence.to_json()})
        return
    out.rows(
        [
            {
                "method": one.method,
                "rows": one.rows,
                f"{one.unit}s": one.groups,
                "accuracy": one.accuracy,
                "ece before": one.ece_before,
                "ece after": one.ece_after,
                "promised": 1 - one.alpha,
                "coverage": one.coverage,
                "answered": one.coverage_answered,
                "abstained": one.abstained,
                "classes a set": one.set_size,
            }
            for one in measured
        ],
        title="ece: by how much probabilities miss, before and after scaling; "
        "coverage: sets that hold the truth, and how many of the answered do",
    )
    out.rows(_by_class(measured), title=f"coverage of each class; in all coverages each {measured[0].unit} counts once")
    for line in _remarks(measured):
        out.note(line)
    together = sharing(opened.store)
    if together:
        out.note(f"{together} patients share a byte-identical picture with another and count as one with them")
    for line in (*fence.says(), *stale(opened.store)):
        out.note(line)


def _by_class(measured: list[Calibration]) -> list[dict[str, Any]]:
    """Return a row a class: how many were measured, and the coverage by each method."""
    rows: dict[str, dict[str, Any]] = {}
    for one in measured:
        for of in one.by_class:
            row = rows.setdefault(of.label, {"class": of.label, "rows": of.rows, f"{one.unit}s": of.groups})
            row[one.method] = of.coverage
    return list(rows.values())


def _remarks(measured: list[Calibration]) -> list[str]:
    """Return what the figures do not say of themselves, each once."""
    from retr.retrieval.stats.conformal import groups_needed

    lines = []
    for one in measured:
        if one.alone:
            lines.append(
                f"{one.alone} rows have no patient, and each counts as one: give them theirs if they share any"
            )
        if one.coverage is None:
            lines.append(f"coverage is not measured: {one.groups} {one.unit}s just suffice for the sets")
        if one.class_conditional:
            need = f"fewer than {groups_needed(one.alpha)} {one.unit}s"
            lines.extend(f"{name!r} has {need} and is in every set" for name in one.in_every_set)
        else:
            lines.append("the promise is one average over all classes; see --class-conditional")
    return list(dict.fromkeys(lines))
