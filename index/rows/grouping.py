"""Storing the group column as text, so that different identifiers never become equal.

What is added or replaced is brought to text on its way in; a column of another type that is declared as the group, or
was so by an older version, is written again as text, in the commit that declares it. Floats that are too large to tell
integers apart are refused: what they were cannot be found out any more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from retr.index.disk.rewriting import rewritten
from retr.index.errors import UsageError
from retr.index.rows.identifiers import identifier_texts, lossy
from retr.index.rows.identity import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from retr.index.disk.manifest import Manifest
    from retr.index.disk.segments import Segment


def type_to_rewrite(manifest: Manifest, column: str | None) -> pa.DataType | None:
    """Return the type of a group column that is not text yet; ``None`` where there is nothing to do."""
    if column is None or column not in manifest.schema.names:
        return None
    kind = manifest.schema.field(column).type
    return None if pa.types.is_string(kind) else kind


def with_text_identifiers(table: pa.Table, manifest: Manifest) -> pa.Table:
    """Return a table of new cells with the columns that tell patients apart as text.

    Raises
    ------
    UsageError
        One of them holds lists, or numbers among which different identifiers may be one.
    """
    known = {name for name in COLUMNS if name in manifest.schema.names and type_to_rewrite(manifest, name) is None}
    for column in {manifest.group or "", *known} & set(table.column_names):
        cells = table.column(column)
        if not pa.types.is_string(cells.type):
            texts = faithful_texts(cells, column)
            table = table.set_column(table.column_names.index(column), column, texts)
    return table


def group_as_text(
    root: Path, draft: Manifest, column: str, segments: Sequence[Segment], stem: Callable[[], str]
) -> Manifest:
    """Write the tables of all segments again, with a column as text, and return the draft that names them.

    Parameters
    ----------
    segments
        Those of the draft.
    stem
        Gives the names of new files, without suffix.

    Raises
    ------
    UsageError
        As `with_text_identifiers`; nothing was written then.
    """
    old = draft.schema
    for segment in segments:
        for part in segment.tables(pa.schema([old.field(column)])):
            faithful_texts(part.column(0), column)
    place = old.get_field_index(column)
    new = old.set(place, pa.field(column, pa.string()))

    def change(part: pa.Table) -> pa.Table:
        return part.set_column(place, column, faithful_texts(part.column(column), column))

    written = tuple(rewritten(root, segment, stem(), old, new, change) for segment in segments)
    return replace(draft, schema=new, segments=written)


def faithful_texts(cells: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    """Return a column as text, as `identifier_texts` writes it; raises as `with_text_identifiers` does."""
    if lossy(cells):
        raise UsageError(
            f"the column {column!r} holds numbers beyond 2^53, among which different identifiers may be one",
            hint=f"give it as text: build again with the table it came from, --metadata FILE --type {column}=text",
        )
    return identifier_texts(cells, column)
