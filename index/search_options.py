"""What a search of a store is asked beside its queries: which rows are ranked, and how they are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypedDict

from retr.index.options import Option, Options


@dataclass(frozen=True, kw_only=True)
class RankOptions(Options):
    """How rows are ranked; the fields of `RankKeywords`, by which callers give them."""

    k: Annotated[
        int,
        Option("How many neighbours.", "Fewer come back only when fewer rows are allowed.", flag="-k"),
    ] = 5
    where: Annotated[
        str | None,
        Option("Only rows for which this is true, e.g. \"age >= 60 and sex = 'Female'\".", metavar="EXPR"),
    ] = None
    one_per: Annotated[
        str | None,
        Option(
            "At most one row for each value of a column.",
            "The best of them; rows without a value each stand alone.",
            metavar="COLUMN",
        ),
    ] = None
    min_score: Annotated[float | None, Option("Only rows at least so similar.")] = None
    exact: Annotated[bool, Option("Compare with every row, also where the index is tuned.")] = False
    effort: Annotated[
        int | None,
        Option(
            "How many lists (or candidates) a tuned index looks at, not as many as tuned.",
            "More find more and take longer; `UsageError` where search is exact.",
        ),
    ] = None
    partial: Annotated[
        bool,
        Option(
            "Answer also where shards on other machines do not, and say what share of the rows was searched.",
            "Without it that is an error, which names the shard; see ``Index.open(ray=...)``.",
        ),
    ] = False


class RankKeywords(TypedDict, total=False):
    """The fields of `RankOptions` by name, but for ``k``, which has a place of its own in `Store.search`."""

    where: str | None
    one_per: str | None
    min_score: float | None
    exact: bool
    effort: int | None
    partial: bool
