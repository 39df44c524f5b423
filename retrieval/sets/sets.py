"""The sets of an index: named, labelled, reopened and handed on.

They are written into the index's journal (`retr.index.disk.journal`): durable when a call returns, without the lock
of a writer that may be at work, and seen at once by all who look. The next commit takes them into the index.
"""

from __future__ import annotations

import getpass
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.disk import journal
from retr.index.disk.current import read_current
from retr.index.disk.journal import SIDE_FILE, Lines
from retr.index.disk.segments import map_file
from retr.index.errors import IndexCorruptError, UsageError
from retr.index.listed import listed
from retr.index.rows.row_ids import unknown_id
from retr.retrieval.labels.training_marks import row_marks
from retr.retrieval.sets.named import replay

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from retr.index.disk.files import FileRef
    from retr.index.disk.journal import Entry
    from retr.index.store import Store
    from retr.retrieval.hits import Hits
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.query import Query
    from retr.retrieval.sets.named import Label, SetDraft
    from retr.retrieval.sets.question import Reopened

_NAME, _LABEL, _AUTHOR, _NOTE = 100, 200, 100, 10_000
#: So many rows at once.
MOST_ROWS = 100_000


@dataclass(frozen=True)
class NamedSet:
    """A set of rows.

    Attributes
    ----------
    name, author, created, updated
        Who made it; when, and when it was last changed, in UTC.
    ids
        The rows that are in the index, in the order in which they were put in.
    missing
        The ids of rows that were deleted since.
    changed
        Those of ``ids`` whose file is another than the one that was put in or labelled last.
    labels
        The labels of each labelled row, in the order in which they were given.
    given
        The same with who gave each, and when.
    note
        What somebody wrote about it.
    question
        What found it, as it is kept: ``asked`` in words, ``options``, ``leave_out``, ``hits``, ``version``.
    """

    name: str
    author: str
    created: str
    updated: str
    ids: tuple[str, ...]
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    given: tuple[Label, ...]
    note: str | None
    question: Mapping[str, Any] | None

    def __len__(self) -> int:
        return len(self.ids)

    def to_json(self) -> dict[str, Any]:
        """Return all of it but the question's vector, ready for JSON."""
        question = None
        if self.question is not None:
            question = {key: value for key, value in self.question.items() if key != "vector"}
        return {
            **self.summary(),
            "ids": list(self.ids),
            "missing": list(self.missing),
            "changed": list(self.changed),
            "labels": [vars(label) for label in self.given],
            "question": question,
        }

    def summary(self) -> dict[str, Any]:
        """Return what a list of sets shows of it."""
        return {
            "name": self.name,
            "rows": len(self.ids),
            "labelled": len(self.labels),
            "author": self.author,
            "created": self.created,
            "updated": self.updated,
            "note": self.note,
            "asked": None if self.question is None else self.question.get("asked"),
        }


class Sets:
    """The sets of an index, as `Index.sets` has them; what others save is seen at the next look.

    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> index.sets.label(["healthy/P01-left.png"], "glaucoma?", set="second look", author="anna")
    >>> dict(index.sets["second look"].labels)
    {'healthy/P01-left.png': ('glaucoma?',)}
    """

    def __init__(self, index: IndexLike) -> None:
        self._index = index

    def names(self) -> list[str]:
        """Return the names of the sets, in the order in which they were made."""
        return list(self._drafts())

    def all(self) -> list[NamedSet]:
        """Return the sets, in the order in which they were made."""
        return [self._named(draft) for draft in self._drafts().values()]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._drafts()

    def __getitem__(self, name: str) -> NamedSet:
        drafts = self._drafts()
        if name not in drafts:
            raise _unknown(name, drafts)
        return self._named(drafts[name])

    def save(
        self,
        name: str,
        ids: Sequence[str],
        *,
        question: Query | Hits | None = None,
        author: str | None = None,
        note: str | None = None,
        **options: Any,
    ) -> NamedSet:
        """Put rows into a set, which is made where there is none of the name.

        Parameters
        ----------
        name
            Up to 100 characters, without ``/``.
        ids
            Of rows; they join those that are in the set.
        question
            What found them, to be asked again by `reopen`: hits, or a query and the options of its search. It takes
            the place of an earlier one. Its vector, its conditions and the ids of its answer are kept, no picture.
        author
            Who does it; by default the name of this process's user.
        note
            About the set; takes the place of an earlier one.
        options
            Fields of `SearchOptions`, where ``question`` is a query.

        Raises
        ------
        UsageError
            An id is unknown, or the name cannot be.
        RetrError
            The index's folder cannot be written.
        """
        name = _name(name)
        if options and question is None:
            raise UsageError(f"{next(iter(options))!r} is an option of a question, and none is given")
        data: dict[str, Any] = {
            "set": name,
            "note": None if note is None else _words(note, "a note", _NOTE, lines=True),
        }
        if question is not None:
            from retr.retrieval.sets.question import kept_question

            data["question"] = kept_question(self._index, question, options)
        self._write("save", data, author, rows=ids)
        return self[name]

    def label(self, ids: Sequence[str], label: str, *, set: str, author: str | None = None) -> None:  # noqa: A002
        """Add a label to rows; they join the set, which is made where there is none of the name.

        A row may have several labels, from several people. Nothing of the index's own columns changes.

        Raises
        ------
        UsageError
            An id is unknown, or the label is empty or longer than 200 characters.
        """
        if not len(ids):
            raise UsageError("no row is named to be labelled")
        self._write("label", {"set": _name(set), "label": _words(label, "a label", _LABEL)}, author, rows=ids)

    def unlabel(self, ids: Sequence[str], label: str, *, set: str, author: str | None = None) -> None:  # noqa: A002
        """Take a label from rows, whoever gave it."""
        self._write("unlabel", {"set": self._known(set), "label": label, "ids": _ids(ids)}, author)

    def remove(self, name: str, ids: Sequence[str] | None = None, *, author: str | None = None) -> None:
        """Take rows out of a set, with their labels there; without ``ids`` take the set away."""
        name = self._known(name)
        if ids is None:
            self._write("drop", {"set": name}, author)
        else:
            self._write("remove", {"set": name, "ids": _ids(ids)}, author)

    def reopen(self, name: str) -> Reopened:
        """Ask a set's question again, of what the index holds by now.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> hits = index.search(id="healthy/P01-left.png", k=2)
        >>> _ = index.sets.save("mine", hits.ids, question=hits, author="anna")
        >>> index.delete(ids=[hits.ids[0]])
        1
        >>> index.sets.reopen("mine").new
        ('healthy/P05-left.png',)

        Raises
        ------
        UsageError
            There is no such set, or it has no question.
        """
        from retr.retrieval.sets.question import ask_again

        return ask_again(self._index, self._question(name))

    def question(self, name: str) -> Query:
        """Return a set's question, as far as it is kept: to see what matches on its hits, or to refine it.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> hits = index.search(id="healthy/P01-left.png", k=2)
        >>> _ = index.sets.save("mine", hits.ids, question=hits, author="anna")
        >>> index.explain(index.sets.question("mine"), hits.ids[0]).way
        'blurring'

        Raises
        ------
        UsageError
            As `reopen`.
        """
        from retr.retrieval.sets.question import query_of

        return query_of(self._index, self._question(name))

    def export(self, name: str, path: str | Path) -> int:
        """Write a set for others, and return how many rows it has; see `retr.retrieval.sets.handing_on.export`."""
        from retr.retrieval.sets.handing_on import export

        return export(self._index, self[name], path)

    def as_file(self, name: str, form: str) -> bytes:
        """Return what `export` would write: ``"csv"`` or ``"parquet"``."""
        from retr.retrieval.sets.handing_on import as_csv, as_parquet

        if form not in {"csv", "parquet"}:
            raise UsageError(f"a set goes on as 'csv' or 'parquet', got: {form!r}")
        named, store = self[name], self._index.store
        return as_csv(store, named).encode("utf-8", "surrogatepass") if form == "csv" else as_parquet(store, named)

    def as_zip(self, name: str) -> Iterator[bytes]:
        """Yield a zip of the folder that `export` would make, piece by piece.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> _ = index.sets.save("mine", ["healthy/P01-left.png"], author="anna")
        >>> b"".join(index.sets.as_zip("mine"))[:2]
        b'PK'
        """
        from retr.retrieval.sets.handing_on import as_zip

        return as_zip(self._index.store, self[name])

    def _write(self, do: str, data: dict[str, Any], author: str | None, *, rows: Sequence[str] | None = None) -> None:
        author = _words(_user() if author is None else author, "an author", _AUTHOR)
        wanted = None if rows is None else _ids(rows)
        root = self._index.store.path
        with journal.held(root) as held:
            if wanted is not None:
                # of the newest state: a row that was purged meanwhile must not come back by its id
                data["rows"] = _marked(self._index.store.newest(), wanted)
            held.append(author, do, data)

    def _question(self, name: str) -> Mapping[str, Any]:
        named = self[name]
        if named.question is None:
            raise UsageError(
                f"the set {name!r} has no question", hint="save it with one: sets.save(name, ids, question=hits)"
            )
        return named.question

    def _known(self, name: str) -> str:
        drafts = self._drafts()
        if name not in drafts:
            raise _unknown(name, drafts)
        return name

    def _drafts(self) -> dict[str, SetDraft]:
        return replay(entries_of(self._index.store.path))

    def _named(self, draft: SetDraft) -> NamedSet:
        store = self._index.store
        ids = list(draft.files)
        rows = store.rows_of(ids)
        marks = dict(zip(np.array(ids, object)[rows >= 0].tolist(), _marks_of(store, rows[rows >= 0]), strict=True))
        labels: dict[str, list[str]] = {}
        for label in draft.labels.values():
            labels.setdefault(label.id, []).append(label.label)
        return NamedSet(
            name=draft.name,
            author=draft.author,
            created=draft.created,
            updated=draft.updated,
            ids=tuple(marks),
            missing=tuple(row for row in ids if row not in marks),
            changed=tuple(row for row, mark in marks.items() if mark and draft.files[row] not in {None, mark}),
            labels={row: tuple(some) for row, some in labels.items()},
            given=tuple(draft.labels.values()),
            note=draft.note,
            question=draft.question,
        )


def entries_of(root: Path) -> list[Entry]:
    """Return all entries of an index's newest state, committed or not, in order."""
    while True:
        # in this order: what a commit has cut off the journal by then, its manifest names
        data = journal.read_bytes(root)
        manifest = read_current(root)
        ref = manifest.files.get(SIDE_FILE)
        try:
            before = () if ref is None else _folded(root, ref)
        except FileNotFoundError:
            if read_current(root).version == manifest.version:
                raise IndexCorruptError("a file is missing from the index", hint="run `retr index check`") from None
            continue
        number = journal.folded(manifest)
        return [*before, *(entry for entry in Lines.of(data).entries if entry.number > number)]


@lru_cache(maxsize=8)
def _folded(root: Path, ref: FileRef) -> tuple[Entry, ...]:
    return Lines.of(map_file(root, ref).to_pybytes()).entries


def _marked(store: Store, ids: list[str]) -> list[list[str | None]]:
    """Return ids as rows of an entry: each with a mark of its file, if the index knows that."""
    rows = store.rows_of(ids)
    if (rows < 0).any():
        raise unknown_id(store, ids[int(np.argmax(rows < 0))])
    return [[row, mark] for row, mark in zip(store.ids(rows), _marks_of(store, rows), strict=True)]


def _marks_of(store: Store, rows: Any) -> list[str | None]:
    return [f"{mark:016x}" if mark else None for mark in row_marks(store, rows)[:, 1].tolist()]


def _ids(ids: Sequence[str]) -> list[str]:
    found = list(dict.fromkeys(listed(ids, "ids")))
    if not all(isinstance(row, str) for row in found):
        raise UsageError("rows are known by their ids, which are text")
    if len(found) > MOST_ROWS:
        raise UsageError(f"{MOST_ROWS} rows may be saved at once, got {len(found)}", hint="save them in parts")
    return found


def _name(name: str) -> str:
    name = _words(name, "a set's name", _NAME)
    if "/" in name or name.startswith("."):
        raise UsageError(f"a set's name has no '/' and begins with no '.', got: {name!r}")
    return name


def _words(text: object, what: str, most: int, *, lines: bool = False) -> str:
    """Return a text that people wrote, composed (NFC) and without blanks around it."""
    if not isinstance(text, str):
        raise UsageError(f"{what} is a text, got: {text!r}")
    found = unicodedata.normalize("NFC", text).strip()
    odd = [sign for sign in found if unicodedata.category(sign) in {"Cc", "Cs"} and not (lines and sign in "\n\t")]
    if not found or len(found) > most or odd:
        raise UsageError(f"{what} has 1 to {most} characters, none of them for control, got: {text[:most]!r}")
    return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def _unknown(name: object, there: Mapping[str, Any]) -> UsageError:
    names = ", ".join(map(repr, list(there)[:10])) or "none"
    return UsageError(f"there is no set {name!r}", hint=f"the sets are {names}")
