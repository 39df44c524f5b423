"""The words of an index's text columns, as side data: read once, kept, and taken up to date row by row."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.disk.side_data import Change, Kind
from retr.index.errors import IndexCorruptError, UsageError
from retr.index.json_fields import Fields, stored
from retr.index.listed import listed
from retr.index.machine.waiting import waiting
from retr.retrieval.words.analysis import VERSION
from retr.retrieval.words.postings import Bm25, Postings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.disk.side_data import Move
    from retr.index.rows.snapshot import Snapshot
    from retr.retrieval.index_like import IndexLike

NOTE = "words"
_STORED = ("the index of words", "make it again with `retr index words --column COLUMN`")


@dataclass(frozen=True)
class WordsReport:
    """What `words` did.

    Attributes
    ----------
    columns
        The columns whose words are kept.
    rows
        How many rows these have, deleted ones too.
    read
        How many of them were read now, in one or more of the columns.
    terms
        How many different terms each column has.
    """

    columns: tuple[str, ...]
    rows: int
    read: int
    terms: Mapping[str, int]


def words(index: IndexLike, columns: str | Sequence[str] = ()) -> WordsReport:
    """Keep the words of text columns in the index, so that ``search(text=..., in_=...)`` reads no text.

    Again, it reads only the rows that are new. Words are found in any text column without this, too: its texts are then
    read by the first search of a process.

    Parameters
    ----------
    columns
        One or several, beside those of before.

    Raises
    ------
    UsageError
        A column is unknown, or holds no texts; or none was ever named.
    IndexLockedError
        Another process is writing.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> index.words("label").terms
    {'label': 2}
    """
    names = named(columns, "columns")
    with index.store.writer() as writer:
        store = writer.store
        for name in names:
            require_text(store, name)
        kept = kept_columns(store)
        if not (kept or names):
            raise UsageError("no column of text was named", hint="name one, e.g. `retr index words --column findings`")
        read, terms = 0, {}
        for name in dict.fromkeys([*kept, *names]):
            before = read_kept(store, name)
            with waiting(f"reading the words of {name!r}"):
                found = extended(store, name, before)
            read = max(read, store.n_total - len(before))
            terms[name] = len(found.vocabulary)
            if found is not before or name not in kept:
                writer.add_file(file_name(name), found.to_bytes(), kind=Words())
        writer.note(NOTE, {"analysis": VERSION, "columns": list(terms)}, kind=Words())
        after = writer.commit()
    index.refresh()
    return WordsReport(tuple(terms), after.n_total, read, terms)


def bm25_of(store: Snapshot, column: str) -> Bm25:
    """Return the words of a column of all rows, by term; made once a snapshot.

    Raises
    ------
    UsageError
        The column is unknown, or holds no texts.
    """
    require_text(store, column)

    def make() -> Bm25:
        kept = read_kept(store, column)
        with waiting(f"reading the words of {column!r}"):
            return Bm25(extended(store, column, kept), store.alive())

    found: Bm25 = store.once(("words", column), make)
    return found


def named(columns: str | Sequence[str] | None, called: str) -> list[str]:
    """Return the names of columns, of which one may be given by itself.

    >>> named("findings", "columns"), named(["findings", "impression"], "columns")
    (['findings'], ['findings', 'impression'])
    """
    return [columns] if isinstance(columns, str) else listed(columns or (), called)


def require_text(store: Snapshot, column: str) -> None:
    """Raise `UsageError` where a column is unknown or holds no texts."""
    kind = store.columns.require(column)
    if not pa.types.is_string(kind):
        raise UsageError(f"words are looked for in text, and {column!r} holds {kind}", hint="name a column of text")


def kept_columns(store: Snapshot) -> tuple[str, ...]:
    """Return the columns whose words are kept; none where another version of the analysis made them."""
    if NOTE not in store.manifest.extra:
        return ()
    with stored(*_STORED):
        noted = Fields(store.manifest.extra[NOTE])
        return noted.texts("columns") if noted.whole("analysis") == VERSION else ()


def read_kept(store: Snapshot, column: str) -> Postings:
    """Return what is kept of the first rows of a column, which may be none."""
    name = file_name(column)
    if column not in kept_columns(store) or name not in store.manifest.files:
        return Postings()
    with stored(*_STORED):
        found = Postings.from_bytes(store.file(name))
        if len(found) > store.n_total:
            raise ValueError("more rows than there are")
        return found


def extended(store: Snapshot, column: str, kept: Postings) -> Postings:
    """Return the words of all rows of a column; those that are not kept are read."""
    new = np.arange(len(kept), store.n_total)
    if not len(new):
        return kept
    texts = store.table([column], new).column(0)
    return kept.with_texts(text for chunk in texts.chunks for text in chunk.to_pylist())


def file_name(column: str) -> str:
    """Return the name of the side file of a column.

    >>> file_name("findings")
    'words-8aa3c4ce3ccd.npz'
    """
    return f"words-{hashlib.sha256(column.encode()).hexdigest()[:12]}.npz"


class Words(Kind):
    """The words of text columns, as a kind of side data: they follow their rows, and a purge takes them out."""

    name = "words"
    numbered = True
    of_vectors = False

    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        """Return what reads them and compares them with the texts."""

        def compare(column: str) -> None:
            kept = read_kept(snapshot, column)
            texts = snapshot.table([column], np.arange(len(kept))).column(0).to_pylist()
            # of deleted rows nothing may be left after a purge
            alive = snapshot.alive()[: len(kept)]
            if not kept.without(~alive).same_as(Postings().with_texts(texts).without(~alive)):
                raise IndexCorruptError(f"the kept words of {column!r} are not those of its texts", hint=_STORED[1])

        found: dict[str, Callable[[], object]] = {NOTE: lambda: kept_columns(snapshot)}
        return found | {file_name(column): lambda column=column: compare(column) for column in kept_columns(snapshot)}

    def stale(self, snapshot: Snapshot) -> list[str]:
        """Return how many rows came after: their words are found, but read by each process anew."""
        columns = kept_columns(snapshot)
        new = max((snapshot.n_total - len(read_kept(snapshot, column)) for column in columns), default=0)
        if not columns:
            return ["the words of text columns were read in another way: `retr index words` reads them again"]
        return [f"the words of {new} rows are not kept: `retr index words` reads them once"] if new else []

    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:
        """Leave the rows no words, nor those that were deleted before."""
        dead = ~snapshot.alive()
        dead[gone] = True
        return self._changed(snapshot, lambda postings: postings.without(dead))

    def carry(self, snapshot: Snapshot, move: Move) -> Change:
        """Return the words under the rows' new numbers."""
        return self._changed(snapshot, lambda postings: postings.renumbered(move.numbers))

    def _changed(self, snapshot: Snapshot, change: Callable[[Postings], Postings]) -> Change:
        """Return the change of all columns, of which all rows are read first: these may come to lie anywhere."""
        columns = kept_columns(snapshot)
        files: dict[str, Any] = {
            file_name(column): change(extended(snapshot, column, read_kept(snapshot, column))).to_bytes()
            for column in columns
        }
        others = snapshot.manifest.side_data[self.name].files if self.name in snapshot.manifest.side_data else ()
        # of another version's analysis nothing can be said but that it goes
        return Change({name: files.get(name) for name in (*files, *others)}, {} if columns else {NOTE: None})
