"""``retr align``: give an index of an image-only encoder a text side."""

from __future__ import annotations

from typing import Annotated

import typer

from retr.cli._options import IndexOption, JsonOption, LoadOptions, WhereOption, find_index, unfold
from retr.cli._output import Output


@unfold
def align(
    *,
    text_column: Annotated[
        str,
        typer.Option("--text-column", metavar="COLUMN", help="The column of labels, findings, captions or reports."),
    ],
    where: WhereOption = None,
    separator: Annotated[str, typer.Option("--separator", help="What stands between several texts of one row.")] = "||",
    text_encoder: Annotated[
        str | None,
        typer.Option(
            "--text-encoder",
            help="An encoder of `retr encoders ls` with text; by default words and letter groups of the column itself.",
        ),
    ] = None,
    index: IndexOption = None,
    loading: LoadOptions,
    json_: JsonOption = False,
) -> None:
    """Let --text work on an index whose encoder has images only.

    A bridge from words to images is fitted on the archive's own texts and measured on patients it has not seen;
    queries with words say so. --weights, --text-model, --device, --precision and --set are those of --text-encoder.

    Example: retr align --text-column label
    """
    from retr.retrieval.encoders.registry import load_encoder
    from retr.retrieval.index import Index
    from retr.retrieval.labels.labelled import unit_of

    out = Output(json_=json_)
    loaded = None if text_encoder is None else load_encoder(text_encoder, **loading.options)
    opened = Index.open(find_index(index))
    figures = opened.align(text_column, where=where, separator=separator, text_encoder=loaded).figures
    if out.form == "json":
        out.record(figures)
        return
    words = {
        "groups": f"{unit_of(opened.store.manifest.group)}s",
        "recall_at_1": "held-out R@1",
        "recall_at_10": "held-out R@10",
        "pool": "of rows",
    }
    out.record({words.get(name, name): value for name, value in figures.items()})
