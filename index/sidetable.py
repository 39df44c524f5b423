"""The columns that filters and groups read, ready in memory-mapped form beside a large segment's Parquet.

``segments/NAME.arrow`` is an uncompressed Arrow file with one record batch: numbers, booleans and dates as they are,
texts that repeat as dictionary codes. Ids and other texts that hardly repeat are left to the Parquet file, as is
everything in small segments, where reading Parquet takes no time. It is made from the Parquet file and could be made
again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retr.index.files import FileRef, reference
from retr.index.schema import ID

if TYPE_CHECKING:
    from pathlib import Path

MIN_ROWS = 50_000
_MAX_DISTINCT = 65_536


def write(root: Path, table: str, name: str) -> FileRef | None:
    """Write the side table ``name`` of the finished Parquet file ``table``; ``None`` where it is not worth it.

    One column is in memory at a time beside what is kept.
    """
    with pq.ParquetFile(root / table) as file:
        if file.metadata.num_rows < MIN_ROWS:
            return None
        kept: dict[str, pa.Array[Any]] = {}
        for field in file.schema_arrow:
            if field.name == ID or pa.types.is_list(field.type) or pa.types.is_binary(field.type):
                continue
            column = file.read(columns=[field.name]).column(0)
            if pa.types.is_string(field.type):
                if pc.count_distinct(column).as_py() > min(_MAX_DISTINCT, len(column) // 4):
                    continue
                column = column.dictionary_encode()
            kept[field.name] = pa.concat_arrays(column.unify_dictionaries().chunks)
    batch = pa.record_batch(kept)
    with (root / name).open("xb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return reference(root, name)


def read(buffer: pa.Buffer) -> dict[str, pa.Array[Any]]:
    """Give the columns without copying them."""
    with pa.ipc.open_file(pa.BufferReader(buffer)) as file:
        batch = file.get_batch(0)
    return dict(zip(batch.schema.names, batch.columns, strict=True))
