"""``retr calibrate``: measure how far an index's answers can be trusted."""

from __future__ import annotations

from typing import Annotated

import typer

from retr.cli._options import IndexOption, JsonOption, LabelOption, LabelSetOption, LoadOptions, find_index, unfold
from retr.cli._output import Output


@unfold
def calibrate(
    *,
    label: LabelOption,
    labels: LabelSetOption = None,
    alpha: Annotated[float, typer.Option("--alpha", help="Error level of the sets: 0.1 promises 90 %.")] = 0.1,
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

    Measured on the index's own labelled rows, with patients kept apart. Neighbours, probe and, with --labels, zero-shot
    are scaled to probabilities and given prediction sets; and the similarity is found below which a query is unlike
    anything in the archive. `retr classify` uses what is stored here.

    Example: retr calibrate --label label --alpha 0.1
    """
    from dataclasses import asdict

    from retr.retrieval.engine import Index

    out = Output(json_=json_)
    opened = Index.open(find_index(index), **loading.options)
    measured, fence = opened.calibrate(label, labels=labels, alpha=alpha, device_column=device_column)
    if opened.store.manifest.group is None:
        out.note("no group key: every row counts as a patient of its own; see `retr index group`")
    if out.form == "json":
        out.record({"methods": [asdict(one) for one in measured], "novelty": fence.to_json()})
        return
    out.rows(
        [
            {
                "method": one.method,
                "rows": one.rows,
                "patients": one.groups,
                "accuracy": one.accuracy,
                "ece before": one.ece_before,
                "ece after": one.ece_after,
                "promised": 1 - one.alpha,
                "coverage": one.coverage,
                "classes a set": one.set_size,
            }
            for one in measured
        ],
        title="ece: by how much probabilities miss, before and after scaling; coverage: sets that hold the truth",
    )
    for line in fence.says():
        out.note(line)
