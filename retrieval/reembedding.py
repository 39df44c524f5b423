"""Move an index to another encoder: the same rows, with the vectors of another network.

The pictures are read again from their archive. What is embedded is kept beside the index, in an index of its own at
``NAME.reembed``, so that a run that was stopped goes on; when all rows are there, one commit changes over, and it is
removed. Readers see the vectors of before until then.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.disk.side_data import NewVectors
from retr.index.errors import RetrError, UsageError
from retr.index.rows.check import stale
from retr.index.store import Store
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.encoders.index_encoder import load_recorded
from retr.retrieval.heads.features import embed_again
from retr.retrieval.labels.trained_rows import HEAD_FILE
from retr.retrieval.novelty_renewal import renew
from retr.retrieval.progress import make_progress
from retr.retrieval.transforms.fitting import (
    LEAST_ROWS,
    Transforms,
    Wanted,
    fitted,
    install,
    is_transformed,
    require_transformable,
)
from retr.retrieval.transforms.transform import Transform, stored_features, without_transform
from retr.retrieval.tuning import tune_if_large

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.rows.writer import Writer
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.index_like import IndexLike

# Rows between two commits beside the index, rounded up to whole batches.
_COMMIT_ROWS = 1024
_OF = "reembeds"
_COLUMNS = ("id", "path", "sha256")


@dataclass(frozen=True)
class Reembedded:
    """What `reembed` did.

    Attributes
    ----------
    rows, embedded
        How many rows the index has, and how many of them this run embedded.
    encoder, dim
        The encoder that is searched by now, and the length of its vectors in the index.
    dropped
        The kinds of side data of which something was dropped: made for the vectors of before, it means nothing now.
    stale
        What of the rest is out of date, a phrase each.
    notes
        What a person should know besides, a sentence each.
    """

    rows: int
    embedded: int
    encoder: str
    dim: int
    dropped: tuple[str, ...]
    stale: tuple[str, ...]
    notes: tuple[str, ...] = ()


def reembed(
    index: IndexLike,
    *,
    encoder: str | BaseEncoder | None = None,
    transform: str = "auto",
    progress: bool = False,
    **options: Any,
) -> Reembedded:
    """Embed every row's picture again with another encoder, and change over in one commit.

    Ids, metadata and groups stay. A run that was stopped goes on where it was; readers keep what they see until they
    `refresh`, and no other writer gets in meanwhile.

    Parameters
    ----------
    encoder
        A name of ``retr encoders ls`` or a loaded encoder; by default the one a new index would have.
    transform
        What is put behind it, as in `build`.
    progress
        Show progress on standard error.
    options
        Further options of ``load_encoder``.

    Raises
    ------
    UsageError
        The index is an adapted one, the encoder cannot take the transform, or the index has it with another one.
    RetrError
        A picture can no longer be read: what was embedded so far stays for the next run.

    Examples
    --------
    >>> from retr.sample import sample_encoder, sample_index
    >>> index = sample_index()
    >>> index.reembed(encoder=index.encoder).embedded  # it is of that one already
    0
    """
    if transform not in {"auto", "none", "whitening"}:
        raise UsageError(f"a transform is 'auto', 'none' or 'whitening', got: {transform!r}")
    beside = index.path.with_name(f"{index.path.name}.reembed")
    with index.store.writer() as writer:
        store = writer.store
        if HEAD_FILE in store.manifest.files:
            hint = "move the index it was made from, and adapt that one again"
            raise UsageError("the vectors of an adapted index are led by its head", hint=hint)
        loaded = without_transform(load_recorded(encoder, None, options))
        if transform == "whitening":
            require_transformable(loaded.info)
        scores = BuildNotes.of(store).scores
        if scores and not hasattr(loaded, "encode_and_score"):
            raise UsageError(f"the index scores findings, which the encoder {loaded.info.name!r} does not")
        embedded, lost, kept = 0, [], "none" if Wanted.of(store) is None else "whitening"
        if store.manifest.encoder.own.agrees_with(loaded.info):
            if transform not in {"auto", kept}:
                hint = "`retr index refit` fits one" if kept == "none" else "build a new index without one"
                raise UsageError(
                    f"the index is of this encoder, with the transform {kept!r}, got: {transform!r}", hint=hint
                )
        else:
            embedded = _embed(store, loaded, beside, progress)
            wanted = transform == "whitening" or (transform == "auto" and is_transformed(loaded))
            lost = _change_over(writer, Store.open(beside), Wanted() if wanted else None)
            for name, data in loaded.files.items():
                writer.add_file(name, data)
            store = writer.commit()
            renew(writer)
            store = writer.commit()
        shutil.rmtree(beside, ignore_errors=True)
    index.refresh()
    index.keep_encoder(loaded, options)
    notes = tuple(tune_if_large(index)) if embedded else ()
    store, info = index.store, index.store.manifest.encoder
    return Reembedded(len(store), embedded, info.name, info.dim, tuple(lost), tuple(stale(store)), notes)


def _embed(store: Store, encoder: BaseEncoder, beside: Path, progress: bool) -> int:
    """Embed what is not embedded yet of an index's live rows; return how many rows that were."""
    kept = _opened(store, encoder, beside)
    names = [name for name in _COLUMNS if name in store.schema.names]
    if "path" not in names:
        raise RetrError("the index does not say where its pictures are", hint="build it from its archive")
    live = store.live_rows()
    wanted = store.table(names, live).to_pylist()
    there = {tuple(row.values()): row["id"] for row in kept.table(names).to_pylist()} if len(kept) else {}
    missing = live[[tuple(row.values()) not in there for row in wanted]]
    gone = set(there.values()) - {row["id"] for row in wanted if tuple(row.values()) in there}
    size = -(-_COMMIT_ROWS // encoder.batch_size) * encoder.batch_size
    shown = make_progress(show=progress)
    with kept.writer() as writer, shown:
        shown.total(len(missing))
        if gone:
            writer.delete(kept.rows_of(sorted(gone)))
            writer.commit()
        for start in range(0, len(missing), size):
            rows = missing[start : start + size]
            writer.append(store.table(names, rows), embed_again(store, rows, encoder, progress=False))
            writer.commit()
            shown.step(len(rows))
    return len(missing)


def _opened(store: Store, encoder: BaseEncoder, beside: Path) -> Store:
    """Return the index beside an index, in which this or an earlier run keeps what is embedded."""
    if Store.exists(beside):
        kept = Store.open(beside)
        if kept.manifest.extra.get(_OF) == store.uuid and kept.manifest.encoder.agrees_with(encoder.info):
            return kept
    if beside.exists() and not Store.exists(beside):
        raise RetrError(f"there is something at {beside.name!r}, beside the index", hint="move it away")
    shutil.rmtree(beside, ignore_errors=True)
    kept = Store.create(beside, encoder=encoder.info, dtype=store.manifest.dtype)
    with kept.writer() as writer:
        writer.note(_OF, store.uuid)
        return writer.commit()


def _change_over(writer: Writer[Store], kept: Store, wanted: Wanted | None) -> list[str]:
    """Set an index's rows to the vectors that are kept beside it, through a transform of them where wanted.

    Deleted rows get none.
    """
    store = writer.store
    place = np.full(store.n_total, -1, np.int64)
    live = store.live_rows()
    place[live] = kept.rows_of(store.ids(live))
    transform: Transform | None = None
    if wanted is not None and len(live) >= LEAST_ROWS:
        transform, wanted = fitted(kept, kept.live_rows(), wanted)

    def lines(rows: NDArray[np.int64], of: Any, dim: int, dtype: Any) -> NDArray[Any]:
        found = np.zeros((len(rows), dim), dtype)
        here = place[rows] >= 0
        found[here] = of(place[rows[here]])
        return found

    own = kept.manifest.encoder
    if transform is None:
        new = NewVectors(own, lambda rows: lines(rows, kept.vectors, own.dim, np.float32))
    else:
        info, led = transform.behind(own), transform.whitening

        def vectors(at: NDArray[np.int64]) -> NDArray[np.float32]:
            return led(stored_features(kept, at))

        new = NewVectors(info, lambda rows: lines(rows, vectors, info.dim, np.float32))
    lost = [kind for kind in writer.replace_vectors(new) if kind != Transforms.name]
    if wanted is not None:

        def features(rows: NDArray[np.int64]) -> NDArray[np.float16]:
            return lines(rows, lambda at: stored_features(kept, at), own.dim, np.float16)

        install(writer, transform, wanted, features, own.dim)
    return lost
