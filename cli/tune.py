"""``retr index tune``: choose an approximate search configuration by measurement."""

from __future__ import annotations

from typing import Annotated

import typer

from retr.cli._loudness import quiet
from retr.cli._options import DeviceOption, IndexOption, JsonOption, find_index
from retr.cli._output import Output


def tune(
    *,
    index: IndexOption = None,
    recall: Annotated[
        float, typer.Option("--recall", help="Share of the 10 best rows that must be found; 1 is exact search.")
    ] = 0.95,
    memory: Annotated[str | None, typer.Option("--memory", help="What the accelerators may take: 512M, 4G.")] = None,
    latency: Annotated[str | None, typer.Option("--latency", help="What one query alone may take: 5ms.")] = None,
    device: DeviceOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Make search in a large archive fast, at a measured recall.

    Accelerators are built and compared with exact search; the cheapest setting that reaches the recall is kept.
    Rows added later are searched exactly until the next tune; filters and groups work as before. With --device cuda the
    kinds that GPUs search are tried, and measured there.

    Example: retr index tune --recall 0.95 --memory 4G --latency 5ms
    """
    from retr.index.accelerators.config import parse_bytes, parse_seconds, shown
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    tuning = Index.open(find_index(index), device=device).tune(
        recall=recall,
        memory=None if memory is None else parse_bytes(memory),
        latency=None if latency is None else parse_seconds(latency),
        say=(lambda _: None) if quiet() else out.note,
    )
    noted = tuning.to_json()
    noted["index"] = shown(noted["index"])
    if json_:
        out.record(noted)
        return
    out.record({key: value for key, value in noted.items() if key not in {"curve", "index"}} | noted["index"])
