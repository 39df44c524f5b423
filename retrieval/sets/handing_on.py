"""A set for others: as a table with its labels, or as a folder of copies of its pictures."""

from __future__ import annotations

import csv
import io
import re
import shutil
import unicodedata
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from retr.index.disk.files import disk_errors
from retr.index.disk.schema import ID
from retr.index.errors import UsageError
from retr.index.machine.home import home
from retr.index.machine.whole_file import draft_of, write_output
from retr.retrieval.archive.locations import open_item
from retr.retrieval.json_values import to_plain
from retr.retrieval.visible_text import is_formula

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.sets.sets import NamedSet

#: The columns of labels in an export: the labels of a row, and who gave them.
LABELS, LABELLED_BY = "set_labels", "set_labelled_by"
_UNSAFE = re.compile(r"[^\w.-]+")
_LONGEST = 120
TABLE = "set.csv"


def export(index: IndexLike, named: NamedSet, path: str | Path) -> int:
    """Write a set, and return how many rows were written.

    Parameters
    ----------
    path
        ``.csv``: its rows with all columns of the index, ``set_labels`` (joined by ``|``) and ``set_labelled_by``;
        ``.parquet``: the same, with their types and lists of labels; otherwise a folder to be made, with a copy of each
        row's file, as it lies in the archive, and ``set.csv``, whose column ``copy`` names them.

    Raises
    ------
    UsageError
        There is something at the folder, or the set is empty.
    RetrError
        The archive's place is not known on this machine, or the disk refuses; nothing is left then.
    """
    store, target = index.store, home(path)
    if not named.ids:
        raise UsageError(f"the set {named.name!r} has no row to write", hint="see `retr sets show`")
    ending = Path(target).suffix.lower()
    with disk_errors("writing the set"):
        if ending == ".csv":
            write_output(target, as_csv(store, named).encode("utf-8", "surrogatepass"))
        elif ending == ".parquet":
            write_output(target, as_parquet(store, named))
        else:
            _copy(store, named, target)
    return len(named.ids)


def table_of(store: Store, named: NamedSet) -> pa.Table:
    """Return the rows of a set with all columns of the index, and their labels behind them."""
    table = store.table(rows=store.rows_of(named.ids))
    authors: dict[str, dict[str, None]] = {}
    for label in named.given:
        authors.setdefault(label.id, {})[label.author] = None
    texts = pa.list_(pa.string())
    columns = {
        LABELS: pa.array([list(named.labels.get(row, ())) for row in named.ids], texts),
        LABELLED_BY: pa.array([list(authors.get(row, ())) for row in named.ids], texts),
    }
    for name, values in columns.items():
        while name in table.column_names:
            name += "_"  # noqa: PLW2901
        table = table.append_column(name, values)
    return table


def as_csv(store: Store, named: NamedSet, copies: list[str] | None = None) -> str:
    """Return a set as CSV, with a column ``copy`` where names of copies are given.

    A text that a spreadsheet would take for a formula has ``'`` before it.
    """
    table = table_of(store, named)
    if copies is not None:
        table = table.append_column("copy" if "copy" not in table.column_names else "copy_", pa.array(copies))
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in table.to_pylist():
        writer.writerow([_cell(value) for value in row.values()])
    return sink.getvalue()


def as_parquet(store: Store, named: NamedSet) -> bytes:
    """Return a set as a Parquet file."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table_of(store, named), sink, compression="zstd")
    return sink.getvalue()


def _cell(value: Any) -> Any:
    plain = to_plain(value)
    if isinstance(plain, list):
        plain = "|".join("" if one is None else str(one) for one in plain)
    if isinstance(plain, str):
        plain = plain.replace("\r\n", "\n").replace("\r", "\n")
        if is_formula(plain):
            plain = f"'{plain}"
    return plain


def _copy(store: Store, named: NamedSet, target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"there is something at {str(target)!r} already", hint="name a folder to be made")
    draft = draft_of(target)
    try:
        draft.mkdir(parents=True)
        copies: list[str] = []
        for name, data in _copies(store, named):
            (draft / name).write_bytes(data)
            copies.append(name)
        (draft / TABLE).write_text(as_csv(store, named, copies), encoding="utf-8", errors="surrogatepass", newline="")
        draft.replace(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _copies(store: Store, named: NamedSet) -> Iterator[tuple[str, bytes]]:
    """Yield the file of each row under the name of its copy."""
    for number, row in enumerate(named.ids, 1):
        yield f"{number:0{len(str(len(named.ids)))}}-{safe_name(_file_of(store, row))}", open_item(store, row)


def as_zip(store: Store, named: NamedSet) -> Iterator[bytes]:
    """Yield a zip of the folder that `export` would make, piece by piece: one picture at a time is in memory.

    Raises
    ------
    UsageError
        The set is empty.
    RetrError
        A file is not at hand.
    """
    if not named.ids:
        raise UsageError(f"the set {named.name!r} has no row to write", hint="see `retr sets show`")
    pieces: list[bytes] = []
    copies: list[str] = []
    # pictures are compressed already
    with zipfile.ZipFile(_Sink(pieces), "w") as archive:
        for name, data in _copies(store, named):
            archive.writestr(name, data)
            copies.append(name)
            yield b"".join(pieces)
            pieces.clear()
        archive.writestr(TABLE, as_csv(store, named, copies).encode("utf-8", "surrogatepass"))
    yield b"".join(pieces)


class _Sink(io.RawIOBase):
    """A file that is written once, from the beginning to the end, into a list."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)


def _file_of(store: Store, row: str) -> str:
    column = "path" if "path" in store.schema.names else ID
    return str(store.table([column], store.rows_of([row]))[column][0].as_py() or row)


def safe_name(path: str) -> str:
    """Return the last part of a path as a file's name that every system takes; its ending stays.

    >>> safe_name("scans::a/b/Ärzte <1>.PNG"), safe_name("../.."), safe_name("a/CON.dcm")
    ('Ärzte_1_.PNG', 'file', 'CON.dcm')
    """
    last = unicodedata.normalize("NFC", path.replace("\\", "/").replace("::", "/").rstrip("/").rpartition("/")[2])
    clean = _UNSAFE.sub("_", last.encode("utf-8", "replace").decode()).strip(".")
    stem, dot, ending = clean.rpartition(".")
    if dot and len(clean) > _LONGEST:
        clean = f"{stem[: _LONGEST - len(ending) - 1]}.{ending}"
    return clean[:_LONGEST] or "file"
