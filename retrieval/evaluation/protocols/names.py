"""Check that the classes of the data can be asked as texts, and find names that a label set does not know."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from retr.retrieval.encoders.registry import text_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.labels.label_set import LabelSet

SHOWN = 8


def no_words(info: EncoderInfo, labels: LabelSet | None) -> str:
    """Return why an encoder cannot be asked with a label set; empty where it can."""
    if not info.text:
        other = text_option(info)
        set_so = f" as it is set; it has one with {other}" if other else ""
        return f"encoder {info.name!r} has no text side{set_so}"
    return "no label file was given (--labels)" if labels is None else ""


def unknown_names(counts: Mapping[str, int], labels: LabelSet) -> list[dict[str, Any]]:
    """Return the names that a label set does not know, each with the number of its images and the nearest known name.

    Parameters
    ----------
    counts
        Name to number of images.

    Returns
    -------
    list
        JSON-ready: ``name``, ``images``, ``nearest`` (None where none is near). First what may be misspelt, then by
        number.
    """
    known = {spelling.casefold(): one.name for one in labels.classes for spelling in (one.name, *one.aliases)}
    found: list[dict[str, Any]] = []
    for name, count in counts.items():
        if labels.class_of(name) is None:
            plain = name.casefold().replace("_", " ")
            near = difflib.get_close_matches(plain, known, n=1, cutoff=0.7)
            found.append({"name": name, "images": count, "nearest": known[near[0]] if near else None})
    return sorted(found, key=lambda one: (one["nearest"] is None, -one["images"], one["name"]))


def in_words(unknown: Sequence[Mapping[str, Any]]) -> str:
    """Write what `unknown_names` returns in one line.

    >>> in_words([{"name": "edemma", "images": 2, "nearest": "edema"}, {"name": "other", "images": 1, "nearest": None}])
    "'edemma' (2 images; 'edema'?), 'other' (1 image)"
    """
    parts = []
    for one in unknown[:SHOWN]:
        near = f"; {one['nearest']!r}?" if one["nearest"] else ""
        parts.append(f"{one['name']!r} ({one['images']} image{'' if one['images'] == 1 else 's'}{near})")
    more = len(unknown) - SHOWN
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")
