"""Similarity maps: which parts of a picture match a query, as an overlay.

Places are the patch tokens of a vision transformer or the cells of a last feature map, as the encoder gives them
(`BaseEncoder.patch_embeddings`). The overlay is drawn on the network's own input, so that patches and pixels agree
whatever the encoder crops, pads or squashes. Colours are relative to the picture: its best place is red.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from retr.index.vectors import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder

STRENGTH = 0.6


def heat(encoder: BaseEncoder, image: PIL.Image.Image, vector: NDArray[Any]) -> NDArray[np.float32] | None:
    """Score the patches of an RGB picture against a query.

    Parameters
    ----------
    vector
        float ``(dim,)``, the query.

    Returns
    -------
    float32 ``(h, w)``, row-major from the top left of the network's input: the score of each place, as the encoder
    scores pictures. ``None`` where it keeps no map of patches.
    """
    patches = encoder.patch_embeddings(image)
    if patches is None:
        return None
    cosine = encoder.info.similarity == "cosine"
    scores: NDArray[np.float32] = (unit(patches) @ unit(vector)) if cosine else patches @ vector
    return np.asarray(scores, dtype=np.float32)


def overlay(encoder: BaseEncoder, image: PIL.Image.Image, scores: NDArray[np.float32]) -> PIL.Image.Image:
    """Lay scores ``(h, w)`` over the network's input: clear for the lowest, red for the highest."""
    pixels = network_view(encoder, image)
    low, high = float(scores.min()), float(scores.max())
    share = (scores - low) / (high - low) if high > low else np.zeros_like(scores)
    small = PIL.Image.fromarray((share * 255).astype(np.uint8))
    mask = small.resize(pixels.size, PIL.Image.Resampling.BICUBIC).point(lambda value: round(value * STRENGTH))
    return PIL.Image.composite(PIL.Image.new("RGB", pixels.size, (255, 0, 0)), pixels, mask)


def network_view(encoder: BaseEncoder, image: PIL.Image.Image) -> PIL.Image.Image:
    """Return the picture that the network sees, its values stretched to 0..255 for people."""
    array = np.asarray(encoder.prepare(image), dtype=np.float32)
    low, high = float(array.min()), float(array.max())
    scaled = (array - low) / (high - low) * 255 if high > low else np.zeros_like(array)
    return PIL.Image.fromarray(scaled.transpose(1, 2, 0).round().astype(np.uint8), mode=None).convert("RGB")
