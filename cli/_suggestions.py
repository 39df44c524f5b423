"""What a shell is offered for the value of an option: columns of the index at hand, encoders, devices.

A shell must be told quickly, and of nothing that is wrong: what cannot be found out is not offered.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from typer.core import CompletionItem  # type: ignore[attr-defined]

_WORDS = {
    "device": ("auto", "cpu", "cuda", "cuda:all"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "axis": ("axial", "coronal", "sagittal", "acquired"),
    "dtype": ("float32", "float16"),
    "transform": ("auto", "none", "whitening"),
    "shell": ("bash", "zsh", "fish", "powershell"),
}


def offer_values(parameter: Any) -> None:
    """Have a parameter offer its values, where anything is known of them."""
    metavar = parameter.metavar or ""
    if parameter.name not in {*_WORDS, "columns", "encoder", "sort"} and not metavar.startswith("COLUMN"):
        return

    def shell_complete(ctx: Any, incomplete: str) -> list[CompletionItem]:
        known = _values(parameter.name, ctx, incomplete)
        return [CompletionItem(value) for value in known if value.startswith(incomplete)]

    parameter.shell_complete = shell_complete


def _values(name: str, ctx: Any, incomplete: str) -> list[str]:
    if name in _WORDS:
        return [*_WORDS[name]]
    if name == "encoder":
        from importlib.metadata import entry_points

        return sorted(point.name for point in entry_points(group="retr.encoders"))
    with suppress(Exception):
        from retr.cli._options import find_index
        from retr.index.rows.snapshot import Snapshot

        names = Snapshot.open(find_index(ctx.params.get("index"))).schema.names
        # behind those that stand before a comma
        before, comma, _ = incomplete.rpartition(",")
        return [f"{before}{comma}{column}" for column in names]
    return []
