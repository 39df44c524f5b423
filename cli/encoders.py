"""``retr encoders``: which encoders there are, what they need, and whether one works here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from retr.cli._options import (
    CsvOption,
    DeviceOption,
    EncoderSetOption,
    JsonOption,
    PrecisionOption,
    TextModelOption,
    WeightsOption,
    encoder_options,
)

if TYPE_CHECKING:
    from retr.retrieval.encoders.registry import Spec

app = typer.Typer(
    help="Encoders: what there is, what it needs, whether it works here.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NameArgument = Annotated[str, typer.Argument(help="A name of `retr encoders ls`.", show_default=False)]


@app.command("ls")
def ls(*, json_: JsonOption = False, csv_: CsvOption = False) -> None:
    """List the encoders: what they embed, under which licence, whether their weights are here.

    Example: retr encoders ls
    """
    from retr.cli._output import Output, choose_form
    from retr.retrieval.encoders.registry import specs

    out = Output(choose_form(json_=json_, csv_=csv_))
    found, broken = specs()
    rows = [_row(spec) for spec in found.values()]
    out.rows(rows, ["name", "modality", "dim", "text", "licence", "here", "source"])
    for line in broken:
        out.note(line)


@app.command("info")
def info(name: NameArgument, *, json_: JsonOption = False) -> None:
    """Tell what an encoder is, which files and options it takes, and where to get its weights.

    Example: retr encoders info flair
    """
    from retr.cli._output import Output, choose_form
    from retr.retrieval.encoders.registry import find_spec

    out = Output(choose_form(json_=json_))
    spec, _ = find_spec(name)
    card = spec.card
    facts = {
        **_row(spec),
        "summary": card.summary,
        "noncommercial": card.noncommercial,
        "options": list(spec.options),
    }
    columns = ["name", "option", "where", "optional"]
    files = [{column: getattr(file, column) for column in columns} for file in card.files]
    if out.form == "json":
        out.record({**facts, "files": files})
        return
    out.record(facts)
    out.line("")
    out.rows(files, columns, title="files")


@app.command("verify")
def verify(
    name: NameArgument,
    *,
    weights: WeightsOption = None,
    text_model: TextModelOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    settings: EncoderSetOption = None,
    json_: JsonOption = False,
) -> None:
    """Load an encoder, embed a built-in picture and compare with the recorded fingerprint.

    Where none is recorded, the first verification on this machine records one. Ends with exit code 1 when the
    embedding differs.

    Example: retr encoders verify lite
    """
    from dataclasses import asdict

    from retr.cli._output import Output, choose_form
    from retr.retrieval.encoders.registry import load_encoder
    from retr.retrieval.encoders.verify import verify as run

    out = Output(choose_form(json_=json_))
    options = encoder_options(
        weights=weights, text_model=text_model, device=device, precision=precision, settings=settings
    )
    encoder = load_encoder(name, **options)
    for note in encoder.notes:
        out.note(note)
    found = run(encoder)
    out.record({**asdict(found), "device": encoder.info.device})
    if found.outcome == "differs":
        out.note(
            f"the embedding of {name!r} is not what it was: other library versions, or a faulty machine? "
            "rebuild an index only after finding out which"
        )
        raise typer.Exit(1)


def _row(spec: Spec) -> dict[str, Any]:
    card = spec.card
    return {
        "name": card.name,
        "modality": card.modality,
        "dim": card.dim,
        "text": card.text,
        "licence": card.licence + (" (non-commercial)" if card.noncommercial else ""),
        "here": spec.is_available() if not spec.family else None,
        "source": card.source,
    }
