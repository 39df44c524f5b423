"""A made-up kind of side data, which uses all that a kind can: files, notes, numbers of rows, and a row array."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.disk.side_data import Change, Kind, Move
from retr.index.errors import IndexCorruptError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot
    from retr.index.rows.writer import Writer

FILE, NOTE, ARRAY = "sets.json", "sets", "digits"


class Sets(Kind):
    """Named sets of rows, by their numbers; a note of how many rows there were; three digits of every row's id."""

    name = "sets"
    numbered = True
    of_vectors = False

    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        def numbers() -> None:
            named = self.rows(snapshot)
            if (named & ~snapshot.alive()).any():
                raise IndexCorruptError("a set names a row that is deleted", hint="run `retr index check`")

        def lines() -> None:
            ids = snapshot.table(["id"], np.arange(snapshot.n_total))["id"].to_pylist()
            if not np.array_equal(snapshot.array(ARRAY), digits(ids)):
                raise IndexCorruptError("the digits are not of these rows", hint="run `retr index check`")

        return {FILE: numbers, ARRAY: lines}

    def stale(self, snapshot: Snapshot) -> list[str]:
        return [] if snapshot.manifest.extra[NOTE]["rows"] == len(snapshot) else ["the sets are of other rows"]

    def rows(self, snapshot: Snapshot) -> NDArray[np.bool_]:
        mask = np.zeros(snapshot.n_total, bool)
        for rows in json.loads(snapshot.file(FILE)).values():
            mask[rows] = True
        return mask

    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:
        numbers = np.arange(snapshot.n_total)
        numbers[gone] = -1
        lost = int(self.rows(snapshot)[gone].sum())
        said = (f"{lost} rows of sets",) if lost else ()
        return Change(self.carry(snapshot, Move(numbers)).files, said=said)

    def carry(self, snapshot: Snapshot, move: Move) -> Change:
        sets = json.loads(snapshot.file(FILE))
        moved = {name: [int(new) for new in move.numbers[rows] if new >= 0] for name, rows in sets.items()}
        return Change({FILE: json.dumps(moved).encode()})


def digits(ids: list[str]) -> NDArray[np.int16]:
    """Return three digits of ids such as ``r017``: int16 ``(n, 3)``."""
    return np.array([[int(digit) for digit in name[-3:]] for name in ids], np.int16).reshape(-1, 3)


def save(writer: Writer[Any], sets: dict[str, list[int]]) -> None:
    """Write sets of rows, by their numbers in the writer's preview."""
    writer.add_file(FILE, json.dumps(sets).encode(), kind=Sets())
    writer.note(NOTE, {"rows": len(writer.store)}, kind=Sets())


def equip(writer: Writer[Any], sets: dict[str, list[int]]) -> None:
    """Give an index all that is of the kind."""
    save(writer, sets)
    ids = writer.preview().table(["id"], np.arange(writer.preview().n_total))["id"].to_pylist()
    writer.add_array(ARRAY, Sets(), dtype="int16", dim=3, fill=lambda rows: digits([ids[row] for row in rows]))


def members(snapshot: Snapshot) -> dict[str, list[str]]:
    """Return the ids of the rows of each set."""
    sets = json.loads(snapshot.file(FILE))
    return {name: snapshot.table(["id"], np.array(rows, int))["id"].to_pylist() for name, rows in sets.items()}


KIND = Sets()
