"""Options that several commands share, so that the same word means the same thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from retr.index.errors import IndexNotFoundError, UsageError

INDEX_DIR = ".retr"

IndexOption = Annotated[
    Path | None,
    typer.Option(
        "--index",
        envvar="RETR_INDEX",
        help="The index folder; by default .retr/ in this folder or the nearest parent that has one.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")]
PathsOption = Annotated[bool, typer.Option("--paths", help="Print one path a line.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before destroying something.")]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="EXPR",
        help="Only rows for which this is true, e.g. \"age >= 60 and sex = 'Female'\".",
        show_default=False,
    ),
]
EncoderOption = Annotated[str, typer.Option("--encoder", help="An encoder of `retr encoders ls`.")]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="The encoder's checkpoint: a file or folder.", show_default=False),
]
TextModelOption = Annotated[
    Path | None,
    typer.Option("--text-model", help="Folder with the text model's config.json and vocab.txt.", show_default=False),
]
DeviceOption = Annotated[str, typer.Option("--device", help="Where to compute: auto, cpu, cuda, cuda:N or cuda:all.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")]
EncoderSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-o",
        metavar="KEY=VALUE",
        help="A further option of the encoder, e.g. feature=retrieval; repeats.",
        show_default=False,
    ),
]


def find_index(index: Path | None) -> Path:
    """Give the index folder as git finds a repository.

    Parameters
    ----------
    index
        What ``--index`` or ``RETR_INDEX`` said; ``None`` looks for ``.retr/`` here and in the parents.

    Raises
    ------
    IndexNotFoundError
        When neither names an index.
    """
    if index is not None:
        return index
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / INDEX_DIR).is_dir():
            return folder / INDEX_DIR
    raise IndexNotFoundError(
        "no index: there is no .retr/ in this folder or its parents",
        hint="make one with `retr index build FOLDER`, or name one with --index",
    )


def encoder_options(
    *,
    weights: Path | None = None,
    text_model: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    settings: list[str] | None = None,
) -> dict[str, Any]:
    """Gather what the command line says of an encoder into options for ``load_encoder``.

    Values of ``KEY=VALUE`` are read as YAML scalars: ``together=false`` is a bool, ``resolution=512`` a number.

    >>> encoder_options(settings=["feature=retrieval", "resolution=512"])
    {'device': 'auto', 'precision': 'auto', 'feature': 'retrieval', 'resolution': 512}
    """
    options: dict[str, Any] = {"device": device, "precision": precision}
    if weights is not None:
        options["weights"] = weights
    if text_model is not None:
        options["text_model"] = text_model
    for setting in settings or ():
        import yaml

        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise UsageError(f"--set takes KEY=VALUE, got: {setting!r}", hint="for example --set feature=retrieval")
        options[key.replace("-", "_")] = yaml.safe_load(value) if value else ""
    return options
