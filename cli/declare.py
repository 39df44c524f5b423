"""``retr index group`` and ``retr index item``: say whose rows are whose, and what a case is."""

from __future__ import annotations

from typing import Annotated

import typer

from retr.cli._options import IndexOption, JsonOption, find_index
from retr.cli._output import Output
from retr.index.errors import UsageError


def group(
    column: Annotated[str | None, typer.Argument(help="A metadata column; without it, which one it is.")] = None,
    *,
    none: Annotated[bool, typer.Option("--none", help="Take it back: nothing is declared.")] = False,
    index: IndexOption = None,
    json_: JsonOption = False,
) -> None:
    """Declare the column that tells patients apart, or show it.

    Example: retr index group patient
    """
    from retr.retrieval.index import Index

    opened, out = Index.open(find_index(index)), Output(json_=json_)
    before = opened.store
    if _is_change(column, none=none):
        opened.set_group(column)
    if opened.store.schema != before.schema:
        out.note(f"the column {column!r} was {before.schema.field(column).type} and is text now, as identifiers are")
    if none:
        was = f": it was {before.manifest.group!r}" if before.manifest.group else ""
        out.note(f"no column tells patients apart{was}")
    out.record({"group": opened.info()["group"]})


def item(
    rule: Annotated[
        str | None,
        typer.Argument(
            metavar="CASE",
            help="study, series, volume, patient, eye-pair, or a column; without it, which one it is.",
        ),
    ] = None,
    *,
    none: Annotated[bool, typer.Option("--none", help="Take it back: nothing is declared.")] = False,
    index: IndexOption = None,
    json_: JsonOption = False,
) -> None:
    """Declare what a case is, whose rows are compared together, or show it.

    Example: retr index item study
    """
    from retr.retrieval.index import Index

    opened, out = Index.open(find_index(index)), Output(json_=json_)
    if _is_change(rule, none=none):
        opened.set_item(rule)
    out.record({"item": opened.info()["item"]})


def _is_change(given: str | None, *, none: bool) -> bool:
    """Return whether something is declared or taken back, rather than asked for."""
    if none and given is not None:
        raise UsageError(f"--none takes back what {given!r} would declare", hint="give one of them")
    return none or given is not None
