"""``retr query`` and ``retr show``: search an index, and read a row's picture from its archive."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retr.cli._errors import NOTHING_FOUND
from retr.cli._options import (
    CsvOption,
    IdsOption,
    IndexOption,
    JsonOption,
    LinkOption,
    LoadOptions,
    Paths0Option,
    PathsOption,
    SafeCsvOption,
    ShardOptions,
    SheetOption,
    ThumbnailsOption,
    find_index,
    unfold,
)
from retr.cli._output import Output, given_picture, read_input
from retr.index.errors import UsageError
from retr.index.machine.home import home
from retr.index.options import declared
from retr.retrieval.search_options import SearchOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image

    from retr.index.store import Store
    from retr.retrieval.hits import Hits
    from retr.retrieval.index import Index
    from retr.retrieval.query import Query

# what a table shows of a hit unless --columns says otherwise: names that archives commonly have
DEFAULT_COLUMNS = ["label", "patient", "age", "sex", "folder"]
# what a line of a batch may have, and options that it cannot have; a key that is nearly one must not be passed over
OF_A_LINE = {"image", "text", "not", "id", "vector", "weight", "region", "exclude_same", "like", "unlike"}
OF_THE_BATCH = declared(SearchOptions).keys() - OF_A_LINE


@unfold
def query(
    *,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            "-i",
            help="An image file, its https:// address, or - for standard input; repeats: one query each, with --item "
            "one of all. With --item also the folder of a series.",
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            "-t",
            help='Words; "2:drusen" (a letter after the colon) gives them weight 2; repeats: all are mixed in.',
        ),
    ] = None,
    not_: Annotated[list[str] | None, typer.Option("--not", help="Words to move away from; repeats.")] = None,
    id_: Annotated[
        list[str] | None, typer.Option("--id", help="An indexed row, with --item also a case; repeats as --image does.")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            "--region",
            metavar="X,Y,W,H",
            help="Ask with this part of each --image and --id: pixels of the upright picture, or shares of at most 1.",
        ),
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option("--like", metavar="ID", help="More like this row, which was right; repeats.")
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option("--unlike", metavar="ID", help="Less like this row, which was wrong; repeats.")
    ] = None,
    batch: Annotated[
        str | None, typer.Option("--batch", help="JSON lines of queries, from a file or - for standard input.")
    ] = None,
    index: IndexOption = None,
    asked: SearchOptions,
    sheet: SheetOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="In the sheet, show which parts of each hit match the query.")
    ] = False,
    link: LinkOption = None,
    loading: LoadOptions,
    shards: ShardOptions,
    json_: JsonOption = False,
    csv_: CsvOption = False,
    safe_csv: SafeCsvOption = False,
    paths: PathsOption = False,
    paths0: Paths0Option = False,
    ids: IdsOption = False,
    thumbnails: ThumbnailsOption = None,
) -> None:
    """Find the images most like an image, words, a row, or a mix.

    Several --image and --id are several queries, one answer each; all --text and --not are mixed into every one of
    them, and all --like and --unlike refine each. The query's own row, marked rows and their byte-identical copies are
    left out unless --include-self is given.

    Example: retr query --image x.png -k 5 --where "age >= 60" --exclude-same patient=P17
    """
    from retr.retrieval.exclude import both
    from retr.retrieval.index import Index

    out = Output(json_=json_, csv_=csv_, safe_csv=safe_csv, paths=paths, paths0=paths0, ids=ids)
    if explain and sheet is None:
        raise UsageError("--explain is shown in a sheet", hint="add --sheet out.html")
    if explain and asked.item is not None:
        raise UsageError("--explain is of one picture, and --item asks with all parts of a case", hint="leave one out")
    asked_of = image or [], text or [], not_ or [], id_ or []
    queries, same = _queries(out, *asked_of, batch, (like or [], unlike or []), one=asked.item is not None)
    left_out = [both(asked.exclude_same or {}, own) for own in same]  # type: ignore[arg-type]
    if region is not None:
        if batch is not None:
            hint = 'put it into a line: {"image": "x.png", "region": [0, 0, 64, 64]}'
            raise UsageError("--region is of --image and --id", hint=hint)
        queries = [one.cut(region) for one in queries]
    opened = Index.open(find_index(index), **loading.options, **shards.options)
    shown = _shown(out, asked.columns, opened.store)
    wanted = replace(
        asked,
        exclude_same=left_out if any(left_out) else None,
        # of JSON, and of a sheet, all is read
        columns=shown if sheet is None and out.form != "json" else None,
    )
    found = opened.search(queries, **wanted.by_name())
    if sheet is not None:
        from retr.retrieval import sheet as sheets

        sheets.write(sheets.make(opened, queries, found, explained=explain), sheet)
        out.note(f"sheet written to {sheet}")
    for asked_with, hits in zip(queries, found, strict=False):
        out.pictures(lambda: _pictures(opened, asked_with, hits), thumbnails)  # noqa: B023 - called at once
        links = _links(out, opened, hits.ids, link)
        if out.form == "paths":
            from retr.retrieval.archive.locations import file_places

            out.rows([{"path": place} for place in file_places(opened.store, hits.paths)])
            if hits.note:
                out.note(hits.note)
            continue
        _print(out, hits, shown, several=len(found) > 1, links=links, excerpts=_excerpts(out, opened, hits))
    if not any(len(hits) for hits in found):
        high = "" if asked.min_score is None else f", or none of those scores {asked.min_score:g} or more"
        after = f" after the first {asked.offset}" if asked.offset else ""
        has = "" if asked.in_ is None else " and holds one of the words"
        out.note(f"nothing found: no row is allowed by the conditions{has}{after}{high}")
        raise typer.Exit(NOTHING_FOUND)


def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The id of a row.")],
    *,
    index: IndexOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the picture itself, read out of its archive, to this file.")
    ] = None,
    link: LinkOption = None,
    thumbnails: ThumbnailsOption = None,
    json_: JsonOption = False,
) -> None:
    """Show everything an index holds of one row.

    With --out also get the picture back out of the archive.

    Example: retr show glaucoma/05_g.jpg --out found.png
    """
    from retr.retrieval.hits import free_name
    from retr.retrieval.index import Index

    opened = Index.open(find_index(index))
    printer = Output(json_=json_)
    row = opened.row(id_)
    printer.pictures(lambda: [_picture(opened, id_)], thumbnails)
    if out is not None:
        _save(opened.picture(id_).image, out)
    if printer.form == "table":
        # for a person, with their units
        row["size"] = f"{row['size']} bytes" if row.get("size") is not None else None
        if row.get("mtime") is not None:
            row["mtime"] = dt.datetime.fromtimestamp(row["mtime"]).astimezone().isoformat(" ", "seconds")
    if link is not None:
        row[free_name("link", row)] = _links(printer, opened, [id_], link)[id_]
    printer.record(row)
    if out is not None:
        printer.note(f"picture written to {out}")


def _pictures(index: Index, query: Query, hits: Hits) -> list[Image | None]:
    from retr.cli import _inline

    return _inline.of_hits(index, query, hits)


def _picture(index: Index, row: str) -> Image | None:
    from retr.cli import _inline

    return _inline.of_row(index, row)


def _save(picture: Image, out: Path) -> None:
    import io

    from PIL import Image

    from retr.index.machine.whole_file import write_output

    form = Image.registered_extensions().get(out.suffix.lower())
    if form not in Image.SAVE:
        hint = "end its name in .png, .jpg or .tif"
        raise UsageError(f"no kind of picture is called {out.name!r}", hint=hint)
    data = io.BytesIO()
    picture.save(data, form)
    write_output(home(out), data.getvalue())


def _queries(
    out: Output,
    images: list[str],
    texts: list[str],
    nots: list[str],
    ids: list[str],
    batch: str | None,
    marks: tuple[list[str], list[str]],
    *,
    one: bool,
) -> tuple[list[Query], list[dict[str, Any]]]:
    """One query for each image and id, with all words mixed in; or the lines of a batch, with what they leave out.

    ``one``: all images and ids are parts of one query.
    """
    from retr.retrieval.query import Query

    if batch is not None:
        if images or texts or nots or ids or any(marks):
            what = "--batch excludes --image, --text, --not, --id, --like and --unlike"
            raise UsageError(what, hint="put them into its lines")
        lines, same = _read_batch(batch)
        parts = [part for line in lines for part in line.parts if part.kind == "text"]
        literal = next((part for part in parts if part.weight_hint()), None)
        if literal is not None:
            out.note(f"the text {literal.value!r} of the batch is taken as it stands; {literal.weight_hint()}")
        return lines, same
    asked = [Query.id(id_) for id_ in ids]
    asked += [_weighted(out, "image", image) for image in images]
    words = [_weighted(out, kind, term) for kind, terms in (("text", texts), ("not", nots)) for term in terms]
    if not (asked or words or marks[0]):
        raise UsageError("nothing was asked", hint="give --image, --text, --id, --like or --batch")
    mixed = Query(tuple(part for term in words for part in term.parts))
    if one:
        asked = [Query(tuple(part for term in asked for part in term.parts))]
    asked = [(query + mixed).refine(like=marks[0], unlike=marks[1]) for query in asked or [Query(())]]
    return asked, [{} for _ in asked]


def _weighted(out: Output, kind: str, argument: str) -> Query:
    """Read an argument that may begin with a weight, and say so where it does."""
    from retr.retrieval.query import Query

    query = Query.weighted(kind, argument)
    (part,) = query.parts
    if part.value not in {argument, home(argument)}:
        weight = -part.weight if kind == "not" else part.weight
        out.note(f"--{kind} {argument!r}: weight {weight:g} for {str(part.value)!r}")
    if kind == "image" and (data := given_picture(str(part.value))) is not None:
        return Query.image(data) * part.weight
    return query


def _contents(batch: Path) -> bytes:
    from retr.retrieval.regular_files import NotRegularError, open_regular

    try:
        with open_regular(batch) as stream:
            return stream.read()
    except NotRegularError:
        raise UsageError(
            f"the batch {str(batch)!r} is not a regular file", hint="give a file, or - for standard input"
        ) from None


def _read_batch(batch: str) -> tuple[list[Query], list[dict[str, Any]]]:
    import json

    from retr.retrieval.query import Query

    data = read_input() if batch == "-" else _contents(home(batch))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError("the batch is not UTF-8", hint="write it as UTF-8, one JSON object a line") from error
    queries: list[Query] = []
    same: list[dict[str, Any]] = []
    # JSON may hold other line separators inside its strings
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise UsageError(
                    f"line {number} of the batch is no JSON: {error.msg} at column {error.colno}"
                ) from error
            except (ValueError, RecursionError) as error:
                raise UsageError(f"line {number} of the batch holds too long a number or too deep a list") from error
            if not isinstance(record, dict):
                raise UsageError(f"line {number} of the batch is no object, got: {line.strip()[:40]!r}")
            _require_keys(record, number)
            queries.append(Query.from_json(record))
            own = record.get("exclude_same") or {}
            if not isinstance(own, str | dict):
                raise UsageError(
                    f"'exclude_same' in line {number} of the batch must be a column or an object, got: {own!r}",
                    hint='for example {"image": "x.png", "exclude_same": {"COLUMN": "VALUE"}}',
                )
            same.append({own: None} if isinstance(own, str) else own)
    if not queries:
        raise UsageError("the batch is empty", hint='one query a line, e.g. {"image": "x.png"}')
    return queries, same


def _require_keys(record: dict[str, Any], number: int) -> None:
    """Refuse a key that is an option of the whole batch, or differs from ours by its case or a hyphen."""
    ours = {key.replace("_", ""): key for key in OF_A_LINE | OF_THE_BATCH}
    for key in (key for key in record if key not in OF_A_LINE):
        meant = ours.get(re.sub("[-_ ]", "", key).lower())
        line = f"line {number} of the batch has {key!r}"
        if meant in OF_THE_BATCH:
            option = "-k" if meant == "k" else f"--{meant.strip('_').replace('_', '-')}"
            raise UsageError(f"{line}, which is asked of the whole batch", hint=f"give {option}, or rename the key")
        if meant is not None:
            raise UsageError(f"{line}, which would not be looked at", hint=f"write {meant!r}, or rename the key")


def _shown(out: Output, columns: Sequence[str] | None, store: Store) -> list[str] | None:
    """Return the columns that are shown: those asked for, else of a table those of `DEFAULT_COLUMNS`; None for all."""
    if columns is None:
        if out.form == "table":
            return [name for name in DEFAULT_COLUMNS if name in store.schema.names]
        return [] if out.form in {"paths", "ids"} else None
    for name in columns:
        store.columns.require(name)
    return list(columns)


def _links(out: Output, index: Index, ids: Sequence[str], template: str | None) -> dict[str, str | None]:
    """Return where each row's study is to be seen; nothing where it is not asked."""
    if template is None:
        return {}
    links = dict(zip(ids, index.links(ids, template), strict=True))
    without = sum(link is None for link in links.values())
    if without:
        out.note(f"{without} of {len(links)} have no link: build with --keep-identifiers on this machine")
    return links


def _excerpts(out: Output, index: Index, hits: Hits) -> list[str]:
    """Return lines that show where the words of a question stand in the hits' texts, for a table."""
    if hits.highlights is None or out.form != "table":
        return []
    from retr.retrieval.words.excerpts import excerpts

    return [f"{rank:>4}  {text}" for rank, text in excerpts(index.store, hits)]


def _print(
    out: Output,
    hits: Hits,
    columns: list[str] | None,
    *,
    several: bool,
    links: Mapping[str, str | None],
    excerpts: Sequence[str] = (),
) -> None:
    """One JSON object a query; a table with a title when there are several; ``None`` for all columns."""
    from retr.retrieval.hits import free_name, shown_names

    link = free_name("link", hits.metadata.column_names)
    linked = [{link: links[hit.id]} if links else {} for hit in hits]
    if out.form == "json":
        answer = hits.to_json()
        out.record({**answer, "hits": [{**hit, **own} for hit, own in zip(answer["hits"], linked, strict=True)]})
        return
    rows = [{**hit.to_json(), **own} for hit, own in zip(hits, linked, strict=True)]
    fixed = ["rank", "score", "id"]
    if hits.cases is not None:
        case = free_name("case", hits.metadata.column_names)
        rows = [{**row, case: name} for row, name in zip(rows, hits.cases, strict=True)]
        fixed = ["rank", "score", case, "id"]
    if hits.regions is not None:
        place = free_name("region", hits.metadata.column_names)
        rows = [{**row, place: ",".join(map(str, box))} for row, box in zip(rows, hits.regions, strict=True)]
        fixed = [*fixed, place]
    if several and out.form == "csv":
        rows = [{"query": hits.query, **row} for row in rows]
        fixed = ["query", *fixed]
    names = shown_names(hits.metadata.column_names)
    asked = hits.metadata.column_names if columns is None else columns
    title = hits.query if several else None
    shown = [*fixed, *(names[column] for column in asked if column != "id")]
    out.rows(rows, [*shown, link] if links and out.form == "csv" else shown, title=title)
    if links and out.form == "table":
        # too long for a table
        for row in rows:
            out.line(f"{row['rank']:>4}  {row[link] or '-'}")
    for line in excerpts:
        out.line(line)
    if hits.note:
        out.note(hits.note)
