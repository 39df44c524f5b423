"""Encoders for protocol builds: several side by side from one decode, or the mean of patch tokens."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.encoders.base import BaseEncoder
from retr.retrieval.encoders.runtime.batches import encode_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import PIL.Image
    from numpy.typing import NDArray

# The option in which the index of a bench records its encoders.
SIDE_BY_SIDE = "side_by_side"


class SideBySide(BaseEncoder):
    """Several encoders of the same picture, their vectors one behind the other, as they come.

    Parameters
    ----------
    encoders
        All read pictures in the same way (``draft_size``, ``grey16``). Each embeds in batches of its own.

    Raises
    ------
    UsageError
        They read pictures in different ways.
    """

    batch_invariant = True  # each fills up its own batches

    def __init__(self, encoders: Sequence[BaseEncoder]) -> None:
        infos = [encoder.info for encoder in encoders]
        if len({(info.draft_size, info.grey16) for info in infos}) > 1:
            raise UsageError(
                f"encoders {', '.join(info.name for info in infos)} read pictures differently",
                hint="measure them one at a time",
            )
        self.encoders = tuple(encoders)
        self.notes = list(dict.fromkeys(note for encoder in encoders for note in encoder.notes))
        self.batch_size = min(encoder.batch_size for encoder in encoders)
        self.info = replace(
            infos[0],
            dim=sum(info.dim for info in infos),
            similarity="dot",
            text=False,
            weights_sha256=_digest([info.weights_sha256 for info in infos]),
            config_sha256=_digest([info.config_sha256 or "" for info in infos]) or None,
            text_sha256=None,
            preprocessing=" | ".join(info.preprocessing for info in infos),
            options={SIDE_BY_SIDE: json.dumps([[info.name, info.dim, dict(info.options)] for info in infos])},
            logit_scale=None,
        )

    def place(self, encoder: BaseEncoder) -> slice:
        """Return which dimensions are of one of the encoders."""
        at = next(number for number, one in enumerate(self.encoders) if one is encoder)
        start = sum(one.info.dim for one in self.encoders[:at])
        return slice(start, start + encoder.info.dim)

    def prepare(self, image: PIL.Image.Image) -> NDArray[Any]:
        """Prepare one picture for each encoder: an array of one object, the tuple of their inputs."""
        prepared = np.empty((), dtype=object)
        prepared[()] = tuple(encoder.compact(image) for encoder in self.encoders)
        return prepared

    def encode_prepared(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed prepared pictures ``(n,)``: float32 ``(n, dim)``."""
        return self.encode_and_score(batch, ())[0]

    def encode_and_score(
        self, batch: NDArray[Any], findings: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embed prepared pictures, and let the first encoder score findings: float32 ``(n, len(findings))``."""
        found = []
        scores = np.empty((len(batch), 0), np.float32)
        for number, encoder in enumerate(self.encoders):
            vectors, asked = encode_batch(encoder, [inputs[number] for inputs in batch], () if number else findings)
            found.append(vectors)
            scores = scores if number else asked
        return np.concatenate(found, axis=1), scores


class PatchMeans(BaseEncoder):
    """The mean of an encoder's patch tokens as the vector of a picture."""

    batch_invariant = True

    def __init__(self, encoder: BaseEncoder, dim: int) -> None:
        self._encoder = encoder
        self.notes = encoder.notes
        self.batch_size = encoder.batch_size
        self.info = replace(
            encoder.info, dim=dim, text=False, options={**encoder.info.options, "bench": "mean of patch tokens"}
        )

    def prepare(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Keep the pixels: uint8 ``(h, w, 3)``; the encoder itself prepares them."""
        return np.asarray(image)

    def encode_prepared(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed pictures ``(n, h, w, 3)``, one at a time: float32 ``(n, dim)``."""
        from PIL import Image

        vectors = np.empty((len(batch), self.info.dim), np.float32)
        for row, pixels in enumerate(batch):
            patches = self._encoder.patch_embeddings(Image.fromarray(pixels))
            assert patches is not None  # it gave some for another picture
            vectors[row] = patches.mean((0, 1))
        return vectors


def _digest(parts: Sequence[str]) -> str:
    """Return what stands for several hashes; of one, itself."""
    return parts[0] if len({*parts}) == 1 else hashlib.sha256("|".join(parts).encode()).hexdigest()
