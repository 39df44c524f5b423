"""``retr index``: create, inspect and change an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from retr.cli._errors import NOTHING_FOUND
from retr.cli._loudness import quiet
from retr.cli._options import (
    IndexOption,
    JsonOption,
    LoadOptions,
    WhereOption,
    YesOption,
    as_typer,
    find_index,
    unfold,
)
from retr.cli._output import Output, confirm
from retr.index.options import declared
from retr.retrieval.ingest.options import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Sequence


def delete(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of rows to delete.")] = None,
    *,
    index: IndexOption = None,
    where: WhereOption = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Rewrite every file, so that nothing of the rows remains on disk.")
    ] = False,
    yes: YesOption = False,
    json_: JsonOption = False,
) -> None:
    """Delete rows by id or by a condition.

    With --purge no byte of them stays in any file of the index, nor of rows deleted before. What may hold something of
    them goes too, and is said: calibrations, probes, a bridge, accelerators, records of files that could not be read.
    Such files have no metadata: name them by their path. A transform is fitted again on the other rows.

    Example: retr index delete --where "patient = 'P17'" --purge
    """
    from retr.retrieval.deletion import ChosenRows
    from retr.retrieval.deletion import delete as delete_rows
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    opened = Index.open(find_index(index))
    chosen = ChosenRows.of(opened.store, ids, where)
    counts = {f"{len(chosen.rows)} of {len(opened)} rows": len(chosen.rows)}
    if purge:
        earlier, unread = opened.store.n_total - len(opened), int(chosen.skipped.sum())
        counts |= {f"{earlier} rows that were deleted before": earlier, f"{unread} records of unreadable files": unread}
    if not any(counts.values()):
        out.note("nothing to delete: no row matches")
        raise typer.Exit(NOTHING_FOUND)
    if not yes:
        confirm(f"Delete {' and '.join(text for text, n in counts.items() if n)}?")
    done = delete_rows(opened, ids=ids, where=where, purge=purge)
    out.record({"deleted": done.rows, "left": len(opened), "purged": purge})
    if done.skipped:
        out.note(f"{done.skipped} records of files that could not be read were forgotten")
    for phrase in done.dropped:
        out.note(f"dropped with the rows: {phrase}")


def info(*, index: IndexOption = None, json_: JsonOption = False) -> None:
    """Show what an index holds: rows, encoder, columns, size.

    Example: retr index info --json
    """
    from retr.retrieval.index import Index

    Output(json_=json_).record(Index.open(find_index(index)).info())


def check(
    *,
    index: IndexOption = None,
    phi: Annotated[
        bool,
        typer.Option("--phi", help="Also look for names, dates, numbers, addresses ... of persons in all its words."),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Check that every file of an index is as it was written.

    Hashes, counts and alignment; the exit code is 1 when something is wrong. With --phi it also lists what may identify
    a person; values are shown masked.

    Example: retr index check --phi
    """
    from retr.index.rows.check import check_path, stale, unknown_kinds
    from retr.index.rows.snapshot import Snapshot
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    # Not by opening it: an index that cannot be opened is the one to check.
    damage = check_path(find_index(index))
    out.rows([{"file": f.file, "kind": f.kind, "message": f.message} for f in damage])
    if not damage:
        out.note("every file is as it was written")
        snapshot = Snapshot.open(find_index(index))
        for phrase in stale(snapshot):
            out.note(f"out of date: {phrase}")
        for kind in unknown_kinds(snapshot):
            out.note(f"side data of the kind {kind!r} are not looked into: this retr does not know it")
    persons = []
    if phi and not damage:
        from dataclasses import asdict

        from retr.retrieval.audit.phi import scan

        persons = scan(Index.open(find_index(index)).store)
        out.rows([asdict(finding) for finding in persons])
        if not persons:
            out.note("nothing found that looks like a person's data; embeddings can be personal data all the same")
    if damage or persons:
        raise typer.Exit(1)


def refit(
    *,
    index: IndexOption = None,
    dim: Annotated[int | None, typer.Option("--dim", min=1, help="Dimensions to keep; by default as before.")] = None,
    power: Annotated[
        float | None,
        typer.Option("--power", min=0, max=2, help="0 turns and cuts, 1 whitens fully; by default as before."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Fit the transform of an index again on all its rows, or a first one.

    No picture is needed, and one commit changes over. What was made for the vectors of before is dropped, or says that
    it is out of date.

    Example: retr index refit --dim 128
    """
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    done = Index.open(find_index(index)).refit(dim=dim, power=power)
    _changed_over(out, {"rows": done.rows, "fitted on": done.sample, "dim": done.dim}, done.dropped, done.stale)


@unfold
def reembed(
    *,
    index: IndexOption = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="An encoder of `retr encoders ls`; by default a new index's.")
    ] = None,
    transform: Annotated[str, as_typer("transform", declared(BuildOptions)["transform"][1])] = "auto",
    loading: LoadOptions,
    json_: JsonOption = False,
) -> None:
    """Move an index to another encoder; ids, metadata and groups stay.

    A run that was stopped goes on where it was. What is embedded lies beside the index, in NAME.reembed, until one
    commit changes over; readers see the vectors of before until then.

    Example: retr index reembed --encoder lite
    """
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    opened = Index.open(find_index(index))
    done = opened.reembed(encoder=encoder, transform=transform, progress=not quiet(), **loading.options)
    said = {"rows": done.rows, "embedded": done.embedded, "encoder": done.encoder, "dim": done.dim}
    _changed_over(out, said, done.dropped, done.stale)
    for note in done.notes:
        out.note(note)


def _changed_over(out: Output, said: dict[str, Any], dropped: Sequence[str], stale: Sequence[str]) -> None:
    """Print what came of other vectors."""
    out.record({key.replace(" ", "_") if out.form == "json" else key: value for key, value in said.items()})
    for kind in dropped:
        out.note(f"dropped, since it was made for the vectors of before: {kind}")
    for phrase in stale:
        out.note(f"out of date: {phrase}")


def compact(*, index: IndexOption = None, json_: JsonOption = False) -> None:
    """Merge segments and drop deleted rows from disk.

    Open readers keep what they see. A transform stays as it was fitted: `retr index refit` fits it without the rows.

    Example: retr index compact
    """
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    opened = Index.open(find_index(index))
    before = opened.info()
    opened.compact()
    after = opened.info()
    out.record(
        {
            "rows": len(opened),
            "segments": f"{before['segments']} -> {after['segments']}",
            "bytes": f"{before['bytes']} -> {after['bytes']}",
        }
        if out.form == "table"
        else {"rows": len(opened), "before": before["bytes"], "after": after["bytes"]}
    )
    if before["deleted"] and opened.store.manifest.encoder.transform is not None:
        out.note(
            "the transform may still hold the deleted rows, which it was fitted on: `retr index refit` fits it again"
        )


def shard(
    *,
    index: IndexOption = None,
    into: Annotated[int, typer.Option("--into", min=1, max=1024, help="How many shards; 1 for one folder.")],
    json_: JsonOption = False,
) -> None:
    """Spread the rows of an index over several folders, or back into one.

    Each shard is an index of its own, and a patient's rows lie in one of them. Answers stay the same to the bit, and
    readers see the rows of before until one commit changes over. It takes the space of the rows that move.

    Example: retr index shard --into 8
    """
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    opened = Index.open(find_index(index))
    done = opened.shard(into)
    rows = ", ".join(map(str, done.rows)) if out.form == "table" else list(done.rows)
    out.record({"shards": into, "rows": len(opened), "rows of each" if out.form == "table" else "each": rows})
    if done.accelerators:
        out.note(f"{done.accelerators} accelerators went with the rows that moved: `retr index tune` makes new ones")
