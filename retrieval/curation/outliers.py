"""Outliers: the rows that are unlike anything else in their archive.

What they are differs: a picture of another kind, a scanned letter, a failed exposure, a blank frame, or a rare finding.
The novelty of a row is 1 less the mean cosine, by raw vectors, of the `NEIGHBOURS` nearest rows of other patients: a
patient's own other pictures do not make it look ordinary, nor do a few pictures that are as strange as it is. Density
relative to the neighbours' own (local outlier factor) was measured, and finds no such few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.curation.findings import Findings
from retr.retrieval.curation.neighbours import nearest_others
from retr.retrieval.labels.labelled import row_groups

if TYPE_CHECKING:
    from retr.retrieval.index_like import IndexLike

#: So many nearest rows of other patients say how ordinary a row is.
NEIGHBOURS = 10


def outliers(index: IndexLike, n: int = 50, *, where: str | None = None) -> Findings:
    """Find the rows that are most unlike the archive.

    Parameters
    ----------
    n
        How many.
    where
        Only rows for which this is true are listed; all are compared with.

    Returns
    -------
    Findings
        Of each row its ``novelty``, its share of rows at least as novel (``quantile``), the ``nearest`` row of
        another patient and its ``cosine``.

    Raises
    ------
    UsageError
        ``n`` is below 1, no row fits, or all rows are of one patient.
    FilterError
        The expression cannot be read.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> found = index.outliers(2)
    >>> found.ids, found[0]["nearest"]
    (['healthy/P11-left.png', 'healthy/P09-right.png'], 'healthy/P07-right.png')
    """
    index = index.snapshot()
    store, rows = index.store, index.store.in_id_order()
    require_count(n)
    groups = row_groups(store, rows)
    listed = np.ones(len(rows), bool) if where is None else store.where(where)[rows]
    if not listed.any():
        raise UsageError("no row to look at" + ("" if where is None else f" where {where}"), hint="name other rows")
    if len(np.unique(groups)) < 2:
        raise UsageError(
            "all rows are of one patient, so none can be compared with another's", hint="index more patients"
        )
    places, cosines = nearest_others(store, rows, groups, min(NEIGHBOURS, len(rows) - 1))
    near = np.where(places >= 0, cosines, 0.0)
    novelty = 1 - near.sum(axis=1) / np.maximum((places >= 0).sum(axis=1), 1)
    # of equal novelty the first id
    order = np.argsort(-novelty, kind="stable")
    quantile = np.empty(len(rows))
    quantile[order] = (np.arange(len(rows)) + 1) / len(rows)
    shown = order[listed[order]][:n]
    ids, nearest = store.ids(rows[shown]), store.ids(rows[places[shown, 0]])
    records: list[dict[str, Any]] = [
        {
            "rank": rank,
            "id": name,
            "novelty": round(float(novelty[at]), 4),
            "quantile": round(float(quantile[at]), 4),
            "cosine": round(float(cosines[at, 0]), 4),
            "nearest": other,
        }
        for rank, (at, name, other) in enumerate(zip(shown.tolist(), ids, nearest, strict=True), start=1)
    ]
    facts = {"rows": len(rows), "groups": len(np.unique(groups)), "neighbours": places.shape[1]}
    notes = [] if store.manifest.group else ["the index has no group key: pictures of one person are not kept apart"]
    return Findings("Outliers", tuple(records), facts, tuple(notes))


def require_count(n: int) -> None:
    """Raise `UsageError` for a number of rows that is no whole number above 0."""
    if isinstance(n, bool) or n != int(n) or n < 1:
        raise UsageError(f"the number of rows is a whole number from 1, got: {n!r}")
