"""The writer that all commands print through.

Data goes to standard output, everything else to standard error, so a pipe never carries a note. ``--json`` prints
one object a line, ``--csv`` a header and rows, ``--paths`` one path a line; without them a person gets a table.

A program gets the data exactly, in UTF-8 whatever the locale. A person gets escapes for what would act on the terminal
(`retr.retrieval.visible_text`), and nothing of the data is ever read as markup.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from typing import TYPE_CHECKING, Any, Literal

from retr.cli import _streams
from retr.index.errors import RetrError, UsageError
from retr.retrieval.json_values import to_plain
from retr.retrieval.visible_text import columns_wide, is_formula, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_UNWRAPPED = 1 << 20
_HASH = re.compile(r"[0-9a-f]{64}")
Form = Literal["table", "json", "csv", "paths"]


class Output:
    """Prints records in the form the user asked for with one of five switches; `UsageError` for two forms at once."""

    def __init__(
        self,
        *,
        json_: bool = False,
        csv_: bool = False,
        safe_csv: bool = False,
        paths: bool = False,
        paths0: bool = False,
    ) -> None:
        switches = {"json": json_, "csv": csv_, "safe-csv": safe_csv, "paths": paths, "paths0": paths0}
        asked = [name for name, on in switches.items() if on and not (name == "csv" and safe_csv)]
        if len(asked) > 1:
            given = ", ".join(f"--{name}" for name in switches)
            raise UsageError(f"--{asked[0]} and --{asked[1]} exclude each other", hint=f"give one of {given}")
        forms: dict[str, Form] = {"json": "json", "csv": "csv", "safe-csv": "csv", "paths": "paths", "paths0": "paths"}
        self.form: Form = forms[asked[0]] if asked else "table"
        self._safe = safe_csv
        self._after_path = "\0" if paths0 else "\n"
        self._csv_columns: list[str] | None = None
        (_streams.escape_unencodable if self.form == "table" else _streams.exact)(sys.stdout)

    def record(self, data: Mapping[str, Any]) -> None:
        """Print one object: a JSON line, or aligned ``key  value`` lines for a person."""
        if self.form == "json":
            self._write(to_json(data) + "\n")
            return
        names = {key: _seen(key) for key in data}
        width = max((columns_wide(name) for name in names.values()), default=0)
        for key, value in data.items():
            for number, shown in enumerate(_lines(value)):
                name = "" if number else names[key]
                self.line(f"{name}{' ' * (width - columns_wide(name))}  {shown}")

    def rows(
        self, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None, *, title: str | None = None
    ) -> None:
        """Print many objects: JSON lines, CSV, paths, or one table for a person.

        Parameters
        ----------
        rows
            The objects; keys beyond ``columns`` are left out of the table, never out of JSON.
        columns
            The columns of table and CSV; by default the keys of the first row.
        title
            Printed above a table, to a person only.
        """
        rows = list(rows)
        if self.form == "json":
            for row in rows:
                self._write(to_json(row) + "\n")
        elif self.form == "paths":
            self._paths([str(row["path"]) for row in rows])
        elif self.form == "csv":
            self._csv(rows, list(columns or (rows[0] if rows else ())))
        else:
            self._table(rows, list(columns or (rows[0] if rows else ())), title)

    def line(self, text: str) -> None:
        """Print one line for a person to standard output."""
        self._write(visible(text) + "\n")

    def note(self, text: str) -> None:
        """Print what is not data, on standard error."""
        self._flush()
        sys.stderr.write(visible(text) + "\n")

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise unwritten(error) from error

    def _flush(self) -> None:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise unwritten(error) from error

    def _paths(self, paths: list[str]) -> None:
        torn = next((path for path in paths if self._after_path in path), None)
        if torn is not None:
            raise UsageError(f"the path {torn!r} holds a line break", hint="--paths0 ends each path with a NUL instead")
        for path in paths:
            self._write(path + self._after_path)

    def _csv(self, rows: list[Mapping[str, Any]], columns: list[str]) -> None:
        # csv quotes only what stands in its line terminator, and a bare carriage return ends a line for many readers
        sink = io.StringIO()
        writer = csv.writer(sink, lineterminator="\r\n")
        # several results of one command share one header
        if self._csv_columns is None:
            self._csv_columns = columns
            rows = [dict(zip(columns, columns, strict=True)), *rows]
        for row in rows:
            writer.writerow([self._cell(row.get(column)) for column in self._csv_columns])
            self._write(sink.getvalue().removesuffix("\r\n") + "\n")
            sink.seek(0)
            sink.truncate()

    def _cell(self, value: object) -> object:
        plain = to_plain(value)
        if isinstance(plain, list | dict):
            plain = json.dumps(plain, ensure_ascii=False)
        if self._safe and isinstance(plain, str) and is_formula(plain):
            return f"'{plain}"
        return plain

    def _table(self, rows: list[Mapping[str, Any]], columns: list[str], title: str | None) -> None:
        if not columns:
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        # Text everywhere: square brackets in a column or a file name are not markup
        heading = None if title is None else Text(_seen(title))
        table = Table(box=None, pad_edge=False, title=heading, title_justify="left", header_style="bold")
        for column in columns:
            numeric = any(isinstance(row.get(column), int | float) for row in rows)
            table.add_column(Text(_seen(column)), justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(_seen(_brief(show(row.get(column))))) for column in columns))
        # read by a machine or redirected: never wrap at a guessed width
        width = None if sys.stdout.isatty() else _UNWRAPPED
        drawn = io.StringIO()
        Console(file=drawn, width=width, force_terminal=width is None, highlight=False).print(table)
        for line in drawn.getvalue().split("\n")[:-1]:
            self._write(line.rstrip() + "\n")


def _seen(text: str) -> str:
    """Write a text as the terminal will show it, so that it can be counted."""
    text = visible(text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text if text.isascii() else text.encode(encoding, "backslashreplace").decode(encoding)


def show(value: object) -> str:
    """Write a value for a person.

    >>> show(0.123456), show(None), show(12345), show([1, "a"])
    ('0.1235', '', '12345', '1, a')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4f}"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return ", ".join(f"{key} {show(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(show(item) for item in value)
    return str(value)


def _lines(value: object) -> list[str]:
    """Write a value in one line, or in none; the lists of a mapping with a line an item.

    >>> _lines({"kind": "ivf", "curve": ["few", "more"]}), _lines([1, 2]), _lines(None)
    (['kind ivf', 'curve few', 'curve more'], ['1, 2'], [])
    """
    if not isinstance(value, dict):
        return [show(value)] if show(value) else []
    single = {key: item for key, item in value.items() if not isinstance(item, list)}
    several = [f"{key} {show(item)}" for key, items in value.items() if isinstance(items, list) for item in items]
    return [show(single), *several] if value else []


def _brief(cell: str) -> str:
    """Cut a hash (sha256, a patient's key) to its first digits, so that a table keeps its shape.

    >>> _brief("0c63d60925dd42733d5e6ca42cf179c23bf99f3e6976178918230d68b7bff673"), _brief("0c63d6")
    ('0c63d60925dd...', '0c63d6')
    """
    return f"{cell[:12]}..." if _HASH.fullmatch(cell) else cell


def to_json(value: Any) -> str:
    r"""Write one line of JSON, readable where all of it is Unicode, else in escapes.

    >>> to_json({"path": "日本.png"}), to_json({"path": "\udcff.png"})
    ('{"path": "日本.png"}', '{"path": "\\udcff.png"}')
    """
    text = json.dumps(to_plain(value), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(to_plain(value))
    return text


def unwritten(error: OSError) -> RetrError:
    """Return the error of a standard output that takes nothing more."""
    reason = (error.strerror or type(error).__name__).lower()
    return RetrError(f"standard output cannot be written: {reason}", hint="what was printed so far is not complete")
