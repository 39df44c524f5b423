"""Measuring the fence of unlike pictures where an index has none that counts: at the end of a build.

At most `MOST_ROWS` rows are measured, whole patients, each against all other rows: a share of a build's work that does
not grow with the archive. Which these are depends on the ids and patients alone, so interrupted, sharded and single
builds of the same rows give the same fence. Telling whose each row is takes some fifty bytes of memory a row for that
while.

It is measured again where fewer than `retr.retrieval.novelty.KEPT` of the rows, of then and of now, are the same. That
is told by a bottom-k sketch: the lowest hashes of the rows, each of an id, its file and its patient (Broder, 1997, "On
the resemblance and containment of documents"). So an archive that grows has it measured as often as it grows by a
quarter, and a picture that is added costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retr.index.disk.segments import id_hashes
from retr.index.errors import IndexCorruptError, UsageError
from retr.index.machine.arrow import pc
from retr.index.machine.waiting import waiting
from retr.retrieval import novelty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.index.rows.draft import Draft
    from retr.index.rows.snapshot import Snapshot
    from retr.index.store import Store

#: So many rows are measured at the end of a build.
MOST_ROWS = 2000
# Hashes in a sketch: the share of equal rows is told within a few hundredths.
_HASHES = 128
_TEXTS_AT_ONCE = 1 << 14


def renew(draft: Draft[Store], *, first: bool = False) -> str | None:
    """Measure the fence anew where the rows have changed much; the draft must hold no uncommitted rows.

    A fence of `retr calibrate` that is out of date is measured again by a build alone, by the same column of cameras.

    Parameters
    ----------
    first
        Whether an index without a fence gets one: at the end of a build.

    Returns
    -------
    str or None
        What was measured, a sentence; ``None`` where nothing was.
    """
    store = draft.store
    if not len(store) or not _due(store, first=first):
        return None
    noted = novelty.noted_novelty(store).get("column")
    column = noted if isinstance(noted, str) and noted in store.schema.names else None
    with waiting("measuring what is unlike the archive"):
        try:
            measured = novelty.measure_novelty(store, column, most=MOST_ROWS, exactly=True)
            drawn = sketch(store)
        except UsageError as error:
            return f"it was not measured what is unlike the archive: {error.message}"
    draft.note(novelty.NOVELTY_NOTE, novelty.built_note(store, measured, drawn))
    return next(measured.says())


def _due(store: Store, *, first: bool) -> bool:
    try:
        fence, stale = novelty.find_novelty(store)
        then = novelty.noted_sketch(store)
    except IndexCorruptError:
        return first
    if stale is not None:
        return first or then is not None
    if fence is None:
        return first
    return then is not None and shared(then, sketch(store)) < novelty.KEPT


def sketch(store: Snapshot) -> NDArray[np.uint64]:
    """Return the lowest hashes of an index's rows, each of an id, its file and its patient: sorted uint64 ``(k,)``."""
    names = [name for name in ("id", "sha256", store.manifest.group) if name and name in store.schema.names]
    rows = store.live_rows()
    lowest = np.empty(0, np.uint64)
    # the texts of all rows would be hundreds of bytes a row at once
    for start in range(0, len(rows), _TEXTS_AT_ONCE):
        table = store.table(names, rows[start : start + _TEXTS_AT_ONCE])
        texts = [pc.fill_null(pc.cast(column, pa.string()), "") for column in table.columns]
        hashes = id_hashes(pc.binary_join_element_wise(*texts, "\x1f").to_pylist())
        lowest = np.sort(np.concatenate([lowest, hashes]))[:_HASHES]
    return lowest


def shared(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    """Return the share of rows that two sketches have in common, of the rows of both.

    >>> shared(np.arange(3, dtype="<u8"), np.arange(1, 4, dtype="<u8"))
    0.5
    """
    lowest = np.union1d(one, other)[:_HASHES]
    return float((np.isin(lowest, one) & np.isin(lowest, other)).mean()) if len(lowest) else 1.0
