"""Which rows a head or a bridge was fitted on: their answers must not be measured.

The head of an adapted index was fitted on some patients, a bridge from words on the texts of some rows. A picture of
one of these patients lies where its label drew it; what is measured or promised must rest on the others. Each fit keeps
marks of whom it has seen (`retr.retrieval.labels.training_marks`); without marks, of an older version, and without the
column that its version kept instead, it may have seen everybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retr.index.disk.npz import read_npz
from retr.index.json_fields import Fields, stored
from retr.retrieval.labels.labelled import others
from retr.retrieval.labels.training_marks import Marks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot

#: The files of the fits, and of the views beside a head (`retr.retrieval.labels.held_out_views`).
HEAD_FILE, BRIDGE_FILE, VIEWS_FILE = "head.npz", "bridge.npz", "views.npz"
#: The manifest's note of an adapted index, the column that says on which side of the split a row was, and its values.
HEAD_NOTE = "adapted"
SPLIT = "adapt"
FITTED, HELD_OUT = "fitted", "held out"


def noted_head(store: Snapshot) -> Fields | None:
    """Return what the manifest notes of a head; ``None`` without one.

    Raises
    ------
    IndexCorruptError
        It is not what `retr adapt` notes.
    """
    if HEAD_NOTE not in store.manifest.extra:
        return None
    with stored("the note of the fitted head"):
        noted = Fields(store.manifest.extra[HEAD_NOTE])
        noted.text("label"), noted.text("split_by", "")
        return noted


def seen_by_head(store: Snapshot) -> NDArray[np.bool_] | None:
    """Return which rows belong to patients that a head was fitted on: bool ``(n_total,)``; ``None`` without a head."""
    if HEAD_FILE not in store.manifest.files:
        return None
    return _seen(store, HEAD_FILE)


def seen_by_bridge(store: Snapshot) -> NDArray[np.bool_]:
    """Return which rows belong to patients whose texts a bridge was fitted on: bool ``(n_total,)``."""
    if BRIDGE_FILE not in store.manifest.files:
        return np.zeros(store.n_total, dtype=bool)
    return _seen(store, BRIDGE_FILE)


def seen_fits(store: Snapshot, *, bridge: bool) -> list[Marks]:
    """Return the marks of the head, and of the bridge where it is asked for; those that are there."""
    files = [name for name in (HEAD_FILE, *([BRIDGE_FILE] if bridge else [])) if name in store.manifest.files]
    return [marks for name in files if (marks := marks_of(store, name)) is not None]


def marks_of(store: Snapshot, file: str) -> Marks | None:
    """Read the marks that a fit keeps; ``None`` where an older version kept none.

    Raises
    ------
    IndexCorruptError
        They cannot be read.
    """

    def make() -> Marks | None:
        with stored(f"{file!r}"):
            return Marks.from_arrays(read_npz(store.file(file)))

    marks: Marks | None = store.once(("marks", file), make)
    return marks


def _seen(store: Snapshot, file: str) -> NDArray[np.bool_]:
    def make() -> NDArray[np.bool_]:
        marks = marks_of(store, file)
        return _without_marks(store, file) if marks is None else _by_marks(store, marks)

    seen: NDArray[np.bool_] = store.once(("seen", file), make)
    return seen


def _by_marks(store: Snapshot, marks: Marks) -> NDArray[np.bool_]:
    live = store.live_rows()
    return _with_patients(store, live[marks.among(store, live) | marks.patients_among(store, live)])


def _without_marks(store: Snapshot, file: str) -> NDArray[np.bool_]:
    """Return what the column of an older version says of the head; everything where there is none.

    The column may have been written over since: the note says how many rows it can name at most.
    """
    noted = noted_head(store)
    if file != HEAD_FILE or SPLIT not in store.schema.names or noted is None:
        return store.alive().copy()
    live = store.live_rows()
    values = store.table([SPLIT], rows=live).column(0).to_pylist()
    with stored("the note of the fitted head"):
        refitted, most = noted.flag("refitted_on_everything", False), noted.whole("held_out_rows", len(values))
    if refitted or values.count(HELD_OUT) > most:
        return store.alive().copy()
    return _with_patients(store, live[[value != HELD_OUT for value in values]])


def _with_patients(store: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    seen = np.zeros(store.n_total, dtype=bool)
    seen[rows] = True
    for group in others(store, rows):
        seen[group] = True
    return seen
