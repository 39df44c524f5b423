"""Exclude rows of the query's own patient, study or eye from a search.

Whose a picture is comes from its own row, from the rows of byte-identical files, from the header of a DICOM file, or is
given. Where it is not known, that is an error, and a value that no row has is said: a patient that was not left out in
silence is the worst answer a retrieval engine can give.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.index.rows.identifiers import identifier_text
from retr.retrieval.query import Query
from retr.retrieval.query_identity import own_rows, stated_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.search_options import Same

_NOTHING = np.empty(0, np.int64)


def same_rows(
    store: Store,
    exclude_same: Same,
    queries: Sequence[Query],
    own: Sequence[NDArray[np.int64]],
    *,
    strict: bool = False,
    hidden: NDArray[np.int64] = _NOTHING,
) -> tuple[list[NDArray[np.int64]], list[list[str]]]:
    """Find the rows to leave out for each query.

    Parameters
    ----------
    store
        The index.
    exclude_same
        A column, or columns with the value to leave out, or a list of values; ``None`` as value, also in a list, takes
        what the query's pictures and rows have, each of them. A sequence of such mappings has one for each query.
    queries
        What is asked.
    own
        For each query the rows that are the query itself.
    strict
        A value that no row has is an error, not a note.
    hidden
        Rows that every query leaves out, sorted int64.

    Returns
    -------
    tuple
        For each query sorted int64 row numbers, and what a person should know.

    Raises
    ------
    UsageError
        A column is unknown or cannot tell rows apart, a value is empty, a query's picture has none, or a key is needed
        and not here.
    """
    if exclude_same is None:
        return [hidden] * len(queries), [[] for _ in queries]
    # of a query without marks nothing is looked up
    marked = [own_rows([Query((part,)) for part in query.marked], store) for query in queries]
    named = each_of(exclude_same, len(queries))
    rows: list[list[NDArray[np.int64]]] = [[hidden] for _ in queries]
    notes: list[list[str]] = [[] for _ in queries]
    for column in dict.fromkeys(column for one in named for column in one):
        store.identity.require(column)
        wanted: list[tuple[int, list[object], str]] = []  # query, values that name one patient, in words
        for number, (query, one) in enumerate(zip(queries, named, strict=True)):
            if column not in one:
                continue
            for given in _listed(one[column]):
                if given is None:
                    wanted += [(number, values, words) for values, words in _own(store, column, query, own[number])]
                else:
                    wanted.append((number, [given], f"{column} {given!r}"))
            values, unknown = _of_marks(store, column, query, marked[number])
            wanted += [(number, [value], f"{column} of a marked row") for value in values]
            if unknown:
                shown = f"{unknown[0]!r}" + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
                notes[number].append(f"the marked row {shown} has no {column}: nothing else was left out for it")
        values = [value for _, same, _ in wanted for value in same]
        found = iter(store.identity.rows(column, values))
        for number, same, words in wanted:
            mine = [next(found) for _ in same]
            rows[number] += mine
            if not any(map(len, mine)):
                if strict:
                    hint = f"see the values with `retr index ls --columns id,{column}`"
                    raise UsageError(f"no row has the {words}", hint=hint)
                notes[number].append(f"no row has the {words}: nothing was left out for it")
    return [np.unique(np.concatenate(parts)) for parts in rows], notes


def each_of(exclude_same: Any, n: int) -> list[Mapping[str, Any]]:
    """Return, for each of ``n`` queries, the columns with the values to leave out, which may be read once more."""
    if exclude_same is None:
        return [{}] * n
    if isinstance(exclude_same, str):
        return [{exclude_same: None}] * n
    if isinstance(exclude_same, Mapping):
        return [_once(exclude_same)] * n
    # looked at more than once, which a generator does not bear
    readable = isinstance(exclude_same, Iterable) and not isinstance(exclude_same, bytes)
    several: list[Any] = list(exclude_same) if readable else [exclude_same]
    if all(isinstance(one, str) for one in several):
        return [dict.fromkeys(map(str, several))] * n
    if not all(one is None or isinstance(one, Mapping) for one in several):
        raise UsageError(
            f"exclude_same is a column, or columns with the value to leave out, got: {exclude_same!r}",
            hint="give 'patient', ['patient', 'study'] or {'patient': 'P17'}",
        )
    if len(several) != n:
        raise UsageError(
            f"exclude_same has {len(several)} entries for {n} queries", hint="give one mapping for each query"
        )
    return [{} if one is None else _once(one) for one in several]


def _once(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns with lists of values, which may be read once for each query."""
    return {column: _listed(value) for column, value in one.items()}


def _listed(given: Any) -> list[Any]:
    """Return the values to leave out, None for the query's own."""
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
    values = list(given) if several else [given]
    if not values or any(value is not None and not (identifier_text(value) or "").strip() for value in values):
        raise UsageError("the value to leave out is empty", hint="leave '=' out to take the query's own")
    return values


def columns_of(exclude_same: Same) -> dict[str, list[Any]]:
    """Return the columns of one question, with the values to leave out of each, None for its own.

    >>> columns_of("patient"), columns_of({"patient": "P17"}), columns_of(None)
    ({'patient': [None]}, {'patient': ['P17']}, {})
    """
    return {column: _listed(value) for column, value in each_of(exclude_same, 1)[0].items()}


def both(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return what leaves out all that either leaves out.

    >>> both({"patient": "P17", "eye": "left"}, {"patient": None})
    {'patient': ['P17', None], 'eye': 'left'}
    """
    shared = {column: [*_listed(value), *_listed(other[column])] for column, value in one.items() if column in other}
    return {**one, **other, **shared}


def _own(store: Store, column: str, query: Query, own: NDArray[np.int64]) -> list[tuple[list[object], str]]:
    """Return, for each picture and row of a query, the values by which its patient is known, and what to call them."""
    parts = [part for part in query.parts if part.kind in {"image", "id"}]
    if not parts and query.marked and not query.parts:
        return []
    if not parts:
        raise _unknown(query, column)
    alone = [own] if len(parts) == 1 else own_rows([Query((part,)) for part in parts], store)
    found = []
    for part, rows in zip(parts, alone, strict=True):
        recorded = store.table([column], rows).column(0).drop_null().unique().to_pylist()
        values: list[object] = [value for value in recorded if (identifier_text(value) or "").strip()]
        if part.kind == "image":
            stated = stated_values(column, [part.value])[0]
            values += [] if stated is None else [stated]
        if not values:
            raise _unknown(Query((part,)), column)
        found.append((values, f"{column} of the query {part.describe()}"))
    return found


def _of_marks(
    store: Store, column: str, query: Query, rows: Sequence[NDArray[np.int64]]
) -> tuple[list[object], list[str]]:
    """Return the values of the marked rows, and which of the rows have none."""
    values: dict[object, None] = {}
    unknown = []
    for part, own in zip(query.marked, rows, strict=True):
        recorded = store.table([column], own).column(0).drop_null().unique().to_pylist()
        theirs = [value for value in recorded if (identifier_text(value) or "").strip()]
        values.update(dict.fromkeys(theirs))
        unknown += [] if theirs else [part.value]
    return list(values), unknown


def _unknown(query: Query, column: str) -> UsageError:
    return UsageError(
        f"the query {query.describe()} has no known {column!r}",
        hint=f"give the value to leave out: --exclude-same {column}=VALUE",
    )
