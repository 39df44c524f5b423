"""``retr index words``: the words of text columns, kept for search."""

from __future__ import annotations

from typing import Annotated

import typer

from retr.cli._options import IndexOption, JsonOption, find_index
from retr.cli._output import Output


def words(
    *,
    index: IndexOption = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", help="A column of text; repeats. Those of before are kept.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Keep the words of text columns, so that a search by words need not read the texts.

    Again, and without --column, it reads only the rows that are new.

    Example: retr index words --column findings
    """
    from retr.retrieval.index import Index

    done = Index.open(find_index(index)).words(column or [])
    out = Output(json_=json_)
    out.record({"columns": list(done.columns), "rows": done.rows, "read": done.read, "terms": dict(done.terms)})
