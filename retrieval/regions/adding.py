"""Add regions to an index that was built without: its pictures are read again, and their parts alone are embedded.

What is embedded is kept beside the index, in ``NAME.regions``, a file for some rows that is named by what it was made
from: a run that was stopped goes on with what is there. One commit changes over, after which the folder is removed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retr.index.errors import RetrError, UsageError
from retr.index.scan.processor import threads
from retr.retrieval.archive.locations import Archive
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.archive.row_pictures import picture_in
from retr.retrieval.encoders.runtime.batches import encode_batch
from retr.retrieval.labels.trained_rows import HEAD_FILE
from retr.retrieval.progress import make_progress
from retr.retrieval.regions.declaring import require_compared
from retr.retrieval.regions.kind import Regions, placed, quantised
from retr.retrieval.regions.layout import NOTE, OWN_REGIONS, REGIONS, Layout, choose
from retr.retrieval.transforms.fitting import Wanted
from retr.retrieval.transforms.transform import find_transform, without_transform
from retr.retrieval.transforms.whitening import DIM

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.rows.writer import Writer
    from retr.index.store import Store
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.index_like import IndexLike

# Rows whose regions one file holds.
_AT_ONCE = 64


class Divided(NamedTuple):
    """What `add_regions` did: how the pictures are divided, into how many parts, and how many rows it embedded."""

    division: str
    regions: int
    rows: int
    embedded: int


def add_regions(index: IndexLike, division: str, *, progress: bool = False) -> Divided:
    """Embed the regions of every row's picture, and put them beside its vector in one commit.

    Vectors of whole pictures stay as they are. A run that was stopped goes on where it was.

    Parameters
    ----------
    division
        ``"grid"`` or ``"multiscale"``, as in `build`; other regions than these are replaced.
    progress
        Show progress on standard error.

    Raises
    ------
    UsageError
        There is no such division, or the index is an adapted one or compares by the dot product.
    RetrError
        A picture can no longer be read, or its file has changed: what was embedded so far stays for the next run.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> index.add_regions("grid").regions
    9
    >>> hits = index.search(id="healthy/P01-left.png", in_regions=True, k=1)
    >>> len(hits[0].region)
    4
    """
    beside = index.path.with_name(f"{index.path.name}.regions")
    with index.store.writer() as writer:
        store = writer.store
        if HEAD_FILE in store.manifest.files:
            hint = "give regions to the index that it was made from"
            raise UsageError("the vectors of an adapted index are led by its head", hint=hint)
        encoder = without_transform(index.encoder)
        require_compared(encoder, division)
        layout, before = _chosen(store, division), Layout.of(store)
        embedded = 0
        if before != layout:
            with make_progress(show=progress) as shown:
                shown.total(len(store))
                files, embedded = _embedded(store, layout, encoder, beside, shown.step)
            _change_over(writer, layout, files)
            writer.commit()
        shutil.rmtree(beside, ignore_errors=True)
        rows = len(writer.store)
    index.refresh()
    return Divided(layout.division, len(layout.boxes), rows, embedded)


def _chosen(store: Store, division: str) -> Layout:
    info, wanted = store.manifest.encoder, Wanted.of(store)
    dim = None if wanted is None else min(wanted.dim or DIM, info.own.dim)
    dim = dim if info.transform is None else info.dim
    return choose(division, own_dim=info.own.dim, dim=dim, vector_bytes=np.dtype(store.manifest.dtype).itemsize)


def _embedded(
    store: Store, layout: Layout, encoder: BaseEncoder, beside: Path, step: Any
) -> tuple[list[tuple[NDArray[np.int64], Path]], int]:
    """Return the live rows, some at a time, with the files of their regions, and how many rows were embedded now."""
    live = store.live_rows()
    names = [name for name in ("id", "path", "sha256") if name in store.schema.names]
    if "path" not in names:
        raise RetrError("the index does not say where its pictures are", hint="build it from its archive")
    read, made = _Reader(store, layout, encoder), [layout.to_json(), repr(encoder.info)]
    files, embedded = [], 0
    beside.mkdir(exist_ok=True)
    with ThreadPoolExecutor(threads()) as pool:
        for start in range(0, len(live), _AT_ONCE):
            rows = live[start : start + _AT_ONCE]
            items = store.table(names, rows).to_pylist()
            known = hashlib.sha256(json.dumps([made, items], sort_keys=True).encode()).hexdigest()
            file = beside / f"{known[:32]}.npy"
            if not file.exists():
                inputs = [part for parts in pool.map(read, items) for part in parts]
                size = encoder.batch_size
                some = [encode_batch(encoder, inputs[at : at + size])[0] for at in range(0, len(inputs), size)]
                partly = file.with_suffix(".part")
                with partly.open("wb") as stream:
                    np.save(stream, quantised(np.concatenate(some)).reshape(len(rows), -1))
                partly.replace(file)
                embedded += len(rows)
            files.append((rows, file))
            step(len(rows))
    return files, embedded


class _Reader:
    """From a row to the network's inputs of its regions; safe to call from several threads."""

    def __init__(self, store: Store, layout: Layout, encoder: BaseEncoder) -> None:
        self._archive, self._notes = Archive(store), BuildNotes.of(store)
        self._layout, self._encoder = layout, encoder

    def __call__(self, item: dict[str, Any]) -> list[NDArray[Any]]:
        name = item["id"]
        try:
            data = self._archive.read(item["path"])
            _require_same(data, item)
            picture = picture_in(data, name, self._notes, draft_size=None, grey16=self._encoder.info.grey16)
        except RetrError as error:
            hint = error.hint or "bring its archive back to where it was"
            raise RetrError(f"the picture of {name!r} cannot be read again: {error.message}", hint=hint) from None
        return [self._encoder.compact(part) for part in self._layout.crops(picture.image)]


def _require_same(data: bytes, item: dict[str, Any]) -> None:
    if item.get("sha256") not in {None, hashlib.sha256(data).hexdigest()}:
        said = "the file has changed since it was embedded"
        raise RetrError(said, hint="bring the index up to date: `retr index build`")


def _change_over(writer: Writer[Store], layout: Layout, files: list[tuple[NDArray[np.int64], Path]]) -> None:
    """Put the regions in the draft, in place of others; those of deleted rows are zeros."""
    store, kind = writer.store, Regions()
    dim, own = store.manifest.encoder.dim, store.manifest.encoder.own.dim
    count, transform = len(layout.boxes), find_transform(store)
    place = np.full(store.n_total, -1, np.int64)
    for number, (rows, _) in enumerate(files):
        place[rows] = number * _AT_ONCE + np.arange(len(rows))

    def own_lines(rows: NDArray[np.int64]) -> NDArray[np.int8]:
        found = np.zeros((len(rows), count * own), np.int8)
        at = place[rows]
        for number in np.unique(at[at >= 0] // _AT_ONCE).tolist():
            mine = np.flatnonzero((at >= 0) & (at // _AT_ONCE == number))
            found[mine] = np.load(files[number][1])[at[mine] % _AT_ONCE]
        return found

    def led_lines(rows: NDArray[np.int64]) -> NDArray[np.int8]:
        assert transform is not None
        return placed(own_lines(rows).reshape(len(rows), count, -1), transform).reshape(len(rows), -1)

    for name in (REGIONS, OWN_REGIONS):
        writer.remove_array(name)
    writer.note(NOTE, layout.to_json(), kind=kind)
    add = partial(writer.add_array, kind=kind, dtype="int8")
    if transform is not None:
        add(REGIONS, dim=count * dim, fill=led_lines)
    if transform is None or layout.kept:
        add(OWN_REGIONS, dim=count * own, fill=own_lines)
