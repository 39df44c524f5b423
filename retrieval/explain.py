"""Similarity maps: which parts of a picture its score for a query rests on, in the picture's own shape.

A part counts by what the score loses when it is blurred away (occlusion). That needs no gradient and no map of patches:
it works for any encoder, and through whatever is done to its vectors afterwards. The loss is taken of the query's score
less the mean score of other pictures of the archive, so that what stands out is of *this* query, and not what makes
every picture alike. As scores are products, that is one product with the query less the mean of those other vectors.
A vector is of the whole picture: a small region that two pictures share need not stand out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import PIL.ImageFilter

from retr.index.vectors import unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.index_like import IndexLike

    #: Pictures in, float ``(n, dim)`` out: vectors whose product with a query is its score.
    Embed = Callable[[Sequence[PIL.Image.Image]], NDArray[Any]]

# Cells of the longer side, and how many of them a window covers.
CELLS, WINDOW = 12, 2
#: Pixels of the longer side that is looked at, and rows that stand for the archive.
SIDE, OTHERS = 448, 512
_BATCH = 32
# What is not part of the reason is shown at this brightness.
_DIM = 0.35
_LINE = (64, 255, 220)


def embedding(encoder: BaseEncoder) -> Embed:
    """Return how an encoder scores pictures: unit vectors where its score is cosine."""
    cosine = encoder.info.similarity == "cosine"

    def embed(pictures: Sequence[PIL.Image.Image]) -> NDArray[Any]:
        vectors = encoder.encode_images(pictures)
        return unit(vectors) if cosine else vectors

    return embed


def usual(index: IndexLike) -> NDArray[np.float32]:
    """Return the mean vector of an index, of `OTHERS` rows evenly spread over it: float32 ``(dim,)``."""
    rows = index.store.live_rows()
    chosen = rows[np.linspace(0, len(rows) - 1, min(OTHERS, len(rows))).astype(np.int64)] if len(rows) else rows
    vectors = np.asarray(index.store.vectors(chosen), np.float32)
    return vectors.mean(axis=0) if len(vectors) else np.zeros(vectors.shape[1], np.float32)


def heat(
    embed: Embed, image: PIL.Image.Image, vector: NDArray[Any], others: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """Tell how much each part of an RGB picture adds to a query's score.

    Parameters
    ----------
    embed
        As `embedding` makes it.
    vector
        float ``(dim,)``, the query, as `embed` gives pictures.
    others
        float ``(dim,)``, the mean of other pictures' vectors; None takes the score as it is.

    Returns
    -------
    float32 ``(h, w)``, row-major from the top left of the picture: cells nearly square, the longer side `CELLS` long.
    Positive where a part makes the hit likelier than other pictures, negative where it speaks against it.
    """
    direction = np.asarray(vector, np.float32) - (0 if others is None else np.asarray(others, np.float32))
    return losses(embed, image, direction[:, None])[..., 0]


def losses(
    embed: Embed, image: PIL.Image.Image, directions: NDArray[Any], *, cells: int = CELLS, window: int = WINDOW
) -> NDArray[np.float32]:
    """Tell what products with some directions, float ``(dim, m)``, lose as parts are blurred: float32 ``(h, w, m)``.

    ``window`` cells are blurred at once in both axes; a cell has the mean of the windows that cover it.
    """
    picture = image.convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    longer = max(picture.size)
    across, down = (max(window, round(cells * side / longer)) for side in picture.size)
    blurred = picture.filter(PIL.ImageFilter.GaussianBlur(longer / 8))
    xs = np.linspace(0, picture.width, across + 1).round().astype(int).tolist()
    ys = np.linspace(0, picture.height, down + 1).round().astype(int).tolist()
    corners = [(x, y) for y in range(down - window + 1) for x in range(across - window + 1)]

    def covered(x: int, y: int) -> PIL.Image.Image:
        box = (xs[x], ys[y], xs[x + window], ys[y + window])
        shown = picture.copy()
        shown.paste(blurred.crop(box), box[:2])
        return shown

    whole = np.asarray(embed([picture])[0] @ directions, np.float64)
    total, count = np.zeros((down, across, directions.shape[1])), np.zeros((down, across, 1))
    for start in range(0, len(corners), _BATCH):
        some = corners[start : start + _BATCH]
        lost = whole - np.asarray(embed([covered(x, y) for x, y in some]) @ directions, np.float64)
        for (x, y), loss in zip(some, lost, strict=True):
            total[y : y + window, x : x + window] += loss
            count[y : y + window, x : x + window] += 1
    return np.asarray(total / count, np.float32)


def overlay(image: PIL.Image.Image, scores: NDArray[np.float32], side: int = SIDE) -> PIL.Image.Image:
    """Show an RGB picture, in its own shape and colours, bright where scores ``(h, w)`` are high.

    What adds nothing is dark; a line goes around what adds at least half of what the best part does. Where no part adds
    anything the picture is dark without a line.
    """
    picture = image.convert("RGB")
    picture.thumbnail((side, side))
    share = shares(scores, picture.size)
    pixels = np.asarray(picture, np.float32) * (_DIM + (1 - _DIM) * share[..., None])
    pixels[_outline(share >= 0.5, max(1, max(picture.size) // 150))] = _LINE
    return PIL.Image.fromarray(pixels.round().astype(np.uint8))


def shares(scores: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return what each pixel adds as a share of what the best adds, 0 to 1: float32 ``(h, w)`` for ``(w, h)``."""
    added = np.maximum(scores, 0)
    small = PIL.Image.fromarray((added / added.max() if added.max() > 0 else added).astype(np.float32))
    return np.clip(np.asarray(small.resize(size, PIL.Image.Resampling.BICUBIC), np.float32), 0, 1)


def _outline(inside: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Return the edge of a region, on its inner side."""
    kept = inside.copy()
    for _ in range(width):
        padded = np.pad(kept, 1, mode="edge")
        kept = kept & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~kept
