"""A table of labels, joined to pictures on the path.

CSV, TSV, Parquet, or a table in memory, which is read as Parquet is. The column of the paths is the one that is named,
or the first of `KEYS` that the table has, whatever its capitals and blanks; it is not stored again. A path is relative
to the archive; a leading ``./``, backslashes and the archive's own absolute place are understood, and
`retr.retrieval.archive.matching` says which picture a row belongs to. A column whose name the index needs for itself
gets the suffix ``_meta``.

Cells of a CSV become numbers only where nothing is lost (`retr.retrieval.archive.column_types`); columns that identify
are text, whichever type they come in. An empty cell is a null. All text is stored with composed accents (NFC). Whatever
an index cannot hold is refused here, before a picture is looked at.

Of each row the table's cells, the path and some bytes are in memory.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retr.index.disk.incoming import stored_column
from retr.index.errors import UsageError
from retr.index.machine.arrow import pc
from retr.index.rows.identifiers import identifier_texts, identifies, lossy
from retr.retrieval.archive.column_types import NUMBER, TEXT, as_declared, doubts, identifying, looks_numeric, narrow
from retr.retrieval.archive.delimited import read_delimited
from retr.retrieval.archive.in_memory import arrow_table
from retr.retrieval.archive.matching import Matcher, clean, composed_text, pieces
from retr.retrieval.archive.table_like import Table, called, is_file
from retr.retrieval.regular_files import is_regular, open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

# What a column of paths may be called, in small letters and without what stands between the words.
KEYS = (
    *("path", "filepath", "imagepath", "imgpath", "relativepath", "relpath", "filename", "imagefilename", "file"),
    *("image", "imagefile", "imagename", "imageindex", "imageid", "img", "dicom", "dicompath", "dicomid", "key"),
)
SHOWN = 3
# More columns are a table that lies on its side, or an attack.
MAX_COLUMNS = 5000


@dataclass
class Metadata:
    """A table to join, with what was matched so far.

    Attributes
    ----------
    table
        The columns to store, without the key.
    matcher
        The paths, as the archive's sources write them, and which pictures they belong to.
    sha256
        Of the file's bytes, the key's name and the stored columns: tells whether a row may have changed.
    renamed
        Column of the file to its name in the index, where they differ.
    notes
        What the user should know, one line each.
    """

    table: pa.Table
    matcher: Matcher
    key: str
    sha256: str
    renamed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._double = np.zeros(len(self.table), np.bool_)
        for first, row in self.matcher.again():
            if not self.table.slice(first, 1).equals(self.table.slice(row, 1)):
                path = self.matcher.paths[row].as_py()
                raise UsageError(
                    f"the table has different cells for the path {path!r} in rows {first + 2} and {row + 2}",
                    hint="keep one row a picture",
                )
            self._double[row] = True

    def rows_of(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """Return the table's row of each path, int64 ``(len(paths),)``, -1 where there is none.

        A member of a container, ``"0001.tar::a/b.png"``, is looked for by its whole path, then by the member's own.
        """
        return np.fromiter(map(self.matcher.row_of, paths), np.int64, len(paths))

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Return the stored columns of `rows_of`'s rows, nulls for -1."""
        return self.table.take(pa.array(rows, mask=rows < 0))

    def unmatched(self) -> pa.ChunkedArray:
        """Return the paths of the table that no picture had."""
        left = ~(self.matcher.matched() | self._double)
        left[self.matcher.torn()] = False
        return self.matcher.paths.filter(pa.array(left))


def read_metadata(
    given: Table,
    *,
    reserved: Sequence[str],
    relative: Callable[[str], str] = clean,
    path_column: str | None = None,
    types: Mapping[str, str] | None = None,
    group: str | None = None,
) -> Metadata:
    """Read a table of labels.

    Parameters
    ----------
    given
        A file, ``.csv``, ``.tsv``, ``.txt`` (tabs) or ``.parquet``, or a table in memory.
    reserved
        Column names the index needs for itself.
    relative
        Write a path of the table as the archive's sources do.
    path_column
        The column that holds paths; by default one of `KEYS`.
    types
        Columns to be stored as ``"number"`` or as ``"text"``, whatever they look like.
    group
        The column that tells patients apart.

    Raises
    ------
    UsageError
        The file does not exist, is not a table, has no path column, names one path twice with different cells, or has
        a column that an index cannot hold.
    """
    raw, key, spelled = read_cells(given, path_column)
    texts = identifier_texts(raw[key], key)
    paths = [[relative(text or "") for text in piece.to_pylist()] for piece in pieces(texts)]
    notes: list[str] = []
    taken = set(reserved) | set(raw.column_names)
    renamed = {name: _free_name(name, taken) for name in raw.column_names if name in reserved and name != key}
    if group in renamed:
        raise UsageError(
            f"the column {group!r} is the index's own, and the table's {group!r} is stored as {renamed[group]!r}",
            hint=f"name that one: --group {renamed[group]}",
        )
    declared = {renamed.get(name, name): kind for name, kind in (types or {}).items()}
    cells = raw.drop_columns([key])
    cells = cells.rename_columns([renamed.get(name, name) for name in cells.column_names])
    table = stored_columns(cells, declared, group, notes, spelled=spelled)
    digest = _digest(given, raw)
    digest.update(f"{key}{table.schema.remove_metadata()}".encode())
    matcher = Matcher(pa.chunked_array(paths, pa.string()))
    return Metadata(table=table, matcher=matcher, key=key, sha256=digest.hexdigest(), renamed=renamed, notes=notes)


def _digest(given: Table, raw: pa.Table) -> hashlib._Hash:
    """Hash a file's bytes, or the cells of a table in memory."""
    if is_file(given):
        with open_regular(os.fspath(given)) as stream:
            return hashlib.file_digest(stream, "sha256")
    sink = pa.BufferOutputStream()
    whole = raw.replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole)
    return hashlib.sha256(sink.getvalue())


def join_tables(first: Metadata, second: Metadata) -> Metadata:
    """Return one table with the rows of ``first`` and the columns of both; ``second`` says what both say."""
    paths = [path for piece in pieces(first.matcher.paths) for path in piece.to_pylist()]
    for path in paths:
        second.matcher.see(path)
    labels = second.take(second.rows_of(paths))
    columns = {name: first.table[name] for name in first.table.column_names}
    columns |= {name: labels[name] for name in labels.column_names}
    left = len(second.unmatched())
    notes = [f"{left} rows of the metadata table name nothing in the list"] if left else []
    return Metadata(
        table=pa.table(columns),
        matcher=first.matcher,
        key=first.key,
        sha256=hashlib.sha256(f"{first.sha256}{second.sha256}".encode()).hexdigest(),
        renamed={**first.renamed, **second.renamed},
        notes=[*first.notes, *second.notes, *notes],
    )


def require_match(table: Metadata, pictures: Iterator[str], called: str) -> None:
    """Make sure that a row of the table belongs to one of the pictures.

    Parameters
    ----------
    pictures
        The paths of the archive's pictures; read up to the first that a row fits.
    called
        The table, for the error.

    Raises
    ------
    UsageError
        No row fits any picture; the message shows some of both sides.
    """
    seen: list[str] = []
    for path in pictures:
        if table.matcher.see(path):
            return
        if len(seen) < SHOWN and path not in seen:
            seen.append(path)
    rows = table.matcher.paths.slice(0, SHOWN).to_pylist()
    hint = "write the paths as the archive does, or name another column with --path-column"
    if {_name(path) for path in rows} & {_name(path) for path in seen}:
        hint = "the names agree, the folders do not: write the paths relative to the archive"
    elif {path.casefold() for path in rows} & {path.casefold() for path in seen}:
        hint = "upper and lower case differ: write the paths as the archive does"
    raise UsageError(
        f"no path of the table {called!r} (column {table.key!r}) is a picture of the archive: the table has "
        f"{_list(rows)}, the archive {_list(seen)}",
        hint=hint,
    )


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _list(paths: Sequence[str]) -> str:
    return ", ".join(map(repr, paths)) or "none"


def read_table(file: Path, path_column: str | None = None) -> tuple[list[str], pa.Table]:
    """Read a list of paths: the paths as they stand there, and the other columns.

    Raises
    ------
    UsageError
        As `read_metadata`.
    """
    raw, key, spelled = read_cells(file, path_column)
    paths = identifier_texts(raw[key], key).to_pylist()
    rows = [row for row, path in enumerate(paths) if path and path.strip()]
    table = stored_columns(raw.drop_columns([key]), {}, None, [], spelled=spelled)
    return [paths[row].strip() for row in rows], table.take(pa.array(rows, pa.int64()))


def read_paths(file: Path, path_column: str | None = None) -> list[str]:
    """Read the paths of a list alone, as they stand there; raises as `read_table`."""
    raw, key, _ = read_cells(file, path_column)
    return [path.strip() for path in identifier_texts(raw[key], key).to_pylist() if path and path.strip()]


def path_column_of(names: Sequence[str], asked: str | None, called: str) -> str:
    """Return the column that holds paths.

    Parameters
    ----------
    asked
        Its name, where the user said it.
    called
        The table, for the error.

    Raises
    ------
    UsageError
        There is none, or two that differ in capitals and blanks only.
    """
    shown = ", ".join(map(repr, names[:20])) + (" ..." if len(names) > 20 else "")
    for wanted in (*KEYS,) if asked is None else (_plain(asked),):
        found = [name for name in names if _plain(name) == wanted]
        exact = [name for name in found if name in {asked, wanted}]
        if len(found) > 1 and not exact:
            raise UsageError(f"table {called!r} has several path columns: {shown}", hint="name one with --path-column")
        if found:
            return (exact or found)[0]
    if asked is not None:
        raise UsageError(f"table {called!r} has no column {asked!r}", hint=f"the columns are {shown}")
    only = f"only {shown}" if names else "and no other either"
    raise UsageError(
        f"table {called!r} has no path column, {only}",
        hint="say with --path-column which one holds the pictures' paths",
    )


def read_cells(given: Table, path_column: str | None) -> tuple[pa.Table, str, bool]:
    """Return a table, the name of its path column, and whether its cells are texts to be read.

    Raises
    ------
    UsageError
        As `read_metadata`.
    """
    named = called(given)

    def choose(names: Sequence[str]) -> str:
        if len(names) > MAX_COLUMNS:
            many = f"table {named!r} has {len(names)} columns, more than {MAX_COLUMNS}"
            raise UsageError(many, hint="give one row a picture, and the columns you need")
        double = next((name for name, count in Counter(names).items() if name and count > 1), None)
        if double is not None:
            raise UsageError(f"table {named!r} has the column {double!r} twice", hint="rename one of them")
        return path_column_of([name for name in names if name], path_column, named)

    def typed(raw: pa.Table) -> tuple[pa.Table, str, bool]:
        choose(raw.column_names)  # for a name that stands there twice
        texts = [name for name in raw.column_names if _may_be_path(raw.schema.field(name).type)]
        return raw, path_column_of(texts, path_column, named), False

    if not is_file(given):
        return typed(arrow_table(given))
    file = Path(given)
    if not (file.exists() and is_regular(file.stat())):
        what = "is not a regular file" if file.exists() else "does not exist"
        raise UsageError(f"table {str(file)!r} {what}", hint="give a CSV, TSV or Parquet file")
    try:
        if file.suffix.lower() not in {".parquet", ".pq"}:
            raw = read_delimited(file, choose)
            return raw, choose(raw.column_names), True
        return typed(_read_parquet(file))
    except (pa.ArrowException, OSError):
        raise UsageError(f"table {str(file)!r} cannot be read: it is damaged or not what its name says") from None


def _read_parquet(file: Path) -> pa.Table:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as reader:
        table = reader.read()
    table.validate(full=True)
    renamed = table.rename_columns([composed_text(name.strip()) for name in table.column_names])
    return renamed.replace_schema_metadata(table.schema.metadata)


def _may_be_path(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _may_be_path(kind.value_type)
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer)
    return any(test(kind) for test in tests)


def stored_columns(
    raw: pa.Table, types: Mapping[str, str], group: str | None, notes: list[str], *, spelled: bool
) -> pa.Table:
    """Bring every column to the type it is stored in; say what was decided about numbers.

    Parameters
    ----------
    notes
        What was decided is added to it.
    spelled
        Whether the cells are texts that may spell numbers.
    """
    columns = {}
    for name, column in zip(raw.column_names, raw.columns, strict=True):
        declared = types.get(name)
        as_text = declared == TEXT or (declared is None and (name == group or identifies(name)))
        if as_text and lossy(column):
            notes.append(f"column {name!r} holds floats so large that different identifiers may have become one")
        number = pa.types.is_decimal(column.type) or pa.types.is_floating(column.type)
        plain = identifier_texts(column, name) if as_text and number else stored_column(column, name)
        if pa.types.is_string(plain.type) and not pc.all(pc.string_is_ascii(plain)).as_py():
            plain = pc.utf8_normalize(plain, form="NFC")
        if declared is not None:
            plain = as_declared(plain, name, declared)
        elif as_text:
            notes += doubts(plain, name) if pa.types.is_string(plain.type) else []
            plain = identifying(plain, name)
        elif spelled:
            cells, plain = plain, narrow(plain)
            if pa.types.is_string(plain.type) and looks_numeric(cells):
                lost = f"column {name!r} stays text, since numbers would not keep its spelling"
                notes.append(f"{lost}; --type {name}={NUMBER} stores numbers")
        columns[name] = plain
    return pa.table(columns) if columns else raw.select([])


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _free_name(name: str, taken: set[str]) -> str:
    name = f"{name}_meta"
    while name in taken:
        name += "_"
    taken.add(name)
    return name
