"""``retr index duplicates`` and ``retr index leaks``: which rows show the same picture, and which cross a split."""

from __future__ import annotations

from typing import Annotated

import typer

from retr.cli._errors import NOTHING_FOUND
from retr.cli._options import GroupOption, IndexOption, JsonOption, LoadOptions, find_index, unfold
from retr.cli._output import Output

ThresholdOption = Annotated[
    float | None,
    typer.Option("--threshold", help="Cosine above which a pair is a candidate; measured on the index by default."),
]
ExactOption = Annotated[
    bool, typer.Option("--exact-only", help="Compare bytes only; needs neither archive nor encoder.")
]


@unfold
def duplicates(
    *,
    index: IndexOption = None,
    group: GroupOption = None,
    threshold: ThresholdOption = None,
    exact_only: ExactOption = False,
    across: Annotated[bool, typer.Option("--across", help="Only pairs of different patients.")] = False,
    loading: LoadOptions,
    json_: JsonOption = False,
) -> None:
    """List rows that show the same picture.

    They have the same bytes, or one is a copy of the other, confirmed by a perceptual hash.

    Example: retr index duplicates --across
    """
    from dataclasses import asdict

    from retr.retrieval.engine import Index

    out = Output(json_=json_)
    opened = Index.open(find_index(index), **loading.options)
    found = opened.duplicates(group=group, threshold=threshold, exact_only=exact_only)
    shown = [pair for pair in found.pairs if pair.across or not across]
    out.rows([asdict(pair) for pair in shown])
    exact = sum(pair.kind == "exact" for pair in shown)
    out.note(f"{exact} exact and {len(shown) - exact} near duplicates")
    if found.threshold is not None:
        out.note(f"{found.candidates} pairs of cosine at least {found.threshold:.3f} were compared by perceptual hash")
    if found.unreadable:
        out.note(f"{found.unreadable} rows could not be read again and were not compared")
    if not shown:
        raise typer.Exit(NOTHING_FOUND)


@unfold
def leaks(
    *,
    split: Annotated[
        str, typer.Option("--split", help="The column that names each row's part, such as train and test.")
    ],
    index: IndexOption = None,
    group: GroupOption = None,
    threshold: ThresholdOption = None,
    exact_only: ExactOption = False,
    loading: LoadOptions,
    json_: JsonOption = False,
) -> None:
    """List patients and duplicates that cross a train/test split.

    The exit code is 1 when there are any.

    Example: retr index leaks --split split --group patient
    """
    from retr.retrieval.engine import Index

    out = Output(json_=json_)
    opened = Index.open(find_index(index), **loading.options)
    crossing = opened.leaks(split, group=group, threshold=threshold, exact_only=exact_only)
    rows = [
        {"kind": "patient", "a": value, "b": None, "parts": ", ".join(f"{part} {n}" for part, n in counts.items())}
        for value, counts in crossing.groups.items()
    ]
    rows += [
        {"kind": pair.kind, "a": pair.a, "b": pair.b, "parts": f"{first}, {second}"}
        for pair, first, second in crossing.pairs
    ]
    out.rows(rows)
    if group is None and opened.store.manifest.group is None:
        out.note("no column tells patients apart: only duplicates were looked for; name one with --group")
    if crossing.without_part:
        out.note(f"{crossing.without_part} rows have no {split!r}: they are in no part")
    if crossing.without_group:
        out.note(f"{crossing.without_group} rows do not say whose they are: only their duplicates were looked for")
    out.note(f"{len(crossing.groups)} patients and {len(crossing.pairs)} duplicates cross {split!r}")
    if rows:
        raise typer.Exit(1)
