"""The writer that all commands print through.

Data goes to standard output, everything else to standard error, so a pipe never carries a note. ``--json`` prints
one object a line, ``--csv`` a header and rows, ``--paths`` one path a line, ``--ids`` one id; without them a person
gets a table.

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

from retr.cli import _streams, _waits
from retr.index.errors import RetrError, UsageError
from retr.retrieval.json_values import to_plain
from retr.retrieval.visible_text import columns_wide, is_formula, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from PIL.Image import Image

_UNWRAPPED = 1 << 20
# signs of a text that stand in one line, at least
_READABLE = 16
_HASH = re.compile(r"[0-9a-f]{64}")
Form = Literal["table", "json", "csv", "paths", "ids"]


class Output:
    """Prints records in the form the user asked for with one of six switches; `UsageError` for two forms at once."""

    def __init__(
        self,
        *,
        json_: bool = False,
        csv_: bool = False,
        safe_csv: bool = False,
        paths: bool = False,
        paths0: bool = False,
        ids: bool = False,
    ) -> None:
        paths = paths or (paths0 and not ids)
        switches = {"json": json_, "csv": csv_, "safe-csv": safe_csv, "paths": paths, "ids": ids}
        asked = [name for name, on in switches.items() if on and not (name == "csv" and safe_csv)]
        if len(asked) > 1:
            given = ", ".join(f"--{name}" for name in switches)
            raise UsageError(f"--{asked[0]} and --{asked[1]} exclude each other", hint=f"give one of {given}")
        if paths0 and asked not in (["paths"], ["ids"]):
            raise UsageError(f"-0 ends paths and ids, and --{asked[0]} prints neither", hint="leave one of them out")
        forms: dict[str, Form] = {"json": "json", "csv": "csv", "safe-csv": "csv", "paths": "paths", "ids": "ids"}
        self.form: Form = forms[asked[0]] if asked else "table"
        self._safe = safe_csv
        self._after_name = "\0" if paths0 else "\n"
        self._csv_columns: list[str] | None = None
        (_streams.escape_unencodable if self.form == "table" else _streams.exact)(sys.stdout)

    def record(self, data: Mapping[str, Any]) -> None:
        """Print one object: a JSON line, or aligned ``key  value`` lines for a person."""
        if self.form == "json":
            self._write(to_json(data) + "\n")
            return
        names = {key: _seen(key) for key in data}
        width = max((columns_wide(name) for name in names.values()), default=0)
        wide = _terminal_width()
        for key, value in data.items():
            for number, shown in enumerate(_lines(value)):
                name = "" if number else names[key]
                head = f"{name}{' ' * (width - columns_wide(name))}  "
                if wide is None:
                    self.line(head + shown)
                else:
                    self._write(_hanging(head, _seen(shown), min(width + 2, wide // 2), wide))

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
        elif self.form in {"paths", "ids"}:
            self._names([str(row[self.form[:-1]]) for row in rows])
        elif self.form == "csv":
            self._csv(rows, list(columns or (rows[0] if rows else ())))
        else:
            self._table(rows, list(columns or (rows[0] if rows else ())), title)

    def line(self, text: str) -> None:
        """Print one line for a person to standard output."""
        self._write(visible(text) + "\n")

    def pictures(self, read: Callable[[], Sequence[Image | None]], asked: bool | None) -> None:
        """Show pictures in the terminal, where it can and they are not unwanted; a program gets none.

        Raises
        ------
        UsageError
            They are asked for by name, and the terminal does not say that it can.
        """
        if self.form != "table" or asked is False or not sys.stdout.isatty():
            return
        from retr.cli import _inline

        how = _inline.way()
        if how is not None:
            self._write(_inline.drawn(_inline.strip(read(), _inline.width()), how))
        elif asked:
            raise UsageError("this terminal does not say that it shows pictures", hint="write them with --sheet FILE")

    def note(self, text: str) -> None:
        """Print what is not data, on standard error."""
        self._flush()
        sys.stderr.write(visible(text) + "\n")

    def _write(self, text: str) -> None:
        _waits.end()
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

    def _names(self, names: list[str]) -> None:
        torn = next((name for name in names if self._after_name in name), None)
        if torn is not None:
            what = self.form[:-1]
            raise UsageError(f"the {what} {torn!r} holds a line break", hint=f"-0 ends each {what} with a NUL instead")
        for name in names:
            self._write(name + self._after_name)

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
        cells = [[_seen(_brief(show(row.get(column)))) for column in columns] for row in rows]
        numeric = [any(isinstance(row.get(column), int | float) for row in rows) for column in columns]
        wide = _terminal_width()
        if wide is not None and _least_width(columns, cells, numeric) > wide:
            self._blocks(columns, cells, title, wide)
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        # Text everywhere: square brackets in a column or a file name are not markup
        heading = None if title is None else Text(_seen(title))
        table = Table(box=None, pad_edge=False, title=heading, title_justify="left", header_style="bold")
        for number, column in enumerate(columns):
            # a number in two lines is another number
            least = max((len(row[number]) for row in cells), default=0) if numeric[number] else None
            justify: Literal["left", "right"] = "right" if numeric[number] else "left"
            table.add_column(Text(_seen(column)), justify=justify, overflow="fold", min_width=least)
        for row in cells:
            table.add_row(*map(Text, row))
        drawn = io.StringIO()
        # read by a machine or redirected: never wrap at a guessed width
        Console(file=drawn, width=wide or _UNWRAPPED, force_terminal=wide is not None, highlight=False).print(table)
        for line in drawn.getvalue().split("\n")[:-1]:
            self._write(line.rstrip() + "\n")

    def _blocks(self, columns: Sequence[str], cells: list[list[str]], title: str | None, wide: int) -> None:
        """Print a table that is wider than the terminal as one block a row."""
        names = [_seen(column) for column in columns]
        indent = min(max(map(columns_wide, names)), wide // 2) + 2
        if title:
            self._write(_hanging("", _seen(title), 0, wide))
        for number, row in enumerate(cells):
            self._write("\n" if number else "")
            for name, cell in zip(names, row, strict=True):
                if cell:
                    self._write(_hanging(name + " " * max(indent - columns_wide(name), 1), cell, indent, wide))


def _terminal_width() -> int | None:
    """Return the columns of the terminal that is printed to; ``None`` where it is none."""
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _hanging(head: str, text: str, indent: int, wide: int) -> str:
    r"""Return lines of at most ``wide`` columns, all but the first indented.

    >>> _hanging("id  ", "one two three", 4, 12)
    'id  one two\n    three\n'
    """
    import textwrap

    kept: dict[str, Any] = {"replace_whitespace": False, "drop_whitespace": False, "break_on_hyphens": False}
    lines = textwrap.wrap(head + text, wide, subsequent_indent=" " * indent, **kept)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _least_width(columns: Sequence[str], cells: list[list[str]], numeric: list[bool]) -> int:
    """Return how wide a terminal must be for a table: numbers whole, and so much of a text that it can be read."""
    widths = []
    for number, column in enumerate(columns):
        widest = max((columns_wide(row[number]) for row in cells), default=0)
        head = max((columns_wide(word) for word in _seen(column).split()), default=0)
        widths.append(max(head, widest if numeric[number] else min(widest, _READABLE)))
    return sum(widths) + 2 * (len(widths) - 1)


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


def confirm(question: str) -> None:
    """Ask on standard error, and stop the command unless the answer is yes."""
    import typer

    with _waits.paused():
        typer.confirm(question, abort=True, err=True)


def read_input() -> bytes:
    """Read standard input to its end."""
    with _waits.paused():
        return sys.stdin.buffer.read()


def names_in(data: bytes) -> list[str]:
    r"""Return the ids that another command wrote: with a NUL behind each (``-0``), else one a line.

    >>> names_in(b"a.png\nb.png\n"), names_in(b"a.png\r\nb.png\r\n"), names_in(b"a\nb.png\0c.png\0")
    (['a.png', 'b.png'], ['a.png', 'b.png'], ['a\nb.png', 'c.png'])
    """
    text = data.decode("utf-8", "surrogateescape")
    if "\0" in text:
        return [name for name in text.split("\0") if name]
    lines = [line for line in text.split("\n") if line]
    # shells of Windows end each line so; a single id may end so itself
    ends = "\r" if lines and all(line.endswith("\r") for line in lines) else ""
    return [name for line in lines if (name := line.removesuffix(ends))]


def given_picture(text: str) -> bytes | None:
    """Return the picture that ``-`` or an address of the web means; ``None`` for a file's name."""
    from retr.retrieval.images.fetched import fetch_picture, is_address

    if text == "-":
        return read_input()
    return fetch_picture(text) if is_address(text) else None


def unwritten(error: OSError) -> RetrError:
    """Return the error of a standard output that takes nothing more."""
    reason = (error.strerror or type(error).__name__).lower()
    return RetrError(f"standard output cannot be written: {reason}", hint="what was printed so far is not complete")
