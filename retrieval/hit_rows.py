"""The rows of an answer, read when they are first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retr.index.disk.schema import ID
from retr.index.once import Once

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from retr.index.store import Store


class HitRows:
    """What the rows of a search hold: read when it is first asked for, at once for all queries of the search.

    Parameters
    ----------
    rows
        int64 ``(n,)``, of all queries one after the other.
    columns
        Names, ``id`` first; ``None`` for all.
    """

    def __init__(self, store: Store, rows: NDArray[np.int64], columns: Sequence[str] | None) -> None:
        self._store, self._rows, self._columns = store, rows, columns
        self._once = Once()

    def ids(self) -> list[str]:
        """Return the ids, reading nothing beside them."""
        ids: list[str] = self._once("ids", lambda: self._store.ids(self._rows))
        return ids

    def metadata(self) -> pa.Table:
        """Return the columns."""
        found: pa.Table = self._once("metadata", lambda: self._store.table(self._columns, self._rows))
        return found

    def paths(self) -> list[str]:
        """Return the paths of the images inside their archive."""

        def make() -> list[str]:
            path = "path" if "path" in self._store.schema.names else ID
            table = (
                self.metadata()
                if self._columns is None or path in self._columns
                else self._store.table([path], self._rows)
            )
            paths: list[str] = table[path].to_pylist()
            return paths

        found: list[str] = self._once("paths", make)
        return found
