"""Commands that are imported when they run: what ``--help`` lists of them is known without their modules."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from retr.cli import _loudness
from retr.cli._once import Group, Once

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class LazyCommand(TyperCommand):
    """A command of which the name and one sentence are known until it runs.

    Parameters
    ----------
    name
        The word that calls it.
    where
        Its function: ``"module:function"`` in `retr.cli`.
    summary
        The first sentence of that function's docstring; a test compares the two.
    """

    def __init__(self, name: str, where: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self._where = where

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Import the command and have it read its arguments; the context is that of the command itself."""
        module, function = self._where.split(":")
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(self.name, cls=Once)(getattr(import_module(f"retr.cli.{module}"), function))
        command = get_command(app)
        command.params += _loudness.options()
        return command.make_context(info_name, args, parent, **extra)


def group(
    name: str,
    summary: str,
    commands: Sequence[LazyCommand | TyperGroup],
    *,
    callback: Callable[..., None] | None = None,
    cls: type[Group] = Group,
) -> TyperGroup:
    """Return a command with commands below it, and options of its own where it has a ``callback``."""
    app = typer.Typer(
        name=name,
        cls=cls,
        help=summary,
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    if callback is not None:
        app.callback()(callback)
    made = get_group(app)
    made.params += _loudness.options()
    for command in commands:
        made.add_command(command)
    return made
