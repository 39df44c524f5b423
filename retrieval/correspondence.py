"""Which places of a picture look like a place of the query's picture: places compared one with one.

A picture's vector is of the whole of it, so that a small region that two pictures share hardly moves their score, and
no part of a score points at it. Here each place of a hit is compared with every place of the query's picture, and takes
the cosine with the most similar one. Less what it reaches with other pictures of the archive, as vessels look like
vessels in all of them: what is left stands where the hit looks like *this* query and not like others.

Channels count by their standard deviation over the places of those other pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retr.index.vectors import unit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

# Places of the longer side for which a place is taken together with its neighbours: fewer are large by themselves.
_FINE = 36
# Other pictures whose best place is looked at.
_FEW = 5


@dataclass(frozen=True, eq=False)
class Correspondence:
    """What the places of hits are compared with.

    Attributes
    ----------
    mean, deviation
        float32 ``(d,)``, of the descriptors of the archive's places.
    asked
        float32 ``(n, d)``: the places of the query's pictures, standardised, of unit length.
    others
        The same of other pictures, by the id of their row.
    """

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    asked: NDArray[np.float32]
    others: Mapping[str, NDArray[np.float32]]

    @classmethod
    def of(cls, asked: Sequence[NDArray[np.float32]], others: Mapping[str, NDArray[np.float32]]) -> Correspondence:
        """Take descriptors ``(h, w, d)`` of the query's pictures, and of one other picture at least."""
        flat = {name: places.reshape(-1, places.shape[-1]) for name, places in others.items()}
        every = np.concatenate([*flat.values()])
        made = cls(every.mean(axis=0), every.std(axis=0) + np.float32(1e-6), np.empty(0, np.float32), {})
        return cls(
            made.mean,
            made.deviation,
            np.concatenate([made._standard(places) for places in asked]),
            {name: made._standard(places) for name, places in flat.items()},
        )

    def heat(self, places: NDArray[np.float32], without: Collection[str] = ()) -> NDArray[np.float32]:
        """Tell how much more the places of a picture look like the query's than like those of other pictures.

        Parameters
        ----------
        places
            float ``(h, w, d)``, the descriptors of its places.
        without
            Others that are left out: the picture itself, and the query's.

        Returns
        -------
        float32 ``(h, w)``: a difference of cosines. Without any other picture the plain cosine.
        """
        own = self._standard(places)
        found = (own @ self.asked.T).max(axis=1)
        usual = [(own @ other.T).max(axis=1) for name, other in self.others.items() if name not in without]
        if usual:
            # a copy of the query or of the hit among the others does not move the median
            found = found - np.median(usual, axis=0)
        return _smooth(found.reshape(places.shape[:2]).astype(np.float32))

    def usual_peak(self, maps: Mapping[str, NDArray[np.float32]], without: Collection[str] = ()) -> float:
        """Return the best value that other pictures' maps ``(h, w, d)`` reach, the median of a few; 0 of none.

        A hit whose map stays below has nothing in particular in common with the query.
        """
        named = [name for name in maps if name not in without][:_FEW]
        return float(np.median([self.heat(maps[name], {name, *without}).max() for name in named])) if named else 0.0

    def _standard(self, places: NDArray[np.float32]) -> NDArray[np.float32]:
        flat = places.reshape(-1, places.shape[-1])
        return np.asarray(unit((flat - self.mean) / self.deviation), np.float32)


def _smooth(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average each place of a fine map with the eight around it."""
    if max(scores.shape) < _FINE:
        return scores
    padded = np.pad(scores, 1, mode="edge")
    down, across = scores.shape
    shifted = [padded[y : y + down, x : x + across] for y in range(3) for x in range(3)]
    return np.asarray(np.mean(shifted, axis=0), np.float32)
