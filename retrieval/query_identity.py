"""Identify the pictures of a query: which rows they are, and which patient they state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.retrieval.archive.locations import recall_sources
from retr.retrieval.query_pictures import FRAME, split_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.query import Query

_NOTHING = np.empty(0, np.int64)


def own_rows(queries: Sequence[Query], store: Store) -> list[NDArray[np.int64]]:
    """Find, for each query, the rows that are it: its ids, its files, and byte-identical copies of either.

    Copies are known by the column ``sha256``; where a file holds several pictures (``"scan.dcm#3"``), only the picture
    of the same number is a copy of an id. By its place in the archive a file is a row's own, whatever it holds by now.
    PIL images, arrays and vectors have no bytes to compare.
    """
    wanted: list[tuple[int, str, str | None]] = []  # query, sha256, frame suffix (None: any)
    rows: list[list[int]] = [[] for _ in queries]
    hashed = "sha256" in store.schema.names and str(store.schema.field("sha256").type) == "string"
    for number, query in enumerate(queries):
        for part in query.parts:
            if part.kind == "id":
                row = int(store.rows_of([part.value])[0])
                if row < 0:
                    continue
                rows[number].append(row)
                if hashed:
                    sha = store.table(["sha256"], rows=np.array([row]))["sha256"][0].as_py()
                    if sha is not None:
                        wanted.append((number, sha, _frame(part.value)))
            elif part.kind == "image" and hashed:
                image, frame = split_frame(part.value)
                rows[number] += _in_place(store, image, frame)
                from retr.retrieval.images.origin import file_sha256

                sha = file_sha256(image)
                if sha is not None:
                    wanted.append((number, sha, frame))
    if wanted:
        hashes = pa.array([sha for _, sha, _ in wanted]).unique()
        copies = dict(zip(hashes.to_pylist(), store.rows_with("sha256", hashes), strict=True))
        for number, sha, frame in wanted:
            ids = store.table(["id"], rows=copies[sha])["id"].to_pylist()
            rows[number] += [
                row for row, name in zip(copies[sha].tolist(), ids, strict=True) if frame in {None, _frame(name)}
            ]
    return [np.unique(np.array(found, dtype=np.int64)) if found else _NOTHING for found in rows]


def _in_place(store: Store, image: Any, frame: str | None) -> list[int]:
    """Find the live rows of a file that lies where this machine knows the index's archive to be."""
    if not isinstance(image, str | Path) or "path" not in store.schema.names:
        return []
    named = {Path(image).absolute(), Path(image).resolve()}
    paths = {
        f"{name}/{file.relative_to(place).as_posix()}" if name else file.relative_to(place).as_posix()
        for name, location in recall_sources(store.uuid).items()
        if "://" not in location
        for place in (Path(location), Path(location).resolve())
        for file in named
        if file.is_relative_to(place)
    }
    if not paths:
        return []
    found = np.concatenate(store.rows_with("path", pa.array(sorted(paths), pa.string())))
    ids = store.table(["id"], rows=found)["id"].to_pylist()
    return [row for row, name in zip(found.tolist(), ids, strict=True) if frame in {None, _frame(name)}]


def stated_values(column: str, images: Sequence[Any]) -> list[str | None]:
    """Return what DICOM files state of ``patient``, ``study`` or ``series``, unhashed; None for other pictures."""
    from retr.retrieval.images.dicom_identity import stated_identifiers

    return [stated_identifiers(split_frame(image)[0]).get(column) for image in images]


def _frame(row_id: str) -> str:
    match = FRAME.search(row_id)
    return match[0] if match else ""
