"""Search with a function of one's own as the encoder: ``python examples/own_encoder.py``.

An encoder that others install and call by name is a package: ``examples/my_encoder``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retr import Index, RetrError
from retr.encoders import BaseEncoder, compare, from_callable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import PIL.Image
    from numpy.typing import NDArray

ARCHIVE = Path(__file__).parent / "hrf45"


def colours(pictures: Sequence[PIL.Image.Image]) -> NDArray[np.float32]:
    """Return the colours of a 4 x 4 grid of each picture, float32 ``(n, 48)``."""
    small = [np.asarray(picture.resize((4, 4)), np.float32) for picture in pictures]
    return np.stack(small).reshape(len(small), -1)


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

    # is it worth its cost? the same pictures, and differences picture by picture
    (apart,) = compare([encoder, "lite"], ARCHIVE).differences
    print(f"{apart.second} - {apart.first}: precision@1 {apart.metrics['precision@1']:+.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder) / "colours.retr")
