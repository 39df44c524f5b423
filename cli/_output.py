"""The one object that prints.

Data goes to standard output, everything else to standard error, so a pipe never carries a note. ``--json`` prints
one object a line, ``--csv`` a header and rows, ``--paths`` one path a line; without them a person gets a table.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
import re
import sys
from typing import TYPE_CHECKING, Any, Literal

from retr.index.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_HASH = re.compile(r"[0-9a-f]{64}")
Form = Literal["table", "json", "csv", "paths"]


class Output:
    """Prints records in the form the user asked for with one of three switches; `UsageError` for two of them."""

    def __init__(self, *, json_: bool = False, csv_: bool = False, paths: bool = False) -> None:
        switches: dict[Form, bool] = {"json": json_, "csv": csv_, "paths": paths}
        asked = [form for form, on in switches.items() if on]
        if len(asked) > 1:
            raise UsageError(
                f"--{asked[0]} and --{asked[1]} exclude each other", hint="give one of --json, --csv, --paths"
            )
        self.form: Form = asked[0] if asked else "table"
        self._csv_columns: list[str] | None = None

    def record(self, data: Mapping[str, Any]) -> None:
        """Print one object: a JSON line, or aligned ``key  value`` lines for a person."""
        if self.form == "json":
            self.line(json.dumps(to_plain(data), ensure_ascii=False))
            return
        width = max((len(key) for key in data), default=0)
        for key, value in data.items():
            for number, shown in enumerate(_lines(value)):
                self.line(f"{'' if number else key:<{width}}  {shown}")

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
                self.line(json.dumps(to_plain(row), ensure_ascii=False))
        elif self.form == "paths":
            for row in rows:
                self.line(str(row["path"]))
        elif self.form == "csv":
            self._csv(rows, list(columns or (rows[0] if rows else ())))
        else:
            self._table(rows, list(columns or (rows[0] if rows else ())), title)

    def line(self, text: str) -> None:
        """Print one line of data to standard output."""
        sys.stdout.write(text + "\n")

    def note(self, text: str) -> None:
        """Say something that is not data, on standard error."""
        sys.stdout.flush()
        sys.stderr.write(text + "\n")

    def _csv(self, rows: list[Mapping[str, Any]], columns: list[str]) -> None:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        # several results of one command share one header
        if self._csv_columns is None:
            self._csv_columns = columns
            writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(row.get(column)) for column in self._csv_columns])

    def _table(self, rows: list[Mapping[str, Any]], columns: list[str], title: str | None) -> None:
        if not columns:
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, title=title, title_justify="left", header_style="bold")
        for column in columns:
            numeric = any(isinstance(row.get(column), int | float) for row in rows)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            # Text: square brackets in a file name are not markup
            table.add_row(*(Text(_brief(show(row.get(column)))) for column in columns))
        # read by a machine or redirected: never wrap at a guessed width
        width = None if sys.stdout.isatty() else 200
        console = Console(file=sys.stdout, width=width, highlight=False)
        with console.capture() as printed:
            console.print(table)
        for line in printed.get().splitlines():
            self.line(line.rstrip())


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
        return f"{value:.4f}"
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


def to_plain(value: Any) -> Any:
    """Give what JSON can hold: numpy numbers and arrays, dates and paths become plain values; NaN becomes null."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return to_plain(value.tolist())
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return str(value)


def _cell(value: object) -> object:
    plain = to_plain(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, list | dict) else plain
