"""The result of a search: the hits of one query, as arrays, as a table, and one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa

from retr.index.disk.schema import ID, records, texts
from retr.index.machine.extras import needed
from retr.retrieval.hit_rows import HitRows
from retr.retrieval.json_values import to_plain
from retr.retrieval.same_tables import same_tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import pandas as pd
    import polars as pl
    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.index.types import Neighbours


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


def free_name(name: str, taken: Collection[str]) -> str:
    """Return a name that no column has.

    >>> free_name("region", ["id", "region"])
    'region_'
    """
    while name in taken:
        name += "_"
    return name


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
    path
        The image's path inside its archive.
    region
        Of an answer by regions: left, top, width and height of the one that matched, in pixels of the picture.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> hit = index.search(id="healthy/P01-left.png", k=1)[0]
    >>> hit.id, hit.rank, hit.metadata["label"]
    ('healthy/P11-right.png', 1, 'healthy')
    """

    rank: int
    id: str
    score: float
    metadata: dict[str, Any]
    path: str
    region: tuple[int, int, int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return one flat object, ready for JSON: rank, id, score, path, a region, then the metadata columns.

        A column called ``rank``, ``score`` or ``query`` comes as ``rank_meta`` ..., never in place of the hit's own.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> hits = index.search(id="healthy/P01-left.png", k=2, columns=["label"])
        >>> sorted(hits[0].to_json())
        ['id', 'label', 'path', 'rank', 'score']
        """
        names = shown_names(list(self.metadata))
        columns = {names[column]: to_plain(value) for column, value in self.metadata.items()}
        own: dict[str, Any] = {"rank": self.rank, "id": self.id, "score": self.score, "path": self.path}
        if self.region is not None:
            own[free_name("region", columns)] = list(self.region)
        return {**own, **columns}


@dataclass(frozen=True, eq=False)
class Hits(Sequence[Hit]):
    """The hits of one query, best first: a sequence of `Hit`, of which a slice is `Hits` again.

    Of what a search gives, ids, scores and ranks cost nothing further; the metadata are read when they are asked for.

    Two are equal where all of their attributes are.

    >>> table = pa.table({"id": ["a", "b"], "label": ["healthy", "glaucoma"]})
    >>> hits = Hits(np.float32([0.75, 0.5]), np.array([4, 2]), np.array([1, 2]), table, ["a.png", "b.png"])
    >>> hits[1]
    Hit(rank=2, id='b', score=0.5, metadata={'label': 'glaucoma'}, path='b.png', region=None)
    >>> hits[1:].ids, hits[1:].ranks.tolist(), hits == hits[:]
    (['b'], [2], True)
    >>> hits.table.to_pylist()[0]
    {'rank': 1, 'score': 0.75, 'id': 'a', 'label': 'healthy'}

    Attributes
    ----------
    scores
        float32 ``(n,)``, ``n <= k``; fewer than ``k`` only when fewer rows are allowed.
    rows
        int64 ``(n,)``: row numbers in the snapshot that was searched.
    ranks
        int64 ``(n,)``: 1 for the best of all.
    metadata
        What the rows hold, as a pyarrow table of ``n`` rows, ``id`` first; `table` has score and rank too.
    paths
        The images' paths inside their archive.
    exact
        False when an approximate index answered.
    note
        What the user should know of how the answer came about, or ``None``.
    query
        What was asked, in words.
    highlights
        Of an answer by words: for each hit, by column, where they stand in its text, ``[start, stop]`` in characters.
    weights
        Of an answer by words and vectors: the share of each.
    cases
        Of an answer by cases (``item=``): the id of each; the hit's row is its part that is most like the question.
    parts
        Of an answer by cases: for each its best pairs of parts, ``{"part": 2, "id": "a.png", "score": 0.9}`` the row
        that is most like the question's second part, the best first.
    regions
        Of an answer by regions: of each hit left, top, width and height of the one that is most like the question, in
        pixels of the upright picture.
    searched
        The share of the rows that was searched: less than 1 where shards on other machines did not answer, and
        ``partial`` let the others.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
    ranks: NDArray[np.int64]
    metadata: pa.Table
    paths: list[str]
    exact: bool = True
    note: str | None = None
    query: str = ""
    highlights: list[dict[str, list[list[int]]]] | None = None
    weights: dict[str, float] | None = None
    cases: list[str] | None = None
    parts: list[list[dict[str, Any]]] | None = None
    regions: list[tuple[int, int, int, int]] | None = None
    searched: float = 1.0
    # numpy leaves `array == hits` to this class
    __array_ufunc__ = None
    # for the thumbnails of a notebook; does not travel in a pickle
    _store: Store | None = field(default=None, repr=False)

    @classmethod
    def all_of(
        cls,
        store: Store,
        found: Neighbours,
        queries: Sequence[str],
        *,
        offset: int = 0,
        columns: Sequence[str] | None = None,
    ) -> list[Hits]:
        """Return the answers to all queries of a search; their rows' metadata are read at once, when asked for.

        Parameters
        ----------
        queries
            In words.
        offset
            So many of the best are left out, and count in the ranks.
        columns
            What is read beside ``id`` and the path; ``None`` for all.

        Examples
        --------
        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> found = index.store.search(index.store.vectors([0]), 2)
        >>> Hits.all_of(index.store, found, ["the first row"])[0].ids
        ['glaucoma/P00-left.png', 'glaucoma/P06-left.png']
        """
        # what is missing comes last
        best = [rows[offset:] if len(rows) and rows[-1] >= 0 else rows[rows >= 0][offset:] for rows in found.rows]
        every = best[0] if len(best) == 1 else np.concatenate([np.empty(0, dtype=np.int64), *best])
        names = None if columns is None else list(dict.fromkeys([ID, *columns]))
        kept, start, answers = HitRows(store, every, names), 0, []
        for rows, scores, query in zip(best, found.scores, queries, strict=True):
            hits = object.__new__(cls)
            # without metadata and paths: `__getattr__` reads them
            vars(hits).update(
                scores=scores[offset : offset + len(rows)],
                rows=rows,
                ranks=np.arange(offset + 1, offset + 1 + len(rows)),
                exact=found.exact,
                note=found.note,
                searched=found.searched,
                query=query,
                _store=store,
                _kept=(kept, start),
            )
            answers.append(hits)
            start += len(rows)
        return answers

    def __getattr__(self, name: str) -> Any:
        if name not in {"metadata", "paths"} or "_kept" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        kept, start = vars(self)["_kept"]
        if name == "paths":
            found = kept.paths()[start : start + len(self)]
        else:
            found = kept.metadata()
            found = found if len(found) == len(self) else found.slice(start, len(self))
        vars(self)[name] = found
        return found

    def with_note(self, note: str | None) -> Hits:
        """Return the same hits with another note; nothing is read.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> index.search(id="healthy/P01-left.png", k=1).with_note("asked twice").note
        'asked twice'
        """
        if note == self.note:
            return self
        noted = object.__new__(type(self))
        vars(noted).update(vars(self), note=note)
        return noted

    def to_json(self) -> dict[str, Any]:
        """Return the answer as one object, ready for JSON: the query in words, the hits, and what to know of them.

        It is what ``retr query --json`` prints, and what a server answers.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> hits = index.search(id="healthy/P01-left.png", k=2, columns=["label"])
        >>> hits.to_json()["hits"][0]["id"]
        'healthy/P11-right.png'
        """
        hits = [hit.to_json() for hit in self]
        answer = {"query": self.query, "hits": hits, "exact": self.exact, "note": self.note}
        words = {"highlights": self.highlights, "weights": self.weights} if self.highlights is not None else {}
        cases = {"cases": self.cases, "parts": self.parts} if self.cases is not None else {}
        share = {"searched": self.searched} if self.searched < 1 else {}
        return {**answer, **share, **words, **cases}

    @property
    def ids(self) -> list[str]:
        """The hits' ids, best first.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> hits = index.search(id="healthy/P01-left.png", k=2, columns=["label"])
        >>> hits.ids
        ['healthy/P11-right.png', 'healthy/P09-left.png']
        """
        if "metadata" in vars(self):
            return texts(self.metadata.column(ID))
        kept, start = vars(self)["_kept"]
        ids: list[str] = kept.ids()[start : start + len(self)]
        return ids

    @property
    def table(self) -> pa.Table:
        """The hits as a pyarrow table: ``rank``, ``score``, ``id``, then the metadata.

        Of an answer by cases it has a column ``case``, of one by regions ``region``: four whole numbers.
        A column of the metadata that is called ``rank``, ``score`` or ``query`` comes as ``rank_meta`` ...

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> hits = index.search(id="healthy/P01-left.png", k=2, columns=["label"])
        >>> hits.table.column_names
        ['rank', 'score', 'id', 'label']
        """
        metadata = self.metadata
        names = shown_names(metadata.column_names)
        own = {"rank": pa.array(self.ranks, pa.int64()), "score": pa.array(self.scores, pa.float32())}
        if self.cases is not None:
            own["case" if "case" not in names.values() else "case_"] = pa.array(self.cases, pa.string())
        if self.regions is not None:
            own[free_name("region", names.values())] = pa.array(self.regions, pa.list_(pa.int64(), 4))
        return pa.Table.from_arrays([*own.values(), *metadata.columns], names=[*own, *names.values()])

    def to_pandas(self) -> pd.DataFrame:
        """Return `table` as a pandas DataFrame; whole numbers stay so beside missing ones (``Int64``).

        Raises
        ------
        MissingExtraError
            pandas is not installed.

        Examples
        --------
        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> hits = index.search(id="healthy/P01-left.png", k=2, columns=["label"])
        >>> hits.to_pandas()["label"].tolist()
        ['healthy', 'healthy']
        """
        with needed():
            import pandas as pd
        table = self.table
        whole = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
        missing = {name for name in table.column_names if table[name].null_count and table[name].type in whole}
        columns = {
            name: table[name].to_pandas(types_mapper=whole.get if name in missing else None)
            for name in table.column_names
        }
        return pd.DataFrame(columns)

    def to_polars(self) -> pl.DataFrame:
        """Return `table` as a polars DataFrame.

        Raises
        ------
        MissingExtraError
            polars is not installed.

        Examples
        --------
        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> hits = index.search(id="healthy/P01-left.png", k=2, columns=["label"])
        >>> hits.to_polars()["label"].to_list()
        ['healthy', 'healthy']
        """
        with needed():
            import polars as pl
        frame = pl.from_arrow(self.table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Hit]:
        regions = [None] * len(self) if self.regions is None else self.regions
        found = records(self.metadata)
        answers = zip(self.ranks.tolist(), self.scores.tolist(), self.paths, found, regions, strict=True)
        for rank, score, path, row, region in answers:
            yield Hit(rank=rank, id=row.pop(ID), score=score, metadata=row, path=path, region=region)

    @overload
    def __getitem__(self, at: int) -> Hit: ...

    @overload
    def __getitem__(self, at: slice) -> Hits: ...

    def __getitem__(self, at: int | slice) -> Hit | Hits:
        if not isinstance(at, slice):
            if not hasattr(at, "__index__") or getattr(at, "shape", None):  # no number: an array of one has the method
                raise TypeError(f"hits are taken by a number or a slice, got {type(at).__name__}")
            try:
                number = range(len(self))[at]
            except IndexError:
                raise IndexError(f"there is no hit [{at}]: the answer has {len(self)}") from None
            return next(iter(self[number : number + 1]))
        places = range(len(self))[at]
        part = replace(
            self,
            scores=self.scores[at],
            rows=self.rows[at],
            ranks=self.ranks[at],
            metadata=self.metadata.take(pa.array(places, pa.int64())),
            paths=self.paths[at],
            highlights=None if self.highlights is None else self.highlights[at],
            cases=None if self.cases is None else self.cases[at],
            parts=None if self.parts is None else self.parts[at],
            regions=None if self.regions is None else self.regions[at],
        )
        vars(part).update({name: kept for name, kept in vars(self).items() if name == "_question"})
        return part

    def __eq__(self, other: object) -> bool:
        if hasattr(other, "__array__"):
            return False  # arrays and tables would compare the hits cell by cell, or fail
        if not isinstance(other, Hits):
            return NotImplemented
        told = ("exact", "note", "query", "paths", "cases", "regions", "searched")
        said = all(getattr(self, one) == getattr(other, one) for one in told)
        arrays = ((self.scores, other.scores), (self.rows, other.rows), (self.ranks, other.ranks))
        return (
            said and all(map(np.array_equal, *zip(*arrays, strict=True))) and same_tables(self.metadata, other.metadata)
        )

    __hash__ = None  # type: ignore[assignment] # equal by what arrays and a table hold

    def __repr__(self) -> str:
        from retr.retrieval.cards import without_folders

        best = f", best {self.scores[0]:.4f}" if len(self) else ""
        return f"Hits({without_folders(self.query)!r}, {len(self)} rows{best})"

    def _repr_html_(self) -> str:
        """Return the question and its hits with their pictures, for a notebook: the first dozen, and no folder."""
        from retr.retrieval.cards import GalleryRow, gallery, row_facts
        from retr.retrieval.query_pictures import asked_pictures

        names = shown_names(self.metadata.column_names)
        rows = (GalleryRow(hit.id, f"{hit.rank}. {hit.score:.4f}", row_facts(hit.metadata, names)) for hit in self)
        question = vars(self).get("_question")
        asked = [] if question is None or self._store is None else asked_pictures(self._store, question)
        return gallery(self.query, self.note, rows, self._store, asked=asked)

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: None if one.name == "_store" else getattr(self, one.name) for one in fields(self)}
