"""Bounding the memory that a Parquet file takes, before it is read as a whole.

Pages are compressed and texts repeat by their number in a dictionary, so that a few kilobytes may stand for gigabytes.
An honest table grows with its rows; what unpacks to far more than the index it belongs to was made to fill the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from retr.index.machine.arrow import pc, pq

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a table may unpack to: so much, or so many times the bytes that it comes with.
_FREE, _TIMES = 256 << 20, 64
# Rows that are decoded at a time.
_BATCH = 1024
# Bytes for each value of a list: the number of a text, and two levels of nesting.
_OF_A_LIST = 8


def moderate_batches(data: pa.Buffer, beside: int = 0) -> Iterator[pa.RecordBatch]:
    """Read a file in small batches, texts as codes of a dictionary, also inside lists.

    Parameters
    ----------
    beside
        Bytes of what belongs to its rows in other files.

    Raises
    ------
    ValueError
        It unpacks to more than an honest table of its size would, or nests values deeper than in a list.
    """
    metadata = pq.read_metadata(pa.BufferReader(data))
    if any(map(_is_deep, metadata.schema.to_arrow_schema().types)):
        raise ValueError("a table of values inside values inside values")
    chunks = [
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    ]
    left = max(_FREE, _TIMES * (len(data) + beside))
    left -= sum(max(chunk.total_uncompressed_size, chunk.num_values * _least(chunk)) for chunk in chunks)
    columns = {chunk.path_in_schema: chunk.physical_type for chunk in chunks[: metadata.num_columns]}
    texts = [path for path, kind in columns.items() if kind == "BYTE_ARRAY"]
    file = pq.ParquetFile(pa.BufferReader(data), metadata=metadata, read_dictionary=texts)
    # one row group after another: Arrow reads no batch of lists of codes out of two
    batches = (
        batch
        for group in range(metadata.num_row_groups)
        for batch in file.iter_batches(_BATCH, row_groups=[group], use_threads=False)
    )
    while left >= 0:
        batch = next(batches, None)
        if batch is None:
            return
        left -= sum(map(_size, batch.columns))
        yield batch
    raise ValueError("a table that unpacks to more than it may")


def _is_deep(kind: pa.DataType) -> bool:
    """Return whether a type is nested, but for a list of plain values: no column of ours is."""
    return pa.types.is_nested(kind) and not (pa.types.is_list(kind) and not pa.types.is_nested(kind.value_type))


def _least(chunk: pq.ColumnChunkMetaData) -> int:
    """Return how many bytes a value takes at least while it is read: one row may hold any number of a list's."""
    return _OF_A_LIST if "." in chunk.path_in_schema else 1


def _size(column: pa.Array[Any]) -> int:
    """Return how many bytes a column takes with its texts written out."""
    if pa.types.is_list(column.type):
        return _size(column.flatten()) + 4 * len(column)
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return int(pc.sum(lengths.take(column.indices)).as_py() or 0) + 4 * len(column)
