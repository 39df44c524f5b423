"""The rows of an evaluation: labelled rows, their classes, and the group (patient) of each.

A label column holds one class a row, or several joined by a separator ("cataract|glaucoma"). Two rows are
relevant to each other when they share a class. A row without a label neither asks nor answers. Where the
index has a group key, rows of the query's own group never answer it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from retr.index.errors import UsageError
from retr.index.machine.extras import needed
from retr.retrieval.labels.labelled import classes_of, grouped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store


@dataclass(frozen=True)
class Cases:
    """Labelled rows.

    Attributes
    ----------
    label, group
        The columns; ``group`` is ``None`` where the same patient is not excluded.
    rows
        int64 ``(n,)``: row numbers in the store.
    asks
        bool ``(n,)``: which of them ask.
    classes
        The classes' names: in the order that was declared, else sorted by name, which means nothing.
    member
        bool ``(n, c)``: the classes of each row.
    groups
        int64 ``(n,)``: the group of each row, as `retr.retrieval.labels.labelled.grouped` numbers them: without a
        group column each file is one of its own, with ``same_patient`` each row.
    notes
        What a reader of the numbers must know, one line each.
    grades
        int64 ``(c,)``: the place of each class in the declared order; ``None`` where none was declared.
    answers
        bool ``(n,)``: which of them answer, the gallery; ``None`` for all.
    """

    label: str
    group: str | None
    rows: NDArray[np.int64]
    asks: NDArray[np.bool_]
    classes: tuple[str, ...]
    member: NDArray[np.bool_]
    groups: NDArray[np.int64]
    notes: tuple[str, ...]
    grades: NDArray[np.int64] | None = None
    answers: NDArray[np.bool_] | None = None

    @cached_property
    def several(self) -> bool:
        """Whether some row carries more than one class."""
        return bool((self.member.sum(axis=1) > 1).any())

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """The class of each row, where every row carries one: int64 ``(n,)``."""
        return np.asarray(self.member.argmax(axis=1), np.int64)

    @property
    def queries(self) -> NDArray[np.int64]:
        """Places in ``rows`` of those that ask: int64 ``(q,)``."""
        return np.flatnonzero(self.asks)

    @property
    def gallery(self) -> NDArray[np.int64]:
        """Places in ``rows`` of those that answer: int64 ``(g,)``."""
        return np.arange(len(self.rows)) if self.answers is None else np.flatnonzero(self.answers)

    def relevant(self) -> NDArray[np.int64]:
        """Count, for each query, the rows that may answer it and share a class with it: int64 ``(q,)``."""
        with needed():
            from scipy.sparse import csr_array

        patterns, pattern = np.unique(self.member, axis=0, return_inverse=True)
        share = (patterns.astype(np.int64) @ patterns.T.astype(np.int64)) > 0
        answering = pattern[self.gallery]
        everywhere = share @ np.bincount(answering, minlength=len(patterns))
        places = (self.groups[self.gallery], answering)
        in_group = csr_array((np.ones(len(answering), np.int64), places), shape=(self.groups.max() + 1, len(patterns)))
        own = np.asarray(in_group @ share.astype(np.int64))  # a group's rows that share a class with a pattern
        counts = everywhere[pattern] - own[self.groups, pattern]
        return np.asarray(counts[self.queries], np.int64)


def find_cases(
    store: Store,
    label: str,
    *,
    separator: str | None = None,
    group: str | None = None,
    same_patient: bool = False,
    where: str | None = None,
    queries: str | None = None,
    order: Sequence[str] | None = None,
) -> Cases:
    """Find the labelled rows.

    Parameters
    ----------
    store
        The index's store.
    label
        Column of class names.
    separator
        What joins several classes in one value; ``None``: a value is one class.
    group
        Column whose equal values mark one patient; by default the index's group key, if it has one.
    same_patient
        Let rows of the query's patient answer.
    where
        Only rows for which this is true ask and answer.
    queries
        Of those, only rows for which this is true ask.
    order
        All classes from the least grade to the most, where they are grades; they need not all occur.

    Raises
    ------
    UsageError
        A column is missing, the group column is empty, or fewer than two classes are found; or a group is named
        and its rows are to answer all the same.
    FilterError
        An expression cannot be read.
    """
    notes = []
    if group is not None and same_patient:
        raise UsageError(f"--group {group!r} and --same-patient exclude each other", hint="give one of them")
    if group is None and not same_patient:
        group = store.manifest.group
        if group is None:
            notes.append("the index has no group key: pictures of one person are not kept apart")
    elif group is not None and group not in store.schema.names:
        raise UsageError(
            f"the same patient cannot be excluded: there is no column {group!r}",
            hint=f"the columns are {', '.join(store.schema.names)}",
        )
    notes += store.identity.absent(where, queries)
    allowed = store.alive() if where is None else store.where(where)
    rows = store.in_id_order(np.flatnonzero(allowed))
    values = store.table([label], rows=rows)[label].to_pylist()
    named = [classes_of(value, separator) for value in values]
    labelled = np.array([bool(names) for names in named], dtype=bool)
    if not labelled.all():
        notes.append(f"{int((~labelled).sum())} rows have no {label!r} and are left out")
    rows, named = rows[labelled], [names for names in named if names]
    classes = _ordered({name for names in named for name in names}, order, label)
    notes += [f"no row holds {name!r}, which the order names" for name in order or () if name not in classes]
    if len(classes) < 2:
        raise UsageError(
            f"the column {label!r} holds {len(classes)} classes in {len(rows)} rows, at least two are needed",
            hint="choose another --label, or a wider --where",
        )
    place = {name: i for i, name in enumerate(classes)}
    member = np.zeros((len(rows), len(classes)), dtype=bool)
    for i, names in enumerate(named):
        member[i, [place[name] for name in names]] = True
    groups, known = grouped(store, group, rows)
    if same_patient:
        groups = np.arange(len(rows))
    elif group is not None:
        missing = int((~known).sum())
        if missing == len(rows):
            raise UsageError(
                f"the same patient cannot be excluded: the column {group!r} is empty for these rows",
                hint="name another column with --group, or allow the same patient with --same-patient",
            )
        if missing:
            notes.append(f"{missing} rows have no {group!r}: each file counts as a patient of its own")
    asks = np.ones(len(rows), dtype=bool) if queries is None else store.where(queries)[rows]
    if not asks.any():
        raise UsageError(f"no labelled row asks: none fits {queries!r}", hint="use a wider --queries")
    return Cases(
        label=label,
        group=group,
        rows=rows,
        asks=asks,
        classes=classes,
        member=member,
        groups=groups,
        notes=tuple(notes),
        grades=None if order is None else np.array([list(order).index(name) for name in classes], np.int64),
    )


def _ordered(classes: set[str], order: Sequence[str] | None, label: str) -> tuple[str, ...]:
    """Order classes as declared, else by name."""
    if order is None:
        return tuple(sorted(classes))
    if isinstance(order, str):
        raise UsageError(
            f"an order is a list of classes, got: {order!r}", hint="for example ['none', 'mild', 'severe']"
        )
    absent = sorted(classes - set(order))
    if absent or len(set(order)) < len(order):
        what = f"lacks {absent[0]!r}, which {label!r} holds" if absent else "names a class twice"
        raise UsageError(
            f"the order {', '.join(order)} {what}", hint="name every class once, from the least grade to the most"
        )
    return tuple(name for name in order if name in classes)


def subgroups(store: Store, cases: Cases, column: str) -> list[tuple[str, NDArray[np.bool_]]]:
    """Divide the queries by a column's values; a numeric column with many values is divided at its quartiles.

    Returns
    -------
    list
        ``(value, bool (q,))`` in order; queries without a value come last, as ``"(none)"``.

    Raises
    ------
    UsageError
        The column is missing.
    """
    values = store.table([column], rows=cases.rows[cases.queries])[column].to_pylist()
    known = [value for value in values if value is not None]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    if numeric and len(set(known)) > _MANY_VALUES:
        return _quartiles(np.array([np.nan if value is None else value for value in values], np.float64))
    names = np.array(["(none)" if value is None else str(value) for value in values])
    ordered = sorted(set(names) - {"(none)"}) + (["(none)"] if "(none)" in names else [])
    return [(name, names == name) for name in ordered]


_MANY_VALUES = 12


def _quartiles(values: NDArray[np.float64]) -> list[tuple[str, NDArray[np.bool_]]]:
    edges = np.unique(np.nanquantile(values, [0, 0.25, 0.5, 0.75, 1]))
    parts = []
    for i, (low, high) in enumerate(pairwise(edges)):
        last = i == len(edges) - 2
        inside = (values >= low) & ((values <= high) if last else (values < high))
        parts.append((f"{low:g} to {'' if last else 'below '}{high:g}", inside))
    if np.isnan(values).any():
        parts.append(("(none)", np.isnan(values)))
    return parts
