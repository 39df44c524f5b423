"""Vectors and metadata on disk, and search over them (numpy, pyarrow, faiss; torch only to search on a GPU).

>>> from retr.index import Store, UsageError
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retr.index.errors import (
        EncoderMismatchError,
        EncoderNotFoundError,
        FilterError,
        FormatVersionError,
        ImageReadError,
        IndexCorruptError,
        IndexLockedError,
        IndexNotFoundError,
        MissingExtraError,
        NoTextSideError,
        RetrError,
        UnknownIdError,
        UsageError,
        WeightsError,
    )
    from retr.index.rows.snapshot import Snapshot
    from retr.index.store import Store

__all__ = [
    "EncoderMismatchError",
    "EncoderNotFoundError",
    "FilterError",
    "FormatVersionError",
    "ImageReadError",
    "IndexCorruptError",
    "IndexLockedError",
    "IndexNotFoundError",
    "MissingExtraError",
    "NoTextSideError",
    "RetrError",
    "Snapshot",
    "Store",
    "UnknownIdError",
    "UsageError",
    "WeightsError",
]
# Loaded on first use: whoever needs an error alone imports neither numpy nor pyarrow.
_HOMES = {"Snapshot": "retr.index.rows.snapshot", "Store": "retr.index.store"}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'retr.index' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "retr.index.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
