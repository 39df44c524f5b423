"""A table of labels, joined to pictures on the path.

CSV, TSV and Parquet. The key is the column ``path`` (or the first of `KEYS` that the table has), relative to the
archive; a leading ``./``, backslashes and the archive's own absolute place are understood. The key column itself is
not stored again. A column whose name the index needs for itself gets the suffix ``_meta``.

Cells of a CSV become numbers only where nothing is lost: ``0012`` stays text (it may be a patient's number), and so
does a column in which one cell is not a number. An empty cell is a null.

Of each row the table's cells, the path and 13 bytes are in memory.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retr.index.errors import UsageError
from retr.retrieval.archive.lookup import Lookup, hashes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

KEYS = ("path", "file_path", "filepath", "image_path", "file_name", "filename", "file", "image", "img_path", "key")

PIECE = 20_000

# What a cell says when there is no number; in a text column it is text.
_NOT_A_NUMBER = ("", "NA", "N/A", "n/a", "na", "NaN", "nan", "NULL", "null", "None")
_INTEGER = r"^-?(0|[1-9][0-9]{0,17})$"
_DECIMAL = r"^-?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?$"


@dataclass
class Metadata:
    """A table to join, with what was matched so far.

    Attributes
    ----------
    table
        The columns to store, without the key.
    paths
        The key, as the archive's sources write paths.
    sha256
        Of the file's bytes and the key's name: tells whether it changed since the last build.
    renamed
        Column of the file to its name in the index, where they differ.
    """

    table: pa.Table
    paths: pa.ChunkedArray
    key: str
    sha256: str
    renamed: dict[str, str] = field(default_factory=dict)
    _matched: NDArray[np.bool_] = field(init=False)
    _lookup: Lookup = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.paths)
        hashes = [hashes_of(piece.to_pylist()) for piece in pieces(self.paths)]
        self._lookup = Lookup(np.concatenate([np.empty(0, np.int64), *hashes]), np.arange(n, dtype=np.uint32))
        self._matched = np.zeros(n, dtype=np.bool_)
        for row in self._lookup.again().tolist():
            path = self.paths[row].as_py()
            first = self._row_of(path)
            if first == row:
                continue
            if not self.table.slice(first, 1).equals(self.table.slice(row, 1)):
                raise UsageError(
                    f"the metadata table has different cells for the path {path!r} in rows {first + 2} and {row + 2}",
                    hint="keep one row a picture",
                )
            # it is the first one that a picture has
            self._matched[row] = True

    def rows_of(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """Give the table's row of each path, -1 where there is none.

        A member of a container, ``"0001.tar::a/b.png"``, is looked for by its whole path, then by the member's own.
        """
        return np.fromiter((self._row_of(path) for path in paths), np.int64, len(paths))

    def mark(self, path: str) -> bool:
        """Note that there is a picture of this path; say whether the table has a row for it."""
        row = self._row_of(path)
        if row >= 0:
            self._matched[row] = True
        return row >= 0

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Give the stored columns of `match`'s rows, nulls for -1."""
        return self.table.take(pa.array(rows, mask=rows < 0))

    def unmatched(self) -> pa.ChunkedArray:
        """Give the paths of the table that no picture had."""
        return self.paths.filter(pa.array(~self._matched))

    def _row_of(self, path: str) -> int:
        for text in (path, path.partition("::")[2]) if "::" in path else (path,):
            for row in self._lookup[text].tolist():
                if self.paths[row].as_py() == text:
                    return int(row)
        return -1


def read_metadata(file: Path | str, *, reserved: Sequence[str], root: str | None = None) -> Metadata:
    """Read a table of labels.

    Parameters
    ----------
    file
        ``.csv``, ``.tsv``, ``.txt`` (tabs) or ``.parquet``.
    reserved
        Column names the index needs for itself.
    root
        The archive's absolute place: absolute paths below it are understood.

    Raises
    ------
    UsageError
        The file does not exist, is not a table, has no path column, or names one path twice with different cells.
    """
    raw, key = _read(Path(file))
    paths = pa.chunked_array(
        [[_normal(str(value), root) for value in piece.to_pylist()] for piece in pieces(raw[key])], pa.string()
    )
    raw = raw.drop_columns([key])
    taken = set(reserved) | set(raw.column_names)
    renamed = {name: _free_name(name, taken) for name in raw.column_names if name in reserved}
    table = raw.rename_columns([renamed.get(name, name) for name in raw.column_names])
    with Path(file).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    digest.update(key.encode())
    return Metadata(table=table, paths=paths, key=key, sha256=digest.hexdigest(), renamed=renamed)


def pieces(column: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """Give a column some thousands of rows at a time: so many texts may be Python's at once."""
    for start in range(0, len(column), PIECE):
        yield column.slice(start, PIECE)


def read_table(file: Path) -> tuple[list[str], pa.Table]:
    """Read a list of paths: the paths as they stand there, and the other columns.

    Raises
    ------
    UsageError
        As `read_metadata`.
    """
    raw, key = _read(file)
    raw = raw.filter(pc.is_valid(raw[key]))
    return [str(path).strip() for path in raw[key].to_pylist()], raw.drop_columns([key])


def _read(path: Path) -> tuple[pa.Table, str]:
    """Give a table and the name of its path column."""
    if not path.is_file():
        raise UsageError(f"metadata table {str(path)!r} does not exist", hint="give a CSV, TSV or Parquet file")
    try:
        raw = _read_parquet(path) if path.suffix.lower() in {".parquet", ".pq"} else _read_text(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        raise UsageError(
            f"metadata table {str(path)!r} cannot be read as {path.suffix.lstrip('.').upper() or 'CSV'}",
            hint="give a UTF-8 CSV or TSV with a header line, or Parquet",
        ) from None
    duplicated = sorted({name for name in raw.column_names if raw.column_names.count(name) > 1})
    if duplicated:
        raise UsageError(f"metadata table {str(path)!r} has the column {duplicated[0]!r} twice")
    key = next((name for name in KEYS if name in raw.column_names), None)
    if key is None:
        raise UsageError(
            f"metadata table {str(path)!r} has no path column, only {raw.column_names!r}",
            hint="name the column that holds the pictures' paths 'path'",
        )
    return raw, key


def narrow(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn a text column into integers, decimals or booleans where that loses nothing; empty cells become nulls.

    >>> narrow(pa.chunked_array([["7", "12", ""]])).type, narrow(pa.chunked_array([["7", "0012"]])).type
    (DataType(int64), DataType(string))
    """
    blank = pc.is_in(column, value_set=pa.array(_NOT_A_NUMBER))
    numeric = pc.if_else(blank, pa.scalar(None, pa.string()), column)
    if numeric.null_count < len(numeric):
        if _all(pc.match_substring_regex(numeric, _INTEGER)):
            return pc.cast(numeric, pa.int64())
        digits = pc.match_substring_regex(numeric, r"[0-9]")
        if _all(pc.and_(pc.match_substring_regex(numeric, _DECIMAL), digits)):
            return pc.cast(numeric, pa.float64())
        if _all(pc.is_in(pc.utf8_lower(numeric), value_set=pa.array(["true", "false"])), numeric):
            return pc.equal(pc.utf8_lower(numeric), "true")
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def _all(flags: Any, where: pa.ChunkedArray | None = None) -> bool:
    if where is not None:
        flags = pc.if_else(pc.is_valid(where), flags, pa.scalar(None, pa.bool_()))
    return bool(pc.all(flags).as_py())


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read()
    # dictionary columns differ from batch to batch; the index stores plain values
    plain = [
        pc.cast(column, column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    return pa.table(plain, names=table.column_names)


def _read_text(path: Path) -> pa.Table:
    from pyarrow import csv

    with path.open("rb") as stream:
        header = stream.readline().decode("utf-8")
    delimiter = "\t" if path.suffix.lower() in {".tsv", ".tab", ".txt"} else ","
    if delimiter not in header and ";" in header:
        delimiter = ";"
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    names = csv.open_csv(pa.OSFile(str(path)), parse_options=parse).schema.names
    convert = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    table = csv.read_csv(pa.OSFile(str(path)), parse_options=parse, convert_options=convert)
    return pa.table([narrow(column) for column in table.columns], names=table.column_names)


def _normal(path: str, root: str | None) -> str:
    path = path.strip().replace("\\", "/")
    if root and path.startswith(root.rstrip("/") + "/"):
        path = path[len(root.rstrip("/")) + 1 :]
    while path.startswith("./"):
        path = path[2:]
    return os.path.normpath(path) if path else path


def _free_name(name: str, taken: set[str]) -> str:
    name = f"{name}_meta"
    while name in taken:
        name += "_"
    taken.add(name)
    return name
