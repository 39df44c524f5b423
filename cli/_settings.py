"""Settings of ``retr.toml``: beside the index, and in the user's folder.

What a command line says counts before what the file beside the index says, and that before the user's file. A key that
is not known, or a value of another kind, is an error: a setting that is passed over would be believed in. Nothing that
leaves rows out without being seen in the command (a condition) can be set, but whose rows are left out of an answer.
"""

from __future__ import annotations

import difflib
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retr.index.errors import RetrError, UsageError
from retr.index.machine.home import home

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE = "retr.toml"
# a file of settings is a few lines
_MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class Key:
    """What a setting is: its kind, what it is for, the default, and the commands whose option it stands for."""

    kind: type
    help: str
    default: Any = None
    commands: tuple[str, ...] = ()


KEYS: Mapping[str, Key] = {
    "encoder": Key(str, "The encoder of a new index.", "lite", ("retr index build",)),
    "device": Key(str, "Where to compute.", "auto"),
    "precision": Key(str, "How precisely to compute.", "auto"),
    "columns": Key(list, "The columns that a table of hits shows.", None, ("retr query",)),
    "k": Key(int, "How many hits there are.", 5, ("retr query",)),
    "exclude_same": Key(list, "The columns whose value a hit must not share with the query.", None, ("retr query",)),
    "label": Key(
        str,
        "The column of class names.",
        None,
        (
            *("retr calibrate", "retr adapt", "retr index suspects"),
            *("retr eval retrieval", "retr eval neighbours", "retr eval probe", "retr eval zero-shot"),
        ),
    ),
    "link": Key(str, "Where a hit's study is to be seen.", None, ("retr query", "retr show")),
    "thumbnails": Key(bool, "Show pictures in a terminal that can.", True, ("retr query", "retr show")),
}
_KINDS = {str: "a text", list: "a list of texts", int: "a whole number from 1", bool: "true or false"}


@dataclass(frozen=True)
class Setting:
    """A value, and the file that it stands in."""

    value: Any
    file: Path


@dataclass(frozen=True)
class Settings:
    """What was found: ``defaults`` of the command's options, and the ``settings`` they are of."""

    settings: Mapping[str, Setting] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Have an error that names a value of a file name the file."""
        try:
            yield
        except RetrError as error:
            for key, one in self.settings.items():
                values = one.value if isinstance(one.value, list) else [one.value]
                # columns are given on, and told of, one by one
                told = [part for value in values for part in (value, *str(value).split(","))]
                if key in self.defaults and any(repr(value) in error.message for value in told):
                    said = f"{key} is set in {str(one.file)!r}"
                    error.hint = f"{error.hint}; {said}" if error.hint else said
                    break
            raise


def found(ctx: Any, given: Mapping[str, Any]) -> Settings:
    """Return the settings that count for a command, by what its command line gives.

    Raises
    ------
    UsageError
        A file of settings cannot be meant.
    """
    names, path = {parameter.name: parameter for parameter in ctx.command.params}, ctx.command_path
    mine = [key for key, one in KEYS.items() if key in names and path in (one.commands or (path,))]
    if not mine:
        return Settings()
    settings = read(given.get("index") or os.environ.get("RETR_INDEX"))
    defaults = {}
    for key in mine:
        if key not in settings or given.get(key) is not None or not _wanted(key, given):
            continue
        value, several = settings[key].value, names[key].multiple
        if isinstance(value, list):
            defaults[key] = value if several else ",".join(value)
        else:
            defaults[key] = [value] if several else value
    return Settings(settings, defaults)


def _wanted(key: str, given: Mapping[str, Any]) -> bool:
    """Return whether a setting is for what is asked: columns of a table are not those of a program's output."""
    if key == "columns":
        return not any(given.get(form) for form in ("json_", "csv_", "safe_csv", "paths", "paths0"))
    if key == "encoder":
        return not any((Path(place) / "CURRENT").exists() for place in _places(given.get("index")))
    return True


def _places(index: Any) -> list[Path]:
    """Return the folders of the indexes that a command line names; else the one that is found here, if any."""
    if index:
        return [home(one) for one in (index if isinstance(index, list | tuple) else [index])]
    if given := os.environ.get("RETR_INDEX"):
        return [home(given)]
    here = Path.cwd()
    return [folder / ".retr" for folder in (here, *here.parents) if (folder / ".retr").is_dir()][:1] or [here / ".retr"]


def files(index: Any = None) -> list[Path]:
    """Return where settings are looked for, the file that counts first in front."""
    from platformdirs import user_config_path

    beside = [place.absolute().parent / FILE for place in _places(index)[:1]]
    return [*beside, user_config_path("retr") / FILE]


def read(index: Any = None) -> dict[str, Setting]:
    """Return the settings for an index, each with its file.

    Raises
    ------
    UsageError
        A file is no TOML, has a key that is not known, or a value of another kind.
    """
    settings: dict[str, Setting] = {}
    for file in reversed(files(index)):
        # what lies there and cannot be read was meant to count
        if os.path.lexists(file):
            settings |= {key: Setting(value, file) for key, value in _values(file).items()}
    return settings


def _values(file: Path) -> dict[str, Any]:
    import tomllib

    from retr.retrieval.regular_files import open_regular

    name = str(file)
    try:
        with open_regular(file) as stream:
            data = stream.read(_MOST_BYTES + 1)
        values = tomllib.loads(data.decode() if len(data) <= _MOST_BYTES else "=")
    except OSError as error:
        raise UsageError(
            f"the settings in {name!r} cannot be read: {error.strerror or 'not a file'}", hint="mend or remove the file"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "it is not UTF-8"
        raise UsageError(f"{name!r} is no TOML: {reason}", hint="write KEY = VALUE lines") from None
    for key, value in values.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(KEYS)}"
            raise UsageError(f"unknown key {key!r} in {name!r}", hint=hint)
        kind = KEYS[key].kind
        texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
        fits = texts if kind is list else type(value) is kind
        if not fits or value in ("", []) or (kind is int and value < 1):
            raise UsageError(f"{key!r} in {name!r} must be {_KINDS[kind]}, got: {value!r}")
    return values
