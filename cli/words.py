"""``retr index words`` and ``retr eval text``: text columns, kept for search by words and measured against pictures."""

from __future__ import annotations

from typing import Annotated

import typer

from retr.cli._options import GroupOption, IndexOption, JsonOption, LoadOptions, WhereOption, find_index, unfold
from retr.cli._output import Output
from retr.index.errors import UsageError


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


@unfold
def text(
    *,
    column: Annotated[str, typer.Option("--column", help="The column of texts, e.g. captions or findings.")],
    separator: Annotated[
        str | None, typer.Option("--separator", metavar="SEPARATOR", help="Joins several texts of one row, e.g. '||'.")
    ] = None,
    index: IndexOption = None,
    k: Annotated[str, typer.Option("-k", help="Depths, separated by commas.")] = "1,5,10",
    group: GroupOption = None,
    where: WhereOption = None,
    loading: LoadOptions,
    json_: JsonOption = False,
) -> None:
    """Measure how well pictures find their own texts, and texts their own pictures.

    Recall@k both ways, with intervals over patients, by the encoder's text side or the bridge of `retr align`.
    Rows that the bridge was fitted on take no part.

    Example: retr eval text --column captions --separator "||"
    """
    from retr.retrieval.index import Index

    depths = [part.strip() for part in k.split(",")]
    if not all(part.isascii() and part.isdigit() for part in depths):
        raise UsageError(f"-k takes depths separated by commas, got: {k!r}", hint="for example 1,5,10")
    opened = Index.open(find_index(index), **loading.options)
    found = opened.evaluate_text(column, separator=separator, where=where, k=list(map(int, depths)), group=group)
    out = Output(json_=json_)
    if out.form == "json":
        out.record(found.to_json())
        return
    for note in found.notes:
        out.note(note)
    out.record({"rows": found.rows, "texts": found.texts, "patients": found.patients})
    out.line("")
    ways = (("image to text", found.image_to_text), ("text to image", found.text_to_image))
    out.rows(
        [
            {"measure": f"{way}, recall@{depth}", "value": one.value, "low": one.low, "high": one.high, "n": one.n}
            for way, by_depth in ways
            for depth, one in by_depth.items()
        ]
    )
