"""Identify the pictures of a query: which rows they are, and which patient they state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.retrieval.query_pictures import split_frame
from retr.retrieval.read_options import FRAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.query import Query

_NOTHING = np.empty(0, np.int64)


def own_rows(queries: Sequence[Query], store: Store) -> list[NDArray[np.int64]]:
    """Find, for each query, the rows that are it: its ids, marks and files, and byte-identical copies of these.

    Copies are known by the column ``sha256``; where a file holds several pictures (``"scan.dcm#3"``), only the picture
    of the same number is a copy of an id. By its place in the archive a file is a row's own, whatever it holds by now.
    PIL images, arrays and vectors have no bytes to compare.
    """
    if not any(part.kind in {"id", "image"} for query in queries for part in (*query.parts, *query.marked)):
        return [_NOTHING] * len(queries)
    wanted: list[tuple[int, str, str | None]] = []  # query, sha256, frame suffix (None: any)
    rows: list[list[int]] = [[] for _ in queries]
    hashed = _has_text(store, "sha256")
    for number, query in enumerate(queries):
        for part in (*query.parts, *query.marked):
            if part.kind == "id":
                row = int(store.rows_of([part.value])[0])
                if row < 0:
                    continue
                rows[number].append(row)
                if hashed:
                    sha = store.text("sha256", row)
                    if sha is not None:
                        wanted.append((number, sha, _frame(part.value)))
            elif part.kind == "image" and hashed:
                image, frame = split_frame(part.value)
                rows[number] += _in_place(store, image, frame)
                from retr.retrieval.images.origin import file_sha256

                sha = file_sha256(image)
                if sha is not None:
                    wanted.append((number, sha, frame))
    for number, sha, frame in wanted:
        copies = np.setdiff1d(store.rows_with_text("sha256", sha), rows[number])
        if len(copies):
            rows[number] += _of_frame(store, copies, frame)
    return [np.unique(np.array(found, dtype=np.int64)) if found else _NOTHING for found in rows]


def _in_place(store: Store, image: Any, frame: str | None) -> list[int]:
    """Find the live rows of a file that lies where this machine knows the index's archive to be."""
    if not isinstance(image, str | Path) or not _has_text(store, "path"):
        return []
    from retr.retrieval.archive.locations import recall_sources

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
    return _of_frame(store, np.concatenate([store.rows_with_text("path", path) for path in sorted(paths)]), frame)


def _has_text(store: Store, column: str) -> bool:
    return column in store.schema.names and str(store.schema.field(column).type) == "string"


def _of_frame(store: Store, rows: NDArray[np.int64], frame: str | None) -> list[int]:
    """Return those of some rows that are a file's picture of a number; all where it is ``None``."""
    if frame is None or not len(rows):
        return [int(row) for row in rows]
    ids = store.table(["id"], rows=rows)["id"].to_pylist()
    return [row for row, name in zip(rows.tolist(), ids, strict=True) if frame == _frame(name)]


def stated_values(column: str, images: Sequence[Any]) -> list[str | None]:
    """Return what DICOM files state of ``patient``, ``study`` or ``series``, unhashed; None for other pictures."""
    from retr.retrieval.images.dicom_identity import stated_identifiers

    return [stated_identifiers(split_frame(image)[0]).get(column) for image in images]


def _frame(row_id: str) -> str:
    match = FRAME.search(row_id)
    return match[0] if match else ""
