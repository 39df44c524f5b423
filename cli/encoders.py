"""``retr encoders``: list encoders and their files, and verify one on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from retr.cli._options import CsvOption, JsonOption, LoadOptions, SafeCsvOption, unfold
from retr.cli._output import Output

if TYPE_CHECKING:
    from retr.retrieval.encoders.spec import Card, Spec

NameArgument = Annotated[str, typer.Argument(help="A name of `retr encoders ls`.")]


def ls(*, json_: JsonOption = False, csv_: CsvOption = False, safe_csv: SafeCsvOption = False) -> None:
    """List the encoders, and whether their weights are here.

    What they embed, under which licence, and where they come from.

    Example: retr encoders ls
    """
    from retr.retrieval.encoders.registry import specs

    out = Output(json_=json_, csv_=csv_, safe_csv=safe_csv)
    found, broken = specs()
    rows = [_row(spec, card) for spec in found.values() for card in (spec.card, *spec.members)]
    out.rows(rows, ["name", "modality", "dim", "text", "licence", "here", "source"])
    for line in broken:
        out.note(line)


def info(name: NameArgument, *, json_: JsonOption = False) -> None:
    """Tell what an encoder is, what it needs and where to get it.

    Example: retr encoders info flair
    """
    from retr.retrieval.encoders.registry import find_spec

    out = Output(json_=json_)
    spec, rest = find_spec(name)
    card = spec.card_of(rest)
    facts = {
        **_row(spec, card),
        "summary": card.summary,
        "noncommercial": card.noncommercial,
        "options": list(spec.options),
    }
    needed_files = card.files or spec.card.files
    files = [{"name": f.name, "option": f.option, "where": f.where, "optional": f.optional} for f in needed_files]
    if out.form == "json":
        out.record({**facts, "files": files})
        return
    out.record(facts)
    instead = {file.option for file in needed_files if not file.optional}
    for file in needed_files:
        needed = "needed" if not file.optional else "or this" if file.option in instead else "may be given"
        own = {"weights": "--weights", "text_model": "--text-model"}.get(file.option, f"--set {file.option}=PATH")
        out.line("")
        out.line(f"{file.name}{'/' if file.folder else ''}")
        out.line(f"  {needed}, with {own}; from {file.where}")


@unfold
def verify(name: NameArgument, *, loading: LoadOptions, json_: JsonOption = False) -> None:
    """Check that an encoder still gives the vectors it gave.

    It is loaded, embeds a built-in picture, and the result is compared with the recorded fingerprint. Where none is
    recorded, the first verification on this machine records one. Ends with exit code 1 when the embedding differs.

    Example: retr encoders verify lite
    """
    from dataclasses import asdict

    from retr.retrieval.encoders.registry import load_encoder
    from retr.retrieval.encoders.verify import verify as run

    out = Output(json_=json_)
    encoder = load_encoder(name, **loading.options)
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


def _row(spec: Spec, card: Card) -> dict[str, Any]:
    return {
        "name": card.name,
        "modality": card.modality,
        "dim": card.dim,
        "text": card.text,
        "licence": card.licence + (" (non-commercial)" if card.noncommercial else ""),
        "here": spec.is_available() if not spec.family else None,
        "source": card.source,
    }
