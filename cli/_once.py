"""The commands of typer that ours are.

They refuse a repeated condition, read plain values without pydantic, take what is not given from `retr.toml`
(`retr.cli._settings`), show waits, and end with a next step. A group that is called alone prints its help.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from retr.cli import _loudness, _next_steps, _settings, _waits
from retr.index.errors import UsageError

_CONDITIONS = {"where": "--where", "queries": "--queries", "fit": "--fit"}
_CHOOSE = {**_CONDITIONS, "patient": "--patient", "one_per": "--one-per", "group": "--group"}
# they run until they are stopped
_NO_WAITS = {"retr serve", "retr mcp"}
_NARROW = 52
_WHOLE = re.compile("0|[1-9][0-9]{0,15}", re.ASCII)


class _Help(typer.Context.formatter_class):  # type: ignore[misc, valid-type]
    """Help that can be read on a narrow terminal: what an option does stands below it."""

    def write_dl(self, rows: Any, col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names with what they are."""
        super().write_dl(rows, col_max if self.width >= _NARROW else self.width // 4, col_spacing)


class _Context(typer.Context):
    formatter_class = _Help


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
    """A command with commands below it; called alone it prints its help, and ends as a mistake in usage does."""

    context_class = _Context

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options, or print the help."""
        if not args and not ctx.resilient_parsing:
            sys.stdout.write(f"{ctx.get_help()}\n")
            raise typer.Exit(UsageError.exit_code)
        read: list[str] = super().parse_args(ctx, args)
        return read

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write what there is below, each with its whole sentence: cut short it says little."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help or "") for name, command in self.commands.items()])


class Root(Group):
    """The first word of a command line."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:  # noqa: ARG002
        """Begin a command line, in which nothing was asked yet; it is called ``retr`` however it was started."""
        _loudness.Loudness.reset()
        columns = shutil.get_terminal_size().columns
        if columns < _NARROW:
            # what formats the help would take these all the same
            extra["terminal_width"] = max(columns - 1, 20)
        return super().make_context(self.name, args, parent, **extra)


class Once(_PlainValues, TyperCommand):
    """A command that refuses a second value of an option that chooses rows; the parser would drop the first."""

    context_class = _Context

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Count the options, then read them.

        Raises
        ------
        UsageError
            One that chooses rows is given again.
        """
        given, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for name, times in Counter(option.name for option in order).items():
            if times > 1 and name in _CHOOSE:
                hint = "join conditions with 'and'" if name in _CONDITIONS else "give one"
                raise UsageError(f"{_CHOOSE[name]} is given {times} times, and only the last would count", hint=hint)
        if ctx.resilient_parsing:
            from retr.cli._suggestions import offer_values

            for parameter in self.params:
                offer_values(parameter)
        else:
            ctx.obj = _settings.found(ctx, given)
            ctx.default_map = ctx.obj.defaults
        read: list[str] = super().parse_args(ctx, args)
        return read

    def invoke(self, ctx: Any) -> Any:
        """Run the command, show waits meanwhile, and say what may come next."""
        asks_itself = ctx.command_path in _NO_WAITS
        with nullcontext() if asks_itself else _waits.shown(ctx.command_path), ctx.obj.named_in_errors():
            done = super().invoke(ctx)
        _next_steps.say(ctx)
        return done


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
