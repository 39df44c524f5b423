"""Tables that are in memory: of pyarrow, pandas or polars, a dict of columns or a list of rows, read as Parquet is."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from retr.index.errors import UsageError
from retr.index.vectors import plain_array
from retr.retrieval.archive.matching import composed_text

WANTED = "give a file, a table of pyarrow, pandas or polars, or a dict of columns, each column of one type"


def arrow_table(table: Any) -> pa.Table:
    """Return a table that is in memory as one of Arrow, its columns' names as `composed_text` without blanks around.

    A pandas index that has a name is a column, as it is in a Parquet file; paths may be ``pathlib.Path``.

    Raises
    ------
    UsageError
        It is no table, two of its columns have one name, or a column holds values of several types.
    """
    try:
        raw = _converted(table)
    except (pa.ArrowException, TypeError, ValueError, AttributeError, OverflowError):
        raise UsageError(
            f"the metadata cannot be read as a table, got {type(table).__name__}{_culprit(table)}", hint=WANTED
        ) from None
    noted = raw.schema.metadata
    raw = raw.rename_columns([composed_text(str(name).strip()) for name in raw.column_names])
    double = next((name for name, count in Counter(raw.column_names).items() if count > 1), None)
    if double is not None:
        raise UsageError(f"the table has the column {double!r} twice", hint="rename one of them")
    return raw.replace_schema_metadata(noted)


def _converted(table: Any) -> pa.Table:
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, Mapping):
        return pa.table({name: _column(values) for name, values in table.items()})
    if isinstance(table, list | tuple):
        # whatever the first row lacks is a column all the same
        names = dict.fromkeys(name for row in table for name in row)
        return pa.table({name: _column([row.get(name) for row in table]) for name in names})
    if hasattr(table, "iloc"):
        return _of_pandas(table)
    return pa.table(table)


def _of_pandas(frame: Any) -> pa.Table:
    double = next((name for name, count in Counter(frame.columns).items() if count > 1), None)
    if double is not None:
        raise UsageError(f"the table has the column {double!r} twice", hint="rename one of them")
    objects = [name for name in frame.columns if isinstance(name, str) and frame[name].dtype == object]
    frame = frame.assign(**{name: _texts(frame[name]) for name in objects})
    index = frame.index
    if index.nlevels == 1 and index.name is not None:
        frame = frame.set_axis(_texts(index), axis=0).rename_axis(index.name)
    # pandas' own numbering of rows is no column; an index with a name is
    named = any(name is not None for name in index.names)
    return pa.Table.from_pandas(frame, preserve_index=named).replace_schema_metadata(None)


def _column(values: Any) -> Any:
    """Return the values of a column, paths as texts, so that Arrow takes them."""
    if hasattr(values, "detach"):
        return plain_array(values)
    if isinstance(values, str | bytes | Mapping):
        raise TypeError
    if hasattr(values, "type"):  # of Arrow
        return values
    return pa.array(_texts(values), from_pandas=True)


def _texts(values: Any) -> Any:
    """Return values with their paths as texts; the values themselves where there is none."""
    if getattr(values, "dtype", np.dtype(object)) != np.dtype(object):
        return values
    if not any(isinstance(value, os.PathLike) for value in values):
        return values
    return [os.fspath(value) if isinstance(value, os.PathLike) else value for value in values]


def _culprit(table: Any) -> str:
    """Return which column cannot be read, where that is known."""
    try:
        named = table.items() if isinstance(table, Mapping) or hasattr(table, "iloc") else ()
        for name, values in named:
            try:
                pa.chunked_array([pa.array(_column(values), from_pandas=True)])
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                return f", whose column {name!r} holds values of several types, or of one that is no cell"
    except (TypeError, ValueError):
        pass
    return ""
