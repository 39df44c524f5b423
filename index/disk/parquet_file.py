"""How much memory a Parquet file asks for, before it is read as a whole.

Pages are compressed and texts repeat by their number in a dictionary, so that a few kilobytes may stand for gigabytes.
An honest table grows with its rows; what unpacks to far more than the index it belongs to was made to fill the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a table may unpack to: so much, or so many times the bytes that it comes with.
_FREE, _TIMES = 256 << 20, 64
# Rows that are decoded at a time.
_BATCH = 1024


def moderate_batches(data: pa.Buffer, beside: int = 0) -> Iterator[pa.RecordBatch]:
    """Read the columns of a file in small batches, texts as codes of a dictionary; lists are left out.

    Parameters
    ----------
    beside
        Bytes of what belongs to its rows in other files.

    Raises
    ------
    ValueError
        It unpacks to more than an honest table of its size would.
    """
    metadata = pq.read_metadata(pa.BufferReader(data))
    chunks = [
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    ]
    left = max(_FREE, _TIMES * (len(data) + beside))
    left -= sum(max(chunk.total_uncompressed_size, chunk.num_values) for chunk in chunks)
    # pyarrow reads texts inside lists only as they are
    flat = [chunk for chunk in chunks[: metadata.num_columns] if "." not in chunk.path_in_schema]
    texts = [chunk.path_in_schema for chunk in flat if chunk.physical_type == "BYTE_ARRAY"]
    file = pq.ParquetFile(pa.BufferReader(data), metadata=metadata, read_dictionary=texts)
    batches = file.iter_batches(_BATCH, columns=[chunk.path_in_schema for chunk in flat], use_threads=False)
    while left >= 0:
        batch = next(batches, None)
        if batch is None:
            return
        left -= sum(map(_size, batch.columns))
        yield batch
    raise ValueError("a table that unpacks to more than it may")


def _size(column: pa.Array[Any]) -> int:
    """Return how many bytes a column takes with its texts written out."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return int(pc.sum(lengths.take(column.indices)).as_py() or 0) + 4 * len(column)
