"""Convert decoded files to the rows of an index: columns and their order.

The first columns are always `RESERVED`; then come the columns of the metadata table, then what the files' headers
gave, then scores.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.machine.arrow import pc
from retr.index.rows.grouping import faithful_texts
from retr.index.rows.identifiers import identifier_text, identifier_texts, identifies
from retr.index.rows.identity import COLUMNS, only_hashes
from retr.retrieval.archive.column_types import NUMBER, TEXT, as_declared, looks_numeric
from retr.retrieval.archive.locations import source_of
from retr.retrieval.archive.matching import composed_text
from retr.retrieval.hits import ANSWER
from retr.retrieval.images.dicom_header import HEADER_COLUMNS
from retr.retrieval.ingest.seen_files import MARK, SeenFiles
from retr.retrieval.transforms.transform import own_vectors

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.archive.metadata import Metadata
    from retr.retrieval.archive.provenance import BuildNotes
    from retr.retrieval.archive.sources import Skipped
    from retr.retrieval.ingest.decode import Read

RESERVED = ("id", "path", "size", "mtime", "sha256", "width", "height", "mode", "folder")
# names that a column of a person's cannot have: those, what an answer says of itself, and a store's mark
TAKEN = (*RESERVED, *ANSWER, MARK)
_TYPES = {"size": pa.int64(), "mtime": pa.float64(), "width": pa.int64(), "height": pa.int64()}


def score_column(finding: str) -> str:
    """Return the column of a finding's probability.

    >>> score_column("pleural effusion")
    'p_pleural_effusion'
    """
    return "p_" + re.sub(r"\W+", "_", finding.strip()).strip("_")


@dataclass(frozen=True)
class Rows:
    """Rows to be added, and row for row their encoder's own vectors, float ``(n, dim)``.

    ``same``, int64 ``(n,)``, is of each the known row with the same bytes, whose vectors the index has already, or -1.
    ``regions``, float ``(new, regions, dim)``, are the vectors of the regions of the others, where there are any.
    ``retyped`` are columns in which the index holds numbers or the like and these rows texts: they have to become text.
    """

    table: pa.Table
    vectors: NDArray[np.floating[Any]]
    same: NDArray[np.int64]
    regions: NDArray[np.floating[Any]]
    retyped: list[str]


def make_rows(
    files: Sequence[Read],
    known: SeenFiles,
    notes: BuildNotes,
    *,
    name: str,
    metadata: Metadata | None,
    now: Store,
    group: str | None,
) -> Rows:
    """Make the rows of some files.

    Parameters
    ----------
    files
        Read and embedded.
    known
        The rows that the index had: those of the same bytes give their vectors and what was read from the bytes, those
        of the same paths their labels where no table is given.
    notes
        What the index records of its builds.
    name
        The source's name, the first part of the ids.
    now, group
        The index as of the last commit, and the column that tells patients apart.
    """
    store = known.store
    reused = np.array([row for file in files for row in file.same], dtype=np.int64)
    given = {*notes.metadata_columns(), *_own(dict.fromkeys(notes.beside))}
    of_bytes = ["width", "height", "mode", *HEADER_COLUMNS, *map(score_column, notes.scores)]
    copied = [name for name in of_bytes if name in store.schema.names and (name not in given or name in COLUMNS)]
    old = store.table(["id", "path", *copied], reused) if len(reused) else pa.table({})
    copies = iter(_as_headers_gave(old, given).to_pylist())
    old_vectors = iter(own_vectors(store, reused))
    prefix = f"{name}/" if name else ""
    rows: list[dict[str, Any]] = []
    vectors: list[NDArray[np.floating[Any]]] = []
    for file in files:
        path = prefix + file.item.path
        folder = PurePosixPath(file.item.path.rpartition("::")[2]).parent.name
        common: dict[str, Any] = {
            "path": path,
            "size": file.size,
            "mtime": file.mtime,
            "sha256": file.sha256,
            "folder": composed_text(folder),
        }
        if file.item.mark is not None:
            common[MARK] = file.item.mark
        own = _own(file.item.columns)
        for frame in file.frames:
            assert frame.vector is not None
            pixels = {"width": frame.width, "height": frame.height, "mode": frame.mode}
            rows.append({**own, **frame.columns, **common, **pixels, "id": path + frame.suffix})
            vectors.append(frame.vector)
        for _ in file.same:
            copy = next(copies)
            suffix = copy["id"].removeprefix(copy["path"])
            said = {column: value for column, value in copy.items() if value is not None}
            rows.append({**own, **said, **file.stated, **common, "id": path + suffix})
            vectors.append(next(old_vectors))
    names = list(dict.fromkeys([*RESERVED, *(column for row in rows for column in row)]))
    retyped: list[str] = []
    types = notes.types if group is None else {group: TEXT, **notes.types}
    columns: dict[str, Any] = {
        column: _array([row.get(column) for row in rows], column, now, retyped, types.get(column)) for column in names
    }
    if metadata is not None:
        labels = metadata.take(metadata.rows_of([row["path"].removeprefix(prefix) for row in rows]))
    else:
        labels = _labels([row["path"] for row in rows], known, notes.metadata_columns(name))
        labels = _as_tables_gave(labels, columns)
    columns |= _over(columns, labels)
    retyped = [column for column in retyped if column not in labels.column_names]
    table = pa.table({name: cells for name, cells in columns.items() if not pa.types.is_null(cells.type)})
    same = np.array([row for file in files for row in (*[-1] * len(file.frames), *file.same)], np.int64)
    regions = [frame.regions for file in files for frame in file.frames if frame.regions is not None]
    return Rows(table, np.stack(vectors), same, np.stack(regions) if regions else np.empty((0, 0, 0)), retyped)


def _over(columns: Mapping[str, Any], labels: pa.Table) -> dict[str, Any]:
    """Return the columns of a table, and where that does not say what header or the picture's neighbours brought."""
    found = {}
    for column, given in zip(labels.column_names, labels.columns, strict=True):
        cells, brought = given, columns.get(column)
        if brought is not None and column in COLUMNS:
            cells = pc.coalesce(identifier_texts(cells, column), brought)
        elif brought is not None and brought.type == cells.type:
            cells = pc.coalesce(cells, brought)
        found[column] = cells
    return found


def _own(brought: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that came with a picture; a name that the index needs for itself gets a suffix."""
    own: dict[str, Any] = {}
    for key, value in brought.items():
        column = f"{key}_meta" if key in TAKEN else key
        while column in TAKEN or (column != key and column in brought):
            column += "_"
        own[column] = value
    return own


def as_text(store: Store, columns: Sequence[str]) -> pa.Table:
    """Return ``id`` and some columns of all live rows, these as text."""
    table = store.table(["id", *columns])
    for column in columns:
        table = set_column(table, column, faithful_texts(table[column], column))
    return table


def skipped_table(skipped: Sequence[Skipped], store: Store, notes: BuildNotes, name: str) -> pa.Table:
    """Return the record of what could not be read: this build's, and what other sources had."""
    schema = pa.schema([("path", pa.string()), ("reason", pa.string()), ("size", pa.int64()), ("mtime", pa.float64())])
    old = store.skipped()
    others = [source_of(path, notes.sources)[0] != name for path in old["path"].to_pylist()]
    kept = pa.Table.from_pylist(old.filter(pa.array(others, pa.bool_())).to_pylist(), schema=schema)
    # column by column: there may be a million
    new = pa.table([[getattr(entry, column) for entry in skipped] for column in schema.names], schema=schema)
    return pa.concat_tables([kept, new]).combine_chunks()


def _labels(paths: list[str], known: SeenFiles, columns: list[str]) -> pa.Table:
    """Return the cells that earlier rows of the same paths have."""
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
        table = set_column(table, column, only_hashes(identifier_texts(table[column], column)))
    return table


def _as_tables_gave(labels: pa.Table, brought: Mapping[str, Any]) -> pa.Table:
    """Drop, of the cells that earlier rows had, the hashes of the headers that newer headers stand for."""
    for column in {*COLUMNS} & {*labels.column_names} & {*brought}:
        cells = identifier_texts(labels[column], column)
        old = pc.and_(pc.is_valid(only_hashes(cells)), pc.is_valid(brought[column]))
        labels = set_column(labels, column, pc.if_else(old, pa.scalar(None, pa.string()), cells))
    return labels


def set_column(table: pa.Table, column: str, values: Any) -> pa.Table:
    """Return a table with a column put in the place of the one of its name, or behind all others."""
    if column in table.column_names:
        return table.set_column(table.column_names.index(column), column, values)
    return table.append_column(column, values)


def _array(values: list[Any], column: str, now: Store, retyped: list[str], declared: str | None) -> pa.Array:
    """Return a column of the type it has in the index already, widened or as text where the values ask for it."""
    known = now.schema.field(column).type if column in now.schema.names else pa.null()
    if column in _TYPES:
        return pa.array(values, _TYPES[column])
    if declared == NUMBER:
        values = [_number(value) for value in values]
    natural = (
        None if declared == TEXT or (declared is None and known == pa.null() and identifies(column)) else _plain(values)
    )
    if natural is not None:
        if known in {pa.null(), natural.type} or pa.types.is_null(natural.type):
            return natural if natural.type != pa.null() else natural.cast(known)
        if {str(known), str(natural.type)} == {"int64", "double"}:
            with contextlib.suppress(pa.ArrowInvalid):  # integers that a float would round
                if known == pa.int64():
                    now.table([column])[column].cast(pa.float64())
                return natural.cast(pa.float64())
    if known != pa.null() and not pa.types.is_string(known):
        retyped.append(column)
    return pa.array([_text(value) for value in values], pa.string())


def _plain(values: list[Any]) -> pa.Array | None:
    """Return values of one kind as a column; None where they are of several, of which none holds all."""
    kinds = {_kind(value) for value in values if value is not None}
    if len(kinds) > 1 and kinds != {int, float}:
        return None
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return None


def _kind(value: Any) -> type:
    return next((kind for kind in (bool, int, float, str, bytes) if isinstance(value, kind)), type(value))


def _number(value: Any) -> Any:
    """Return the number that a text spells, and whatever else as it is."""
    cells = pa.chunked_array([[value]]) if isinstance(value, str) else None
    return as_declared(cells, "", NUMBER)[0].as_py() if cells is not None and looks_numeric(cells) else value


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, list | dict) else identifier_text(value)
