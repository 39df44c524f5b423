"""Join a table of labels to the rows of a build and to those the index holds already.

A table that is new or has changed since the last build gives its cells to the rows that are there, without a picture
being read; a column that it has lost, or a cell that was cleared, is cleared in the index, too. Whatever does not fit
is refused here, before anything is embedded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retr.index.errors import UsageError
from retr.index.machine.arrow import pc
from retr.index.rows.grouping import faithful_texts
from retr.index.rows.identifiers import identifier_texts, identifies
from retr.index.rows.identity import only_hashes
from retr.index.where.evaluate import nearest
from retr.retrieval.archive.column_types import NUMBER, TEXT
from retr.retrieval.archive.locations import source_of
from retr.retrieval.archive.matching import pieces
from retr.retrieval.archive.provenance import BUILDS_NOTE
from retr.retrieval.ingest.rows import as_text, set_column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retr.index.rows.writer import Writer
    from retr.index.store import Store
    from retr.retrieval.archive.metadata import Metadata
    from retr.retrieval.archive.provenance import BuildNotes
    from retr.retrieval.archive.sources import Item


# Columns that pictures may bring from beside them: more are no labels but an attack, or a table in pieces.
MAX_BESIDE = 1000


class Labels:
    """The table of one source, if there is one, and the index that it labels.

    Parameters
    ----------
    table
        The table, or None.
    name
        The source's name.
    writer, build_notes
        The index, and what it notes about its builds; ``build_notes`` is brought up to date.
    has_rows
        Whether the index has rows of the source.
    group
        The column that the build declares to tell patients apart, if it does.
    """

    def __init__(
        self,
        table: Metadata | None,
        name: str,
        writer: Writer[Store],
        build_notes: BuildNotes,
        *,
        has_rows: bool,
        group: str | None = None,
    ) -> None:
        self.table = table
        self.without = 0
        self._name = name
        self._writer = writer
        self._build_notes = build_notes
        self._has_rows = has_rows
        self._group = group
        self._beside = set(build_notes.beside)
        self._left_out: set[str] = set()
        self._disturbed: set[str] = set()
        self._of_headers: set[str] = set()

    def see(self, path: str) -> None:
        """Note that there is a picture of this path."""
        if self.table is not None and not self.table.matcher.see(path):
            self.without += 1

    def own(self, item: Item) -> Item:
        """Note the columns that came with a picture; leave those out that would be more than `MAX_BESIDE` in all."""
        new = [column for column in item.columns if column not in self._beside]
        room = MAX_BESIDE - len(self._beside)
        self._beside.update(new[:room])
        self._build_notes.beside += new[:room]
        self._left_out.update(new[room : room + MAX_BESIDE])
        if not new[room:]:
            return item
        return replace(item, columns={name: value for name, value in item.columns.items() if name in self._beside})

    def disturbed(self, item: Item) -> bool:
        """Return whether the table that was joined anew touched labels that only the file itself can give back."""
        return item.path in self._of_headers or not self._disturbed.isdisjoint(item.columns)

    def unmatched(self) -> pa.ChunkedArray:
        """Return the paths of the table that no picture had."""
        return pa.chunked_array([], pa.string()) if self.table is None else self.table.unmatched()

    def notes(self) -> list[str]:
        """Return what the user should know about the table, one line each."""
        many = f"the pictures bring more than {MAX_BESIDE} columns: those that came after them were left out"
        notes = [*([many] if self._left_out else []), *self._nobodys()]
        both = [column for column in self._build_notes.metadata_columns(self._name) if column in self._beside]
        if both:
            shared = f"{', '.join(map(repr, both))} stand in the table and beside pictures: the table's cells count"
            rest = (
                "others where it has none of their type" if self.table is not None else "as last given: give it again"
            )
            notes.append(f"{shared}, {rest}")
        if self.table is None:
            return notes
        notes += [f"column {old!r} of the table is stored as {new!r}" for old, new in self.table.renamed.items()]
        torn = self.table.matcher.torn()
        if len(torn):
            path = self.table.matcher.paths[int(torn[0])].as_py()
            notes.append(f"{len(torn)} rows of the table fit several pictures and label none of them, e.g. {path!r}")
        return [*self.table.notes, *notes]

    def join_anew(self) -> None:
        """Write the cells of a table that is new or changed since the last build into existing rows.

        Raises
        ------
        UsageError
            The table lost the group column, or a column has another type than other sources gave it.
        """
        if self.table is None:
            return
        noted = {"sha256": self.table.sha256, "columns": self.table.table.column_names}
        before = self._build_notes.metadata.get(self._name)
        if before == noted:
            return
        had = () if before is None else before.get("columns", ())
        store = self._writer.store
        gone = [column for column in had if column not in noted["columns"] and column in store.schema.names]
        if store.manifest.group in gone and self._group not in noted["columns"]:
            raise UsageError(
                f"the table no longer has the column {store.manifest.group!r}, which tells patients apart",
                hint="bring the column back, or name another of the table with `retr index build --group COLUMN`",
            )
        if self._has_rows:
            self._disturbed = {*noted["columns"], *gone} & {*self._build_notes.beside}
        # until those pictures got their own labels back, the table counts as not joined
        if not self._has_rows:
            self._build_notes.metadata[self._name] = noted
            self._agree_on_types(self.table, store)
            return
        joined, self._of_headers = _joined(self.table, store, self._build_notes, self._name, gone)
        unsettled = bool(self._disturbed or self._of_headers)
        self._build_notes.metadata[self._name] = {**noted, "unsettled": True} if unsettled else noted
        self._writer.replace_columns(joined)
        if store.manifest.group in gone:
            self._writer.set_group(self._group)
        self._writer.note(BUILDS_NOTE, self._build_notes.to_json())
        self._writer.commit()

    def _nobodys(self) -> list[str]:
        """Return a notice of how many pictures of the source have no value in the group column."""
        store = self._writer.store
        group = store.manifest.group
        if group is None or group not in store.schema.names:
            return []
        rows = store.table(list({"path", group}))
        blank = pc.equal(pc.utf8_trim_whitespace(rows[group].cast(pa.string())), "")
        paths = rows["path"].filter(pc.fill_null(blank, True)).to_pylist()
        mine = sum(source_of(path, self._build_notes.sources)[0] == self._name for path in paths)
        columns = [] if self.table is None else self.table.table.column_names
        near = None if group in columns else nearest(group, columns)
        said = f"{mine} pictures of this source have no {group!r}: nothing says whose they are"
        return [said + (f"; is it the table's column {near!r}?" if near else "")] if mine else []

    def _agree_on_types(self, table: Metadata, store: Store) -> None:
        """Make sure that the index can hold the cells of a source that is new to it."""
        shared = [column for column in table.table.column_names if column in store.schema.names]
        none = store.schema.empty_table()
        fitted = {column: _one_type(column, table.table[column].slice(0, 0), none[column])[1] for column in shared}
        texts = [column for column, cells in fitted.items() if pa.types.is_string(cells.type)]
        retyped = [column for column in texts if not pa.types.is_string(none[column].type)]
        if retyped:
            self._writer.replace_columns(as_text(store, retyped))

    def settle(self) -> None:
        """Take labels back that a picture was given before another one was seen that they fit as well."""
        if self._disturbed or self._of_headers:
            self._build_notes.metadata[self._name].pop("unsettled", None)
            self._writer.note(BUILDS_NOTE, self._build_notes.to_json())
            self._writer.commit()
        if self.table is None or not self.table.matcher.contested():
            return
        store = self._writer.store
        joined, _ = _joined(self.table, store, self._build_notes, self._name)
        if not joined.equals(store.table(joined.column_names)):
            self._writer.replace_columns(joined)
            self._writer.commit()


def _joined(
    metadata: Metadata, store: Store, notes: BuildNotes, name: str, gone: Sequence[str] = ()
) -> tuple[pa.Table, set[str]]:
    """Return ``id`` and the table's columns for all live rows; rows of other sources keep their cells.

    An identifier that an earlier table put in the place of a header's, and that this one lacks, stays until the file is
    read again: a patient's picture is at no time nobody's. The paths of these files are returned beside the table.

    Parameters
    ----------
    gone
        Columns of the index that an earlier table of this source brought and this one lacks: this source's rows lose
        their cells.

    Raises
    ------
    UsageError
        A column has another type than the cells that other sources have in it.
    """
    columns = metadata.table.column_names
    shared = [column for column in (*columns, *gone) if column in store.schema.names]
    rows = store.table(["id", "path", *shared])
    found, mine = np.empty(len(rows), np.int64), np.empty(len(rows), np.bool_)
    at = 0
    for piece in pieces(rows["path"]):
        split = [source_of(path, notes.sources) for path in piece.to_pylist()]
        end = at + len(split)
        mine[at:end] = [source == name for source, _ in split]
        found[at:end] = metadata.rows_of([inside for _, inside in split])
        at = end
    joined = metadata.take(np.where(mine, found, -1))
    for column in gone:
        # of no type: where no other source has cells in it, another table may bring any
        joined = joined.append_column(column, pa.chunked_array([pa.nulls(len(rows))]))
    of_headers: set[str] = set()
    for column in shared:
        if store.identity.hashed(column):
            old = identifier_texts(rows[column], column)
            kept = pc.coalesce(identifier_texts(joined[column], column), only_hashes(old))
            lost = pc.and_(pc.and_(pc.is_null(kept), pc.is_valid(old)), pa.array(mine))
            of_headers.update(source_of(path, notes.sources)[1] for path in rows["path"].filter(lost).to_pylist())
            joined = set_column(joined, column, pc.if_else(lost, old, kept))
        if not mine.all():
            new, old = _one_type(column, joined[column], rows[column])
            joined = set_column(joined, column, pc.if_else(pa.array(mine), new, old))
    return joined.add_column(0, "id", rows["id"]), of_headers


def _one_type(column: str, new: pa.ChunkedArray, old: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Bring the cells that a table gives and those that the index has to one type.

    Raises
    ------
    UsageError
        There is none that keeps what they say.
    """
    kinds = new.type, old.type
    if kinds[0] == kinds[1] or pa.types.is_null(kinds[0]) or pa.types.is_null(kinds[1]):
        wider = kinds[1] if pa.types.is_null(kinds[0]) else kinds[0]
    elif {*map(str, kinds)} == {"int64", "double"}:
        wider = pa.float64()
    elif pa.types.is_string(kinds[0]) and identifies(column):
        return new, faithful_texts(old, column)
    else:
        number = pa.types.is_string(kinds[1])
        raise UsageError(
            f"column {column!r} is {_words(kinds[0])} in the table and {_words(kinds[1])} in the index",
            hint=f"--type {column}={TEXT if number else NUMBER} reads it so, or rename the column in the table",
        )
    try:
        return new.cast(wider), old.cast(wider)
    except pa.ArrowInvalid:
        raise UsageError(
            f"column {column!r} holds fractions in one place and integers beyond 2^53 in another",
            hint=f"--type {column}={TEXT} reads it as text",
        ) from None


def _words(kind: pa.DataType) -> str:
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return "numbers" if number else "text" if pa.types.is_string(kind) else str(kind)
