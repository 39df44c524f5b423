"""Parquet and Arrow files with an image column, as data sets are published on hubs.

The image column is a struct ``{bytes, path}``, or a binary column whose first value is a picture. An item is named by
the struct's path where that names it alone, else ``row-00000012``; the other columns become metadata.

Image bytes are read in small batches, in order, and given with the items: a row group may be far larger than memory
should hold. A single row is found again by streaming only its own row group.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from retr.retrieval.archive.containers import plain
from retr.retrieval.archive.sources import SNIFF_BYTES, Entry, Item, Skipped, looks_like_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from retr.retrieval.archive.containers import Container
    from retr.retrieval.archive.sources import Bytes

_ROWS = 16


def open_table(file: Path) -> Container | None:
    """Open a table; None where it has no image column."""
    table = _Parquet(file) if file.suffix.lower() == ".parquet" else _Arrow(file)
    return table if table.column is not None else None


class _Table:
    """What the two formats share; a subclass gives batches of rows."""

    schema: pa.Schema

    def __init__(self, file: Path) -> None:
        self.file = file
        self.mtime = file.stat().st_mtime
        self.column = self._image_column()

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Give the rows in small batches."""
        raise NotImplementedError

    def entries(self) -> Iterator[Entry]:
        """List the rows in their order, each with its bytes."""
        names = self._names()
        assert self.column is not None
        for batch in self.batches():
            images = batch.column(self.column).to_pylist()
            rest = [name for name in batch.schema.names if name != self.column]
            others = batch.select(rest).to_pylist()
            for image, other in zip(images, others, strict=True):
                name, data = next(names), _bytes(image)
                if data is None:
                    yield Skipped(name, "empty", 0, self.mtime)
                    continue
                columns = {key: value if isinstance(value, bytes) else plain(value) for key, value in other.items()}
                yield Item(name, len(data), self.mtime, columns, data=data)

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
                return _bytes(batch.column(self.column)[number].as_py())
            number -= batch.num_rows
        return None

    def _names(self) -> Iterator[str]:
        """Give every row's name: the path of its struct where that is safe and the row's alone, else its number."""
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

    def _image_column(self) -> str | None:
        for field in self.schema:
            kind = field.type
            if pa.types.is_struct(kind) and {"bytes", "path"} <= {member.name for member in kind}:
                return str(field.name)
        binary = [f.name for f in self.schema if pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type)]
        for name in binary:
            for batch in self.batches([name]):
                values = [value for value in batch.column(0).to_pylist() if value]
                if values:
                    if looks_like_image(values[0][:SNIFF_BYTES]):
                        return str(name)
                    break
        return None


class _Parquet(_Table):
    def __init__(self, file: Path) -> None:
        # the footer is parsed once; readers share it, but not between threads
        self._metadata = pq.read_metadata(file)
        self.schema = self._metadata.schema.to_arrow_schema()
        super().__init__(file)

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.file, metadata=self._metadata) as reader:
            yield from reader.iter_batches(_ROWS, columns=columns, use_threads=False)

    def _row(self, number: int) -> bytes | None:
        for group in range(self._metadata.num_row_groups):
            rows = self._metadata.row_group(group).num_rows
            if number < rows:
                break
            number -= rows
        with pq.ParquetFile(self.file, metadata=self._metadata) as reader:
            for batch in reader.iter_batches(_ROWS, row_groups=[group], columns=[self.column], use_threads=False):
                if number < batch.num_rows:
                    return _bytes(batch.column(0)[number].as_py())
                number -= batch.num_rows
        return None


class _Arrow(_Table):
    """An Arrow IPC file or stream.

    Its buffers are used as they lie in the file, so a damaged one could point anywhere: every batch is validated in
    full before a value is looked at, and the file is read, not mapped.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        with self._open() as reader:
            self.schema = reader.schema
        super().__init__(file)

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
                for start in range(0, chosen.num_rows, _ROWS):
                    yield chosen.slice(start, _ROWS)

    def _open(self) -> Any:
        source = pa.OSFile(str(self.file), "rb")
        try:
            return pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source)


def _is_safe(path: str) -> bool:
    return not path.startswith(("/", ".")) and ".." not in path.split("/") and "\\" not in path


def _bytes(image: Any) -> bytes | None:
    data = image.get("bytes") if isinstance(image, dict) else image
    return data or None
