"""Parse encoder options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retr.index.errors import UsageError, WeightsError
from retr.index.machine.home import home

if TYPE_CHECKING:
    import os
    from pathlib import Path

# Of what embeds a picture as a sequence of tokens: which of them are the embedding.
POOLINGS = ("cls", "mean", "cls+mean", "map")


def local(path: str | os.PathLike[str] | None) -> Path | None:
    """Return a path of this machine, ``~`` read as the user's home."""
    return None if path is None else home(path)


def split_spelled(given: str) -> tuple[str, dict[str, Any]]:
    """Split ``NAME,KEY=VALUE,KEY=VALUE`` into an encoder's name and its options; values are read as YAML.

    >>> split_spelled("retfound,weights=~/cfp.pth,feature=cls")
    ('retfound', {'weights': '~/cfp.pth', 'feature': 'cls'})
    """
    name, *settings = re.split(r",(?=\w[\w-]*=)", given)
    options: dict[str, Any] = {}
    for setting in settings:
        import yaml

        key, _, value = setting.partition("=")
        options[key.replace("-", "_")] = yaml.safe_load(value) if value else ""
    return name, options


def check_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Raise `UsageError` where an option's value is not one of those it takes."""
    if value not in known:
        raise UsageError(f"unknown {option} {value!r}", hint=f"use {' or '.join(known)}")


def together(text_batching: str) -> bool:
    """Return whether the texts of one call run as one padded batch (``"reference"``) or each alone (``"single"``)."""
    check_choice("text_batching", text_batching, ("single", "reference"))
    return text_batching == "reference"


def triple(option: str, value: str | float | Sequence[float] | None) -> tuple[float, float, float] | None:
    """Read one number or three, of the channels.

    >>> triple("mean", "0.5, 0.4,0.3"), triple("std", 0.5)
    ((0.5, 0.4, 0.3), (0.5, 0.5, 0.5))
    """
    if value is None:
        return None
    try:
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else (value,)
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise UsageError(f"{option} takes one number or three, got {value!r}", hint="for example 0.48,0.46,0.41")
    return (numbers[0], numbers[1], numbers[2])


def check_folder_name(name: str, encoder: str) -> None:
    """Raise `WeightsError` where a name can only be a folder's, and there is none of that name.

    A hub's repository is ``NAME`` or ``ORG/NAME``; what begins like a path, or has more parts, is none.
    """
    parts = name.split("/")
    like_a_path = (
        name.startswith((".", "/", "~")) or len(parts) > 2 or "\\" in name or not {"", ".", ".."}.isdisjoint(parts)
    )
    try:
        found, is_file = home(name).is_dir(), home(name).is_file()
    except OSError:  # longer than any name
        found = is_file = False
        like_a_path = True
    if is_file:
        raise WeightsError(
            f"{name!r} is a file, where {encoder!r} takes the name of a model or a folder",
            hint="name the folder it lies in"
            + (", or give the file as --weights of timm:ARCH" if encoder == "timm" else ""),
        )
    if like_a_path and not found:
        raise WeightsError(
            f"no folder at {name!r}, for {encoder!r}", hint="check the path; a model of the hub is named ORG/NAME"
        )
