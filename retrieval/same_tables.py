"""Whether two tables hold the same, NaN being one value."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from retr.index.machine.arrow import pc


def same_tables(one: pa.Table, other: pa.Table) -> bool:
    """Return whether two tables hold the same; a NaN is one."""
    columns = zip(one.columns, other.columns, strict=False)
    return bool(one.schema.equals(other.schema)) and all(_same_cells(*pair) for pair in columns)


def _same_cells(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    if pa.types.is_list(one.type):
        lengths = pc.list_value_length(one), pc.list_value_length(other)
        return bool(lengths[0].equals(lengths[1])) and _same_cells(pc.list_flatten(one), pc.list_flatten(other))
    if pa.types.is_floating(one.type):
        mine, theirs = (cells.fill_null(0).to_numpy() for cells in (one, other))
        return one.is_null().equals(other.is_null()) and np.array_equal(mine, theirs, equal_nan=True)
    return bool(one.equals(other))
