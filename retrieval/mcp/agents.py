"""What agents see of an index, and what they may ask of it; `retr.retrieval.mcp.server` hands it out.

An agent hands what it reads to a model, which may be anywhere. So answers hold what cannot name a patient: no ids,
paths or file names, and of the columns those that DICOM headers give by an allow-list, as hashes where the index hashes
them, and those that the user names. A text that looks as if it told of a person is left out of them. Conditions may ask
the same columns alone: a condition on another would find out its values one by one; so would words that are looked for
in one, and cases by one. Rows whose text is left out are in no answer to a question about its column, for whether they
come up would tell what the text says; and hashes are compared with hashes, not with identifiers that are guessed. Cases
have no ids here, which often are patients': they are known by their ranks. With each answer goes what is to be known of
it.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache, partial, reduce
from itertools import chain
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.errors import RetrError, UsageError
from retr.index.options import taken
from retr.index.rows.identifiers import identifies
from retr.index.where.parse import Logic, parse
from retr.retrieval.answering import find_hits
from retr.retrieval.audit.phi import kinds
from retr.retrieval.images.dicom_header import HEADER_COLUMNS
from retr.retrieval.json_values import to_plain
from retr.retrieval.query import Query
from retr.retrieval.search_options import SearchOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.index.where.parse import Node, Operand, Predicate
    from retr.retrieval.hits import Hit, Hits
    from retr.retrieval.index import Index

REMARKS = (
    "Similarity is no diagnosis: hits are the pictures of this archive that one network finds most alike.",
    "Scores order the hits of one question; they are no probabilities, and scores of other indexes compare with none.",
)
UNCALIBRATED = "The probabilities are not calibrated on this archive: take them as an order."
WHAT_AN_ID_IS = (
    "An id is the first 16 digits of the SHA-256 of a picture's file, with #n for its nth frame: it tells the same "
    "picture again (search(like=id)) and names nobody. Columns such as patient hold keyed hashes: equal ones are one "
    "patient's."
)
MOST_HITS, MOST_BYTES = 50, 32 << 20
CASES = ("declared", "study", "series", "volume", "patient", "eye-pair")
_ID = re.compile(r"([0-9a-f]{16})(#\d+)?")
_NOTHING = np.empty(0, np.int64)
# cells that are read at a time, and texts whose judgement is kept
_AT_ONCE, _KEPT = 1 << 14, 1 << 16
_HASH = re.compile(r"[0-9a-f]{64}")


class Shown:
    """What an agent sees of an index, and asks of it.

    Parameters
    ----------
    index
        An open index.
    columns
        Columns beside those of DICOM headers that agents see.
    pictures
        A folder whose files may be asked with; by default pictures come as bytes alone.

    Raises
    ------
    UsageError
        A column is not there, or identifies.
    """

    def __init__(self, index: Index, columns: Sequence[str] = (), pictures: Path | None = None) -> None:
        self._index = index
        self._pictures = None if pictures is None else pictures.resolve()
        names = index.store.schema.names
        for column in columns:
            index.store.columns.require(column)
            if identifies(column) or column in {"id", "path", "folder", "sha256", "etag"}:
                raise UsageError(f"the column {column!r} identifies: no agent sees it", hint="leave it out")
        hashed = set(index.store.identity.hashed_columns)
        safe = [name for name in HEADER_COLUMNS if name in names and (name in hashed or not identifies(name))]
        self.columns = list(dict.fromkeys([*columns, *safe]))
        self._hashed = hashed

    def info(self) -> dict[str, Any]:
        """Return what the index holds."""
        self._index.refresh()
        all_ = self._index.info()
        kept = ("rows", "encoder", "text", "similarity", "licence", "transform", "search", "skipped", "version")
        return {
            **{name: to_plain(all_[name]) for name in kept},
            "columns": self.columns,
            "ids": WHAT_AN_ID_IS,
            "remarks": list(REMARKS),
        }

    def search(
        self,
        text: str | None,
        picture: str | None,
        like: str | None,
        where: str | None,
        k: int,
        other_patients: bool,
        *,
        words_in: Sequence[str] | None = None,
        fuse: float | None = None,
        item: str | None = None,
        region: Sequence[float] | None = None,
        in_regions: bool = False,
    ) -> dict[str, Any]:
        """Find the nearest rows, rows with a part, or cases; see the tool."""
        if not 1 <= k <= MOST_HITS:
            raise UsageError(f"k is between 1 and {MOST_HITS}, got: {k!r}")
        given = {"text": text, "picture": picture, "like": like}
        asked = {name: value for name, value in given.items() if value is not None}
        if len(asked) != 1 and not (words_in and text is not None and len(asked) == 2):
            hint = "give exactly one; beside words that are looked for in columns, picture or like may be given too"
            raise UsageError("one of text, picture and like is asked with", hint=hint)
        index = self._index
        index.refresh()
        columns = self._require_asked(where) | set(words_in or ())
        self._require_seen(words_in or ())
        self._require_case(item)
        options: dict[str, Any] = {"k": k, "where": where, "in_": words_in or None, "fuse": fuse, "item": item}
        if in_regions:
            options["in_regions"] = True
        if other_patients:
            group = index.store.manifest.group
            if group is None:
                raise UsageError("this index does not say whose pictures are whose", hint="leave other_patients out")
            options["exclude_same"] = group
        parts = [] if text is None else [Query.text(text)]
        parts += [] if picture is None else [Query.image(self._picture(picture))]
        parts += [] if like is None else [Query.id(self._row_of(like))]
        wanted = taken(SearchOptions, options, "search")
        query = reduce(add, parts)
        query = query if region is None else query.cut(region)
        try:
            [hits] = find_hits(index.snapshot(), [query], wanted, hidden=self._withheld(columns))
        except RetrError as error:
            if region is None or like is None:
                raise
            # what is said of a row's own picture names its file
            message = f"the question with a region of a hit's picture is not answered: {type(error).__name__}"
            hint = "a region is x,y,w,h within the picture, in pixels or all from 0 to 1; the archive must be at hand"
            raise UsageError(message, hint=hint) from None
        answers = [
            {"rank": hit.rank, "id": id_, "score": hit.score, **_region(hit), **self._cells(hit.metadata)}
            for hit, id_ in zip(hits, self._ids(hits.ids), strict=True)
        ]
        remarks = [*self._notes([hits.note]), *REMARKS]
        return {"hits": answers, "exact": hits.exact, **self._further(hits, answers), "remarks": remarks}

    def _further(self, hits: Hits, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return what an answer by words or by cases says beside its hits, as `Hits.to_json`; cases are their ranks."""
        found: dict[str, Any] = {}
        if hits.highlights is not None:
            # of a text that is not shown nothing is said
            shown = [
                {column: spans for column, spans in one.items() if row.get(column) is not None}
                for one, row in zip(hits.highlights, answers, strict=True)
            ]
            found = {"highlights": shown, "weights": hits.weights}
        if hits.cases is not None:
            ids = iter(self._ids([part["id"] for parts in hits.parts or () for part in parts]))
            parts = [[{**part, "id": next(ids)} for part in parts] for parts in hits.parts or ()]
            found |= {"cases": [f"case {rank}" for rank in hits.ranks.tolist()], "parts": parts}
        return found

    def _require_seen(self, columns: Sequence[str]) -> None:
        for column in columns:
            if column not in self.columns:
                raise UsageError(f"agents do not see a column {column!r}", hint=f"they see {', '.join(self.columns)}")

    def _require_case(self, item: str | None) -> None:
        """Refuse cases by what an agent does not see; those of whole studies, series and patients name nobody."""
        if item is not None and item not in {*CASES, *self.columns}:
            known = ", ".join(dict.fromkeys([*CASES, *self.columns]))
            raise UsageError(f"agents do not see cases by {item!r}", hint=f"one of {known}")

    def classify(self, picture: str, labels: Sequence[str] | None, by: str | None, k: int) -> dict[str, Any]:
        """Name what a picture shows; see the tool."""
        if (labels is None) == (by is None):
            raise UsageError("labels or by says what to look for", hint="give one of them")
        if by is not None and by not in self.columns:
            raise UsageError(f"agents do not see a column {by!r}", hint=f"they see {', '.join(self.columns)}")
        self._index.refresh()
        said: list[str] = []
        way: dict[str, Any] = {"by": by, "k": k} if labels is None else {"labels": list(labels)}
        (answer,) = self._index.classify([self._picture(picture)], **way, train=False, say=said.append)
        if isinstance(answer, tuple):
            raise UsageError("the picture cannot be read", hint="give a JPEG, PNG, TIFF or DICOM file")
        found = answer.to_json(5)
        calibrated = found.get("calibrated", False)
        shown = {name: value for name, value in found.items() if name not in {"query", "neighbours", "note"}}
        if by is not None and any(self._tells(by, one["label"]) for one in shown["classes"]):
            raise UsageError(f"the column {by!r} tells of persons", hint="give classes as labels")
        notes = self._notes([found.get("note"), *said])
        return {**shown, "remarks": [*notes, *([] if calibrated else [UNCALIBRATED]), *REMARKS]}

    def _cells(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return of a row what an agent sees."""
        return {
            column: None if self._tells(column, row[column]) else to_plain(row[column])
            for column in self.columns
            if row.get(column) is not None
        }

    def _tells(self, column: str, value: Any) -> bool:
        """Return whether a cell may tell of a person."""
        if column in self._hashed:
            # a table may have put raw identifiers beside the hashes
            return _HASH.fullmatch(str(value)) is None
        return not isinstance(value, bool | int | float) and any(True for _ in kinds(str(value), column))

    def _withheld(self, columns: Iterable[str]) -> NDArray[np.int64]:
        """Return the rows whose cell in one of some columns an agent does not see, sorted int64."""
        store = self._index.store
        found = [store.once(("withheld", column), partial(self._telling, store, column)) for column in sorted(columns)]
        return reduce(np.union1d, found, _NOTHING)

    def _telling(self, store: Store, column: str) -> NDArray[np.int64]:
        kind = store.schema.field(column).type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            return _NOTHING
        tells = lru_cache(_KEPT)(lambda text: self._tells(column, text))
        cells: Iterable[Any] = chain.from_iterable(
            batch.column(0).to_pylist() for batch in store.table([column]).to_batches(max_chunksize=_AT_ONCE)
        )
        telling = [value is not None and tells(str(value)) for value in cells]
        rows: NDArray[np.int64] = store.live_rows()[np.array(telling, bool)]
        return rows

    def _notes(self, notes: Sequence[str | None]) -> list[str]:
        return [note for note in notes if note and not any(True for _ in kinds(note))]

    def _ids(self, ids: Sequence[str]) -> list[str | None]:
        """Return what rows are called here; None where the index knows no file of theirs."""
        store = self._index.store
        if "sha256" not in store.schema.names:
            return [None] * len(ids)
        rows = store.table(["id", "path", "sha256"], store.rows_of(ids)).to_pylist()
        return [f"{row['sha256'][:16]}{_frame(row)}" if row["sha256"] else None for row in rows]

    def _row_of(self, id_: str) -> str:
        found = _ID.fullmatch(id_)
        store = self._index.store
        if found is None or "sha256" not in store.schema.names:
            raise UsageError("an id is 16 digits of a hash, as search gives it", hint="search by text or picture first")
        rows = store.where(f"sha256 like '{found[1]}%'").nonzero()[0]
        for row in store.table(["id", "path"], rows).to_pylist():
            if _frame(row) == (found[2] or ""):
                return str(row["id"])
        raise UsageError(f"no row has the id {id_!r}", hint="search by text or picture first")

    def _picture(self, given: str) -> bytes | Path:
        """Return the picture that an agent gives: base64, or the name of a file in the folder that it may ask with."""
        if self._pictures is not None and len(given) < 4096 and "\0" not in given:
            file = (self._pictures / given).resolve()
            if file.is_relative_to(self._pictures) and file.is_file():
                return file
        try:
            data = base64.b64decode(given.partition("base64,")[2] or given, validate=True)
        except (binascii.Error, ValueError):
            data = b""
        if not 0 < len(data) <= MOST_BYTES:
            where = "" if self._pictures is None else ", or the name of a file in the folder of pictures"
            raise UsageError(f"a picture is the base64 of at most {MOST_BYTES >> 20} MiB{where}")
        return data

    def _require_asked(self, where: str | None) -> set[str]:
        """Refuse a condition on what an agent does not see; return the columns that it asks."""
        if where is None:
            return set()
        tree = parse(where)
        asked = {operand.name for operand in _operands(tree) if operand.name is not None}
        self._require_seen(sorted(asked))
        for test in _predicates(tree):
            operands = (test.left, *test.right)
            hashed = next((one.name for one in operands if one.name in self._hashed), None)
            guessed = any(isinstance(one.value, str) and _HASH.fullmatch(one.value) is None for one in operands)
            if hashed is not None and guessed:
                hint = "compare it with a hash that an answer holds"
                raise UsageError(f"agents see the hashes alone of the column {hashed!r}", hint=hint)
        return asked


def _region(hit: Hit) -> dict[str, Any]:
    """Return where a hit matches, in pixels of its picture, whose size goes with it."""
    if hit.region is None:
        return {}
    return {"region": list(hit.region), "size": [hit.metadata["width"], hit.metadata["height"]]}


def _frame(row: Mapping[str, Any]) -> str:
    """Return the frame in a row's id: what it has behind its path."""
    end = str(row["id"]).removeprefix(str(row["path"]))
    return end if re.fullmatch(r"#\d+", end) else ""


def _predicates(node: Node) -> Iterator[Predicate]:
    """Yield the tests of a condition."""
    if isinstance(node, Logic):
        for part in node.parts:
            yield from _predicates(part)
    else:
        yield node


def _operands(node: Node) -> Iterator[Operand]:
    """Yield what a condition compares."""
    for test in _predicates(node):
        yield from (test.left, *test.right)
