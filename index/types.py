"""The types that the layers of a search share: blocks of vectors, requests, candidates and answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from retr.index.accelerators.config import Config


#: How a case is scored by the pairs of its parts with those of a question; see `retr.index.scan.items`.
ItemScore: TypeAlias = Literal["maxsim", "mean", "best"]


class GroupCodes(Protocol):
    """Which rows belong together: an int64 array ``(n_total,)`` of codes, or what answers as one does."""

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.int64]:
        """Return the codes of some rows ``(n,)``, equal where two are of one group and -1 where one is of none."""
        ...


@dataclass(frozen=True)
class Block:
    """A run of consecutive rows: their vectors ``(m, d)`` as stored, and the number of the first."""

    vectors: NDArray[np.float32] | NDArray[np.float16]
    start: int

    @cached_property
    def words(self) -> tuple[int, int, int]:
        """Where the vectors lie, and their shape, as `retr.index.scan.machine_code.packed` gives them."""
        return (self.vectors.ctypes.data, *self.vectors.shape)


# So many times k rows are looked at where one of a group comes back.
GROUPED = 4


@dataclass(frozen=True)
class Ask:
    """What is wanted of a search, beside the queries.

    ``allowed`` is a bool mask ``(n_total,)`` or ``None`` for all; ``exclude`` holds each query's forbidden rows;
    ``one_per`` gives at most one row a group (rows without a value each stand alone); ``few`` holds the allowed rows,
    in order, where they are few and known; ``groups`` holds the codes of ``one_per`` for all rows, int32, where they
    are known.
    """

    k: int
    allowed: NDArray[np.bool_] | None
    exclude: Sequence[NDArray[np.int64]]
    one_per: GroupCodes | None
    min_score: float | None
    few: NDArray[np.int64] | None = None
    groups: NDArray[np.int32] | None = None

    @cached_property
    def excluded(self) -> int:
        """The most rows that are forbidden for one query."""
        return max(map(len, self.exclude), default=0)

    @property
    def candidates(self) -> int:
        """How many rows are looked at for ``k`` of them: of a group only one counts, and the best are often of few."""
        return self.k * (GROUPED if self.one_per is not None else 1)


@dataclass(frozen=True)
class Scan:
    """Candidates of one query, their float32 scores, and a score no dropped row exceeds (``-inf``: none was)."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    bound: float


@dataclass(frozen=True)
class Scans:
    """Candidates of ``n`` queries.

    Attributes
    ----------
    rows
        int64 ``(n, c)`` row numbers, -1 where a query has fewer.
    scores
        float64 ``(n, c)``, each pair's own, ``-inf`` where there is no row; ``None`` where they are still to be
        computed from the stored vectors.
    bound
        float64 ``(n,)``: what no dropped row's true score exceeds, ``-inf`` where none was dropped.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64] | None
    bound: NDArray[np.float64]


@dataclass(frozen=True)
class Neighbours:
    """Answers to ``n`` queries, best first.

    Attributes
    ----------
    rows
        int64 ``(n, m)`` row numbers, -1 where fewer are allowed; ``m`` is k, or all rows where they are fewer than k.
    scores
        float32 ``(n, m)``, higher is better, ``-inf`` where fewer are allowed.
    exact
        Whether these are provably the best rows.
    note
        What a person should know about how they were found, or ``None``.
    searched
        The share of the rows that was looked at: less than 1 where shards did not answer, and that was asked for.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    exact: bool = True
    note: str | None = None
    searched: float = 1.0


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


class FirstScan(Protocol):
    """The first step of an exact search, over all rows, elsewhere than on the CPU."""

    @property
    def margin(self) -> int:
        """How many more candidates than asked for are worth keeping."""

    def reaches(self, wanted: int, allowed: NDArray[np.bool_] | None) -> bool:
        """Return whether so many allowed rows can be found for a query."""

    def __call__(
        self,
        queries: NDArray[np.float32],
        allowed: NDArray[np.bool_] | None,
        exclude: Sequence[NDArray[np.int64]],
        want: int,
    ) -> Scans:
        """Return about ``want`` candidates for each query, or what there are."""


class Accelerator(Protocol):
    """What proposes rows of one segment to questions like those that it was tuned on: few rows, any may be found."""

    def search(self, queries: NDArray[np.float32], k: int, config: Config) -> Candidates:
        """Propose about ``k`` rows for each query.

        Parameters
        ----------
        queries
            float32 ``(n, d)``, contiguous.
        config
            How much to search; of the kind that was built.
        """
        ...


class BestFirst(Accelerator, Protocol):
    """An accelerator that knows, whatever is asked, when what is left can hardly hold a better row."""

    def best_first(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        reach: float,
        most: int | None = None,
        allowed: NDArray[np.bool_] | None = None,
        exclude: Sequence[NDArray[np.int64]] | None = None,
        groups: NDArray[np.int32] | None = None,
        apart: int = 0,
    ) -> Candidates:
        """Return about the k best allowed rows of each query, and k whenever so many are allowed.

        Parameters
        ----------
        queries
            float32 ``(n, d)``, contiguous.
        reach
            How much better than the mean of a part of the segment its rows are taken to be at most; see
            `retr.index.accelerators.probing`. Nothing is left out where it is infinite.
        most
            How many parts are looked at, where that is limited: fewer than k rows may come back then.
        allowed
            bool over the segment's rows; other rows are not returned.
        exclude
            For each query sorted rows that are not returned for it.
        groups, apart
            The group of each of the segment's rows, negative for one by itself. Where so many groups are found, a row
            that is no better than the best of each may be left out.
        """
        ...


def is_best_first(accelerator: Accelerator | None) -> TypeGuard[BestFirst]:
    """Return whether an accelerator is a `BestFirst`: asking a protocol takes longer than a part of a search."""
    return hasattr(accelerator, "best_first")
