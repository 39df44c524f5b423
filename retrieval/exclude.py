"""Which values a query must not meet again: its own patient, study, or eye.

The value is taken from the query's own row, or given. One that is not known is an error: a patient that was not left
out in silence is the worst answer a retrieval engine can give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from retr.index.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.query import Query


def same_values(
    store: Store,
    exclude_same: str | Mapping[str, object] | None,
    queries: Sequence[Query],
    own: Sequence[NDArray[np.int64]],
) -> dict[str, list[object]] | None:
    """Give, for each column, the value to leave out for each query.

    Parameters
    ----------
    store
        The index.
    exclude_same
        A column, or columns with the value to leave out; ``None`` as value takes it from the query's own row.
    queries
        What is asked, for the words of an error.
    own
        For each query the rows that are the query itself.

    Raises
    ------
    UsageError
        A column is unknown, or a query has no value of it, or more than one.
    """
    if exclude_same is None:
        return None
    named: dict[str, object] = {exclude_same: None} if isinstance(exclude_same, str) else dict(exclude_same)
    values: dict[str, list[object]] = {}
    for column, given in named.items():
        values[column] = []
        for query, rows in zip(queries, own, strict=True):
            known = [_as_value(store, column, given)] if given is not None else _known(store, column, rows)
            if len(known) != 1:
                what = "has more than one" if known else "has no known"
                raise UsageError(
                    f"the query {query.describe()} {what} {column!r}",
                    hint=f"give the value to leave out: --exclude-same {column}=VALUE",
                )
            values[column].append(known[0])
    return values


def _as_value(store: Store, column: str, given: object) -> object:
    """Read a value as the column's type, so that ``patient=17`` of a command line meets the number 17."""
    if column not in store.schema.names or not isinstance(given, str):
        return given
    kind = store.schema.field(column).type
    try:
        return pa.scalar(given).cast(kind).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UsageError(
            f"{given!r} is no value of the column {column!r}, which is {kind}",
            hint=f"see its values with `retr index ls --columns {column}`",
        ) from None


def _known(store: Store, column: str, rows: NDArray[np.int64]) -> list[object]:
    """Give the distinct values of a column over some rows, without the missing ones."""
    return list(store.table([column], rows=rows).column(column).drop_null().unique().to_pylist())
