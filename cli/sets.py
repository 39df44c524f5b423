"""``retr sets``: named sets of rows, with labels and the questions that found them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retr.cli._options import (
    CsvOption,
    IdsOption,
    IndexOption,
    JsonOption,
    Paths0Option,
    PathsOption,
    WhereOption,
    YesOption,
    find_index,
    unfold,
)
from retr.cli._output import Output, confirm, names_in, read_input
from retr.index.errors import UsageError

if TYPE_CHECKING:
    from retr.retrieval.index import Index
    from retr.retrieval.sets.sets import NamedSet

NameArgument = Annotated[str, typer.Argument(metavar="SET", help="The set's name.")]
IdsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="Ids of rows; - reads them from standard input."),
]
AuthorOption = Annotated[
    str | None, typer.Option("--author", help="Who does it; by default the name of this process's user.")
]


@unfold
def ls(*, index: IndexOption = None, json_: JsonOption = False, csv_: CsvOption = False) -> None:
    """List the sets of an index.

    Example: retr sets ls
    """
    out = Output(json_=json_, csv_=csv_)
    found = _opened(index).sets.all()
    columns = ["name", "rows", "labelled", "author", "updated", "asked"]
    out.rows([one.summary() for one in found], columns)
    if not found:
        out.note("there are no sets; `retr sets add SET ID...` makes one")


@unfold
def show(
    name: NameArgument,
    *,
    index: IndexOption = None,
    json_: JsonOption = False,
    csv_: CsvOption = False,
    paths: PathsOption = False,
    paths0: Paths0Option = False,
    ids: IdsOption = False,
) -> None:
    """Show the rows of a set, with their labels.

    With --json the set is one object, with who gave each label and when.

    Example: retr sets show "to discuss"
    """
    out = Output(json_=json_, csv_=csv_, paths=paths, paths0=paths0, ids=ids)
    opened = _opened(index)
    found = opened.sets[name]
    if json_:
        out.record(found.to_json())
        return
    rows: list[dict[str, Any]] = [{"id": row, "labels": list(found.labels.get(row, ()))} for row in found.ids]
    if out.form == "paths":
        from retr.retrieval.archive.locations import file_places

        rows = [{"path": place} for place in file_places(opened.store, [_path(opened, row["id"]) for row in rows])]
    out.rows(rows)
    _note(out, found)


@unfold
def add(
    name: NameArgument,
    ids: IdsArgument = None,
    *,
    index: IndexOption = None,
    where: WhereOption = None,
    note: Annotated[str | None, typer.Option("--note", help="About the set; replaces an earlier one.")] = None,
    author: AuthorOption = None,
    json_: JsonOption = False,
) -> None:
    """Put rows into a set.

    The set is made where there is none of the name. It is saved at once, also while a build is at work.

    Example: retr query --image eye.png --ids | retr sets add "to discuss" -
    """
    out = Output(json_=json_)
    opened = _opened(index)
    found = opened.sets.save(name, _rows(opened, ids, where), author=author, note=note)
    out.record({"name": found.name, "rows": len(found)})


@unfold
def label(
    name: NameArgument,
    text: Annotated[str, typer.Argument(metavar="LABEL", help="The label.")],
    ids: IdsArgument = None,
    *,
    index: IndexOption = None,
    where: WhereOption = None,
    remove_: Annotated[bool, typer.Option("--remove", help="Take the label away, whoever gave it.")] = False,
    author: AuthorOption = None,
    json_: JsonOption = False,
) -> None:
    """Label rows of a set, or take a label away.

    Rows that are not in the set join it. The index's own columns stay as they are.

    Example: retr sets label "to discuss" "glaucoma?" P07/left.png
    """
    out = Output(json_=json_)
    opened = _opened(index)
    rows = _rows(opened, ids, where)
    if remove_:
        opened.sets.unlabel(rows, text, set=name, author=author)
    else:
        opened.sets.label(rows, text, set=name, author=author)
    out.record({"name": name, "label": text, "rows": len(rows), "removed": remove_})


@unfold
def reopen(
    name: NameArgument, *, index: IndexOption = None, json_: JsonOption = False, csv_: CsvOption = False
) -> None:
    """Ask the question of a set again, and say what is new.

    Example: retr sets reopen "to discuss"
    """
    out = Output(json_=json_, csv_=csv_)
    found = _opened(index).sets.reopen(name)
    fresh = set(found.new)
    columns = ["rank", "score", "new", "id"]
    out.rows([{**hit.to_json(), "new": hit.id in fresh} for hit in found.hits], columns)
    out.note(f"{len(fresh)} of {len(found.hits)} were not in the answer when it was saved")
    if found.hits.note:
        out.note(found.hits.note)


@unfold
def export(
    name: NameArgument,
    path: Annotated[Path, typer.Argument(help="A .csv or .parquet file, or a folder to be made.")],
    *,
    index: IndexOption = None,
    json_: JsonOption = False,
) -> None:
    """Write a set as a table, or as a folder of copies.

    A table has the index's columns and the set's labels. A folder has copies of the rows' files and such a table.
    In CSV a text that a spreadsheet would take for a formula has ' before it; Parquet holds it as it is.

    Example: retr sets export "to discuss" discuss.csv
    """
    out = Output(json_=json_)
    rows = _opened(index).sets.export(name, path)
    out.record({"rows": rows, "path": str(path)})


@unfold
def remove(
    name: NameArgument,
    ids: IdsArgument = None,
    *,
    index: IndexOption = None,
    yes: YesOption = False,
    author: AuthorOption = None,
    json_: JsonOption = False,
) -> None:
    """Take rows out of a set, or the set away.

    Rows stay in the index. Their labels in the set go with them.

    Example: retr sets rm "to discuss" P07/left.png
    """
    out = Output(json_=json_)
    opened = _opened(index)
    if ids:
        opened.sets.remove(name, _rows(opened, ids, None), author=author)
    else:
        found = opened.sets[name]
        if not yes:
            confirm(f"Take away {name!r}, {len(found)} rows with {len(found.given)} labels?")
        opened.sets.remove(name, author=author)
    out.record({"name": name, "rows": len(ids or ()), "dropped": not ids})


def _path(opened: Index, row: str) -> str:
    return opened[row].get("path") or row


def _opened(index: Path | None) -> Index:
    from retr.retrieval.index import Index

    return Index.open(find_index(index))


def _rows(opened: Index, ids: list[str] | None, where: str | None) -> list[str]:
    if (not ids) == (where is None):
        raise UsageError("rows are named by their ids or by --where", hint="give one of them")
    if where is not None:
        found: list[str] = opened.table(["id"], where=where)["id"].to_pylist()
        return found
    if ids == ["-"]:
        return names_in(read_input())
    return list(ids or ())


def _note(out: Output, found: NamedSet) -> None:
    if found.note:
        out.note(found.note)
    if found.missing:
        out.note(f"{len(found.missing)} rows of the set are not in the index any more")
    if found.changed:
        out.note(
            f"{len(found.changed)} rows have another file than the one that was put in: {', '.join(found.changed[:5])}"
        )
