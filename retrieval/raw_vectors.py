"""The raw vectors of rows: what the encoder made of their pictures, before anything was fitted on the archive.

Whoever asks whether two pictures are alike for themselves (copies, outliers) compares these. Vectors that were fitted
on an archive tell how its rows differ from each other, and stretch the little in which they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot

# The row array that holds them, and the kind of side data it is of, where the index is searched by other vectors.
_FEATURES, _KIND = "features", "transform"


def raw_vectors(store: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the raw vectors of some rows, of unit length: float32 ``(n, d)``."""
    return unit_rows(store.array(_FEATURES, rows) if _has_features(store) else store.vectors(rows))


def searches_raw(store: Snapshot) -> bool:
    """Return whether the index's own search compares raw vectors, by their cosine."""
    return store.manifest.encoder.similarity == "cosine" and not _has_features(store)


def encode_raw(encoder: Any, images: Sequence[Any]) -> NDArray[np.float32]:
    """Return the raw vectors of pictures, by the encoder of an index, of unit length: float32 ``(n, d)``."""
    return unit_rows(getattr(encoder, "inner", encoder).encode_images(images))


def unit_rows(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return vectors ``(n, d)`` of length one, float32; those of length zero stay."""
    exact = vectors.astype(np.float32)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.asarray(exact / np.maximum(norms, np.float32(1e-12)))


def _has_features(store: Snapshot) -> bool:
    array = store.manifest.row_arrays.get(_FEATURES)
    return array is not None and array.kind == _KIND
