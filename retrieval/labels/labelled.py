"""The labelled rows of an index: what neighbours vote with, a probe learns from and a calibration is measured on.

Rows are kept together by group (the index's group key, usually the patient): what is learned from one part of the
groups is measured on another. A row without a group value stands alone, but byte-identical files stand together: also
where two patients have the same file, who are one person registered twice, or of whom one has a picture of the other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retr.index.errors import UsageError
from retr.index.machine.extras import needed
from retr.retrieval.labels.folds import deal
from retr.retrieval.labels.training_marks import file_marks, hashes_files, patient_marks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot
    from retr.index.store import Store
    from retr.retrieval.labels.label_set import LabelSet

# What more patients than this share is a blank or a test picture, and does not say that they are one person.
_MOST_SHARING = 10
# What names a row that is not alone: its file, or its patient.
_FILE, _PATIENT = np.uint64(1 << 62), np.uint64(1 << 63)


@dataclass(frozen=True)
class Labelled:
    """Labelled rows of one snapshot.

    Attributes
    ----------
    column
        The label column.
    rows
        int64 ``(n,)``, row numbers in the store.
    codes
        int64 ``(n,)``, places in ``classes``.
    groups
        int64 ``(n,)``; rows of one number belong together.
    classes
        The classes' names, sorted (or in the order of the label set).
    """

    column: str
    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    groups: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return len(np.unique(self.groups))

    @property
    def prior(self) -> NDArray[np.float64]:
        """Share of each class: float64 ``(c,)``."""
        return np.bincount(self.codes, minlength=len(self.classes)) / max(len(self), 1)

    def part(self, keep: NDArray[np.bool_]) -> Labelled:
        """Return some of the rows, ``keep`` bool ``(n,)``; the classes stay."""
        return Labelled(self.column, self.rows[keep], self.codes[keep], self.groups[keep], self.classes)

    def codes_of_rows(self, n_total: int) -> NDArray[np.int64]:
        """Return the class of every row of the store, -1 where there is none: int64 ``(n_total,)``."""
        codes = np.full(n_total, -1, dtype=np.int64)
        codes[self.rows] = self.codes
        return codes

    def folds(self, n: int) -> NDArray[np.int64]:
        """Deal the groups into ``n`` folds of about equal size: the fold of each row, int64 ``(n_rows,)``.

        Raises
        ------
        UsageError
            If there are fewer than two groups.
        """
        return deal(self.groups, n)


def labelled_rows(
    store: Snapshot, column: str, *, labels: LabelSet | None = None, where: str | None = None
) -> Labelled:
    """Find the rows with a value in a label column.

    Parameters
    ----------
    labels
        Only rows whose value names one of these classes, by name or alias.
    where
        Only rows for which this expression is true.

    Raises
    ------
    UsageError
        If the column is unknown, a row holds a list of several classes, or fewer than two are found.
    """
    if labels is None and where is None:
        found: Labelled = store.once(("labelled", column), lambda: _labelled_rows(store, column, None, None))
        return found
    return _labelled_rows(store, column, labels, where)


def _labelled_rows(store: Snapshot, column: str, labels: LabelSet | None, where: str | None) -> Labelled:
    live = store.in_id_order(None if where is None else np.flatnonzero(store.where(where)))
    values = store.table([column], rows=live).column(column).to_pylist()
    named = [classes_of(value) for value in values]
    several = sum(len(one) > 1 for one in named)
    if several:
        raise UsageError(
            f"{several} rows of {column!r} hold several classes, where one a row is needed",
            hint="name a column of one class a row; `retr eval` measures several",
        )
    names = [one[0] if one else None for one in named]
    if labels is None:
        classes = tuple(sorted({name for name in names if name is not None}))
        place = {name: i for i, name in enumerate(classes)}
        codes = [-1 if name is None else place[name] for name in names]
    else:
        classes = tuple(labels.names)
        found = [None if name is None else labels.class_of(name) for name in names]
        codes = [-1 if i is None else i for i in found]
    keep = np.array(codes, dtype=np.int64) >= 0
    if len(set(codes) - {-1}) < 2:
        what = f"names fewer than two classes of {labels.name!r}" if labels else "has fewer than two classes"
        what += "" if where is None else f" in the rows where {where}"
        raise UsageError(f"the column {column!r} {what}", hint="give a column of class names")
    rows = live[keep]
    return Labelled(column, rows, np.array(codes, dtype=np.int64)[keep], row_groups(store, rows), classes)


def classes_of(value: object, separator: str | None = None) -> tuple[str, ...]:
    """Split a label into class names, for all who read labels: blanks around a name are none of it.

    >>> classes_of("a| b|", "|"), classes_of("a| b", None), classes_of(None, "|"), classes_of(2, None)
    (('a', 'b'), ('a| b',), (), ('2',))
    """
    if value is None:
        return ()
    if isinstance(value, list):
        parts: Sequence[object] = value
    else:
        parts = str(value).split(separator) if separator else [value]
    return tuple(dict.fromkeys(name for name in (str(part).strip() for part in parts) if name))


def row_groups(store: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups of some rows by the index's group key, as `grouped` does: int64 ``(n,)``."""
    return grouped(store, store.manifest.group, rows)[0]


def grouped(store: Snapshot, key: str | None, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Number the groups of some rows, and say of which rows the group is known.

    A row without a group value belongs where a byte-identical file of the index does; byte-identical files without one
    belong together. Patients of the index's group key who share a file are one group, up to `_MOST_SHARING` of them.

    Patients and files are told apart by 62 bits of a hash, some tens of bytes a row: among a million of them, two are
    taken for one (and so kept out of each other's answers) once in nine million archives.

    Returns
    -------
    tuple
        int64 ``(n,)`` and bool ``(n,)``.
    """
    key = key if key in store.schema.names else None
    files = file_marks(store, rows)
    whose = np.zeros(len(rows), np.uint64) if key is None else patient_marks(store, key, rows)
    if key is not None:
        alone = whose == 0
        whose[alone] = _owners(store, key, files[alone])
        if key == store.manifest.group:
            whose = _shared(store).first(whose)
    known = whose != 0
    # a bit says which of the three a row is named by
    names = np.arange(len(rows), dtype=np.uint64)
    for bit, marks in ((_FILE, files), (_PATIENT, whose)):
        names = np.where(marks != 0, marks >> np.uint64(2) | bit, names)
    return _in_order(names), known


def _owners(store: Snapshot, key: str, files: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the patient of whom the index has a byte-identical file, for each of some files: marks, 0 for none."""
    wanted = np.unique(files[files != 0])
    owners = np.zeros(len(wanted) + 1, np.uint64)
    if len(wanted):
        live = store.live_rows()
        theirs = file_marks(store, live)
        copies = np.isin(theirs, wanted)
        found = patient_marks(store, key, live[copies])
        # the last one counts, where a file is of several
        owners[np.searchsorted(wanted, theirs[copies][found != 0])] = found[found != 0]
    return owners[np.where(files != 0, np.searchsorted(wanted, files), len(wanted))]


def _in_order(names: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number equal names alike, in the order in which they come: int64 ``(n,)``."""
    _, first, place = np.unique(names, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[place]


@dataclass(frozen=True, eq=False)
class _Sharing:
    """Patients of whom a file is byte-identical to one of another: marks, sorted uint64 ``(n,)``, and whose they are.

    ``same`` uint64 ``(n,)`` is one of the marks, equal for patients who belong together.
    """

    marks: NDArray[np.uint64]
    same: NDArray[np.uint64]

    def first(self, whose: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return one mark for all patients who belong together, for each of some marks."""
        if not len(self.marks):
            return whose
        place = np.minimum(np.searchsorted(self.marks, whose), len(self.marks) - 1)
        return np.where(self.marks[place] == whose, self.same[place], whose)


def _shared(store: Snapshot) -> _Sharing:
    def make() -> _Sharing:
        live, key = store.live_rows(), store.manifest.group
        assert key is not None
        files, whose = file_marks(store, live), patient_marks(store, key, live)
        both = (files != 0) & (whose != 0)
        files, whose = files[both], whose[both]
        order = np.lexsort((whose, files))
        files, whose = files[order], whose[order]
        new = np.r_[True, (files[1:] != files[:-1]) | (whose[1:] != whose[:-1])][: len(files)]
        files, whose = files[new], whose[new]
        _, of_file, patients = np.unique(files, return_inverse=True, return_counts=True)
        several = (patients > 1) & (patients <= _MOST_SHARING)
        of_file, whose = of_file[several[of_file]], whose[several[of_file]]
        marks, first, who = np.unique(whose, return_index=True, return_inverse=True)
        if not len(marks):
            return _Sharing(marks, marks)
        _, one, together = np.unique(merge_groups(who, of_file), return_index=True, return_inverse=True)
        return _Sharing(marks, whose[one[together[first]]])

    sharing: _Sharing = store.once("sharing", make)
    return sharing


def sharing(store: Store) -> int:
    """Return how many patients count together with another, since a file of theirs is byte-identical to one of his."""
    key = store.manifest.group
    return len(_shared(store).marks) if key in store.schema.names and hashes_files(store) else 0


def unit_of(group: str | None) -> str:
    """Return what rows of one group are of: a ``"patient"``, or an ``"image"`` where no column tells patients apart."""
    return "image" if group is None else "patient"


def merge_groups(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number rows anew, so that rows which either numbering puts together are together: int64 ``(n,)``.

    >>> merge_groups(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])).tolist()
    [0, 0, 0, 1]
    """
    with needed():
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

    first = one.max(initial=-1) + 1
    size = first + other.max(initial=-1) + 1
    links = coo_array((np.ones(len(one), np.int8), (one, first + other)), shape=(size, size))
    found: NDArray[np.int64] = connected_components(links, directed=False)[1][one].astype(np.int64)
    return found


def data_version(store: Snapshot, column: str) -> str:
    """Fingerprint what an answer about a column depends on: rows, their files, labels, groups and the encoder.

    It stays the same through compaction and through changes to other columns.
    """
    version: str = store.once(("data version", column), lambda: _data_version(store, column))
    return version


def _data_version(store: Snapshot, column: str) -> str:
    group = store.manifest.group
    names = dict.fromkeys(name for name in ("id", "sha256", column, group) if name)
    table = store.table([name for name in names if name in store.schema.names]).sort_by("id").combine_chunks()
    digest = hashlib.sha256(repr(store.manifest.encoder.identity).encode())
    if group in {"id", "sha256", column}:  # the table alone would not tell that there are groups
        digest.update(repr(group).encode())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    digest.update(memoryview(sink.getvalue()))
    return digest.hexdigest()[:16]


def others(store: Snapshot, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return, for each of some rows, the live rows of its own group, itself among them: what it must not be shown."""
    if not len(rows):
        return []
    together = Together.of(store)
    return [together.rows(g) for g in together.number[rows].tolist()]


@dataclass(frozen=True)
class Together:
    """The live rows of a snapshot by their group, worked out once.

    Attributes
    ----------
    number
        int64 ``(n_total,)``: the group of each row; 0 for a deleted one.
    """

    number: NDArray[np.int64]
    _ordered: NDArray[np.int64]
    _starts: NDArray[np.int64]

    @classmethod
    def of(cls, store: Snapshot) -> Together:
        """Return the groups of a snapshot."""

        def make() -> Together:
            live = store.live_rows()
            groups = row_groups(store, live)
            order = np.argsort(groups, kind="stable")
            starts = np.searchsorted(groups[order], np.arange(groups.max(initial=-1) + 2))
            number = np.zeros(store.n_total, dtype=np.int64)
            number[live] = groups
            return cls(number, live[order], starts)

        found: Together = store.once("together", make)
        return found

    def rows(self, group: int) -> NDArray[np.int64]:
        """Return the rows of a group, sorted int64."""
        return self._ordered[self._starts[group] : self._starts[group + 1]]
