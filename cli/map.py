"""``retr map``: every row a point in the plane, rows that are alike close together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retr.cli._options import IndexOption, JsonOption, SeparatorOption, find_index, unfold
from retr.cli._output import Output


@unfold
def map_(
    *,
    index: IndexOption = None,
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="COLUMN", help="Names the clusters; by default the column label."),
    ] = None,
    separator: SeparatorOption = None,
    out_: Annotated[
        list[Path] | None,
        typer.Option("--out", help="Write the map to a page (.html), a picture (.png) or a table (.parquet); repeats."),
    ] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Make it anew, of all rows.")] = False,
    json_: JsonOption = False,
) -> None:
    """Make a map of the archive, or give new rows a place on it.

    The map is kept in the index; rows that come later are placed beside the mapped rows nearest to them. Clusters are
    named by the labels that are most typical of each.

    Example: retr map --label label --out map.html --out map.parquet
    """
    from retr.retrieval.curation.map_page import require_ending, write_map
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    for path in out_ or ():
        require_ending(path)
    opened = Index.open(find_index(index))
    drawn = opened.map(label, separator=separator, refit=refit)
    sizes = [int((drawn.clusters == number).sum()) for number in range(len(drawn.names))]
    out.rows([{"cluster": name, "rows": size} for name, size in zip(drawn.names, sizes, strict=True)])
    out.note(f"{len(drawn)} rows, {int((drawn.clusters < 0).sum())} in no cluster")
    if late := int(drawn.placed.sum()):
        out.note(f"{late} rows came after the map was made; `retr map --refit` makes it anew")
    for path in out_ or ():
        write_map(drawn, opened.store, path)
        out.note(f"map written to {path}")
