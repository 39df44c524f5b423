"""``retr index push`` and ``retr index pull``: an index in an object store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retr.cli._loudness import quiet
from retr.cli._options import INDEX_DIR, IndexOption, JsonOption, find_index
from retr.cli._output import Output

if TYPE_CHECKING:
    from retr.retrieval.stores import Copied

Address = Annotated[
    str,
    typer.Argument(
        metavar="s3://BUCKET/PREFIX", help="Where the index lies; AWS_ENDPOINT_URL names other stores than AWS."
    ),
]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Go over a state that would be lost: neither pushed nor pulled here.")
]


def push(
    address: Address, *, index: IndexOption = None, replace: ReplaceOption = False, json_: JsonOption = False
) -> None:
    """Bring an index up to date in an object store.

    Only files that are not there travel, each compared with its hash. The store's readers see the state of before until
    all is there. Older states are removed, so that nothing stays of rows that were purged.

    Example: retr index push s3://hospital/fundus.retr
    """
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    _say(out, Index.open(find_index(index)).push(address, replace=replace, progress=not quiet()))


def pull(
    address: Address, *, index: IndexOption = None, replace: ReplaceOption = False, json_: JsonOption = False
) -> None:
    """Bring an index down from an object store, or a copy of it up to date.

    Only files that are not here travel, and each is compared with its hash before the copy changes, in one step. A pull
    that was stopped goes on where it was.

    Example: retr index pull s3://hospital/fundus.retr --index fundus.retr
    """
    from retr.retrieval.stores import pull as bring_down

    out = Output(json_=json_)
    _say(out, bring_down(address, index or Path(INDEX_DIR), replace=replace, progress=not quiet()))


def _say(out: Output, done: Copied) -> None:
    from dataclasses import asdict

    if out.form == "json":
        out.record(asdict(done))
        return
    removed = f", {done.removed} older ones removed" if done.removed else ""
    out.line(
        f"version {done.version}: {done.files} files travelled ({done.bytes:,} bytes), {done.kept} were there{removed}"
    )
    for note in done.notes:
        out.note(note)
