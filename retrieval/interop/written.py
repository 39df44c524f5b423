"""Forms in which an index is handed to other people's tools; `retr.retrieval.exporting` chooses among them.

* ``parquet``: one file ``rows.parquet`` with a column ``vector`` (embedding-atlas, Nomic Atlas, DuckDB, polars).
* ``webdataset``: shards ``000000.tar``, ... of each row's picture, its metadata as JSON and its vector as ``.npy``.
* ``fiftyone``: what FiftyOne imports as a ``FiftyOneImageClassificationDataset``: pictures, ``labels.json``, and
  ``vectors.npy`` with ``names.json`` beside them.

Pictures come out of the index's archive: the file as it lies there, or of one with several pictures the row's as PNG.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.errors import UsageError
from retr.index.machine.arrow import pq
from retr.retrieval.archive.locations import Archive
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.archive.row_pictures import picture_in
from retr.retrieval.images.file_types import PREFIX_BYTES, format_of
from retr.retrieval.json_values import to_plain
from retr.retrieval.transforms.transform import own_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.store import Store

_PIECE = 1000
SHARD_ROWS, SHARD_BYTES = 10_000, 1 << 30
_OWN_FIELDS = {"id", "label", "confidence", "logits", "tags"}
_SUFFIXES = {"jpeg": "jpg", "tiff": "tif", "dicom": "dcm", "nifti": "nii", "png": "png", "bmp": "bmp", "webp": "webp"}


def as_parquet(store: Store, rows: NDArray[np.int64], draft: Path) -> None:
    """Write one Parquet file: metadata, and row for row a list of floats in ``vector``."""
    draft.mkdir()
    writer = None
    try:
        for piece in _pieces(rows):
            table = with_vectors(store, piece)
            writer = writer or pq.ParquetWriter(draft / "rows.parquet", table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def as_webdataset(store: Store, rows: NDArray[np.int64], draft: Path) -> None:
    """Write tar shards of at most `SHARD_ROWS` rows and about `SHARD_BYTES`."""
    draft.mkdir()
    shard, count, size, number = None, 0, 0, 0
    try:
        for key, row, vector, (data, suffix) in _samples(store, rows):
            if shard is None or count >= SHARD_ROWS or size >= SHARD_BYTES:
                if shard is not None:
                    shard.close()
                shard, count, size = tarfile.open(draft / f"{number:06d}.tar", "w"), 0, 0  # noqa: SIM115 - several
                number += 1
            held = io.BytesIO()
            np.save(held, vector)
            text = json.dumps(row, ensure_ascii=False).encode()
            for name, part in ((suffix, data), ("json", text), ("npy", held.getvalue())):
                member = tarfile.TarInfo(f"{key}.{name}")
                member.size = len(part)
                shard.addfile(member, io.BytesIO(part))
            count, size = count + 1, size + len(data)
    finally:
        if shard is not None:
            shard.close()


def as_fiftyone(store: Store, rows: NDArray[np.int64], draft: Path, label: str | None) -> None:
    """Write a folder that FiftyOne imports, with the classes of a column.

    Raises
    ------
    UsageError
        No column of classes is named, or there is none of that name.
    """
    if label is None:
        raise UsageError("of FiftyOne's samples the classes are a column", hint="name it with --label COLUMN")
    store.columns.require(label)
    (draft / "data").mkdir(parents=True)
    labels: dict[str, Any] = {}
    vectors, classes = [], set()
    for key, row, vector, (data, suffix) in _samples(store, rows):
        (draft / "data" / f"{key}.{suffix}").write_bytes(data)
        value = row.pop(label, None)
        classes |= {str(value)} if value is not None else set()
        labels[key] = None if value is None else {"label": str(value), "attributes": _attributes(row)}
        vectors.append(vector)
    text = json.dumps({"classes": sorted(classes), "labels": labels}, ensure_ascii=False)
    (draft / "labels.json").write_text(text, encoding="utf-8", newline="\n")
    (draft / "names.json").write_text(json.dumps(list(labels)), encoding="utf-8", newline="\n")
    np.save(draft / "vectors.npy", np.stack(vectors))


def _attributes(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as attributes of a label of FiftyOne: names of fields, and none that a label has itself."""
    found: dict[str, Any] = {}
    for column, value in row.items():
        name = re.sub(r"\W", "_", column).lstrip("_") or "column"
        while name in _OWN_FIELDS or name in found:
            name += "_meta"
        found[name] = value
    return found


def with_vectors(store: Store, rows: NDArray[np.int64]) -> pa.Table:
    """Return metadata with a column of vectors behind them."""
    table, name = store.table(rows=rows), "vector"
    while name in table.column_names:
        name += "_"
    flat = pa.array(np.ascontiguousarray(own_vectors(store, rows)).reshape(-1))
    return table.append_column(name, pa.FixedSizeListArray.from_arrays(flat, store.manifest.encoder.own.dim))


def _samples(store: Store, rows: NDArray[np.int64]) -> Iterator[tuple[str, dict[str, Any], Any, tuple[bytes, str]]]:
    """Yield of each row a key, its metadata, its vector, and its picture with the suffix of its name."""
    archive, notes = Archive(store), BuildNotes.of(store)
    number = 0
    for piece in _pieces(rows):
        for row, vector in zip(store.table(rows=piece).to_pylist(), own_vectors(store, piece), strict=True):
            plain = {name: to_plain(value) for name, value in row.items() if value is not None}
            yield f"{number:09d}", plain, vector, _picture(archive, notes, row["id"], row["path"])
            number += 1


def _picture(archive: Archive, notes: BuildNotes, id_: str, path: str) -> tuple[bytes, str]:
    data = archive.read(path)
    if id_ == path:
        kind = format_of(data[:PREFIX_BYTES]) or ""
        own = PurePosixPath(path.rpartition("::")[2]).suffix.lower().lstrip(".")
        return data, _SUFFIXES.get(kind, own if own.isalnum() else "bin")
    held = io.BytesIO()
    picture_in(data, id_, notes).image.save(held, "PNG")
    return held.getvalue(), "png"


def _pieces(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), _PIECE):
        yield rows[start : start + _PIECE]
