"""The raw vectors of rows: what the encoder made of their pictures, before anything was fitted on the archive.

Whoever asks whether two pictures are alike for themselves (copies, outliers) compares these. Vectors that were fitted
on an archive tell how its rows differ from each other, and stretch the little in which they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retr.index.vectors import unit
from retr.retrieval.transforms.transform import own_vectors, without_transform

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot
    from retr.retrieval.encoders.base import BaseEncoder


def raw_vectors(store: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the raw vectors of some rows, of unit length: float32 ``(n, d)``."""
    return unit(own_vectors(store, rows))


def searches_raw(store: Snapshot) -> bool:
    """Return whether the index's own search compares raw vectors, by their cosine."""
    return store.manifest.encoder.similarity == "cosine" and store.manifest.encoder.transform is None


def encode_raw(encoder: BaseEncoder, images: Sequence[Any]) -> NDArray[np.float32]:
    """Return the raw vectors of pictures, by the encoder of an index, of unit length: float32 ``(n, d)``."""
    return unit(without_transform(encoder).encode_images(images))
