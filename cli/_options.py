"""Option definitions shared by several commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from retr.index.errors import IndexNotFoundError, UsageError
from retr.index.machine.home import home, index_folder
from retr.index.options import Option, Options, declared, taken
from retr.retrieval.ingest.options import BuildOptions
from retr.retrieval.search_options import SearchOptions

INDEX_DIR = ".retr"


def as_typer(name: str, option: Option) -> Any:
    """Return typer's form of an option that `retr.index.options` has."""
    flag = option.flag or f"--{name.replace('_', '-')}"
    help_ = f"{option.help} {option.spelled}".strip()
    return typer.Option(flag, metavar=option.metavar, help=help_, min=option.least)


def _said(name: str, kind: type = SearchOptions) -> Any:
    """Return how a search, or a build, spells an option that other commands have too."""
    return as_typer(name, declared(kind)[name][1])


IndexOption = Annotated[
    Path | None,
    typer.Option(
        "--index",
        envvar="RETR_INDEX",
        help="The index folder; by default .retr/ in this folder or the nearest parent that has one.",
    ),
]
# of what makes several at once
IndexesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--index",
        metavar="DIRECTORY",
        help="The index folder; by default RETR_INDEX, or .retr/ in this folder. With several encoders once for each.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")]
SafeCsvOption = Annotated[
    bool,
    typer.Option(
        "--safe-csv", help="As --csv, with ' before each text that a spreadsheet would take for a formula (=1+1, @sum)."
    ),
]
PathsOption = Annotated[bool, typer.Option("--paths", help="Print where each picture's file lies, one a line.")]
Paths0Option = Annotated[
    bool,
    typer.Option("--paths0", "-0", help="End each path, or id, with a NUL: for names with line breaks, and xargs -0."),
]
IdsOption = Annotated[bool, typer.Option("--ids", help="Print one id a line.")]
SheetOption = Annotated[
    Path | None,
    typer.Option(
        "--sheet",
        metavar="FILE",
        help="Also write what is listed with its pictures: a page (.html) or a contact sheet (.png).",
    ),
]
LinkOption = Annotated[
    str | None,
    typer.Option(
        "--link",
        metavar="TEMPLATE",
        help="Print where a hit's study is to be seen: an address with {study}, {series}, {instance} or {patient}.",
    ),
]
ThumbnailsOption = Annotated[
    bool | None,
    typer.Option(
        "--thumbnails/--no-thumbnails",
        help="Show pictures in the terminal; by default where it says that it can (kitty, iTerm, sixel).",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before destroying something.")]
WhereOption = Annotated[str | None, _said("where")]
StrictExcludeOption = Annotated[bool, _said("strict_exclude")]
ItemOption = Annotated[str | None, _said("item")]
ItemScoreOption = Annotated[str, _said("item_score")]
ColumnsOption = Annotated[str | None, _said("columns")]
MetadataOption = Annotated[Path | None, _said("metadata", BuildOptions)]
PathColumnOption = Annotated[str | None, _said("path_column", BuildOptions)]
TypeOption = Annotated[list[str] | None, _said("types", BuildOptions)]
GroupOption = Annotated[str | None, _said("group", BuildOptions)]
# of several sets: NAME=VALUE each
MetadataOptions = Annotated[list[str] | None, _said("metadata", BuildOptions)]
PathColumnOptions = Annotated[list[str] | None, _said("path_column", BuildOptions)]
GroupOptions = Annotated[list[str] | None, _said("group", BuildOptions)]
DtypeOption = Annotated[str | None, _said("dtype", BuildOptions)]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="HOST:PORT",
        help="Do it on the machines of this Ray cluster, or of the one that runs here: auto.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="Where to compute: auto, cpu, cuda, cuda:N or cuda:all.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")]
EncoderOption = Annotated[str, typer.Option("--encoder", help="An encoder of `retr encoders ls`.")]
LabelOption = Annotated[str, typer.Option("--label", metavar="COLUMN", help="The column of class names.")]
LabelSetOption = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="SET",
        help="Classes and their prompts: a YAML file, or chestxray14, chexpert-5, fundus-39, odir, retizero-14.",
    ),
]
SeparatorOption = Annotated[
    str | None, typer.Option("--separator", help='What joins several classes in one value, e.g. "|".')
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of what is dealt at random.")]


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How an encoder is loaded."""

    weights: Annotated[Path | None, typer.Option("--weights", help="The encoder's checkpoint: a file or folder.")] = (
        None
    )
    text_model: Annotated[
        Path | None, typer.Option("--text-model", help="Folder of the text model: config.json, vocab.txt.")
    ] = None
    device: DeviceOption = "auto"
    precision: PrecisionOption = "auto"
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-o", metavar="KEY=VALUE", help="A further option of the encoder, e.g. feature=retrieval; repeats."
        ),
    ] = None

    @property
    def options(self) -> dict[str, Any]:
        """Options for ``load_encoder``; values of ``KEY=VALUE`` are read as YAML: ``together=false`` is a bool.

        >>> LoadOptions(settings=["feature=retrieval", "resolution=512"]).options
        {'device': 'auto', 'precision': 'auto', 'feature': 'retrieval', 'resolution': 512}
        """
        options: dict[str, Any] = {"device": self.device, "precision": self.precision}
        options |= {name: path for name in ("weights", "text_model") if (path := getattr(self, name)) is not None}
        for setting in self.settings or ():
            import yaml

            key, equals, value = setting.partition("=")
            if not equals or not key:
                raise UsageError(f"--set takes KEY=VALUE, got: {setting!r}", hint="for example --set feature=retrieval")
            options[key.replace("-", "_")] = yaml.safe_load(value) if value else ""
        return options


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """Where the shards of an index are searched."""

    ray: RayOption = None
    shard_seconds: Annotated[
        float | None,
        typer.Option(
            "--shard-seconds",
            metavar="SECONDS",
            help="With --ray: how long a shard may take to answer; by default 60, of a server 45.",
        ),
    ] = None

    @property
    def options(self) -> dict[str, Any]:
        """Options for ``Index.open``.

        >>> ShardOptions(ray="auto").options, ShardOptions().options
        ({'ray': 'auto'}, {})

        Raises
        ------
        UsageError
            Seconds are given and no cluster.
        """
        given = {"ray": self.ray, "shard_seconds": self.shard_seconds}
        if self.ray is None and self.shard_seconds is not None:
            raise UsageError("--shard-seconds is of shards on other machines", hint="give --ray, or leave it out")
        return {name: value for name, value in given.items() if value is not None}


def unfold(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take dataclasses of options: typer sees their fields, the command gets the objects.

    In every path ``~`` is replaced by the home.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    seen: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            seen.append(parameter.replace(annotation=hints[name]))
            continue
        seen += _parameters(groups[name]).values()

    @functools.wraps(command)
    def run(**given: Any) -> None:
        given = {name: home(value) if isinstance(value, Path) else value for name, value in given.items()}
        for name, group in groups.items():
            values = {one: _read(one, given.pop(one)) for one in _parameters(group)}
            given[name] = taken(group, values, name) if issubclass(group, Options) else group(**values)
        command(**given)

    run.__signature__ = inspect.Signature(seen)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in seen}
    return run


@functools.cache
def _parameters(group: type) -> dict[str, inspect.Parameter]:
    """Return a dataclass's fields as keyword-only parameters."""
    empty, found = inspect.Parameter.empty, {}
    defaults = {one.name: empty if one.default is MISSING else one.default for one in fields(group)}
    if issubclass(group, Options):
        hints = {}
        for name, (hint, option) in declared(group).items():
            if option.flag != "":
                # what is kept is asked only where it is given
                defaults[name] = None if option.kept else defaults[name]
                read = _typed(name, hint | None if option.kept else hint)
                hints[name] = Annotated[read, as_typer(name, option)]
    else:
        hints = get_type_hints(group, include_extras=True)
    for name, hint in hints.items():
        found[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=hint)
    return found


def _typed(name: str, hint: Any) -> Any:
    """Return as what typer reads a value: options say their own errors, so that one of a few words is a text."""
    if name in _SPELLED:
        return _SPELLED[name][0]
    parts = get_args(hint) if isinstance(hint, UnionType) or get_origin(hint) is Union else (hint,)
    read = {str if get_origin(one) is Literal else one for one in parts}
    if Path in read:  # whatever else Python's callers may give
        read &= {Path, NoneType}
    lists = {list[str] if get_origin(one) is Sequence else one for one in read}
    return Union[tuple(lists)]  # noqa: UP007 - of a set


def _read(name: str, value: Any) -> Any:
    return value if value is None or name not in _SPELLED else _SPELLED[name][1](value)


def same_values(given: list[str]) -> dict[str, list[str | None]]:
    """Read ``COLUMN`` and ``COLUMN=VALUE``; without a value it is taken from the query's own row or header.

    >>> same_values(["patient=P17", "patient", "eye"])
    {'patient': ['P17', None], 'eye': [None]}
    """
    same: dict[str, list[str | None]] = {}
    for item in given:
        column, equals, value = item.partition("=")
        same.setdefault(column, []).append(value if equals else None)
    return same


def column_names(given: str) -> list[str]:
    """Read names that are separated by commas, each once.

    >>> column_names("id, label,id")
    ['id', 'label']
    """
    return list(dict.fromkeys(name.strip() for name in given.split(",")))


def column_types(given: list[str] | None) -> dict[str, str]:
    """Read ``COLUMN=number`` and ``COLUMN=text``.

    >>> column_types(["acc=number", "a=b=text"])
    {'acc': 'number', 'a=b': 'text'}
    """
    types = {}
    for one in given or ():
        column, equals, kind = one.rpartition("=")
        if not equals or not column:
            raise UsageError(f"--type takes COLUMN=number or COLUMN=text, got: {one!r}")
        types[column.strip()] = kind.strip().lower()
    return types


# options whose value the command line spells in its own way: as what it is read, and what reads it
_SPELLED: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "exclude_same": (list[str] | None, same_values),
    "columns": (str | None, column_names),
    "in_": (str | None, column_names),
    "item": (str | None, str),
    "types": (list[str] | None, column_types),
}


def find_index(index: Path | None) -> Path:
    """Return the index folder as git finds a repository.

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
        return index_folder(index)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / INDEX_DIR).is_dir():
            return folder / INDEX_DIR
    raise IndexNotFoundError(
        "no index: there is no .retr/ in this folder or its parents",
        hint="make one with `retr index build FOLDER`, or name one with --index",
    )
