"""What every encoder shares: one picture in, one row of float32 out.

Encoding has two halves, so that the build pipeline can decode in threads while the network runs:
`BaseEncoder.prepare` turns one RGB picture into the network's input, `BaseEncoder.encode_prepared` turns a
stack of inputs into vectors. `BaseEncoder.encode_images` is the two in a row, from anything that can be read
as a picture.

An encoder is exact about its authors' preprocessing and never normalises: unit vectors are the index's
business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import NoTextSideError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import PIL.Image
    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo


class BaseEncoder(ABC):
    """Base of all encoders.

    Attributes
    ----------
    info
        Who this is (see `EncoderInfo`); goes into the manifest.
    notes
        What the user should be told about this load, one line each: a precision that was given up, a licence
        that forbids commercial use. The command line prints them.
    batch_size
        How many pictures `encode_prepared` takes best at once; any number is accepted.
    """

    info: EncoderInfo
    notes: list[str]
    batch_size: int = 32

    @abstractmethod
    def prepare(self, image: PIL.Image.Image) -> NDArray[Any]:
        """Turn one RGB picture into the network's input, shape ``(c, h, w)``. Called from several threads."""

    @abstractmethod
    def encode_prepared(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed prepared pictures ``(n, c, h, w)``: float32 ``(n, dim)``."""

    def encode_images(self, items: Sequence[Any]) -> NDArray[np.float32]:
        """Embed pictures.

        Parameters
        ----------
        items
            Paths, encoded bytes, PIL images or uint8 arrays ``(h, w)``, ``(h, w, 3)`` or ``(h, w, 4)``, mixed
            as you like.

        Returns
        -------
        NDArray[np.float32]
            Shape ``(n, dim)``, not normalised, in the order of the items.

        Raises
        ------
        ImageReadError
            If an item cannot be read as a picture.
        """
        from retr.retrieval.images import read_image

        vectors = np.empty((len(items), self.info.dim), dtype=np.float32)
        for start in range(0, len(items), self.batch_size):
            pictures = [
                read_image(item, draft_size=self.info.draft_size, grey16=self.info.grey16).image
                for item in items[start : start + self.batch_size]
            ]
            prepared = [self.prepare(picture) for picture in pictures]
            vectors[start : start + len(prepared)] = self._encode_mixed(prepared)
        return vectors

    def _encode_mixed(self, prepared: list[NDArray[Any]]) -> NDArray[np.float32]:
        """Encode inputs that may differ in shape (an encoder that keeps the aspect), stacking equal ones."""
        vectors = np.empty((len(prepared), self.info.dim), dtype=np.float32)
        for shape in {array.shape for array in prepared}:
            rows = [row for row, array in enumerate(prepared) if array.shape == shape]
            vectors[rows] = self.encode_prepared(np.stack([prepared[row] for row in rows]))
        return vectors

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:  # noqa: ARG002
        """Embed texts: float32 ``(n, dim)``, not normalised.

        Raises
        ------
        NoTextSideError
            Where the encoder has no text side.
        """
        raise NoTextSideError(
            f"encoder {self.info.name!r} embeds images only",
            hint="query with an image, or use an encoder that `retr encoders ls` shows with text",
        )

    def patch_embeddings(self, image: PIL.Image.Image) -> NDArray[np.float32] | None:  # noqa: ARG002
        """Embed the places of one RGB picture: float32 ``(h, w, dim)``, or None.

        Comparable with `encode_images`; row-major from the top left of the network's input. None where the
        network keeps no map of places.
        """
        return None

    def __repr__(self) -> str:
        info = self.info
        return f"<{type(self).__name__} {info.name} dim={info.dim} {info.precision} on {info.device}>"
