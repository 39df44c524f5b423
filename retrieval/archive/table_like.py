"""What is taken for a table: a file, or one in memory. This module imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeGuard


class ArrowTable(Protocol):
    """A table of pyarrow, pandas, polars or any other library that gives its columns to Arrow."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> object:
        """Return the table as an Arrow stream."""


Table: TypeAlias = str | Path | ArrowTable | Mapping[str, Any] | Sequence[Mapping[str, Any]]


def is_file(table: object) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether a table is the path of one."""
    return isinstance(table, str | os.PathLike)


def called(table: object) -> str:
    """Return what errors call a table.

    >>> called("labels.csv"), called({"path": []})
    ('labels.csv', 'dict')
    """
    return os.fsdecode(table) if is_file(table) else type(table).__name__
