"""``retr index duplicates`` and ``retr index leaks``: find rows with the same picture, and those that cross a split."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import TYPE_CHECKING, Annotated

import typer

from retr.cli._errors import NOTHING_FOUND
from retr.cli._loudness import quiet
from retr.cli._options import GroupOption, IndexOption, JsonOption, LoadOptions, find_index, unfold
from retr.cli._output import Output
from retr.index.errors import UsageError

if TYPE_CHECKING:
    from retr.retrieval.audit.duplicates import Duplicates

ThresholdOption = Annotated[
    float | None,
    typer.Option("--threshold", help="Cosine above which a pair is a candidate; measured on the index by default."),
]
ExactOption = Annotated[
    bool, typer.Option("--exact-only", help="Compare bytes only; needs neither archive nor encoder.")
]
GeometryOption = Annotated[
    bool,
    typer.Option("--geometry", help="Find crops and turned copies, too: half a second of a processor a picture."),
]
PairsOption = Annotated[
    int,
    typer.Option("--pairs", metavar="N", min=1, help="List at most so many pairs across a border; all are counted."),
]


@unfold
def duplicates(
    *,
    index: IndexOption = None,
    group: GroupOption = None,
    threshold: ThresholdOption = None,
    exact_only: ExactOption = False,
    geometry: GeometryOption = False,
    across: Annotated[bool, typer.Option("--across", help="Only pairs of different patients.")] = False,
    pairs: PairsOption = 1000,
    loading: LoadOptions,
    json_: JsonOption = False,
) -> None:
    """List rows that show the same picture.

    They have the same bytes, or one is a copy or a mirror image of the other, confirmed by a perceptual hash. Crops and
    turned copies are found with --geometry only. With --across copies of copies count, too: all pairs of different
    patients are listed that are connected through copies.

    Example: retr index duplicates --across
    """
    from dataclasses import asdict

    from retr.retrieval.index import Index

    out = Output(json_=json_)
    asked = {"exact_only": exact_only, "geometry": geometry, "progress": geometry and not json_ and not quiet()}
    opened = Index.open(find_index(index), **loading.options)
    if across and group is None and opened.store.manifest.group is None:
        raise UsageError(
            "no column says whose a picture is, so no pair is known to cross",
            hint="name one with --group, or declare it with `retr index group COLUMN`",
        )
    found = opened.duplicates(group=group, threshold=threshold, **asked, limit=pairs)
    shown = found.crossing if across else found.pairs
    out.rows([asdict(pair) for pair in shown])
    if across:
        out.note(f"{found.n_crossing} pairs of different patients show one picture")
        _say_more(out, len(shown), found.n_crossing)
    else:
        exact = sum(pair.kind == "exact" for pair in shown)
        laid = sum(pair.kind in {"crop", "rotated"} for pair in shown)
        more = f", {laid} crops and turned copies" * (found.overlaid is not None)
        near = len(shown) - exact - laid
        out.note(f"{exact} exact and {near} near duplicates{more}: {len(found.clusters)} pictures stand twice")
        if mirrored := sum(pair.kind == "mirrored" or "mirrored" in (pair.how or "") for pair in shown):
            out.note(f"{mirrored} of these pairs are mirror images: one of the two may be filed as the wrong side")
    _say_how(out, found)
    if not shown:
        raise typer.Exit(NOTHING_FOUND)


def _say_how(out: Output, found: Duplicates) -> None:
    """Print how near duplicates were found, and what was not looked at."""
    if found.threshold is not None:
        out.note(f"{found.candidates} pairs of cosine at least {found.threshold:.3f} were compared by perceptual hash")
    if found.overlaid is not None:
        out.note(f"{found.overlaid} pairs were compared by where their keypoints lie")
    if found.plain:
        out.note(f"{found.plain} rows have too little structure to be found as a crop or a turned copy")
    if found.stopped:
        out.note(f"of {found.stopped} rows only the nearest candidates were compared, none of which was a copy")
    if found.unhashed:
        out.note(f"{found.unhashed} rows have no hash of their bytes and were not compared")
    if found.unreadable:
        out.note(f"{found.unreadable} rows could not be read again, or have another file by now, and were not compared")
    if found.note:
        out.note(f"candidates were searched for: {found.note}")


def _say_more(out: Output, shown: int, count: int) -> None:
    if shown < count:
        out.note(f"{count - shown} more pairs: --pairs {count} lists them")


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
    geometry: GeometryOption = False,
    pairs: PairsOption = 1000,
    loading: LoadOptions,
    json_: JsonOption = False,
) -> None:
    """List patients and duplicates that cross a train/test split.

    Copies of copies are one picture, also through rows in no part. Patients who share a picture may be one person: sets
    of them whose other rows cross are listed, too. The exit code is 1 when there is anything.

    Example: retr index leaks --split split --group patient
    """
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    asked = {"exact_only": exact_only, "geometry": geometry, "progress": geometry and not json_ and not quiet()}
    opened = Index.open(find_index(index), **loading.options)
    crossing = opened.leaks(split, group=group, threshold=threshold, **asked, limit=pairs)
    patients = group is not None or opened.store.manifest.group is not None
    rows = [
        {"kind": "patient", "a": value, "b": None, "parts": ", ".join(f"{part} {n}" for part, n in counts.items())}
        for value, counts in crossing.groups.items()
    ]
    rows += [
        {"kind": "patients of one picture", "a": a, "b": b, "parts": _of_two(linked[a], linked[b])}
        for linked in crossing.linked
        for a, b in pairwise(linked)
    ]
    rows += [
        {"kind": pair.kind, "a": pair.a, "b": pair.b, "parts": f"{first}, {second}"}
        for pair, first, second in crossing.pairs
    ]
    out.rows(rows)
    if not patients:
        out.note("no column says whose a picture is: only duplicates were looked for; name one with --group")
    parts = [f"{n} {part!r}" for part, n in islice(crossing.parts.items(), 10)]
    more = len(crossing.parts) - len(parts)
    out.note(f"rows of {split!r}: {', '.join([*parts, *([f'{more} more parts'] if more else [])]) or 'in no part'}")
    for warning in crossing.warnings:
        out.note(warning)
    if crossing.without_part:
        out.note(f"{crossing.without_part} rows have no {split!r}: they are in no part")
    if crossing.without_group:
        out.note(f"{crossing.without_group} rows do not say whose they are: only their duplicates were looked for")
    _say_how(out, crossing.duplicates)
    if crossing.linked:
        out.note(f"{len(crossing.linked)} sets of patients who share a picture cross {split!r}: one person each, maybe")
    out.note(f"{f'{len(crossing.groups)} patients and ' * patients}{crossing.n_pairs} duplicates cross {split!r}")
    _say_more(out, len(crossing.pairs), crossing.n_pairs)
    if crossing:
        raise typer.Exit(1)


def _of_two(one: dict[str, int], other: dict[str, int]) -> str:
    """Return the parts of two patients."""
    return "; ".join(", ".join(f"{part} {n}" for part, n in counts.items()) or "no part" for counts in (one, other))
