"""The names of classes that Hugging Face's ``datasets`` writes as numbers beside their schema.

A Parquet or Arrow file of theirs says under ``huggingface`` in its schema's metadata what its columns mean; of a
``ClassLabel`` the names of its numbers. An index keeps the names: numbers of two data sets mean different things.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

NOTE = b"huggingface"
_LONGEST = 1 << 24


def class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Return the names of classes, by column: of numbers, and of lists of numbers.

    What is no such note says nothing: the numbers are kept then.
    """
    note = (schema.metadata or {}).get(NOTE, b"")
    try:
        features = json.loads(note[:_LONGEST])["info"]["features"] if note else {}
        return {str(column): names for column, feature in features.items() if (names := _names(feature))}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def named(values: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Return the classes of some numbers; of lists, joined by ``|`` as several classes in one value are.

    >>> named([1, None, -1, [0, 1]], ("healthy", "glaucoma"))
    ['glaucoma', None, None, 'healthy|glaucoma']
    """
    return [_named(value, names) for value in values]


def _named(value: Any, names: Sequence[str]) -> str | None:
    if isinstance(value, list):
        return "|".join(name for one in value if (name := _named(one, names)) is not None) or None
    # -1 is "no class"
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _names(feature: Mapping[str, Any] | Sequence[Any] | None) -> tuple[str, ...]:
    if isinstance(feature, list) and len(feature) == 1:  # how a list was written first
        return _names(feature[0])
    if not isinstance(feature, dict):
        return ()
    if feature.get("_type") in {"Sequence", "List", "LargeList"}:
        return _names(feature.get("feature"))
    names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    return tuple(map(str, names)) if isinstance(names, list) else ()
