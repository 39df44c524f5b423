"""Import vectors that were made elsewhere, with a table of metadata, as an index.

What retr cannot check, the caller states: which model the vectors are of. A model of `retr encoders ls` is loaded for
its identity; any other is known by a name and a fingerprint of its owner's, and an index of it answers by id and by
vector. What `retr.retrieval.exporting` wrote says it by itself, and comes back to the last bit.
"""

from __future__ import annotations

import base64
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.disk.manifest import IDENTIFIERS
from retr.index.disk.schema import ID
from retr.index.encoder import EncoderInfo
from retr.index.errors import RetrError, UsageError
from retr.index.json_fields import Fields, parse_json
from retr.index.machine.arrow import pc
from retr.index.machine.home import home, index_folder
from retr.index.rows.grouping import faithful_texts
from retr.index.rows.identifiers import identifier_texts
from retr.index.store import Store
from retr.index.vectors import plain_array
from retr.retrieval.archive.column_types import read_types, require_group
from retr.retrieval.archive.in_memory import arrow_table
from retr.retrieval.archive.metadata import read_cells, stored_columns
from retr.retrieval.archive.table_like import is_file
from retr.retrieval.encoders.base import BaseEncoder
from retr.retrieval.encoders.callables import is_registered, outside_info
from retr.retrieval.encoders.index_encoder import require_loaded
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.exporting import EXPORT_NOTE, digest_of_ids, digest_of_vectors
from retr.retrieval.hits import ANSWER
from retr.retrieval.labels.trained_rows import HEAD_FILE
from retr.retrieval.regular_files import is_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from retr.index.disk.manifest import Dtype
    from retr.index.encoder import Similarity

_PIECE = 20_000
# What an index itself takes these columns for.
_OWN = {"path": pa.string(), "size": pa.int64(), "mtime": pa.float64(), "sha256": pa.string(), "folder": pa.string()}
_OWN |= {"width": pa.int64(), "height": pa.int64(), "mode": pa.string()}


@dataclass(frozen=True)
class _Exported:
    """What an export says of itself."""

    encoder: EncoderInfo
    dtype: Dtype
    group: str | None
    identifiers: Any
    vectors: str
    ids: str
    files: Mapping[str, bytes]


def import_vectors(
    vectors: Any,
    table: Any,
    path: str | Path,
    *,
    encoder: str | BaseEncoder | EncoderInfo | None = None,
    fingerprint: str | None = None,
    similarity: Similarity | None = None,
    id_column: str | None = None,
    group: str | None = None,
    types: Mapping[str, str] | None = None,
    dtype: Dtype | None = None,
    **options: Any,
) -> tuple[BaseEncoder | None, list[str]]:
    """Make an index at ``path``; see `Index.from_vectors`.

    Returns
    -------
    tuple
        The encoder, where it is loaded, and what a person should know.
    """
    folder = index_folder(path)
    numbers = _numbers(vectors)
    raw, key, spelled = _cells(table, id_column)
    if raw.num_rows != len(numbers):
        raise UsageError(f"there are {len(numbers)} vectors for {raw.num_rows} rows of metadata")
    ids = _ids(raw[key], key)
    noted = _exported(raw)
    same = noted is not None and noted.vectors == digest_of_vectors(numbers)
    if noted is not None and same and noted.ids != digest_of_ids(ids.to_pylist()):
        raise UsageError(
            "the rows of the table are not in the order of the vectors that were exported with it",
            hint="give the table as it was exported",
        )
    info, loaded = _info(encoder, fingerprint, similarity, numbers.shape[1], noted if same else None, options)
    notes: list[str] = []
    declared = read_types(types or {})
    group = group or (noted.group if noted is not None and noted.group in raw.column_names else None)
    require_group(group, declared)
    cells = raw.drop_columns([key]).replace_schema_metadata(None)
    if ID in cells.column_names:
        raise UsageError(f"the table has a column {ID!r} beside {key!r}, which holds the ids", hint="rename it")
    cells = cells if same else _renamed(cells, notes)
    if group is not None and group in cells.column_names:
        # refused where floats are too large to tell patients apart
        faithful_texts(cells[group], group)
    if not same:
        cells = stored_columns(cells, declared, group, notes, spelled=spelled) if cells.num_columns else cells
        cells = _own(cells, ids)
    whole = pa.table({ID: ids, **_columns(cells)})
    for column in [*([group] if group else []), *declared]:
        if column not in whole.column_names:
            raise UsageError(f"there is no column {column!r}", hint=f"the columns are {', '.join(whole.column_names)}")
    kept: Dtype = dtype or (noted.dtype if noted is not None and same else "float32")
    as_stored = same and noted is not None and kept == noted.dtype
    _require_finite(numbers, whole, kept, cosine=info.similarity == "cosine" and not as_stored)
    # whom its head was fitted on goes where the vectors go
    files = noted.files if noted is not None and same else {} if loaded is None else loaded.files
    _write(folder, str(path), info, group, kept, whole, numbers, noted, files, as_stored=as_stored)
    return loaded, notes


def _numbers(vectors: Any) -> NDArray[Any]:
    """Return the vectors, from a file without reading them; `UsageError` where they are no rows of floats."""
    called = "the vectors"
    if isinstance(vectors, str | Path):
        file, called = home(vectors), f"{str(vectors)!r}"
        try:
            there = is_regular(file.stat())
        except OSError:
            there = False
        if not there:
            raise UsageError(f"there is no file {str(vectors)!r}", hint="give the vectors as a .npy file")
        try:
            vectors = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            vectors = None
        if not isinstance(vectors, np.ndarray):
            raise UsageError(f"{called} cannot be read as .npy", hint="write it with numpy.save, as an array of floats")
    try:
        numbers = plain_array(vectors)
    except (TypeError, ValueError):
        raise UsageError("the vectors are no array", hint="give floats of the shape (n, dim)") from None
    if numbers.ndim != 2 or 0 in numbers.shape:
        raise UsageError(f"{called} must have the shape (n, dim), got {numbers.shape}")
    if numbers.dtype.kind != "f":
        raise UsageError(f"{called} must be floats, got {numbers.dtype}", hint="convert them with .astype('float32')")
    return numbers


def _cells(table: Any, id_column: str | None) -> tuple[pa.Table, str, bool]:
    """Return a table, the column of its ids, and whether its cells are texts to be read."""
    if is_file(table):
        return read_cells(home(os.fsdecode(table)), id_column or ID)
    raw = arrow_table(table)
    key = id_column or ID
    if key not in raw.column_names:
        raise UsageError(f"the table has no column {key!r}", hint=f"the columns are {', '.join(raw.column_names)}")
    return raw, key, False


def _ids(column: pa.ChunkedArray, called: str) -> pa.ChunkedArray:
    """Return ids as text; `UsageError` where one is missing or stands twice."""
    if pa.types.is_floating(column.type):
        raise UsageError(f"the column {called!r} holds floats, which are no ids", hint="give them as text")
    texts = identifier_texts(column, called)
    empty = pc.or_kleene(pc.is_null(texts), pc.equal(pc.utf8_trim_whitespace(texts), "")).to_numpy()
    if empty.any():
        raise UsageError(f"row {int(np.flatnonzero(empty)[0])} has no id", hint="every row needs one")
    counts = pc.value_counts(texts)
    double = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(double):
        raise UsageError(f"the id {double[0]['values'].as_py()!r} stands twice", hint="ids are unique")
    return texts


def _exported(raw: pa.Table) -> _Exported | None:
    """Read the note of an export, where the table has one."""
    text = (raw.schema.metadata or {}).get(EXPORT_NOTE)
    if text is None:
        return None
    try:
        note = Fields(parse_json(text))
        return _Exported(
            encoder=EncoderInfo.from_json(note.inner("encoder").data()),
            dtype=note.choice("dtype", ("float32", "float16")),
            group=note.text("group") if note.has("group") else None,
            identifiers=note.inner("identifiers").data() if note.has("identifiers") else None,
            vectors=note.text("vectors"),
            ids=note.text("ids"),
            files={HEAD_FILE: base64.b64decode(note.text("head"))} if note.has("head") else {},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(
            "what the table says of its export cannot be read",
            hint="write the table again without its schema's metadata",
        ) from None


def _info(
    encoder: str | BaseEncoder | EncoderInfo | None,
    fingerprint: str | None,
    similarity: Similarity | None,
    dim: int,
    noted: _Exported | None,
    options: Mapping[str, Any],
) -> tuple[EncoderInfo, BaseEncoder | None]:
    """Return whose vectors they are, and the encoder where it is at hand."""
    loaded = encoder if isinstance(encoder, BaseEncoder) else None
    by_name = isinstance(encoder, str) and fingerprint is None and is_registered(encoder)
    unused = [] if by_name else sorted(options.keys() - {"device", "precision"})
    if unused:
        raise UsageError(f"there is no option {unused[0]!r} for vectors of an encoder that is not loaded by its name")
    if noted is not None and (encoder is None or encoder == noted.encoder.name) and fingerprint is None:
        info = noted.encoder
    elif encoder is None:
        raise UsageError(
            "nothing says which model the vectors are of",
            hint="name an encoder of `retr encoders ls`, or give your own name for it and a fingerprint",
        )
    elif isinstance(encoder, str) and (fingerprint is not None or not is_registered(encoder)):
        info = outside_info(encoder, fingerprint, dim=dim, similarity=similarity or "cosine")
    else:
        loaded = load_encoder(encoder, **options) if isinstance(encoder, str) else loaded
        info = _identity(encoder if loaded is None else loaded.info)
        if fingerprint is not None:
            raise UsageError("a fingerprint is for a model that is given by name alone", hint="leave it out")
    if noted is not None and not info.agrees_with(noted.encoder):
        raise UsageError(f"the vectors were exported from an index of {noted.encoder.name!r}, got: {info.name!r}")
    if info.dim != dim:
        raise UsageError(f"vectors of {info.name!r} have {info.dim} numbers, got {dim}")
    if similarity not in {None, info.similarity}:
        raise UsageError(f"vectors of {info.name!r} are compared by {info.similarity!r}, got: {similarity!r}")
    return info, loaded


def _identity(given: Any) -> EncoderInfo:
    if isinstance(given, EncoderInfo):
        return given
    require_loaded(given, "a name, a loaded encoder or an EncoderInfo")
    info: EncoderInfo = given.info
    return info


def _renamed(cells: pa.Table, notes: list[str]) -> pa.Table:
    """Return a table without the names that an answer needs for itself, as a build stores them."""
    names = list(cells.column_names)
    for at, name in enumerate(cells.column_names):
        if name in ANSWER:
            names[at] = f"{name}_meta"
            while names[at] in cells.column_names:
                names[at] += "_"
            notes.append(f"the column {name!r} is stored as {names[at]!r}")
    return cells.rename_columns(names)


def _own(cells: pa.Table, ids: pa.ChunkedArray) -> pa.Table:
    """Return a table in which the columns that an index has of its own are what it takes them for."""
    for name, kind in _OWN.items():
        if name in cells.column_names and cells.schema.field(name).type not in {kind, pa.null()}:
            raise UsageError(
                f"the column {name!r} is the index's own and holds {kind}, got {cells.schema.field(name).type}",
                hint="rename it",
            )
    return cells if "path" in cells.column_names else pa.table({**_columns(cells), "path": ids})


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))


def _require_finite(numbers: NDArray[Any], table: pa.Table, dtype: str, *, cosine: bool) -> None:
    """Refuse vectors that hold what is no number, or have no direction where that is compared, with the row's id."""
    for start, piece in _pieces(numbers):
        # of unit length they fit any type
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(piece.astype("float32" if cosine else dtype)).all(axis=1)
        what = "holds a value that is not finite"
        if not bad.any() and cosine:
            bad, what = ~piece.astype(np.float32).any(axis=1), "is zero and has no direction"
        if bad.any():
            row = start + int(np.flatnonzero(bad)[0])
            raise UsageError(f"the vector of {table[ID][row].as_py()!r} {what}", hint="leave the row out")


def _write(
    root: Path,
    called: str,
    info: EncoderInfo,
    group: str | None,
    dtype: Dtype,
    table: pa.Table,
    numbers: NDArray[Any],
    noted: _Exported | None,
    files: Mapping[str, bytes],
    *,
    as_stored: bool,
) -> None:
    """Write the index; what was made is removed again where it fails."""
    if Store.exists(root):
        raise RetrError(f"there is an index at {called!r} already", hint="choose another place")
    fresh = not root.exists()
    store = Store.create(root, encoder=replace(info, device="cpu"), group=group, dtype=dtype)
    try:
        with store.writer() as writer:
            if noted is not None and noted.identifiers is not None:
                writer.note(IDENTIFIERS, noted.identifiers)
            for start, piece in _pieces(numbers):
                kept = np.asarray(piece) if as_stored else piece.astype(np.float32)
                writer.append(table.slice(start, len(piece)), kept, as_stored=as_stored)
            for name, data in files.items():
                writer.add_file(name, data)
            writer.commit()
    except BaseException:
        if fresh:
            shutil.rmtree(root, ignore_errors=True)
        raise


def _pieces(numbers: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    for start in range(0, len(numbers), _PIECE):
        yield start, numbers[start : start + _PIECE]
