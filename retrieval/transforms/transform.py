"""The transform of an index: behind its encoder, in front of everything that is compared with its rows.

An index with a transform keeps, beside the vectors that are searched, its features: the encoder's own vectors, of unit
length, in float16. Whatever goes through the transform is such a feature first, a stored row, an appended one and a
question alike, so that the same picture has the same bits however it comes.

Of fewer numbers than the encoder's own, a vector tells by its length in which of the two spaces it lies.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.disk.npz import numbers, read_npz
from retr.index.encoder import TransformInfo
from retr.index.json_fields import stored
from retr.index.vectors import unit
from retr.retrieval.encoders.base import BaseEncoder
from retr.retrieval.transforms.whitening import Whitening

if TYPE_CHECKING:
    from collections.abc import Sequence

    import PIL.Image
    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo
    from retr.index.rows.snapshot import Snapshot

#: The file of the numbers, the note beside them, the row array of features, and what a transform is called.
FILE, NOTE, FEATURES, WHITENING = "transform.npz", "transform", "features", "whitening"


@dataclass(frozen=True, eq=False)
class Transform:
    """A fitted transform.

    Attributes
    ----------
    whitening
        The numbers.
    """

    whitening: Whitening

    @property
    def info(self) -> TransformInfo:
        """What an encoder's identity holds of it."""
        return TransformInfo(WHITENING, self.whitening.sha256, len(self.whitening.mean))

    def __call__(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Transform an encoder's own vectors, float ``(n, d)``: float32 ``(n, m)`` of unit length."""
        return self.whitening(features_of(vectors))

    def behind(self, encoder: EncoderInfo) -> EncoderInfo:
        """Return the identity of an encoder followed by this."""
        return replace(encoder.own, dim=self.whitening.dim, transform=self.info)

    def to_bytes(self) -> bytes:
        """Write an ``.npz`` without pickles."""
        sink = io.BytesIO()
        np.savez(sink, mean=self.whitening.mean, weights=self.whitening.weights)
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, encoder: EncoderInfo) -> Transform:
        """Read what `to_bytes` wrote.

        Parameters
        ----------
        encoder
            The identity that it must be part of.

        Raises
        ------
        IndexCorruptError
            It is something else, or another transform.
        """
        with stored("the stored transform"):
            arrays = read_npz(data)
            mean = numbers(arrays, "mean", None, kind=np.float64)
            found = cls(Whitening(mean, numbers(arrays, "weights", len(mean), encoder.dim, kind=np.float64)))
            if found.info != encoder.transform:
                raise ValueError("another transform")
        return found


def features_of(vectors: NDArray[Any]) -> NDArray[np.float16]:
    """Return the features of an encoder's own vectors ``(n, d)``: of unit length, float16; of features themselves."""
    given = np.asarray(vectors)
    features = unit(given).astype(np.float16)
    # scaled once more, the last bits of a feature would change
    with np.errstate(over="ignore"):
        same = np.isclose(np.linalg.norm(given, axis=1), 1, rtol=0, atol=1e-3) & (
            given == given.astype(np.float16)
        ).all(1)
    features[same] = given[same]
    return features


def stored_features(snapshot: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.float16]:
    """Return the features of some rows, int64 ``(n,)``: float16 ``(n, d)``; of an index without a transform, too."""
    if FEATURES in snapshot.manifest.row_arrays:
        return snapshot.array(FEATURES, rows)
    # of unit length already: once more would change their last bits
    return snapshot.vectors(rows).astype(np.float16)


def own_vectors(snapshot: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.float32] | NDArray[np.float16]:
    """Return the encoder's own vectors of some rows, int64 ``(n,)``: what tells copies, and what others fit on."""
    return snapshot.array(FEATURES, rows) if FEATURES in snapshot.manifest.row_arrays else snapshot.vectors(rows)


def find_transform(snapshot: Snapshot) -> Transform | None:
    """Read the transform of an index; ``None`` where it has none.

    Raises
    ------
    IndexCorruptError
        It cannot be read, or is not the one of the index's vectors.
    """
    encoder = snapshot.manifest.encoder
    if encoder.transform is None:
        return None

    def read() -> Transform:
        with stored("the index's transform"):
            data = snapshot.file(FILE)
        return Transform.from_bytes(data, encoder)

    found: Transform = snapshot.once("transform", read)
    return found


class TransformedEncoder(BaseEncoder):
    """An encoder followed by an index's transform: images only, cosine."""

    def __init__(self, base: BaseEncoder, transform: Transform) -> None:
        self.inner, self.transform = base, transform
        self.notes = base.notes
        self.batch_size, self.batch_invariant = base.batch_size, base.batch_invariant
        self.info = transform.behind(base.info)

    def survives_fork(self) -> bool:
        """Return whether the base encoder does."""
        return self.inner.survives_fork()

    def prepare(self, image: PIL.Image.Image) -> NDArray[Any]:
        """Turn one RGB picture into the base network's input."""
        return self.inner.prepare(image)

    def compact(self, image: PIL.Image.Image) -> NDArray[Any]:
        """Prepare one picture as the base network does, in few bytes."""
        return self.inner.compact(image)

    def stack(self, inputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Stack prepared pictures as the base network wants them."""
        return self.inner.stack(inputs)

    def encode_prepared(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed prepared pictures: float32 ``(n, dim)``."""
        return self.transform(self.inner.encode_prepared(batch))

    def patch_embeddings(self, image: PIL.Image.Image) -> NDArray[np.float32] | None:
        """Embed the patches of one RGB picture where the base encoder does: float32 ``(h, w, dim)``."""
        patches = self.inner.patch_embeddings(image)
        if patches is None:
            return None
        return self.transform(patches.reshape(-1, patches.shape[-1])).reshape(*patches.shape[:2], -1)

    def place_descriptors(self, image: PIL.Image.Image) -> NDArray[np.float32] | None:
        """Describe the places of one RGB picture as the base encoder does: they are compared with each other only."""
        return self.inner.place_descriptors(image)


def without_transform(encoder: BaseEncoder) -> BaseEncoder:
    """Return an encoder as its authors made it."""
    return encoder.inner if isinstance(encoder, TransformedEncoder) else encoder


def with_transform(snapshot: Snapshot, encoder: BaseEncoder) -> BaseEncoder:
    """Return an index's encoder, followed by the index's transform where it has one."""
    transform = find_transform(snapshot)
    return encoder if transform is None else TransformedEncoder(encoder, transform)
