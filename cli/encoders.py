"""``retr encoders``: list encoders and their files, and verify one on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retr.cli._loudness import quiet
from retr.cli._options import (
    CsvOption,
    DeviceOption,
    GroupOption,
    JsonOption,
    LoadOptions,
    MetadataOption,
    PathColumnOption,
    PrecisionOption,
    SafeCsvOption,
    SeedOption,
    unfold,
)
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
    """Tell what an encoder is, what it costs, what it needs and where to get it.

    What it costs is what was seen of it on this machine when it was last used, its size else as published. Nothing is
    loaded.

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
        **_cost(name, card),
    }
    needed_files = card.files or spec.card.files
    files = [{"name": f.name, "option": f.option, "where": f.where, "optional": f.optional} for f in needed_files]
    if out.form == "json":
        out.record({**facts, "files": files})
        return
    out.record({**facts, "last_used": _in_words(facts["last_used"])})
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


@unfold
def compare(
    encoders: Annotated[
        list[str],
        typer.Argument(help="At least two names of `retr encoders ls`, with options behind commas: NAME,KEY=VALUE."),
    ],
    *,
    data: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="Labelled images, a folder for each class.")],
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="COLUMN", help="The table's column of class names, not the folders."),
    ] = None,
    metadata: MetadataOption = None,
    path_column: PathColumnOption = None,
    group: GroupOption = None,
    probe: Annotated[bool, typer.Option("--linear-probe", help="Measure a linear probe, too.")] = False,
    most: Annotated[int | None, typer.Option("--most", min=1, help="At most so many images of a class.")] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Evaluate several encoders on one labelled folder, and their cost.

    Every image asks in turn, its patient left out. A difference is taken image by image, and its interval, over
    patients, is that of the difference: one that holds 0 does not tell the two apart. Vectors are kept in the user's
    cache, for the next comparison of the same encoders.

    Example: retr encoders compare lite lite,feature=layers --data fundus --metadata labels.csv --group patient
    """
    from retr.cli._bench_output import show_data
    from retr.retrieval.evaluation.compare import compare as run
    from retr.retrieval.evaluation.protocols.vectors import Work

    out = Output(json_=json_)
    found = run(
        encoders,
        data,
        label=label,
        metadata=metadata,
        path_column=path_column,
        group=group,
        probe=probe,
        most=most,
        seed=seed,
        vectors=Work(kept=True, progress=not json_ and not quiet()),
        device=device,
        precision=precision,
    )
    if out.form == "json":
        out.record(found.to_json())
        return
    show_data(dict(found.data), out)
    reached = [
        {"encoder": one.name, **{key: f"{value}" for key, value in one.metrics.items()}} for one in found.encoders
    ]
    apart = [
        {
            "second - first": f"{one.second} - {one.first}",
            **{key: f"{value:+.3f}" for key, value in one.metrics.items()},
        }
        for one in found.differences
    ]
    costs = [
        {
            "encoder": one.name,
            "dim": one.cost.dim,
            "parameters": one.cost.parameters,
            "MB": None if one.cost.weight_bytes is None else round(one.cost.weight_bytes / 1e6, 1),
            "CPU seconds an image": None if one.cost.cpu_seconds is None else round(one.cost.cpu_seconds, 4),
            "images a second": round(one.cost.images_per_second, 2),
            "device": f"{one.cost.device}, {one.cost.precision}",
        }
        for one in found.encoders
    ]
    out.rows(reached)
    out.line("")
    out.rows(apart, title="paired differences: an interval without 0 tells the two apart")
    out.line("")
    out.rows(costs, title="what a vector costs: preparing and embedding an image, one at a time")
    for note in found.notes:
        out.note(note)


def _cost(name: str, card: Card) -> dict[str, Any]:
    """Return what an encoder costs, as it was seen here, else what is published of it."""
    from dataclasses import asdict

    from retr.retrieval.encoders.costs import recall

    head, _, rest = name.partition(":")
    # of a folder the name is recorded, not where it lies
    known = recall(name) or (recall(f"{head}:{Path(rest).name}") if rest else None)
    parameters = card.parameters
    published = {"parameters": parameters, "weight_bytes": None if parameters is None else 4 * parameters}
    if known is None:
        return {**published, "last_used": None}
    seen = {key: value for key, value in asdict(known).items() if value is not None}
    size = {key: seen.pop(key, value) for key, value in published.items()}
    return {**size, "dim": seen.pop("dim"), "last_used": seen}


def _in_words(seen: dict[str, Any] | None) -> str:
    if seen is None:
        return "never on this machine"
    speed = f"{seen['images_per_second']:.3g} images a second ({seen['what']})"
    if "cpu_seconds" in seen:
        speed += f", {seen['cpu_seconds']:.3g} CPU seconds an image"
    settings = "".join(f", {key}={value}" for key, value in seen["options"].items())
    return f"{speed}; {seen['date']} on {seen['device']}, {seen['precision']}{settings}"


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
