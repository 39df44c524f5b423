"""The side table: columns of a segment in a memory-mapped copy of its Parquet table.

``segments/NAME.arrow`` is an uncompressed Arrow file of record batches of `BATCH_ROWS` rows (the last may be shorter):
texts that repeat as codes of one sorted dictionary, everything else as it is. A hit's row is read from its own pages,
and a filter reads a column without decoding it. Columns of long values are left to the Parquet file, as is everything
in the smallest segments. It is made from the Parquet file and could be made again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.disk.arrow_file import require_uncompressed
from retr.index.disk.files import FileRef, reference
from retr.index.machine.arrow import pc, pq

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# In fewer rows a commit would spend more on one than searches of it gain before the next commit merges it.
MIN_ROWS = 1000
BATCH_ROWS = 100_000
# Values longer than this on average would make the index grow more than reading them faster is worth.
_MAX_BYTES = 512
_MAX_WORD_BYTES = 8 << 20
_FEW_ROWS = 1000


class SideTable:
    """One open side table; nothing of it is copied.

    Raises
    ------
    pa.ArrowException, ValueError
        It is not an Arrow file, or a compressed one.
    """

    def __init__(self, buffer: pa.Buffer) -> None:
        require_uncompressed(memoryview(buffer))
        with pa.ipc.open_file(pa.BufferReader(buffer)) as file:
            self._batches = [file.get_batch(number) for number in range(file.num_record_batches)]
            self._table = pa.Table.from_batches(self._batches, file.schema)
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self.names = frozenset(self._table.column_names)
        self._text_names = frozenset(one.name for one in self._table.schema if pa.types.is_string(one.type))
        self._texts: dict[str, list[tuple[memoryview, memoryview]]] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def require_whole(self, schema: pa.Schema) -> None:
        """Look at every value: places of texts, codes, dictionaries.

        Parameters
        ----------
        schema
            The index's columns.

        Raises
        ------
        pa.ArrowException, ValueError
            One leads out of the file, a dictionary is not sorted as it says, or a column is none of the index's.
        """
        self._table.validate(full=True)
        if len(self.names) < self._table.num_columns or not self.names <= set(schema.names):
            raise ValueError("other columns")
        for name, column in zip(self._table.column_names, self._table.columns, strict=True):
            plain = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            pa.array([], plain).cast(schema.field(name).type)
            if pa.types.is_dictionary(column.type) and column.num_chunks:
                words = column.chunk(0).dictionary
                # One dictionary is looked up for all batches, by halves where it is sorted.
                if not pa.types.is_string(plain) or any(not part.dictionary.equals(words) for part in column.chunks):
                    raise ValueError("dictionaries that differ")
                if column.type.ordered and len(words) > 1 and not pc.all(pc.less(words[:-1], words[1:])).as_py():
                    raise ValueError("a dictionary that is not sorted")
                if words.null_count:
                    raise ValueError("a word that is none")

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Return whole columns."""
        return self._table.select(names)

    def plain(self, names: Sequence[str], start: int, count: int) -> pa.Table:
        """Return some rows with their texts for codes."""
        return _decoded(self._table.select(names).slice(start, count))

    def holds_texts(self, name: str) -> bool:
        """Return whether there is a column of this name that `texts` can read."""
        return name in self._text_names

    def texts(self, name: str, rows: NDArray[np.int64]) -> list[str]:
        """Return a column of texts without nulls at the rows ``(n,)``.

        They are cut out of the mapped file here, since that takes a third of what pyarrow's calls do for a few rows.
        """
        if name not in self._texts:
            self._texts[name] = [_text_parts(batch.column(name)) for batch in self._batches]
        parts = self._texts[name]
        if len(parts) == 1:
            [(ends, data)] = parts
            return [str(data[ends[row] : ends[row + 1]], "utf-8") for row in rows.tolist()]
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        found = []
        for number, row in zip(owner.tolist(), (rows - self._starts[owner]).tolist(), strict=True):
            ends, data = parts[number]
            found.append(str(data[ends[row] : ends[row + 1]], "utf-8"))
        return found

    def take(self, names: Sequence[str], rows: NDArray[np.int64]) -> pa.Table:
        """Return the rows ``(n,)`` in that order."""
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        local = rows - self._starts[owner]
        if len(rows) and (owner == owner[0]).all():
            batch = self._batches[owner[0]].select(names).take(pa.array(local))
            columns = [
                column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
                for column in batch.columns
            ]
            return pa.Table.from_arrays(columns, names=list(names))
        if len(rows) <= _FEW_ROWS:
            # Slices cost nothing, and putting them together touches only these rows.
            batches = {number: self._batches[number].select(names) for number in set(owner.tolist())}
            pieces = zip(owner.tolist(), local.tolist(), strict=True)
            return pa.Table.from_batches([batches[number].slice(row, 1) for number, row in pieces]).combine_chunks()
        order = np.argsort(owner, kind="stable")
        numbers, first = np.unique(owner[order], return_index=True)
        parts = zip(numbers.tolist(), np.split(order, first[1:]), strict=True)
        table = pa.Table.from_batches([self._batches[number].select(names).take(local[at]) for number, at in parts])
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return table.combine_chunks().take(places)


def _text_parts(column: pa.Array[Any]) -> tuple[memoryview, memoryview]:
    """Return where the texts of a column begin and end, as int32, and their bytes."""
    _, ends, data = column.buffers()
    whole = memoryview(ends if ends is not None else b"").cast("i")
    return whole[column.offset : column.offset + len(column) + 1], memoryview(data if data is not None else b"")


def _decoded(table: pa.Table) -> pa.Table:
    plain = [field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in table.schema]
    return table.cast(pa.schema(list(zip(table.column_names, plain, strict=True))))


def write(root: Path, table: str, name: str) -> FileRef | None:
    """Write the side table ``name`` of the finished Parquet file ``table``; ``None`` where it is not worth it.

    The file is read twice, for the dictionaries and for the rows; a batch or two and the dictionaries are in memory.
    """
    with pq.ParquetFile(root / table) as file:
        n_rows = file.metadata.num_rows
        if n_rows < MIN_ROWS:
            return None
        fields: list[pa.Field[Any]] = []
        words: dict[str, pa.Array[Any]] = {}
        for field in file.schema_arrow:
            first = next(_batches(file, [field.name])).column(0)
            if first.nbytes > _MAX_BYTES * len(first):
                continue
            found = _vocabulary(file, field.name, n_rows // 2) if pa.types.is_string(field.type) else None
            if found is None:
                fields.append(field)
            else:
                words[field.name] = found
                fields.append(pa.field(field.name, pa.dictionary(_code_type(len(found)), field.type, ordered=True)))
        schema = pa.schema(fields)
        with (root / name).open("xb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in _batches(file, schema.names):
                columns = [
                    _coded(column, words[field.name], field.type) if field.name in words else column
                    for field, column in zip(schema, batch.columns, strict=True)
                ]
                writer.write_batch(pa.record_batch(columns, schema=schema))
    return reference(root, name)


def _batches(file: pq.ParquetFile, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Read columns in batches of whole row groups."""
    groups: list[int] = []
    rows = 0
    for number in range(file.num_row_groups):
        groups.append(number)
        rows += file.metadata.row_group(number).num_rows
        if rows >= BATCH_ROWS or number == file.num_row_groups - 1:
            # Nothing here holds on to a batch while the next is read.
            yield _whole(file.read_row_groups(groups, columns=names))
            groups, rows = [], 0


def _whole(table: pa.Table) -> pa.RecordBatch:
    return pa.record_batch([pa.concat_arrays(column.chunks) for column in table.columns], schema=table.schema)


def _vocabulary(file: pq.ParquetFile, name: str, limit: int) -> pa.Array[Any] | None:
    """Return the distinct texts, sorted; ``None`` where they are more than ``limit`` or too large to be collected."""
    found = pa.array([], pa.string())
    for batch in _batches(file, [name]):
        found = pa.concat_arrays([found, batch.column(0)]).unique().drop_null()
        if len(found) > limit or found.nbytes > _MAX_WORD_BYTES:
            return None
    return found.take(pc.sort_indices(found))


def _code_type(count: int) -> pa.DataType:
    return next((kind for kind in (pa.int8(), pa.int16()) if count <= 1 << kind.bit_width - 1), pa.int32())


def _coded(column: pa.Array[Any], words: pa.Array[Any], kind: pa.DictionaryType) -> pa.Array[Any]:
    codes = pc.index_in(column, value_set=words).cast(kind.index_type)
    return pa.DictionaryArray.from_arrays(codes, words, ordered=True)
