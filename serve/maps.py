"""The map of an index as a page draws it: places as numbers, and what colours the points."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retr import UsageError
from retr.answers import to_plain
from retr.serve.schemas import MapColumn

if TYPE_CHECKING:
    from retr import Index

#: So many values of a column have a code of their own.
MOST_VALUES = 30
MISSING, OTHER = -1, -2


@dataclass(frozen=True)
class ServedMap:
    """A map, and the version of the index that it is of: little-endian float32 ``xy``, a cluster of each row."""

    index: Index
    xy: bytes
    ids: list[str]
    clusters: list[int]
    names: tuple[str, ...]


class ServedMaps:
    """The stored map of an index's newest version, read once; rows that came later have the places of their like."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: ServedMap | None = None

    def of(self, index: Index) -> ServedMap:
        """Return the map of the index as it is now.

        Raises
        ------
        RetrError
            It has none: `retr map` makes one.
        """
        with self._lock:
            if self._kept is None or self._kept.index.version != index.version:
                now = index.snapshot()
                found = now.map(fit=False)
                xy = np.ascontiguousarray(found.xy, "<f4").tobytes()
                self._kept = ServedMap(now, xy, found.ids, found.clusters.tolist(), found.names)
            return self._kept


def column(found: ServedMap, name: str | None) -> MapColumn:
    """Return what a column says of each point; ``None`` is the map's own clusters, ``id`` the rows' ids.

    Raises
    ------
    UsageError
        There is no such column.
    """
    if name is None:
        return MapColumn(column="", kind="values", values=list(found.names), codes=found.clusters)
    if name == "id":
        return MapColumn(column=name, kind="ids", values=found.ids)
    # a table has the order of the rows, as the map has
    values = found.index.table([name]).column(0)
    if isinstance(values.type, pa.ListType):
        values = pa.array([None if one is None else ", ".join(map(str, one)) for one in values.to_pylist()])
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type) or pa.types.is_temporal(values.type):
        numbers = pc.cast(values, pa.float64(), safe=False) if not pa.types.is_temporal(values.type) else _days(values)
        if pc.count_distinct(values).as_py() > 12:
            return MapColumn(column=name, kind="numbers", numbers=[to_plain(one) for one in numbers.to_pylist()])
    counts = sorted(
        pc.value_counts(values.drop_null()).to_pylist(), key=lambda one: (-one["counts"], str(one["values"]))
    )
    frequent: dict[Any, int] = {one["values"]: code for code, one in enumerate(counts[:MOST_VALUES])}
    codes = [MISSING if one is None else frequent.get(one, OTHER) for one in values.to_pylist()]
    return MapColumn(column=name, kind="values", values=[to_plain(one) for one in frequent], codes=codes)


def _days(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_time(values.type) or pa.types.is_duration(values.type):
        raise UsageError("times of day and durations colour no map", hint="choose another column")
    return pc.cast(pc.cast(pc.cast(values, pa.timestamp("s"), safe=False), pa.int64()), pa.float64())
