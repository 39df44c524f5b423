"""How the options of an encoder are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retr.index.errors import UsageError
from retr.index.machine.home import home

if TYPE_CHECKING:
    import os
    from pathlib import Path


def local(path: str | os.PathLike[str] | None) -> Path | None:
    """Return a path of this machine, ``~`` read as the user's home."""
    return None if path is None else home(path)


def check_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Raise `UsageError` where an option's value is not one of those it takes."""
    if value not in known:
        raise UsageError(f"unknown {option} {value!r}", hint=f"use {' or '.join(known)}")


def together(text_batching: str) -> bool:
    """Return whether the texts of one call run as one padded batch (``"reference"``) or each alone (``"single"``)."""
    check_choice("text_batching", text_batching, ("single", "reference"))
    return text_batching == "reference"
