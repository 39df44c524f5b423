"""What a search gives back: the hits of one query, as arrays and a table, and one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.plain import to_plain
from retr.index.schema import records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from retr.index.exact import Neighbours
    from retr.index.store import Store


# What an answer says of itself; a column of the same name is shown under another.
ANSWER = ("rank", "score", "query")


def shown_names(columns: Sequence[str]) -> dict[str, str]:
    """Return, for each column of an index, its name in an answer, where ``score`` is the hit's own.

    >>> shown_names(["id", "score", "age"])
    {'id': 'id', 'score': 'score_meta', 'age': 'age'}
    """
    taken = {*ANSWER, *columns}
    names = {}
    for column in columns:
        name = f"{column}_meta" if column in ANSWER else column
        while column in ANSWER and name in taken:
            name += "_"
        taken.add(name)
        names[column] = name
    return names


@dataclass(frozen=True)
class Hit:
    """One neighbour.

    Attributes
    ----------
    rank
        1 for the best.
    id
        The row's id.
    score
        Similarity, higher is nearer (cosine or dot product, as the encoder states).
    metadata
        The row's other columns.
    """

    rank: int
    id: str
    score: float
    metadata: dict[str, Any]

    @property
    def path(self) -> str:
        """The image's path inside its archive."""
        return str(self.metadata.get("path", self.id))

    def to_json(self) -> dict[str, Any]:
        """Return one flat object, ready for JSON: rank, id, score, path, then the metadata columns.

        A column called ``rank``, ``score`` or ``query`` comes as ``rank_meta`` ..., never in place of the hit's own.
        """
        names = shown_names(list(self.metadata))
        columns = {names[column]: to_plain(value) for column, value in self.metadata.items()}
        return {"rank": self.rank, "id": self.id, "score": self.score, "path": self.path, **columns}


@dataclass(frozen=True)
class Hits:
    """The hits of one query, best first.

    Attributes
    ----------
    scores
        float32 ``(n,)``, ``n <= k``; fewer than ``k`` only when fewer rows are allowed.
    rows
        int64 ``(n,)``: row numbers in the snapshot that was searched.
    table
        The rows' metadata as a pyarrow table of ``n`` rows, ``id`` first.
    exact
        False when an approximate index answered.
    note
        What the user should know of how the answer came about, or ``None``.
    query
        What was asked, in words.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
    table: pa.Table
    exact: bool = True
    note: str | None = None
    query: str = ""

    @classmethod
    def all_of(cls, store: Store, found: Neighbours, queries: Sequence[str]) -> list[Hits]:
        """Give the answers to all queries of a search, with their rows' metadata, read at once."""
        rows = [row[row >= 0] for row in found.rows]
        table = store.table(rows=np.concatenate([np.empty(0, dtype=np.int64), *rows]))
        ends = np.cumsum([len(own) for own in rows])
        return [
            cls(
                scores=scores[: len(own)],
                rows=own,
                table=table.slice(end - len(own), len(own)),
                exact=found.exact,
                note=found.note,
                query=query,
            )
            for own, scores, end, query in zip(rows, found.scores, ends, queries, strict=True)
        ]

    @property
    def ids(self) -> list[str]:
        """The hits' ids, best first."""
        ids: list[str] = self.table.column("id").to_pylist()
        return ids

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Hit]:
        for rank, (score, row) in enumerate(zip(self.scores, records(self.table), strict=True), start=1):
            yield Hit(rank=rank, id=row.pop("id"), score=float(score), metadata=row)

    def __repr__(self) -> str:
        best = f", best {self.scores[0]:.4f}" if len(self) else ""
        return f"Hits({self.query!r}, {len(self)} rows{best})"
