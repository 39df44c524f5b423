"""Refuse a repeated row-selecting option: the parser would silently drop all but the last condition or patient."""

from __future__ import annotations

from collections import Counter
from typing import Any

from typer.core import TyperCommand

from retr.index.errors import UsageError

_CONDITIONS = {"where": "--where", "queries": "--queries", "fit": "--fit"}
_CHOOSE = {**_CONDITIONS, "patient": "--patient", "one_per": "--one-per", "group": "--group"}


class Once(TyperCommand):
    """A command that refuses a second value of an option that chooses rows."""

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
