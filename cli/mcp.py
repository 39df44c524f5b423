"""``retr mcp``: an index for agents, over the Model Context Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retr.cli._options import ColumnsOption, IndexOption, LoadOptions, column_names, find_index, unfold
from retr.index.machine.extras import needed


@unfold
def mcp(
    *,
    index: IndexOption = None,
    columns: ColumnsOption = None,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", help="A folder whose pictures an agent may ask with by name.")
    ] = None,
    loading: LoadOptions,
) -> None:
    """Let agents search an index, over the Model Context Protocol.

    It is spoken on standard input and output; the tools are search, classify and info, and nothing can be changed.
    Answers hold no path and no identifier, and of the columns those of DICOM headers and those of --columns.

    Example: retr mcp --index fundus.retr --columns label,age
    """
    import retr
    from retr.retrieval.mcp.agents import Shown

    with needed():
        from retr.retrieval.mcp.server import make_server
    opened = retr.Index.open(find_index(index), **loading.options)
    shown = Shown(opened, column_names(columns) if columns else (), pictures)
    make_server(shown, retr.__version__).run("stdio")
