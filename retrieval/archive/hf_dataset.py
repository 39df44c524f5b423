"""A ``Dataset`` of Hugging Face's ``datasets`` in memory, as an archive: selected, filtered and shuffled as it is.

It is read as its Parquet and Arrow files are (`retr.retrieval.archive.tables`), names of classes included. A picture
that it does not hold but names by a path is read from there.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retr.index.errors import ImageReadError, UsageError
from retr.retrieval.archive.sources import Bytes, Entry, Item
from retr.retrieval.archive.tables import ROWS, Rows
from retr.retrieval.regular_files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa


class _Dataset(Rows):
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset.with_format("arrow")
        self.schema = dataset.features.arrow_schema
        super().__init__(0.0)

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        wanted = None if columns is None else list(dict.fromkeys(name.removesuffix(".path") for name in columns))
        for start in range(0, len(self._dataset), ROWS):
            table = self._dataset[start : start + ROWS]
            yield from (table if wanted is None else table.select(wanted)).combine_chunks().to_batches()

    def bytes_of(self, image: Any) -> bytes | None:
        held = super().bytes_of(image)
        if held is None and isinstance(image, dict) and image.get("path"):
            with open_regular(Path(image["path"])) as file:
                return file.read()
        return held


class DatasetSource:
    """The pictures of a dataset.

    Parameters
    ----------
    dataset
        One split.
    image_column
        The column of pictures, where there are several.

    Raises
    ------
    UsageError
        It has no pictures, or is none but several splits, or a stream.
    """

    def __init__(self, dataset: Any, image_column: str | None = None) -> None:
        if isinstance(dataset, dict):
            raise UsageError(
                f"a dataset of the splits {', '.join(map(repr, dataset))} is several archives",
                hint="give one of them, such as dataset['train']",
            )
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "with_format")):
            raise UsageError("a stream of rows is no archive", hint="load it with streaming=False")
        self._rows = _Dataset(dataset)
        try:
            found = self._rows.choose(image_column)
        except ImageReadError as error:
            raise UsageError(error.message, hint=error.hint) from None
        if not found:
            raise UsageError("the dataset has no column of pictures", hint="name one with image_column=")
        # no place of this machine leads back to it
        self.location = "datasets://memory"
        self._count = len(dataset)

    def entries(self) -> Iterator[Entry]:
        """List the rows in their order, each with its bytes."""
        for entry in self._rows.entries():
            if isinstance(entry, Item) and entry.data is not None:
                # the same row of another selection may be another picture of the same size
                yield replace(entry, mark=hashlib.sha256(entry.data).hexdigest()[:32])
            else:
                yield entry

    def count(self) -> int | None:
        """Return the number of rows."""
        return self._count

    def read(self, path: str) -> Bytes:
        """Return one row's picture."""
        return self._rows.read(path)
