"""``retr index words``, ``retr eval text`` and ``retr eval graded``: texts kept for search, and measured as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retr.cli._options import (
    GroupOption,
    IndexOption,
    JsonOption,
    LoadOptions,
    WhereOption,
    column_names,
    find_index,
    unfold,
)
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

    depths = _depths(k)
    opened = Index.open(find_index(index), **loading.options)
    found = opened.evaluate_text(column, separator=separator, where=where, k=depths, group=group)
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


@unfold
def graded(
    qrels: Annotated[Path, typer.Argument(metavar="QRELS", help="Judgements, a line each: QUESTION 0 ROW GRADE.")],
    *,
    questions: Annotated[
        Path | None,
        typer.Option("--questions", metavar="FILE", help="Texts of the questions, a line each: QUESTION, tab, TEXT."),
    ] = None,
    index: IndexOption = None,
    k: Annotated[str, typer.Option("-k", help="Depths, separated by commas.")] = "5,10",
    group: GroupOption = None,
    where: WhereOption = None,
    in_: Annotated[
        str | None, typer.Option("--in", metavar="COLUMN", help="Look for the words of the questions in text columns.")
    ] = None,
    loading: LoadOptions,
    json_: JsonOption = False,
) -> None:
    """Measure search against graded judgements in TREC's form, by nDCG.

    Questions are rows of the index, by their ids, whose own patient does not answer; or texts.

    Example: retr eval graded judged.qrels --questions questions.tsv --in findings
    """
    from retr.retrieval.index import Index

    depths = _depths(k)
    opened = Index.open(find_index(index), **loading.options)
    asked = {"where": where, "in_": None if in_ is None else column_names(in_)}
    found = opened.evaluate_graded(qrels, questions=questions, k=depths, group=group, **asked)
    out = Output(json_=json_)
    if out.form == "json":
        out.record(found.to_json())
        return
    for note in found.notes:
        out.note(note)
    out.record({"questions": found.questions, "judged": found.judged})
    out.line("")
    out.rows(
        [
            {"measure": f"nDCG@{k}", "value": one.value, "low": one.low, "high": one.high}
            for k, one in found.ndcg.items()
        ]
    )


def _depths(given: str) -> list[int]:
    parts = [part.strip() for part in given.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"-k takes depths separated by commas, got: {given!r}", hint="for example 1,5,10")
    return list(map(int, parts))
