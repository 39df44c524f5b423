"""The raw vectors of rows: what the encoder made of their pictures, before anything was fitted on the archive.

Whoever asks whether two pictures are alike for themselves (copies, outliers), or unlike all others, compares these.
Vectors that were fitted on an archive tell how its rows differ from each other, and stretch the little in which they
do: behind a transform an X-ray lies as near to fundus photographs as these to each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.scan import exact
from retr.index.scatter import gather, merge
from retr.index.types import Ask
from retr.index.vectors import unit
from retr.retrieval.encoders.index_encoder import RecordedEncoder
from retr.retrieval.transforms.transform import (
    FEATURES,
    TransformedEncoder,
    find_transform,
    own_vectors,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.encoder import Encoder
    from retr.index.rows.snapshot import Snapshot
    from retr.index.scatter import Span
    from retr.index.store import Store
    from retr.index.types import Neighbours

# Of a feature's length: rounding to float16 moves it by less.
_LONGEST = 1.001


def raw_vectors(store: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the raw vectors of some rows, of unit length: float32 ``(n, d)``."""
    return unit(own_vectors(store, rows))


def searches_raw(store: Snapshot) -> bool:
    """Return whether the index's own search compares raw vectors, by their cosine."""
    return store.manifest.encoder.similarity == "cosine" and store.manifest.encoder.transform is None


def encode_raw(encoder: Encoder, images: Sequence[Any]) -> NDArray[np.float32]:
    """Return the raw vectors of pictures, by the encoder of an index, of unit length: float32 ``(n, d)``."""
    return unit(encode_own(encoder, images))


def encode_own(encoder: Encoder, images: Sequence[Any]) -> NDArray[np.float32]:
    """Embed pictures by the encoder of an index, as its authors made it: float32 ``(n, d)``."""
    loaded = encoder.load() if isinstance(encoder, RecordedEncoder) else encoder
    own = loaded.inner if isinstance(loaded, TransformedEncoder) else loaded
    return own.encode_images(images)


def placed(store: Snapshot, own: NDArray[Any]) -> NDArray[Any]:
    """Return where the encoder's own vectors ``(n, d)`` lie among an index's rows: ``(n, dim)``."""
    transform = find_transform(store)
    return own if transform is None else transform(own)


def nearest_own(
    store: Store,
    queries: NDArray[Any],
    exclude: Sequence[NDArray[np.int64]] | NDArray[np.int64],
    *,
    k: int = 1,
    among: NDArray[np.bool_] | None = None,
    exactly: bool = True,
) -> Neighbours:
    """Find the rows nearest to each query by the encoder's own vectors.

    Parameters
    ----------
    queries
        Floats ``(n, d)``: own vectors of rows (`own_vectors`) or of pictures (`encode_own`).
    exclude
        For each query, int64 row numbers that are not looked at.
    k
        How many of each.
    among
        bool ``(n_total,)``: the rows that are looked at; by default all live ones.
    exactly
        Whether accelerators, which an index has of what it searches, may not propose the row.
    """
    asked = np.asarray(queries, np.float32)
    if store.manifest.encoder.transform is None:
        return store.search(asked, k, mask=among, exclude=list(exclude), exact=exactly)
    left_out = [np.unique(rows) for rows in exclude]
    if store.remote is not None:

        def part(span: Span) -> _Own:
            return _Own(asked, [span.rows(rows) for rows in left_out], k, span.mask(among))

        return merge(store, gather(store, part, partial=False), Ask(k, None, [], None, None))
    if among is None and len(store) < store.n_total:
        among = store.alive()
    ask = Ask(
        k=k,
        allowed=among,
        exclude=left_out,
        one_per=None,
        min_score=None,
    )
    # features are mapped, and read block by block
    return exact.search(store.blocks(FEATURES), unit(asked), ask, max_norm=_LONGEST, cosine=True, ids_of=store.ids)


@dataclass(frozen=True)
class _Own:
    """What `nearest_own` is asked of one shard that is held elsewhere."""

    queries: NDArray[np.float32]
    exclude: list[NDArray[np.int64]]
    k: int
    among: NDArray[np.bool_] | None

    def answer(self, shard: Store) -> Neighbours:
        return nearest_own(shard, self.queries, self.exclude, k=self.k, among=self.among)
