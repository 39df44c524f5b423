"""Look up one of millions of texts by its hash, in 12 bytes each.

A hash alone is no proof: whoever asks compares what it finds with the texts, wherever those are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


class Lookup:
    """Finds rows by the hash of a text; a text that no row has may find some, too.

    Attributes
    ----------
    rows
        uint32 ``(n,)``: every row, in the order of the hashes.
    """

    def __init__(self, hashes: NDArray[np.int64], rows: NDArray[np.uint32]) -> None:
        # stable: of equal ones the later row stands behind the earlier
        order = np.argsort(hashes, kind="stable")
        self._hashes, self.rows = hashes[order], rows[order]

    def __getitem__(self, text: str) -> NDArray[np.uint32]:
        """Return the rows whose text has the same hash, in their order."""
        key = hash(text)
        first = self._hashes.searchsorted(key)
        return self.rows[first : self._hashes.searchsorted(key, "right")]

    def again(self) -> NDArray[np.uint32]:
        """Return the rows whose hash an earlier row has, ascending."""
        return np.sort(self.rows[1:][self._hashes[1:] == self._hashes[:-1]])


def hashes_of(texts: Iterable[str | None]) -> NDArray[np.int64]:
    """Return Python's own 64-bit hashes, which hold for this process."""
    return np.fromiter(map(hash, texts), np.int64)
