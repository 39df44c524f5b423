"""The commands of typer that ours are: they refuse a repeated condition, and read plain values without pydantic."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

from retr.index.errors import UsageError

_CONDITIONS = {"where": "--where", "queries": "--queries", "fit": "--fit"}
_CHOOSE = {**_CONDITIONS, "patient": "--patient", "one_per": "--one-per", "group": "--group"}
_WHOLE = re.compile("0|[1-9][0-9]{0,15}", re.ASCII)


class _PlainValues:
    """Reads texts, paths and numbers that can mean one thing only by itself.

    typer imports pydantic for the first value that it reads, a text or none at all, too: longer than all else it does.
    """

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, each of which asks `_Plain` first."""
        parameters = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            _Plain.put_before(parameter)
        return parameters


class Group(_PlainValues, TyperGroup):
    """A command with commands below it."""


class Once(_PlainValues, TyperCommand):
    """A command that refuses a second value of an option that chooses rows; the parser would drop the first."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Count the options, then read them.

        Raises
        ------
        UsageError
            One that chooses rows is given again.
        """
        *_, order = self.make_parser(ctx).parse_args(args=list(args))
        for name, times in Counter(option.name for option in order).items():
            if times > 1 and name in _CHOOSE:
                hint = "join conditions with 'and'" if name in _CONDITIONS else "give one"
                raise UsageError(f"{_CHOOSE[name]} is given {times} times, and only the last would count", hint=hint)
        read: list[str] = super().parse_args(ctx, args)
        return read


class _Plain:
    """Reads the values of one parameter as typer would, and leaves to typer what it does not know."""

    def __init__(self, parameter: Any) -> None:
        self._typers = parameter.get_runtime_param
        about = parameter.type_descriptor
        self._kind = about.annotation
        self._least, self._most = about.parameter_info.min, about.parameter_info.max

    @classmethod
    def put_before(cls, parameter: Any) -> None:
        """Let a parameter read its values so, where typer still asks it for what does."""
        if "get_runtime_param" not in vars(parameter) and hasattr(parameter, "get_runtime_param"):
            plain = cls(parameter)
            parameter.get_runtime_param = lambda: plain

    def coerce(self, value: Any, *, param: Any, ctx: Any) -> Any:
        """Return the value of a parameter."""
        kind = self._kind
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if kind is str and isinstance(value, str):
            return value
        if kind == list[str] and isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
            return list(value)
        if kind is Path and isinstance(value, Path):
            return value
        if kind is Path and isinstance(value, str) and (os.access(value, os.R_OK) or not os.path.lexists(value)):
            return Path(value)
        if kind is int and self._is_whole(value):
            return int(value)
        return self._typers().coerce(value, param=param, ctx=ctx)

    def _is_whole(self, value: Any) -> bool:
        if type(value) is not int and not (isinstance(value, str) and _WHOLE.fullmatch(value)):
            return False
        return (self._least is None or self._least <= int(value)) and (self._most is None or int(value) <= self._most)
