"""Read a CSV or TSV file as text: no cell is changed, and a malformed table is refused with the line number.

The rules are those of Python's `csv` in strict mode: a cell may be quoted, a quoted cell may hold separators, line
ends and doubled quotes, and behind its closing quote the next cell begins. What pandas or Arrow would swallow is an
error here: a quote that is never closed, text behind a closing quote, a row with more or fewer cells than the header,
and a quoted cell that holds a whole row of the table (a quote was opened and closed in two different rows).

Empty lines are left out. Header names lose the blanks around them.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, NoReturn

import pyarrow as pa
import pyarrow.csv as arrow_csv

from retr.index.errors import UsageError
from retr.retrieval.archive.matching import composed_text
from retr.retrieval.archive.sources import is_image_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Rows whose cells are Python's at a time.
PIECE = 20_000
_TABS = (".tsv", ".tab", ".txt")


def read_delimited(file: Path, path_column: Callable[[list[str]], str]) -> pa.Table:
    """Read the cells of a file, all of them text.

    Parameters
    ----------
    file
        UTF-8, with a header line. Separated by tabs where the suffix says so (or the header has no comma), else by
        commas (or semicolons, likewise).
    path_column
        Choose, among the header's names, the column that holds paths; may raise.

    Raises
    ------
    UsageError
        The file is torn, not UTF-8, or has no header; the message names the line.
    """
    rows = _Rows(file)
    names = rows.names
    key = names.index(path_column(names))
    rows.swallowed = lambda cells: _holds_a_row(cells, key, rows.delimiter)
    plain = _without_quotes(file, names, rows.delimiter, rows.line)
    if plain is not None:
        return _named(plain)
    schema = pa.schema([pa.field(name, pa.string()) for name in names])
    batches = [
        pa.record_batch([pa.array(column, pa.string()) for column in zip(*piece, strict=True)], schema=schema)
        for piece in rows.pieces()
    ]
    return _named(pa.Table.from_batches(batches, schema))


def _without_quotes(file: Path, names: list[str], delimiter: str, header: int) -> pa.Table | None:
    """Return the cells below the header as Arrow reads them; None where there is a quote, or anything is wrong.

    Where no quote is, nothing can be torn, and Arrow reads what Python does, several times faster.
    """
    with file.open("rb") as stream:
        if any(b'"' in piece for piece in iter(lambda: stream.read(1 << 20), b"")):
            return None
    numbers = [str(number) for number in range(len(names))]
    try:
        table = arrow_csv.read_csv(
            file,
            arrow_csv.ReadOptions(column_names=numbers, skip_rows=header),
            arrow_csv.ParseOptions(delimiter=delimiter, quote_char=False),
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(numbers, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid:
        return None
    return table.rename_columns(names)


class _Rows:
    """The rows of one file, and ``line``, where the one that was read last begins."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.line = 1
        self.swallowed: Callable[[list[str]], bool] | None = None
        head = next(self._lines(), "")
        self.delimiter = _delimiter(file.suffix.lower(), head)
        self._rows = self._read()
        self.names = [composed_text(name.strip()) for name in next(self._rows, [])]
        if not any(self.names):
            self._fail("there is no header")
        if "\0" in "".join(self.names):
            self._fail("its header holds NUL bytes, as UTF-16 does", "save it as UTF-8 CSV")

    def pieces(self) -> Iterator[list[list[str]]]:
        """Return the rows behind the header, some thousands at a time."""
        piece: list[list[str]] = []
        for row in self._rows:
            if len(row) != len(self.names):
                found = f"{len(row)} cell{'s' * (len(row) != 1)}"
                self._fail(f"the row of line {self.line} has {found}, the header {len(self.names)}")
            piece.append(row)
            if len(piece) == PIECE:
                yield piece
                piece = []
        if piece:
            yield piece

    def _lines(self) -> Iterator[str]:
        with self._file.open(encoding="utf-8-sig", newline="") as stream:
            try:
                yield from stream
            except UnicodeDecodeError:
                self._fail(f"it is not UTF-8 behind line {self.line}", "save it as UTF-8 CSV")

    def _read(self) -> Iterator[list[str]]:
        """Return the cells of every row that is not an empty line."""
        reader = csv.reader(self._lines(), delimiter=self.delimiter, strict=True)
        while True:
            self.line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._torn(str(error), reader.line_num)
            if reader.line_num > self.line and self.swallowed is not None and self.swallowed(row):
                self._torn("a quoted cell holds a whole row", reader.line_num)
            if row:
                yield row

    def _torn(self, why: str, last: int) -> NoReturn:
        what = "text behind a closing quote" if "expected after" in why else why
        what = "a quote is never closed" if "unexpected end" in why else what
        what = "a cell is too long: its quote may never be closed" if "field larger" in why else what
        until = f" (read up to line {last})" if last > self.line else ""
        self._fail(
            f"{what} in the row that begins in line {self.line}{until}",
            'close the quote there; a quote inside a quoted cell is written twice: ""',
        )

    def _fail(self, what: str, hint: str = "give a UTF-8 CSV or TSV with a header line, or Parquet") -> NoReturn:
        form = self._file.suffix.lstrip(".").upper() or "CSV"
        raise UsageError(f"table {str(self._file)!r} cannot be read as {form}: {what}", hint=hint)


def _delimiter(suffix: str, head: str) -> str:
    usual = "\t" if suffix in _TABS else ","
    return next((mark for mark in (usual, ",", ";", "\t") if mark in head), usual)


def _holds_a_row(cells: list[str], key: int, delimiter: str) -> bool:
    r"""Return whether a cell that goes over several lines holds a row of the table, recognised by its picture's path.

    >>> _holds_a_row(["a.png", "drusen\nb.png,normal\n"], 0, ","), _holds_a_row(["a.png", "left,\nright"], 0, ",")
    (True, False)
    """
    path = cells[key].strip().splitlines()
    if len(path) > 1 and (delimiter in cells[key] or is_image_name(path[-1]) is True):
        return True
    parts = [line.split(delimiter) for cell in cells for line in cell.splitlines()[1:]]
    return any(len(part) > max(key, 1) and is_image_name(part[key].strip(' "')) is True for part in parts)


def _named(table: pa.Table) -> pa.Table:
    """Leave out columns without a name and without a cell; others without a name are called by their place."""
    names = [
        name or (f"column_{n + 1}" if any(table.column(n).unique().to_pylist()) else "")
        for n, name in enumerate(table.column_names)
    ]
    return table.select([n for n, name in enumerate(names) if name]).rename_columns([name for name in names if name])
