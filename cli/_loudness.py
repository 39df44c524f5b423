"""How much is said on standard error: ``-q`` and ``-v`` of every command, and the logger ``retr``.

Errors, and what must be known of an answer, are always said. ``-q`` leaves out progress, waits and the next step;
``-v`` shows what the modules log at the level DEBUG: what was opened, loaded, read and how long it took, without a name
of a person or a path of this machine.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from retr.index.errors import UsageError
from retr.retrieval.visible_text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

LOGGER = logging.getLogger("retr")


class Loudness:
    """How much the command that runs says."""

    level: ClassVar[int] = logging.INFO

    @classmethod
    def reset(cls) -> None:
        """Begin a command line: nothing was asked yet."""
        cls._set(logging.INFO)

    @classmethod
    def ask(cls, level: int) -> None:
        """Take in ``-q`` or ``-v``.

        Raises
        ------
        UsageError
            The other was given, too.
        """
        if cls.level not in {logging.INFO, level}:
            raise UsageError("--quiet and --verbose exclude each other", hint="give one of them")
        cls._set(level)

    @classmethod
    def _set(cls, level: int) -> None:
        cls.level = level
        LOGGER.setLevel(level)


def quiet() -> bool:
    """Return whether progress and advice are not wanted."""
    return Loudness.level > logging.INFO


def to_a_person() -> bool:
    """Return whether somebody reads standard error on a terminal and has not asked for quiet."""
    return not quiet() and sys.stderr is not None and sys.stderr.isatty()


class _Lines(logging.Formatter):
    """A message as it is; of DEBUG with the seconds since the program began."""

    def format(self, record: logging.LogRecord) -> str:
        text = visible(super().format(record))
        return f"[{record.relativeCreated / 1000:7.3f} s] {text}" if record.levelno < logging.INFO else text


def show_log() -> None:
    """Write what is logged to standard error, as much as where nothing is asked."""
    Loudness.reset()
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    LOGGER.handlers = [handler]


def _quiet(asked: bool) -> None:
    if asked:
        Loudness.ask(logging.WARNING)


def _verbose(asked: bool) -> None:
    if asked:
        Loudness.ask(logging.DEBUG)


def _declared(
    *,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", callback=_quiet, expose_value=False, help="Show no progress, no waits and no next step."
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", callback=_verbose, expose_value=False, help="Say what is done meanwhile.")
    ] = False,
) -> None:
    """Hold the two options."""


def options() -> Sequence[Any]:
    """Return ``-q`` and ``-v`` as a command takes them."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(_declared)
    return typer.main.get_command(app).params
