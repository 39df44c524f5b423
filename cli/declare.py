"""``retr index group`` and ``retr index item``: say whose rows are whose, and what a case is."""

from __future__ import annotations

from typing import Annotated

import typer

from retr.cli._options import IndexOption, JsonOption, find_index
from retr.cli._output import Output


def group(
    column: Annotated[str | None, typer.Argument(help="A metadata column; leave out to take it back.")] = None,
    *,
    index: IndexOption = None,
    json_: JsonOption = False,
) -> None:
    """Declare the column that tells patients apart.

    Example: retr index group patient
    """
    from retr.retrieval.index import Index

    opened, out = Index.open(find_index(index)), Output(json_=json_)
    before = opened.store
    opened.set_group(column)
    if opened.store.schema != before.schema:
        out.note(f"the column {column!r} was {before.schema.field(column).type} and is text now, as identifiers are")
    if column is None:
        was = f": it was {before.manifest.group!r}" if before.manifest.group else ""
        out.note(f"no column tells patients apart{was}")
    out.record({"group": opened.info()["group"]})


def item(
    rule: Annotated[
        str | None,
        typer.Argument(
            metavar="CASE",
            help="study, series, volume, patient, eye-pair, or a column; leave out to take it back.",
        ),
    ] = None,
    *,
    index: IndexOption = None,
    json_: JsonOption = False,
) -> None:
    """Declare what a case is: whose rows are compared together.

    Example: retr index item study
    """
    from retr.retrieval.index import Index

    opened, out = Index.open(find_index(index)), Output(json_=json_)
    opened.set_item(rule)
    out.record({"item": opened.info()["item"]})
