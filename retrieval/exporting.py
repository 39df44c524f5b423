"""Export vectors and metadata for other programs and for `retr.retrieval.importing`.

As ``npy`` a folder holds ``vectors.npy`` and, row for row, ``metadata.parquet``, whose schema says under `EXPORT_NOTE`
which encoder the vectors are of, and by two hashes that the two files belong together.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa

from retr.index.disk.files import disk_errors
from retr.index.disk.manifest import IDENTIFIERS
from retr.index.disk.schema import ID
from retr.index.errors import UsageError
from retr.index.machine.extras import needed
from retr.index.machine.home import home
from retr.index.machine.whole_file import draft_of
from retr.retrieval.interop.written import as_fiftyone, as_parquet, as_webdataset, with_vectors
from retr.retrieval.labels.trained_rows import HEAD_FILE
from retr.retrieval.transforms.transform import own_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike

EXPORT_NOTE = b"retr"
VECTORS, METADATA = "vectors.npy", "metadata.parquet"
Form: TypeAlias = Literal["npy", "parquet", "lance", "datasets", "webdataset", "fiftyone"]
_WRITERS = {"parquet": as_parquet, "webdataset": as_webdataset}
_PIECE = 20_000


def export(
    index: IndexLike,
    folder: str | Path,
    *,
    where: str | None = None,
    form: Form = "npy",
    label: str | None = None,
) -> int:
    """Write vectors and metadata of all rows, or of those for which ``where`` is true; return how many.

    Vectors are the encoder's own, of unit length where the similarity is cosine. Of an index with a transform they are
    those that it keeps beside, in float16: an index made of them can have the same transform fitted again.

    Parameters
    ----------
    folder
        Is made; must be empty where it is there.
    form
        ``"npy"``: ``vectors.npy`` and ``metadata.parquet``, which `Index.from_vectors` reads again; ``"parquet"``: one
        file; ``"lance"``: a Lance dataset, which LanceDB opens as a table; ``"datasets"``: one of Hugging Face, for
        ``datasets.load_from_disk``, held in memory meanwhile. These three have the vectors in a column ``vector``.
        ``"webdataset"``: tar shards with the pictures, too; ``"fiftyone"``: a folder that FiftyOne imports, with the
        pictures and the classes of ``label`` (`retr.retrieval.interop.written`).
    label
        The column of classes, of ``"fiftyone"``.

    Raises
    ------
    UsageError
        There is something at ``folder``, or no row to write.
    MissingExtraError
        The package of the form is not installed.
    RetrError
        The disk refuses; nothing is left then.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> index.export(index.path.with_name("out"), where="label = 'glaucoma'")
    12
    """
    write = _writer(form, label)
    store, target = index.store, home(folder)
    rows = store.live_rows() if where is None else np.flatnonzero(store.where(where))
    if not len(rows):
        raise UsageError("there is no row to write", hint="see `retr index info`, or ask for others with where")
    with disk_errors("looking at the folder to write"):
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise UsageError(f"there is something at {str(folder)!r} already", hint="name a folder to be made")
    draft = draft_of(target)
    try:
        with disk_errors("writing the export"):
            draft.parent.mkdir(parents=True, exist_ok=True)
            write(store, rows, draft)
            draft.replace(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return len(rows)


def _writer(form: str, label: str | None) -> Callable[[Store, NDArray[np.int64], Path], None]:
    """Return what writes a form; its package is there."""
    if form not in get_args(Form):
        raise UsageError(f"an export is {', '.join(map(repr, get_args(Form)))}, got: {form!r}")
    if label is not None and form != "fiftyone":
        raise UsageError(f"an export as {form!r} has all columns", hint="leave the label out")
    if form == "npy":
        return _as_npy
    if form == "fiftyone":
        return partial(as_fiftyone, label=label)
    if form in _WRITERS:
        return _WRITERS[form]
    with needed():
        __import__(form)
    return _as_lance if form == "lance" else _as_dataset


def _as_npy(store: Store, rows: NDArray[np.int64], draft: Path) -> None:
    import pyarrow.parquet as pq

    draft.mkdir()
    shape = (len(rows), store.manifest.encoder.own.dim)
    dtype = np.dtype(_dtype(store)).newbyteorder("<")
    vectors = np.lib.format.open_memmap(draft / VECTORS, mode="w+", dtype=dtype, shape=shape)
    for start, piece in _pieces(rows):
        vectors[start : start + len(piece)] = own_vectors(store, piece)
    vectors.flush()
    ids = (text for _, piece in _pieces(rows) for text in store.table([ID], piece)[ID].to_pylist())
    schema = store.schema.with_metadata({EXPORT_NOTE: json.dumps(_note(store, vectors, ids)).encode()})
    with pq.ParquetWriter(draft / METADATA, schema, compression="zstd") as writer:
        for _, piece in _pieces(rows):
            writer.write_table(store.table(rows=piece).cast(schema))


def _note(store: Store, vectors: NDArray[Any], ids: Iterator[str]) -> dict[str, Any]:
    manifest = store.manifest
    return {
        "encoder": manifest.encoder.own.to_json(),
        "dtype": _dtype(store),
        "group": manifest.group,
        "identifiers": manifest.extra.get(IDENTIFIERS),
        "vectors": digest_of_vectors(vectors),
        "ids": digest_of_ids(ids),
        # an adapted index: new pictures go through it, and it knows whom it was fitted on
        **({"head": base64.b64encode(store.file(HEAD_FILE)).decode()} if HEAD_FILE in manifest.files else {}),
    }


def digest_of_vectors(vectors: NDArray[Any]) -> str:
    """Hash an array, its type and its shape."""
    digest = hashlib.sha256(f"{vectors.dtype.newbyteorder('<').str} {vectors.shape}".encode())
    for start in range(0, len(vectors), _PIECE):
        digest.update(np.ascontiguousarray(vectors[start : start + _PIECE], vectors.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def digest_of_ids(ids: Iterator[str] | Sequence[str]) -> str:
    """Hash ids in their order."""
    digest = hashlib.sha256()
    for text in ids:
        digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _as_lance(store: Store, rows: NDArray[np.int64], draft: Path) -> None:
    import lance

    schema = with_vectors(store, rows[:0]).schema
    batches = (batch for _, piece in _pieces(rows) for batch in with_vectors(store, piece).to_batches())
    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches), str(draft), schema=schema)


def _as_dataset(store: Store, rows: NDArray[np.int64], draft: Path) -> None:
    import datasets

    shown = datasets.is_progress_bar_enabled()
    # it would draw its own on standard error, whoever reads that
    datasets.disable_progress_bars()
    try:
        datasets.Dataset(datasets.table.InMemoryTable(with_vectors(store, rows))).save_to_disk(str(draft))
    finally:
        if shown:
            datasets.enable_progress_bars()


def _dtype(store: Store) -> str:
    return store.manifest.dtype if store.manifest.encoder.transform is None else "float16"


def _pieces(rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    for start in range(0, len(rows), _PIECE):
        yield start, rows[start : start + _PIECE]
