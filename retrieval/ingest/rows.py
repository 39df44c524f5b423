"""From files that were read to the rows of an index: columns and their order.

The first columns are always `RESERVED`; then come the columns of the metadata table, then what the files' headers
gave, then scores.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retr.index.errors import UsageError
from retr.index.identifiers import identifier_texts
from retr.index.identity import COLUMNS, only_hashes
from retr.retrieval.archive.metadata import pieces
from retr.retrieval.archive.places import source_of
from retr.retrieval.hits import ANSWER
from retr.retrieval.ingest.known import MARK, Known

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.archive.metadata import Metadata
    from retr.retrieval.archive.notes import Notes
    from retr.retrieval.archive.sources import Skipped
    from retr.retrieval.ingest.decode import Read

RESERVED = ("id", "path", "size", "mtime", "sha256", "width", "height", "mode", "folder")
# names that a column of a person's cannot have: those, and what an answer says of itself
TAKEN = (*RESERVED, *ANSWER)
_TYPES = {"size": pa.int64(), "mtime": pa.float64(), "width": pa.int64(), "height": pa.int64()}


def score_column(finding: str) -> str:
    """Give the column of a finding's probability.

    >>> score_column("pleural effusion")
    'p_pleural_effusion'
    """
    return "p_" + re.sub(r"\W+", "_", finding.strip()).strip("_")


def make_table(
    files: Sequence[Read], known: Known, notes: Notes, *, name: str, metadata: Metadata | None
) -> tuple[pa.Table, NDArray[np.floating[Any]]]:
    """Make the rows of some files, and row for row their vectors.

    Parameters
    ----------
    files
        Read and embedded.
    known
        The rows that the index has: those of the same bytes give their vectors, those of the same paths their labels
        where no table is given.
    name
        The source's name, the first part of the ids.

    Returns
    -------
    tuple
        The table, and float ``(n, dim)``.
    """
    store = known.store
    reused = np.array([row for file in files for row in file.same], dtype=np.int64)
    labelled = {*RESERVED, MARK, *notes.metadata_columns()} - {"id", "path", "width", "height", "mode"}
    copied = [column for column in store.schema.names if column not in labelled or column in COLUMNS]
    copies = iter(_as_headers_gave(store.table(copied, reused), labelled).to_pylist())
    old_vectors = iter(store.vectors(reused))
    prefix = f"{name}/" if name else ""
    rows: list[dict[str, Any]] = []
    vectors: list[NDArray[np.floating[Any]]] = []
    for file in files:
        path = prefix + file.item.path
        common: dict[str, Any] = {
            "path": path,
            "size": file.size,
            "mtime": file.mtime,
            "sha256": file.sha256,
            "folder": PurePosixPath(file.item.path.rpartition("::")[2]).parent.name,
        }
        if file.item.mark is not None:
            common[MARK] = file.item.mark
        own = {f"{key}_meta" if key in TAKEN else key: value for key, value in file.item.columns.items()}
        for frame in file.frames:
            assert frame.vector is not None
            pixels = {"width": frame.width, "height": frame.height, "mode": frame.mode}
            rows.append({**own, **frame.columns, **common, **pixels, "id": path + frame.suffix})
            vectors.append(frame.vector)
        for _ in file.same:
            copy = next(copies)
            suffix = copy["id"].removeprefix(copy["path"])
            rows.append({**copy, **own, **common, "id": path + suffix})
            vectors.append(next(old_vectors))
    names = list(dict.fromkeys([*RESERVED, *(column for row in rows for column in row)]))
    table = pa.table({column: _array([row.get(column) for row in rows], column, store.schema) for column in names})
    if metadata is not None:
        labels = metadata.take(metadata.rows_of([row["path"].removeprefix(prefix) for row in rows]))
    else:
        labels = _labels([row["path"] for row in rows], known, notes.metadata_columns(name))
        labels = _as_tables_gave(labels, table)
    for column in labels.column_names:
        # whose a picture is: by the table, and where that does not say by the header
        stated = column in COLUMNS and column in table.column_names
        values = pc.coalesce(identifier_texts(labels[column], column), table[column]) if stated else labels[column]
        table = _set_column(table, column, values)
    empty = [c for c in table.column_names if pa.types.is_null(table[c].type)]
    return table.drop_columns(empty), np.stack(vectors)


def join_anew(metadata: Metadata, store: Store, notes: Notes, name: str) -> pa.Table:
    """Give ``id`` and the table's columns for all live rows; rows of other sources keep their cells.

    Raises
    ------
    UsageError
        A column has another type than the cells that other sources have in it.
    """
    columns = metadata.table.column_names
    shared = [column for column in columns if column in store.schema.names]
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
    for column in shared:
        new = joined[column]
        if store.identity.hashed(column):
            new = pc.coalesce(identifier_texts(new, column), only_hashes(rows[column]))
            joined = _set_column(joined, column, new)
        if mine.all():
            continue
        try:
            old = rows[column].cast(new.type)
        except pa.ArrowInvalid:
            raise UsageError(
                f"column {column!r} is {new.type} in the metadata table and {rows[column].type} in the index",
                hint="rename the column in one of the tables",
            ) from None
        joined = _set_column(joined, column, pc.if_else(pa.array(mine), new, old))
    return joined.add_column(0, "id", rows["id"])


def skipped_table(skipped: Sequence[Skipped], store: Store, notes: Notes, name: str) -> pa.Table:
    """Give the record of what could not be read: this build's, and what other sources had."""
    schema = pa.schema([("path", pa.string()), ("reason", pa.string()), ("size", pa.int64()), ("mtime", pa.float64())])
    old = store.skipped()
    others = [source_of(path, notes.sources)[0] != name for path in old["path"].to_pylist()]
    kept = pa.Table.from_pylist(old.filter(pa.array(others, pa.bool_())).to_pylist(), schema=schema)
    # column by column: there may be a million
    new = pa.table([[getattr(entry, column) for entry in skipped] for column in schema.names], schema=schema)
    return pa.concat_tables([kept, new]).combine_chunks()


def _labels(paths: list[str], known: Known, columns: list[str]) -> pa.Table:
    """Give the cells that earlier rows of the same paths have."""
    store = known.store
    present = [column for column in columns if column in store.schema.names]
    if not present:
        return pa.table({})
    old = known.rows(paths)
    kept = np.array([rows[0] for rows in old if len(rows)], dtype=np.int64)
    position = iter(range(len(kept)))
    take = pa.array([next(position) if len(rows) else None for rows in old], pa.int64())
    return store.table(present, kept).take(take)


def _as_headers_gave(table: pa.Table, labelled: Collection[str]) -> pa.Table:
    """Keep of the identifiers that tables brought to some rows those that a header had brought before: the hashes."""
    for column in {*COLUMNS} & {*labelled} & {*table.column_names}:
        table = _set_column(table, column, only_hashes(identifier_texts(table[column], column)))
    return table


def _as_tables_gave(labels: pa.Table, table: pa.Table) -> pa.Table:
    """Drop, of the cells that earlier rows had, the hashes of the headers that newer headers stand for."""
    for column in {*COLUMNS} & {*labels.column_names} & {*table.column_names}:
        cells = identifier_texts(labels[column], column)
        old = pc.and_(pc.is_valid(only_hashes(cells)), pc.is_valid(table[column]))
        labels = _set_column(labels, column, pc.if_else(old, pa.scalar(None, pa.string()), cells))
    return labels


def _set_column(table: pa.Table, column: str, values: Any) -> pa.Table:
    if column in table.column_names:
        return table.set_column(table.column_names.index(column), column, values)
    return table.append_column(column, values)


def _array(values: list[Any], column: str, schema: pa.Schema) -> pa.Array:
    """Give a column of the type it has in the index already, widened or as text where the values ask for it."""
    known = schema.field(column).type if column in schema.names else _TYPES.get(column)
    try:
        return pa.array(values, known)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        texts = pa.array([None if value is None else str(value) for value in values], pa.string())
        if known is None or pa.types.is_string(known):
            return texts
    if pa.types.is_integer(known) and all(isinstance(value, int | float | None) for value in values):
        return pa.array([None if value is None else float(value) for value in values])
    # what cannot be held is left out: one odd sample must not stop a build
    kept = [value if _fits(value, known) else None for value in values]
    return pa.array(kept, known)


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        pa.scalar(value, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return True
