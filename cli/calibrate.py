"""``retr calibrate``: measure how far an index's answers can be trusted."""

from __future__ import annotations

from typing import Annotated

import typer

from retr.cli._options import (
    DeviceOption,
    IndexOption,
    JsonOption,
    PrecisionOption,
    TextModelOption,
    WeightsOption,
    encoder_options,
    find_index,
)


def calibrate(
    *,
    label: Annotated[str, typer.Option("--label", metavar="COLUMN", help="The column of class names.")],
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="SET",
            help="Also measure zero-shot with this label set; the column's values are matched by name and alias.",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="Error level of the sets: 0.1 promises 90 %.")] = 0.1,
    index: IndexOption = None,
    weights: WeightsOption = None,
    text_model: TextModelOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Measure, on the index's own labelled rows with patients kept apart, how far its answers can be trusted.

    Neighbours, probe and zero-shot are scaled to probabilities and given prediction sets; and the similarity is found
    below which a query is unlike anything in the archive. `retr classify` uses what is stored here.

    Example: retr calibrate --label label --alpha 0.1
    """
    from dataclasses import asdict

    from retr.cli._output import Output, choose_form
    from retr.retrieval.classify import calibrate as calibration
    from retr.retrieval.classify.methods import ByWords
    from retr.retrieval.engine import Index
    from retr.retrieval.labels.label_set import load_labels

    out = Output(choose_form(json_=json_))
    options = encoder_options(weights=weights, text_model=text_model, device=device, precision=precision)
    opened = Index.open(find_index(index), **options)
    words = None if labels is None else ByWords(opened.text_side, load_labels(labels))
    measured, novelty = calibration.calibrate(opened.store, label, alpha=alpha, words=words)
    if opened.store.manifest.group is None:
        out.note("no group key: every row counts as a patient of its own; see `retr index group`")
    if out.form == "json":
        out.record({"methods": [asdict(one) for one in measured], "novelty": asdict(novelty)})
        return
    columns = ("method", "rows", "groups", "accuracy", "ece_before", "ece_after", "coverage", "set_size")
    out.rows([{**{name: getattr(one, name) for name in columns}, "promised": 1 - one.alpha} for one in measured])
    out.note(
        f"a query whose nearest row scores below {novelty.threshold:.3f} is unlike this archive "
        f"({100 * novelty.called_unlike:.1f} % of its own rows are)"
    )
