"""Which rows a fitted part of an index has seen with their labels: their answers are no measure of it.

The head of an adapted index was fitted on some patients, a bridge from words on the texts of some rows. A picture of
one of these patients lies where its label drew it; what is measured or promised must rest on the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retr.index.records import Fields, stored
from retr.retrieval.labels.labelled import others

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.index.store import Store

#: The manifest's note of an adapted index, the column that says on which side of the split a row was, and its values.
NOTE = "adapted"
SPLIT = "adapt"
FITTED, HELD_OUT = "fitted", "held out"


def noted_head(store: Store) -> Fields | None:
    """Return what the manifest notes of a head; ``None`` without one.

    Raises
    ------
    IndexCorruptError
        It is not what `retr adapt` notes.
    """
    if NOTE not in store.manifest.extra:
        return None
    with stored("the note of the fitted head"):
        noted = Fields(store.manifest.extra[NOTE])
        noted.text("label"), noted.text("split_by", "")
        return noted


def seen_by_head(store: Store) -> NDArray[np.bool_] | None:
    """Return which rows belong to patients that a head was fitted on: bool ``(n_total,)``; ``None`` without a head."""
    noted = noted_head(store)
    if noted is None or SPLIT not in store.schema.names:
        return None
    split_by = noted.text("split_by") if noted.has("split_by") else None
    live = store.live_rows()
    values = store.table([SPLIT], rows=live).column(0).to_pylist()
    return _with_patients(store, live[[value == FITTED for value in values]], split_by)


def seen_by_bridge(store: Store, column: str) -> NDArray[np.bool_]:
    """Return which rows belong to patients whose texts of ``column`` a bridge was fitted on: bool ``(n_total,)``."""
    live = store.live_rows()
    if column not in store.schema.names:
        return store.alive().copy()
    texts = store.table([column], rows=live).column(0).is_valid().to_numpy(zero_copy_only=False)
    return _with_patients(store, live[texts], None)


def _with_patients(store: Store, rows: NDArray[np.int64], split_by: str | None) -> NDArray[np.bool_]:
    seen = np.zeros(store.n_total, dtype=bool)
    seen[rows] = True
    for group in others(store, rows):
        seen[group] = True
    if split_by in store.schema.names and split_by != store.manifest.group:
        live = store.live_rows()
        values = store.identity.of(str(split_by), live)
        named = {value for value, row in zip(values, live, strict=True) if seen[row] and value is not None}
        seen[live[[value in named for value in values]]] = True
    return seen
