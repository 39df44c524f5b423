"""``retr index outliers``, ``suspects``, ``sample``: what is wrong in an archive, and what to annotate first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retr.cli._options import (
    CsvOption,
    GroupOption,
    IndexOption,
    JsonOption,
    LabelOption,
    SafeCsvOption,
    SeparatorOption,
    SheetOption,
    WhereOption,
    find_index,
    unfold,
)
from retr.cli._output import Output

if TYPE_CHECKING:
    from retr.retrieval.curation.findings import Findings
    from retr.retrieval.index import Index

CountOption = Annotated[int, typer.Option("--n", "-n", min=1, help="So many rows at most.")]


@unfold
def outliers(
    *,
    index: IndexOption = None,
    n: CountOption = 50,
    where: WhereOption = None,
    sheet: SheetOption = None,
    json_: JsonOption = False,
    csv_: CsvOption = False,
    safe_csv: SafeCsvOption = False,
) -> None:
    """List the rows that are most unlike the archive.

    Novelty is 1 less the mean cosine of the ten nearest rows of other patients: a patient's own other pictures do not
    make a row look ordinary.

    Example: retr index outliers --n 30 --sheet outliers.html
    """
    out, opened = Output(json_=json_, csv_=csv_, safe_csv=safe_csv), _opened(index)
    _show(out, opened, opened.outliers(n, where=where), sheet)


@unfold
def suspects(
    *,
    label: LabelOption,
    index: IndexOption = None,
    n: CountOption = 50,
    separator: SeparatorOption = None,
    group: GroupOption = None,
    where: WhereOption = None,
    sheet: SheetOption = None,
    json_: JsonOption = False,
    csv_: CsvOption = False,
    safe_csv: SafeCsvOption = False,
) -> None:
    """List the rows whose label is most likely wrong.

    Each row is judged by other patients' rows (confident learning), and the nearest that carry the likely label are
    listed as evidence.

    Example: retr index suspects --label label --sheet suspects.html
    """
    out, opened = Output(json_=json_, csv_=csv_, safe_csv=safe_csv), _opened(index)
    found = opened.suspects(label, n, separator=separator, group=group, where=where)
    _show(out, opened, found, sheet)
    out.note(
        f"{found.facts['confident']} of {found.facts['rows']} labels are counted as wrong by confident learning; "
        f"{found.facts['classes']} classes"
    )


@unfold
def sample(
    *,
    index: IndexOption = None,
    n: CountOption = 100,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            help="diverse: every kind, the odd ones first; coverage: the frequent kinds first; uncertain: where a fit "
            "on the labelled rows is least sure.",
        ),
    ] = "diverse",
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="COLUMN", help="The column to fill: rows with a value are done."),
    ] = None,
    separator: SeparatorOption = None,
    where: WhereOption = None,
    sheet: SheetOption = None,
    json_: JsonOption = False,
    csv_: CsvOption = False,
    safe_csv: SafeCsvOption = False,
) -> None:
    """Choose the rows to annotate first.

    A second row of a patient comes after a first of every other. The same index gives the same rows.

    Example: retr index sample --n 100 --strategy coverage --csv
    """
    out, opened = Output(json_=json_, csv_=csv_, safe_csv=safe_csv), _opened(index)
    found = opened.sample(n, strategy=strategy, label=label, separator=separator, where=where)  # type: ignore[arg-type]
    _show(out, opened, found, sheet)
    if len(found) < n:
        out.note(f"no more than {len(found)} rows are there to choose")


def _opened(index: Path | None) -> Index:
    from retr.retrieval.index import Index

    return Index.open(find_index(index))


def _show(out: Output, opened: Index, found: Findings, sheet: Path | None) -> None:
    """Print what was found, and write its pictures where that was asked for."""
    out.rows(found.records)
    for note in found.notes:
        out.note(note)
    if sheet is not None:
        from retr.retrieval.sheet import of_findings, write

        write(of_findings(opened, found), sheet)
        out.note(f"pictures written to {sheet}")
