"""What the places of a series' slices say of it: slices that are missing, twice at one place, or unevenly spaced.

Slices are compared within a series, a plane, a time, a scan and a window. Files come in any order and over several
builds; so it is told at the end of a build of the series that it read, from all rows that the index has of them.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retr.index.machine.arrow import pc

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot
    from retr.retrieval.ingest.decode import Read

_APART = ("series", "plane", "temporal_position", "acquisition_number", "ct_window")
_PLACE = "slice_position"
# two of one place, in mm; and by what share of the usual spacing another may differ from it
_SAME, _UNEVEN = 0.011, 0.1


def series_of(files: Iterable[Read]) -> set[str]:
    """Return the series of which files hold slices that say where they lie."""
    return {
        str(frame.columns["series"])
        for file in files
        for frame in file.frames
        if _PLACE in frame.columns and "series" in frame.columns
    }


def series_notes(snapshot: Snapshot, series: set[str], *, complete: bool) -> list[str]:
    """Return what a person should know of some series, in a line at most.

    Parameters
    ----------
    series
        Their values in the column ``series``.
    complete
        Whether every slice was to become a row; else nothing is missing.
    """
    names = snapshot.schema.names
    if not series or "series" not in names or _PLACE not in names:
        return []
    rows = snapshot.live_rows()
    of_series = snapshot.table(["series"], rows)["series"]
    rows = rows[np.asarray(pc.is_in(of_series, value_set=pa.array(sorted(series), of_series.type)))]
    keys = [name for name in _APART if name in names]
    table = snapshot.table([*keys, _PLACE], rows)
    table = table.filter(pc.is_valid(table[_PLACE])).sort_by([(name, "ascending") for name in (*keys, _PLACE)])
    found: Counter[str] = Counter()
    places = np.asarray(table[_PLACE], np.float64)
    told = list(zip(*(table[name].to_pylist() for name in keys), strict=True))
    begins = [0, *(at for at in range(1, len(told)) if told[at] != told[at - 1]), len(told)]
    for first, last in pairwise(begins):
        found.update(_faults(places[first:last], complete=complete))
    return [_line(found)] if found else []


def _faults(places: NDArray[np.float64], *, complete: bool) -> dict[str, int]:
    """Return the faults of the slices of one series, from rising positions: which, and how many slices of each."""
    gaps = np.diff(places)
    twice = gaps < _SAME
    apart = gaps[~twice]
    found = {"twice": int(twice.sum())}
    if complete and len(apart) > 1:
        usual = float(np.median(apart))
        times = np.rint(apart / usual)
        even = np.abs(apart - times * usual) <= _UNEVEN * usual
        found |= {"missing": int((times[even] - 1).clip(0).sum()), "uneven": int((~even).sum())}
    return {name: number for name, number in found.items() if number}


def _line(found: Counter[str]) -> str:
    said: Sequence[tuple[str, str]] = (
        ("missing", "{} slices are missing between others"),
        ("twice", "{} lie where another does (copies, or times that headers do not tell apart)"),
        ("uneven", "{} are spaced unlike the others"),
    )
    parts = [text.format(found[name]) for name, text in said if found[name]]
    return f"slices of series: {', '.join(parts)}; see the columns series and {_PLACE}"
