"""Cases: which rows are parts of one study, series, volume, patient or pair of eyes.

A rule says it: the name of a column whose value the parts share, or one of `RULES`. A row to which the rule gives no
value belongs to no case. Cases are numbered in the order of their ids, so that equal scores are settled by number, and
the same rows are the same cases however they lie in segments and shards.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pyarrow as pa

from retr.index.disk.schema import ID
from retr.index.errors import UsageError
from retr.index.machine.arrow import pc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot

#: Rules that are no columns: the words by which they are known, and what they mean.
RULES = {
    "patient": "the rows of one patient: of the column that tells patients apart, or else of the column patient",
    "volume": "the rows of one series, and of a file that is of no series the rows of that file",
    "eye-pair": "the rows of one patient that say of which eye they are; eye-pair:COLUMN names the column that does",
}
#: What stands for the rule that an index records.
DECLARED = "declared"
_EYES = ("laterality", "side", "eye")
_PAIR = "eye-pair"


@dataclass(frozen=True)
class Items:
    """The cases of a snapshot by one rule.

    Attributes
    ----------
    rule
        The rule.
    columns
        The columns that give the ids of cases, the first that a row has a value of.
    numbers
        int32 ``(n_total,)``: the case of each row, -1 for a row of none, deleted rows among these.
    names
        The ids of the cases, rising: the text of a column's value, a keyed hash where the column holds hashes.
    """

    rule: str
    columns: tuple[str, ...]
    numbers: NDArray[np.int32]
    names: Sequence[str]
    _order: NDArray[np.int64]
    _starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, number: int) -> NDArray[np.int64]:
        """Return the live rows of a case, sorted int64."""
        return self._order[self._starts[number] : self._starts[number + 1]]

    def all_rows(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the live rows of several cases, case by case, and how many each has."""
        sizes = self._starts[numbers + 1] - self._starts[numbers]
        ends = np.cumsum(sizes)
        places = np.arange(sizes.sum()) + np.repeat(self._starts[numbers] - ends + sizes, sizes)
        return self._order[places], sizes

    def number_of(self, name: str) -> int:
        """Return the number of the case with an id, -1 where there is none."""
        at = bisect.bisect_left(self.names, name)
        return at if at < len(self.names) and self.names[at] == name else -1

    def number_of_identifier(self, snapshot: Snapshot, value: str) -> int:
        """Return the number of the case that a raw identifier names where the index may hold its hash; -1.

        Raises
        ------
        UsageError
            The key of the hashes is needed and not here.
        """
        for column in self.columns:
            found = self.numbers[snapshot.identity.rows(column, [value])[0]]
            if (found >= 0).any():
                return int(found[found >= 0][0])
        return -1


def columns_of(snapshot: Snapshot, rule: str) -> tuple[tuple[str, ...], str | None]:
    """Return the columns that give the ids of cases by a rule, and the one that a row needs a value of beside.

    Raises
    ------
    UsageError
        It is empty, or the index lacks a column of it.
    """
    columns, needed = named_columns(snapshot.schema.names, snapshot.manifest.group, rule)
    for column in columns:
        snapshot.identity.require(column)
    return columns, needed


def named_columns(names: Sequence[str], group: str | None, rule: str) -> tuple[tuple[str, ...], str | None]:
    """Return what `columns_of` does where an index has, or is to have, these columns, and raise as it does."""
    if not rule:
        raise UsageError(f"an item is a column, or one of {', '.join(RULES)}, got: {rule!r}")
    word, _, named = rule.partition(":")
    patient = group if group in names else "patient" if "patient" in names else None
    if rule == ID:
        _missing(rule, "it is another one for each picture", names)
    if rule in names and rule != "patient":
        return (rule,), None
    if rule == "volume":
        known = tuple(name for name in ("series", "path") if name in names)
        if not known:
            _missing(rule, "there is no column 'series' or 'path'", names)
        return known, None
    if rule == "patient" or word == _PAIR:
        if patient is None:
            _missing(rule, "no column tells patients apart", names)
        if rule == "patient":
            return (str(patient),), None
        side = named or next((name for name in _EYES if name in names), None)
        if side is None or side not in names:
            wanted = repr(named) if named else ", ".join(map(repr, _EYES))
            _missing(rule, f"there is no column {wanted} that says which eye a row is of", names)
        return (str(patient),), side
    return _missing(rule, "there is no such column", names)


def rule_of(snapshot: Snapshot, item: str | bool) -> str:
    """Return the rule that is asked for: ``True`` and ``"declared"`` are what the index records.

    Raises
    ------
    UsageError
        The index records none.
    """
    if item is not True and item != DECLARED:
        return str(item)
    if snapshot.manifest.item is None:
        hint = "name it: study, series, volume, patient, eye-pair or a column; or record it with `retr index item`"
        raise UsageError("the index does not say what a case is", hint=hint)
    return snapshot.manifest.item


def items_of(snapshot: Snapshot, rule: str) -> Items:
    """Return the cases of a snapshot by a rule, worked out once; raises as `columns_of`."""
    columns, needed = columns_of(snapshot, rule)

    def make() -> Items:
        return _items(snapshot, rule, columns, needed)

    items: Items = snapshot.once(("items", columns, needed), make)
    return items


def _items(snapshot: Snapshot, rule: str, columns: tuple[str, ...], needed: str | None) -> Items:
    live = snapshot.live_rows()
    if needed is not None:
        live = live[_given(snapshot, needed, live)]
    found, words = np.full(len(live), -1, np.int64), list[str]()
    for column in columns:
        rest = np.flatnonzero(found < 0)
        codes = snapshot.identity.groups(column)[live[rest]]
        known = rest[codes >= 0]
        _, first, which = np.unique(codes[codes >= 0], return_index=True, return_inverse=True)
        found[known] = which + len(words)
        words += [str(word) for word in snapshot.identity.of(column, live[known[first]])]
    names = sorted(set(words))
    rank = dict(zip(names, range(len(names)), strict=True))
    numbers = np.full(snapshot.n_total, -1, np.int32)
    there = found >= 0
    numbers[live[there]] = np.array([rank[word] for word in words], np.int32)[found[there]]
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(len(names) + 1))
    numbers.flags.writeable = False
    return Items(rule, columns, numbers, names, order, starts)


def _given(snapshot: Snapshot, column: str, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    cells = snapshot.table([column], rows).column(0)
    there = pc.is_valid(cells)
    if pa.types.is_string(cells.type):
        there = pc.and_kleene(there, pc.not_equal(pc.utf8_trim_whitespace(cells), ""))
    return np.asarray(there.to_numpy(), bool) if len(rows) else np.empty(0, bool)


def _missing(rule: str, what: str, names: Sequence[str]) -> NoReturn:
    raise UsageError(f"the index has no cases by {rule!r}: {what}", hint=_hint(names))


def _hint(names: Sequence[str]) -> str:
    return f"an item is {', '.join(RULES)}, or one of the columns {', '.join(names)}"
