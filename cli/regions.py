"""``retr index regions``: vectors of parts of the pictures of an index that was built without."""

from __future__ import annotations

from typing import Annotated

import typer

from retr.cli._loudness import quiet
from retr.cli._options import IndexOption, JsonOption, find_index
from retr.cli._output import Output


def regions(
    division: Annotated[
        str, typer.Argument(metavar="DIVISION", help="grid or multiscale, as `retr index build --regions` says.")
    ],
    *,
    index: IndexOption = None,
    json_: JsonOption = False,
) -> None:
    """Add regions to an index: vectors of parts of its pictures.

    Each picture is read once; vectors of whole pictures stay as they are. A run that was stopped goes on where it was:
    what is embedded lies beside the index, in NAME.regions, until one commit changes over.

    Example: retr index regions grid
    """
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    done = Index.open(find_index(index)).add_regions(division, progress=not quiet())
    out.record(done._asdict())
