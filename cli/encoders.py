"""``retr encoders``: which encoders there are."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Encoders: what there is, what it needs, whether it works here.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Encoders: what there is, what it needs, whether it works here."""
