"""What `Index.search` is asked beside the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 - the declarations are read when the program runs
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from retr.index.options import Option
from retr.index.search_options import RankKeywords, RankOptions
from retr.index.types import ItemScore  # noqa: TC001

#: Columns, or columns with the values to leave out (None: the query's own), for all queries or one for each.
Same: TypeAlias = "str | Mapping[str, Any] | Sequence[str] | Sequence[Mapping[str, Any] | None] | None"


@dataclass(frozen=True, kw_only=True)
class SearchOptions(RankOptions):
    """How hits are found and which are shown; the fields of `SearchKeywords`, by which callers give them."""

    exclude_same: Annotated[
        Same,
        Option(
            "Leave out rows that share the query's value of a column, e.g. patient.",
            'The value is taken from the query\'s own row or a DICOM header; else give ``{"patient": "P17"}``, raw '
            "where hashes are kept.",
            spelled="VALUE for a query that is neither indexed nor a DICOM file; repeats.",
            metavar="COLUMN[=VALUE]",
        ),
    ] = None
    strict_exclude: Annotated[bool, Option("A value to leave out that no row has is an error, not a note.")] = False
    include_self: Annotated[bool, Option("Let the query's own row and its byte-identical copies be returned.")] = False
    offset: Annotated[
        int | None,
        Option(
            "Leave out so many of the best: pages of one answer, which is exact then.",
            "The first begins at 0, the second at ``k``; with an offset, 0 too, search is exact.",
        ),
    ] = None
    diverse: Annotated[
        float | None,
        Option(
            "Prefer hits that differ from those before them, e.g. 0.3; 0 is by score alone, 1 most.",
            "Maximal marginal relevance over the 200 nearest rows: they keep their scores, in another order.",
            metavar="SHARE",
        ),
    ] = None
    in_: Annotated[
        str | Sequence[str] | None,
        Option(
            "Look for the words of the question in a text column, e.g. findings, and not among the vectors.",
            "By BM25, in one column or several: ``'no effusion'`` finds reports that deny one. What else the question "
            "holds is compared as vectors, and both are fused.",
            flag="--in",
            spelled="Names are separated by commas.",
            metavar="COLUMN",
        ),
    ] = None
    fuse: Annotated[
        float | None,
        Option(
            "The share of vectors in an answer by words, from 0 to 1, fused by reciprocal rank.",
            "By default 0 for words alone, 0.5 for words and something else.",
            metavar="SHARE",
        ),
    ] = None
    item: Annotated[
        str | bool | None,
        Option(
            "What a case is: study, series, volume, patient, eye-pair or a column whose value its rows share.",
            "The answer is cases then, and the parts of a question those of one case, each compared by itself. "
            "``True`` or ``'declared'`` is what the index records; see `retr.index.rows.items`.",
            spelled="Of a question: declared is what the index records.",
            metavar="CASE",
        ),
    ] = None
    item_score: Annotated[
        ItemScore,
        Option(
            "How a case is scored: maxsim, the sum of each part's best pair; mean, of all pairs; best, the best pair.",
            "See `retr.index.scan.items`.",
            metavar="SCORE",
        ),
    ] = "maxsim"
    in_regions: Annotated[
        bool,
        Option(
            "Compare with regions of pictures, and say which is most like the question.",
            "Of an index that was built with regions (`retr.retrieval.regions.layout`); a row is as like as its best.",
            spelled="Of an index built with --regions; a row is as like as its best.",
        ),
    ] = False
    columns: Annotated[
        Sequence[str] | None,
        Option(
            "Columns to show.",
            "Metadata to read beside the id; by default all.",
            spelled="Names are separated by commas.",
        ),
    ] = None


class SearchKeywords(RankKeywords, total=False):
    """The fields of `SearchOptions` by name."""

    k: int
    exclude_same: Same
    strict_exclude: bool
    include_self: bool
    offset: int | None
    diverse: float | None
    in_: str | Sequence[str] | None
    fuse: float | None
    item: str | bool | None
    item_score: ItemScore
    in_regions: bool
    columns: Sequence[str] | None
