"""An encoder as a package of one file: ``pip install examples/my_encoder``, then ``--encoder my-encoder``."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from retr.encoders import BaseEncoder, Card, EncoderInfo, Spec

if TYPE_CHECKING:
    import PIL.Image
    from numpy.typing import NDArray

CARD = Card("my-encoder", "Colours of a 4 x 4 grid.", "any", 48, text=False, licence="Apache-2.0", source="its folder")


class Grid(BaseEncoder):
    """The colours of a 4 x 4 grid of each picture."""

    def __init__(self, info: EncoderInfo) -> None:
        self.info = info
        self.notes = []

    def prepare(self, image: PIL.Image.Image) -> NDArray[np.float32]:
        """Return the colours of the grid, float32 ``(3, 4, 4)``."""
        return np.asarray(image.resize((4, 4)), np.float32).transpose(2, 0, 1)

    def encode_prepared(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a vector a picture, float32 ``(n, 48)``."""
        return batch.reshape(len(batch), -1)


def load(*, device: str = "auto", precision: str = "auto") -> BaseEncoder:
    """Load it; this one has no weights to look for, and runs on the CPU in float32 whatever is asked."""
    del device, precision
    weights = hashlib.sha256(b"4x4, version 1").hexdigest()
    return Grid(CARD.info(dim=48, similarity="cosine", text=False, weights_sha256=weights, preprocessing="4x4 bicubic"))


# what pyproject.toml names in the entry-point group `retr.encoders`
SPEC = Spec(CARD, load, available=lambda: True)
