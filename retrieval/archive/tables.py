"""Parquet and Arrow files with an image column, as data sets are published on hubs.

The image column is a struct ``{bytes, path}``, or a binary column in which a picture is found; where several are, the
user says which. An item is named by the struct's path where that names it alone, else ``row-00000012``. The other
columns become metadata of the type they have, numbers of classes their names (`retr.retrieval.archive.class_names`);
what is nested becomes JSON text, and whatever holds bytes inside, such as another image column, is left out: pixels are
no metadata.

Image bytes are read in small batches, in order, and given with the items: a row group may be far larger than memory
should hold. A single row is found again by streaming only its own row group.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from retr.index.disk.incoming import stored_column
from retr.index.errors import ImageReadError, UsageError
from retr.index.machine.arrow import pq
from retr.index.rows.identifiers import identifier_texts
from retr.retrieval.archive.class_names import class_names, named
from retr.retrieval.archive.matching import composed_text
from retr.retrieval.archive.siblings import column_value
from retr.retrieval.archive.sources import SNIFF_BYTES, Entry, Item, Skipped, looks_like_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from retr.retrieval.archive.sources import Bytes, Container

ROWS = 16
# Of a binary column so many values are looked at.
_LOOKED_AT = 64


def open_table(file: Path, image_column: str | None = None) -> Container | None:
    """Open a table; None where it has no image column.

    Parameters
    ----------
    image_column
        The column that holds the pictures, where there are several, or where their bytes do not tell.

    Raises
    ------
    ImageReadError
        There are several image columns, and none is chosen; or two columns of one name.
    """
    table = _Parquet(file) if file.suffix.lower() == ".parquet" else _Arrow(file)
    return table if table.choose(image_column) else None


class Rows:
    """Rows with a column of pictures; a subclass gives the schema, and batches of rows."""

    schema: pa.Schema

    def __init__(self, mtime: float) -> None:
        self.mtime = mtime
        self.column: str | None = None
        self._metadata_columns: list[str] = []
        self._classes = class_names(self.schema)

    def choose(self, asked: str | None) -> bool:
        """Find the image column, and what to do with the others; say whether there is one."""
        double = next((name for name, count in Counter(self.schema.names).items() if count > 1), None)
        if double is not None:
            raise ImageReadError(
                f"a table has the column {double!r} twice", reason="a column twice", hint="rename one of them"
            )
        found = self._image_columns()
        if asked is not None:
            may = asked in self.schema.names and (asked in found or _is_binary(self.schema.field(asked).type))
            self.column = asked if may else None
        elif len(found) > 1:
            raise ImageReadError(
                f"a table has several image columns: {', '.join(map(repr, found))}",
                reason="several image columns",
                hint="choose one with --image-column",
            )
        else:
            self.column = found[0] if found else None
        others = [field for field in self.schema if field.name != self.column]
        self._metadata_columns = [
            field.name for field in others if field.name not in found and _is_metadata(field.type)
        ]
        return self.column is not None

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Return the rows in small batches."""
        raise NotImplementedError

    def entries(self) -> Iterator[Entry]:
        """List the rows in their order, each with its bytes."""
        names = self._names()
        assert self.column is not None
        kinds = self._column_types()
        for batch in self.batches([self.column, *kinds]):
            images = batch.column(batch.schema.get_field_index(self.column)).to_pylist()
            others = [
                self._cells(batch.column(batch.schema.get_field_index(name)), name, kind)
                for name, kind in kinds.items()
            ]
            for row, image in enumerate(images):
                name, data = next(names), self.bytes_of(image)
                if data is None:
                    yield Skipped(name, "empty", 0, self.mtime)
                    continue
                columns = {column: values[row] for column, values in zip(kinds, others, strict=True)}
                yield Item(name, len(data), self.mtime, columns, data=data)

    def bytes_of(self, image: Any) -> bytes | None:
        """Return the bytes of a cell of the image column; None where it has none."""
        data = image.get("bytes") if isinstance(image, dict) else image
        return data or None

    def _cells(self, column: pa.Array, name: str, kind: pa.DataType) -> list[Any]:
        if name in self._classes:
            return named(column.to_pylist(), self._classes[name])
        return _values(column, name, kind)

    def _column_types(self) -> dict[str, pa.DataType]:
        """Return the columns to keep and the types they are stored in, which their largest values decide."""
        kinds: dict[str, pa.DataType] = {}
        for name in self._metadata_columns:
            kind = self.schema.field(name).type
            if name in self._classes:
                kinds[name] = pa.string()
                continue
            # what has no text either, such as an interval, is left out
            with contextlib.suppress(pa.ArrowNotImplementedError):
                if kind == pa.uint64() or pa.types.is_decimal(kind):
                    types = {_stored(batch.column(0), name).type for batch in self.batches([name])}
                    kinds[name] = types.pop() if len(types) == 1 else pa.string()
                else:
                    kinds[name] = _stored(pa.array([], kind), name).type
        return kinds

    def read(self, member: str) -> Bytes:
        """Read one row's picture."""
        assert self.column is not None
        for number, name in enumerate(self._names()):
            if name == member:
                data = self._row(number)
                if data is not None:
                    return data, len(data), self.mtime
        raise FileNotFoundError(member)

    def _row(self, number: int) -> bytes | None:
        assert self.column is not None
        for batch in self.batches([self.column]):
            if number < batch.num_rows:
                return self.bytes_of(batch.column(self.column)[number].as_py())
            number -= batch.num_rows
        return None

    def _names(self) -> Iterator[str]:
        """Yield every row's name: the path of its struct where that is safe and the row's alone, else its number."""
        kind = self.schema.field(self.column).type
        with_path = pa.types.is_struct(kind) and any(field.name == "path" for field in kind)
        seen: set[str] = set()
        numbers = count()
        paths = self._paths() if with_path else iter(())
        for path in paths:
            number = next(numbers)
            name = path if path and path not in seen and _is_safe(path) else f"row-{number:08d}"
            seen.add(name)
            yield name
        for number in numbers:
            yield f"row-{number:08d}"

    def _paths(self) -> Iterator[str | None]:
        for batch in self.batches([f"{self.column}.path"]):
            for image in batch.column(0).to_pylist():
                yield image["path"] if image else None

    def _image_columns(self) -> list[str]:
        """Return the columns that hold pictures: structs of hubs, and binary columns in which one is found."""
        found = []
        for field in self.schema:
            kind = field.type
            if pa.types.is_struct(kind):
                hub = {"bytes", "path"} <= {member.name for member in kind} and _is_binary(kind.field("bytes").type)
                found += [str(field.name)] if hub else []
            elif _is_binary(kind) and self._shows_picture(field.name):
                found.append(str(field.name))
        return found

    def _shows_picture(self, name: str) -> bool:
        looked_at = 0
        for batch in self.batches([name]):
            for value in batch.column(0).to_pylist():
                if value and looks_like_image(value[:SNIFF_BYTES]):
                    return True
                looked_at += value is not None
            if looked_at >= _LOOKED_AT:
                break
        return False


class _Parquet(Rows):
    def __init__(self, file: Path) -> None:
        # the footer is parsed once; readers share it, but not between threads
        self.file = file
        self._metadata = pq.read_metadata(file)
        self.schema = self._metadata.schema.to_arrow_schema()
        super().__init__(file.stat().st_mtime)

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.file, metadata=self._metadata) as reader:
            yield from reader.iter_batches(ROWS, columns=columns, use_threads=False)

    def _row(self, number: int) -> bytes | None:
        for group in range(self._metadata.num_row_groups):
            rows = self._metadata.row_group(group).num_rows
            if number < rows:
                break
            number -= rows
        with pq.ParquetFile(self.file, metadata=self._metadata) as reader:
            for batch in reader.iter_batches(ROWS, row_groups=[group], columns=[self.column], use_threads=False):
                if number < batch.num_rows:
                    return self.bytes_of(batch.column(0)[number].as_py())
                number -= batch.num_rows
        return None


class _Arrow(Rows):
    """An Arrow IPC file or stream.

    Its buffers are used as they lie in the file, so a damaged one could point anywhere: every batch is validated in
    full before a value is looked at, and the file is read, not mapped.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        with self._open() as reader:
            self.schema = reader.schema
        super().__init__(file.stat().st_mtime)

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        wanted = None if columns is None else list(dict.fromkeys(name.removesuffix(".path") for name in columns))
        with self._open() as reader:
            whole = (
                (reader.get_batch(number) for number in range(reader.num_record_batches))
                if isinstance(reader, pa.RecordBatchFileReader)
                else reader
            )
            for batch in whole:
                batch.validate(full=True)
                chosen = batch if wanted is None else batch.select(wanted)
                for start in range(0, chosen.num_rows, ROWS):
                    yield chosen.slice(start, ROWS)

    def _open(self) -> Any:
        source = pa.OSFile(str(self.file), "rb")
        try:
            return pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source)


def _is_binary(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _is_metadata(kind: pa.DataType) -> bool:
    """Return whether a column is stored: whatever is not nested, and what holds no bytes inside."""
    inner = [kind.field(number).type for number in range(kind.num_fields)] if pa.types.is_nested(kind) else []
    return all(_is_metadata(one) and not _is_binary(one) for one in inner)


def _stored(column: pa.Array, name: str) -> pa.ChunkedArray:
    """Bring a column to a stored type; what has none becomes text."""
    whole = pa.chunked_array([column])
    if pa.types.is_nested(whole.type):
        return pa.chunked_array(
            [[None if value is None else column_value(value) for value in whole.to_pylist()]], pa.string()
        )
    try:
        return stored_column(whole, name)
    except UsageError:  # durations, moments beyond microseconds
        return whole.cast(pa.string())


def _values(column: pa.Array, name: str, kind: pa.DataType) -> list[Any]:
    """Return a column's values as they are stored in a column of ``kind``."""
    stored = _stored(column, name)
    texts = pa.types.is_string(kind) and not pa.types.is_string(stored.type)
    values: list[Any] = (identifier_texts(pa.chunked_array([column]), name) if texts else stored).to_pylist()
    return [composed_text(value) if isinstance(value, str) else value for value in values]


def _is_safe(path: str) -> bool:
    return not path.startswith(("/", ".")) and ".." not in path.split("/") and "\\" not in path
