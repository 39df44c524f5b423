"""Rows that a condition allows: as a mask of all, and by their numbers where they are few.

Each is made when it is asked for: of a small share of many rows the numbers alone are looked at.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Allowed:
    """Some of the rows of a snapshot, given as a mask or as their numbers.

    >>> Allowed(4, few=np.array([2, 0])).mask.tolist()
    [True, False, True, False]

    Parameters
    ----------
    n_total
        How many rows there are.
    mask
        bool ``(n_total,)``, true for those that are meant; left out where ``few`` is given.
    few
        Their numbers, int64, segment by segment and in any order within one; ``None`` where they are many.
    """

    def __init__(self, n_total: int, *, mask: NDArray[np.bool_] | None = None, few: NDArray[np.int64] | None) -> None:
        self._n_total = n_total
        self.few = few
        if mask is not None:
            mask.flags.writeable = False
            self.mask = mask

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """The rows as bool ``(n_total,)``, read-only."""
        made = np.zeros(self._n_total, np.bool_)
        made[self.few] = True
        made.flags.writeable = False
        return made

    @cached_property
    def rows(self) -> NDArray[np.int64] | None:
        """Their numbers, rising, where they are few."""
        return None if self.few is None else np.sort(self.few)

    def among(self, alive: NDArray[np.bool_], most: int) -> Allowed:
        """Return those of them that are alive, by number where they are at most so many."""
        if self.few is not None:
            return Allowed(self._n_total, few=self.few[alive[self.few]])
        mask = self.mask & alive
        return Allowed(self._n_total, mask=mask, few=np.flatnonzero(mask) if np.count_nonzero(mask) <= most else None)
