"""Scan all texts of an index: columns and titles, paths, skipped files, notes, sidecar files.

An index is read some rows at a time, a value that repeats is judged once, and no more is kept than counts and a few
masked examples: what is found is never shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from retr.index.machine.arrow import pc
from retr.retrieval.audit.phi import titles
from retr.retrieval.audit.phi.cells import kinds, mask, nested_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from retr.index.store import Store

# Numbers that every build computes of a file; a person's own column of that name has another type or another name.
_COMPUTED = {("size", pa.int64()), ("mtime", pa.float64()), ("width", pa.int64()), ("height", pa.int64())}
_EXAMPLES = 3
_PIECE = 100_000
# Smaller whole numbers tell of nobody unless the title says so; larger ones a float does not hold exactly.
_LEAST, _MOST = 100_000, 2**53
# Sidecar files that are no text are vectors and weights; of longer ones so much is read.
_FILE_BYTES = 16 << 20


@dataclass(frozen=True)
class PhiFinding:
    """What one place may tell of persons.

    Attributes
    ----------
    column
        A column's title, masked where the title itself tells; ``skipped`` for the record of unreadable files,
        ``manifest`` and ``file NAME`` for side data of the index.
    kind
        ``"name"``, ``"date"``, ``"number"`` (of a record, an account, a person), ``"digits"`` (a long number of unknown
        meaning), ``"ssn"``, ``"phone"``, ``"e-mail"``, ``"address"``, ``"uid"``, ``"absolute path"``.
    rows
        How many cells have it; 0 where the column's own title is the finding.
    examples
        A few of the values, masked.
    """

    column: str
    kind: str
    rows: int
    examples: tuple[str, ...]


class _Tally:
    """Counts findings by place and kind; keeps masked examples alone."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._examples: dict[tuple[str, str], dict[str, None]] = {}

    def add(self, column: str, kind: str, count: int, example: str) -> None:
        key = (column, kind)
        self._counts[key] = self._counts.get(key, 0) + count
        shown = self._examples.setdefault(key, {})
        if len(shown) < _EXAMPLES:
            shown[example] = None

    def look(self, column: str, value: str, title: str = "", count: int = 1) -> None:
        for kind in kinds(value, title):
            self.add(column, kind, count, mask(value))

    def findings(self) -> list[PhiFinding]:
        return [PhiFinding(*key, count, tuple(self._examples[key])) for key, count in self._counts.items()]


def scan(store: Store) -> list[PhiFinding]:
    """Look for what may identify a person in all that an index holds in words.

    Live rows of every column, whatever its name and type; the columns' titles; the skipped files; the notes in the
    manifest, which carry class names and options; the text of sidecar files.

    Returns
    -------
    list of PhiFinding
        One for each place and kind, in the order of the columns.
    """
    tally = _Tally()
    for field in store.schema:
        shown = field.name
        told = list(kinds(field.name))
        if told:
            shown = mask(field.name)
            for kind in told:
                tally.add(shown, kind, 0, shown)
        if (field.name, field.type) not in _COMPUTED:
            _column(tally, store, field, shown)
    for row in store.skipped().to_pylist():
        for title, value in row.items():
            if isinstance(value, str):
                tally.look("skipped", value, title)
    manifest = store.manifest
    for title, value in nested_texts(dict(manifest.extra)):
        tally.look("manifest", value, title)
    for _, value in nested_texts(manifest.encoder.to_json()):
        tally.look("manifest", value, "encoder")  # whose name, such as vit_mae, is nobody's
    for name in manifest.files:
        tally.look(f"file {mask(name) if list(kinds(name)) else name}", name)
        _file(tally, name, store.file(name))
    return tally.findings()


def _column(tally: _Tally, store: Store, field: pa.Field[Any], shown: str) -> None:
    rows = store.live_rows()
    promised = titles.promise(field.name)
    beside_path = field.name == "id" and "path" in store.schema.names
    names = ["id", "path"] if beside_path else [field.name]
    for start in range(0, len(rows), _PIECE):
        piece = store.table(names, rows[start : start + _PIECE])
        column = piece[field.name]
        if beside_path and pa.types.is_string(piece["path"].type):
            # an id is the path and a frame's number, which is judged as the path
            column = pa.chunked_array([_other_ids(column.to_pylist(), piece["path"].to_pylist())], pa.string())
        if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
            if len(column) > column.null_count:
                tally.add(shown, "date", len(column) - column.null_count, "####-##-##")
            continue
        for value, count in _texts(column, promised):
            tally.look(shown, value, field.name, count)


def _other_ids(ids: Iterable[str], paths: Iterable[str | None]) -> list[str]:
    return [one for one, path in zip(ids, paths, strict=True) if path is None or not one.startswith(path)]


def _texts(column: pa.ChunkedArray[Any], promised: str | None) -> Iterator[tuple[str, int]]:
    """Yield the distinct values of a column as texts, and how many cells have each."""
    while pa.types.is_list(column.type):
        column = pc.list_flatten(column)
    if pa.types.is_floating(column.type):
        whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), _MOST))
        column = pc.cast(column.filter(whole), pa.int64())
    if pa.types.is_integer(column.type):
        if promised is None:
            column = column.filter(pc.greater_equal(pc.abs_checked(pc.max_element_wise(column, -_MOST)), _LEAST))
        column = pc.cast(column, pa.string())
    if pa.types.is_binary(column.type):
        column = pa.chunked_array([[_decoded(value) for value in column.to_pylist()]], pa.string())
    if not pa.types.is_string(column.type):
        return
    counted = column.drop_null().value_counts()
    yield from zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)


def _decoded(value: bytes | None) -> str | None:
    if value is None or b"\0" in value:
        return None
    try:
        return value[:_FILE_BYTES].decode()
    except UnicodeDecodeError:
        return None


def _file(tally: _Tally, name: str, data: bytes) -> None:
    """Look at a sidecar file that is text: JSON by its keys, else by its lines."""
    text = _decoded(data)
    if text is None:
        return
    place = f"file {mask(name) if list(kinds(name)) else name}"
    try:
        leaves = nested_texts(json.loads(text))
    except (ValueError, RecursionError):
        leaves = (("", line) for line in text.splitlines())
    for title, value in leaves:
        tally.look(place, value, title)
