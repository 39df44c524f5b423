"""``retr index sql``: SQL over an index's rows."""

from __future__ import annotations

from typing import Annotated

import typer

from retr.cli._options import CsvOption, IndexOption, JsonOption, SafeCsvOption, find_index, unfold
from retr.cli._output import Output


@unfold
def sql(
    query: Annotated[str, typer.Argument(help="One statement of DuckDB's SQL; the table is called rows.")],
    *,
    index: IndexOption = None,
    json_: JsonOption = False,
    csv_: CsvOption = False,
    safe_csv: SafeCsvOption = False,
) -> None:
    """Ask an index's rows in SQL.

    The table rows holds the metadata of the live rows; nothing is changed, and no file and no network is reached.

    Example: retr index sql "SELECT label, count(*) AS n FROM rows GROUP BY label"
    """
    from retr.retrieval.index import Index
    from retr.retrieval.json_values import to_plain

    out = Output(json_=json_, csv_=csv_, safe_csv=safe_csv)
    found = Index.open(find_index(index)).sql(query)
    rows = [{name: to_plain(value) for name, value in row.items()} for row in found.to_pylist()]
    out.rows(rows, found.column_names)
