"""``retr align``: give an index of an image-only encoder a text side."""

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
    WhereOption,
    encoder_options,
    find_index,
)


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
            show_default=False,
        ),
    ] = None,
    index: IndexOption = None,
    weights: WeightsOption = None,
    text_model: TextModelOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Fit a bridge from words to images, so that --text works on an index whose encoder has images only.

    It is fitted on the archive's own texts and measured on patients it has not seen; queries with words say so.
    --weights, --text-model, --device and --precision are those of --text-encoder.

    Example: retr align --text-column label
    """
    from retr.cli._output import Output, choose_form
    from retr.index.errors import UsageError
    from retr.retrieval.encoders import places
    from retr.retrieval.encoders.registry import load_encoder
    from retr.retrieval.engine import Index
    from retr.retrieval.words import align as bridges

    out = Output(choose_form(json_=json_))
    options = encoder_options(weights=weights, text_model=text_model, device=device, precision=precision)
    loaded = None
    if text_encoder is not None:
        loaded = load_encoder(text_encoder, **options)
        places.remember(loaded.info, options)
    opened = Index.open(find_index(index))
    encoder = opened.store.manifest.encoder
    if encoder.text:
        raise UsageError(f"the encoder {encoder.name!r} has a text side of its own", hint="use --text without a bridge")
    bridge = bridges.fit_and_store(opened.store, text_column, where=where, separator=separator, encoder=loaded)
    out.record(bridge.figures)
