"""Search with an encoder of one's own, a function or a class: ``python examples/own_encoder.py``."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retr import Index, RetrError
from retr.encoders import BaseEncoder, Card, EncoderInfo, Spec, compare, from_callable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import PIL.Image
    from numpy.typing import NDArray

ARCHIVE = Path(__file__).parent / "hrf45"


def colours(pictures: Sequence[PIL.Image.Image]) -> NDArray[np.float32]:
    """Return the colours of a 4 x 4 grid of each picture, float32 ``(n, 48)``."""
    small = [np.asarray(picture.resize((4, 4)), np.float32) for picture in pictures]
    return np.stack(small).reshape(len(small), -1)


class Grid(BaseEncoder):
    """The same as a class."""

    def __init__(self, info: EncoderInfo) -> None:
        self.info = info
        self.notes = []

    def prepare(self, image: PIL.Image.Image) -> NDArray[np.float32]:
        """Return the colours of the grid, float32 ``(3, 4, 4)``."""
        return np.asarray(image.resize((4, 4)), np.float32).transpose(2, 0, 1)

    def encode_prepared(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a vector a picture, float32 ``(n, 48)``."""
        return batch.reshape(len(batch), -1)


CARD = Card("grid", "Colours of a grid.", "any", 48, text=False, licence="Apache-2.0", source="examples/own_encoder.py")


def load(*, device: str = "auto", precision: str = "auto") -> BaseEncoder:
    """Return the encoder; it has no weights to look for, and runs on the CPU in float32 whatever is asked."""
    del device, precision
    weights = hashlib.sha256(b"4x4, version 1").hexdigest()
    return Grid(CARD.info(dim=48, similarity="cosine", text=False, weights_sha256=weights, preprocessing="4x4 bicubic"))


# a package names this in the entry-point group `retr.encoders`; then `retr index build --encoder grid` finds it
SPEC = Spec(CARD, load, available=lambda: True)


def main(path: Path) -> None:
    """Build an index at ``path`` with the function as its encoder, and ask it with and without."""
    encoder: BaseEncoder = from_callable(colours, dim=48, name="colours", fingerprint="4x4, version 1")
    index = Index.build(ARCHIVE, path, encoder=encoder)
    print(index.search(image=ARCHIVE / "glaucoma/05_g.jpg", k=3).ids)

    opened = Index.open(path)
    print(opened.search(id="glaucoma/05_g.jpg", k=3).ids)
    try:
        opened.search(image=ARCHIVE / "glaucoma/05_g.jpg")
    except RetrError as error:
        print(error)

    index = Index.build(ARCHIVE, path.with_name("grid.retr"), encoder=SPEC.load())
    print(index.encoder.info.name, index.search(image=ARCHIVE / "glaucoma/05_g.jpg", k=3).ids)

    # are the two worth their cost? the same pictures, differences picture by picture
    (apart,) = compare([encoder, SPEC.load()], ARCHIVE).differences
    print(f"{apart.second} - {apart.first}: precision@1 {apart.metrics['precision@1']:+.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder) / "colours.retr")
