"""Marks of the rows that something was fitted on: patients, files and ids, stored with what was fitted.

They outlast the rows. A row that was deleted and comes back under another id, another picture of its patient, a column
that was written over or a group key that was declared later: all are known again. A mark is the first 64 bits of a hash
of what the index holds; where it holds keyed hashes of patients, those.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from retr.index.disk.npz import numbers
from retr.index.disk.segments import id_hashes
from retr.index.json_fields import Fields, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot

_COLUMNS, _PATIENTS, _ROWS = "seen_columns", "seen_patients", "seen_rows"
_TEXTS_AT_ONCE = 1 << 14


@dataclass(frozen=True, eq=False)
class Marks:
    """Who was fitted on.

    Attributes
    ----------
    columns
        The columns that told patients apart.
    patients, rows
        Sorted uint64: marks of values of those columns, and of ids and files.
    """

    columns: tuple[str, ...]
    patients: NDArray[np.uint64]
    rows: NDArray[np.uint64]

    @classmethod
    def of(cls, store: Snapshot, rows: NDArray[np.int64], columns: Sequence[str | None]) -> Self:
        """Mark some rows, and their patients by each of some columns."""
        named = tuple(dict.fromkeys(name for name in columns if name is not None))
        return cls(named, _distinct(_of_patients(store, rows, named)), _distinct(_of_rows(store, rows)))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return arrays for an ``.npz``."""
        named = np.frombuffer(json.dumps(self.columns).encode(), np.uint8)
        return {_COLUMNS: named, _PATIENTS: self.patients, _ROWS: self.rows}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self | None:
        """Read what `to_arrays` gave; ``None`` where an older version kept no marks, `ValueError` for anything else."""
        if not {_COLUMNS, _PATIENTS, _ROWS} & arrays.keys():
            return None
        columns = Fields({"columns": parse_json(arrays[_COLUMNS].tobytes())}).texts("columns")
        marks = [np.sort(numbers(arrays, name, None, kind=np.uint64)) for name in (_PATIENTS, _ROWS)]
        return cls(columns, *marks)

    def among(self, store: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some rows, deleted ones too, were fitted on themselves, or are copies: bool ``(n,)``."""
        return _any_in(_of_rows(store, rows), self.rows, len(rows))

    def patients_among(self, store: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some rows are of patients that were fitted on: bool ``(n,)``."""
        return _any_in(_of_patients(store, rows, self.columns), self.patients, len(rows))

    def knows(self, spellings: Sequence[str], file: str | None) -> bool:
        """Return whether a picture was fitted on, or another of its patient, that no row may be left of.

        Parameters
        ----------
        spellings
            The texts under which the patient's identifier may be held.
        file
            The picture's sha256.
        """
        named = id_hashes(f"{column}\0{text}" for column in self.columns for text in spellings)
        return bool(np.isin(named, self.patients).any() or np.isin(id_hashes([f"sha256\0{file}"]), self.rows).any())


def row_marks(store: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Mark the id and the file of each of some rows: uint64 ``(n, 2)``, 0 where no file is known."""
    found = _of_rows(store, rows)
    return np.stack(found if len(found) == 2 else [*found, np.zeros(len(rows), np.uint64)], axis=1)


def patient_marks(store: Snapshot, column: str, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Mark whose each of some rows is, as a column says it: uint64 ``(n,)``, 0 for nobody's.

    Raises
    ------
    UsageError
        The column cannot tell rows apart, or hashes need a key that is not here.
    """
    return _marks(column, rows, lambda some: store.identity.of(column, some))


def file_marks(store: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Mark the file of each of some rows: uint64 ``(n,)``, 0 where none is known."""
    if not hashes_files(store):
        return np.zeros(len(rows), np.uint64)
    marks = cell_marks(store, "sha256", rows)
    marks[marks == id_hashes(["sha256\0"])] = 0
    return marks


def hashes_files(store: Snapshot) -> bool:
    """Return whether an index holds the hashes of its rows' files."""
    return "sha256" in store.schema.names and pa.types.is_string(store.schema.field("sha256").type)


def _of_rows(store: Snapshot, rows: NDArray[np.int64]) -> list[NDArray[np.uint64]]:
    """Mark ids and files: uint64 ``(n,)`` each, 0 where there is nothing to mark."""
    return [cell_marks(store, name, rows) for name in (["id", "sha256"] if hashes_files(store) else ["id"])]


def _of_patients(store: Snapshot, rows: NDArray[np.int64], columns: Sequence[str]) -> list[NDArray[np.uint64]]:
    return [patient_marks(store, name, rows) for name in columns if name in store.schema.names]


def cell_marks(store: Snapshot, column: str, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Mark the texts of a column in some rows: uint64 ``(n,)``, 0 for none."""
    return _marks(column, rows, lambda some: store.table([column], some).column(0).to_pylist())


def _marks(
    name: str, rows: NDArray[np.int64], texts: Callable[[NDArray[np.int64]], Sequence[str | None]]
) -> NDArray[np.uint64]:
    marks = np.zeros(len(rows), np.uint64)
    # the texts of all rows would be hundreds of bytes a row at once
    for start in range(0, len(rows), _TEXTS_AT_ONCE):
        block = texts(rows[start : start + _TEXTS_AT_ONCE])
        known = np.fromiter((value is not None for value in block), bool, len(block))
        marks[start : start + len(block)][known] = id_hashes(f"{name}\0{value}" for value in block if value is not None)
    return marks


def _distinct(marks: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    found: set[int] = set().union(*(one.tolist() for one in marks)) - {0}
    return np.array(sorted(found), np.uint64)


def _any_in(marks: Sequence[NDArray[np.uint64]], known: NDArray[np.uint64], n: int) -> NDArray[np.bool_]:
    found = np.zeros(n, bool)
    for one in marks:
        found |= np.isin(one, known)
    return found
