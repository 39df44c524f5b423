"""``retr index ls``: list the rows of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from retr.cli._errors import NOTHING_FOUND
from retr.cli._options import (
    ColumnsOption,
    CsvOption,
    IdsOption,
    IndexOption,
    JsonOption,
    Paths0Option,
    PathsOption,
    SafeCsvOption,
    WhereOption,
    column_names,
    find_index,
)
from retr.cli._output import Output
from retr.index.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from retr.retrieval.index import Index

# of a file rather than of what it shows: a table without --columns leaves them out
FILE_FACTS = {"path", "size", "mtime", "sha256", "mode"}


def list_rows(
    *,
    index: IndexOption = None,
    where: WhereOption = None,
    columns: ColumnsOption = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="COLUMN",
            help="Order by a column, or by several, separated by commas; -COLUMN from the greatest. "
            "Rows without a value come last.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many rows.")] = None,
    skipped: Annotated[bool, typer.Option("--skipped", help="List the files that could not be read, and why.")] = False,
    json_: JsonOption = False,
    csv_: CsvOption = False,
    safe_csv: SafeCsvOption = False,
    paths: PathsOption = False,
    paths0: Paths0Option = False,
    ids: IdsOption = False,
) -> None:
    """List the rows of an index.

    Example: retr index ls --where "label = 'glaucoma'" --columns id,label --sort label,-age
    """
    from retr.index.disk.schema import records
    from retr.retrieval.index import Index

    out = Output(json_=json_, csv_=csv_, safe_csv=safe_csv, paths=paths, paths0=paths0, ids=ids)
    opened = Index.open(find_index(index))
    if skipped and out.form == "ids":
        raise UsageError("files that could not be read have no ids", hint="give --paths")
    rows = opened.skipped() if skipped else _rows(opened, out, columns, where, sort)
    if skipped and sort is not None:
        rows = _ordered(rows, rows, sort)
    shown = rows.slice(0, min(limit, rows.num_rows)) if limit is not None else rows
    if not shown.num_rows:
        out.note("nothing was skipped" if skipped else "no row matches")
        raise typer.Exit(NOTHING_FOUND)
    if out.form == "paths":
        from retr.retrieval.archive.locations import file_places

        places = file_places(opened.store, shown[shown.column_names[0]].to_pylist())
        out.rows([{"path": place} for place in places])
    else:
        out.rows(records(shown), shown.column_names)
    if shown.num_rows < rows.num_rows:
        out.note(f"{rows.num_rows - shown.num_rows} more rows")


def _rows(index: Index, out: Output, columns: str | None, where: str | None, sort: str | None) -> pa.Table:
    """Return the columns that are shown, in the order that is asked for."""
    names = index.store.schema.names
    wanted = column_names(columns) if columns else None
    if out.form == "paths":
        wanted = ["path" if "path" in names else "id"]
    elif out.form == "ids":
        wanted = ["id"]
    elif wanted is None and out.form == "table":
        wanted = [name for name in names if name not in FILE_FACTS]
    rows = index.table(columns=wanted, where=where)
    if sort is None:
        return rows
    for name, _ in _sort_keys(sort, names):
        index.store.columns.require(name)
    return _ordered(rows, index.table([name for name, _ in _sort_keys(sort, names)], where=where), sort)


def _sort_keys(sort: str, names: list[str]) -> list[tuple[str, str]]:
    """Read ``label,-age``; a column whose own name begins with a hyphen is that column.

    >>> _sort_keys("label,-age,-x", ["-x"])
    [('label', 'ascending'), ('age', 'descending'), ('-x', 'ascending')]
    """
    keys = []
    for name in column_names(sort):
        down = name.startswith("-") and name not in names
        keys.append((name[1:] if down else name, "descending" if down else "ascending"))
    return keys


def _ordered(rows: pa.Table, by: pa.Table, sort: str) -> pa.Table:
    """Return rows in the order of columns, those without a value last; equal ones stay as they stand."""
    import pyarrow as pa

    from retr.index.machine.arrow import pc

    keys: list[tuple[str, Any]] = _sort_keys(sort, by.column_names)
    for name, _ in keys:
        if name not in by.column_names:
            raise UsageError(f"there is no column {name!r} to sort by", hint=f"there are {', '.join(by.column_names)}")
        if pa.types.is_nested(by.schema.field(name).type):
            raise UsageError(f"the column {name!r} holds lists, which have no order", hint="sort by another column")
    return rows.take(pc.sort_indices(by, sort_keys=keys))
