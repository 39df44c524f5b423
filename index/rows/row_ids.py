"""Row ids: looked up by their normalized form, suggested for one that no row has, and listed."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.disk.schema import ID, texts
from retr.index.errors import UnknownIdError, UsageError
from retr.index.machine.arrow import pc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot

# So many ids are compared sign by sign with one that is not found: a few tenths of a second.
_COMPARED = 10_000
_SUGGESTED = 3
# So much of an id is shown, and a longer one is near to none.
_SHOWN = 300


def require_ids(ids: Iterable[object]) -> None:
    """Raise `UsageError` for what is no id: a number, a path, bytes."""
    for one in ids:
        if not isinstance(one, str):
            raise UsageError(f"rows are known by their ids, which are text, got: {one!r}")


def rows_by_normalized_id(snapshot: Snapshot, ids: list[str]) -> NDArray[np.int64]:
    """Find live rows by their ids in normalized form (NFC): int64, -1 where there is none, or more than one."""
    wanted = [unicodedata.normalize("NFC", text) for text in ids]
    found: dict[str, list[int]] = {text: [] for text in wanted}
    for rows, column in _pieces(snapshot):
        accented = np.flatnonzero(~pc.string_is_ascii(column).to_numpy())
        spelled = pc.utf8_normalize(column.take(accented), form="NFC").to_pylist()
        for row, text in zip(rows[accented].tolist(), spelled, strict=True):
            if text in found:
                found[text].append(row)
    return np.array([found[text][0] if len(found[text]) == 1 else -1 for text in wanted], np.int64)


def live_ids(snapshot: Snapshot) -> Iterator[str]:
    """Return the ids of all live rows, in row order, some thousands of them in memory at a time."""
    for _, column in _pieces(snapshot):
        yield from texts(column)


def unknown_id(snapshot: Snapshot, row_id: str, more: str | None = None) -> UnknownIdError:
    """Return the error of an id that no row has, with the nearest that there are.

    Parameters
    ----------
    more
        A further hint.
    """
    near = _near(snapshot, row_id)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "`retr index ls` lists the ids"
    shown = row_id if len(row_id) <= _SHOWN else f"{row_id[:_SHOWN]}..."
    return UnknownIdError(f"no row has the id {shown!r}", hint=f"{hint}, and {more}" if more else hint)


def _near(snapshot: Snapshot, row_id: str) -> list[str]:
    if not row_id.isprintable() or not 0 < len(row_id) <= _SHOWN:
        return []
    # a name is remembered better than its folders
    name = row_id.rpartition("/")[2]
    same: list[str] = []
    compared: list[str] = []
    for _, column in _pieces(snapshot):
        if len(same) < _SUGGESTED:
            same += texts(column.filter(pc.match_substring(column, name, ignore_case=True)).slice(0, _SUGGESTED))
        if len(compared) < _COMPARED:
            compared += texts(column.slice(0, _COMPARED - len(compared)))
        elif len(same) >= _SUGGESTED:
            break
    import difflib

    near = difflib.get_close_matches(row_id, list(dict.fromkeys([*same, *compared])), n=_SUGGESTED)
    return list(dict.fromkeys([*near, *same]))[:_SUGGESTED]


def _pieces(snapshot: Snapshot) -> Iterator[tuple[NDArray[np.int64], pa.ChunkedArray[Any]]]:
    """Return the numbers and the ids of the live rows, piece by piece."""
    alive, start = snapshot.alive(), 0
    for segment in snapshot.segments:
        for piece in segment.tables(pa.schema([pa.field(ID, pa.string())])):
            live = np.flatnonzero(alive[start : start + piece.num_rows])
            yield live + start, piece.column(0).take(pa.array(live))
            start += piece.num_rows
