"""What stands between a segment's accelerator and the search: some rows that may be the best, and their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from retr.index.accelerators.config import Config


@dataclass(frozen=True)
class Candidates:
    """Proposed rows of one segment for each query.

    Attributes
    ----------
    rows
        int64 ``(n, c)``, counted from the segment's first, -1 padded.
    scores
        float32 ``(n, c)``: products summed in float64 and rounded, as the exact search's are; ``-inf`` for no row.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


class Accelerator(Protocol):
    """What proposes rows of one segment."""

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        config: Config,
        *,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Candidates:
        """Propose about ``k`` rows for each query.

        Parameters
        ----------
        queries
            float32 ``(n, d)``, contiguous.
        config
            How much to search; of the kind that was built.
        allowed
            bool over the segment's rows; other rows are not proposed. Fewer than k may come back then.
        """
        ...
