"""An encoder without a network, deterministic colour and gradient statistics of the picture; and pictures for it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from PIL import Image

from retr.index.encoder import EncoderInfo
from retr.retrieval.encoders.base import BaseEncoder

_SIDE = 32
DIM = 3 * 16 + 8


class FakeEncoder(BaseEncoder):
    """Mean colours of a 4 x 4 grid and a histogram of gradient directions: 56 numbers.

    Parameters
    ----------
    weights
        Stands for the checkpoint's hash: another word is another encoder.
    seconds
        How long a batch takes, to leave time for a kill.
    """

    def __init__(
        self, *, name: str = "fake", weights: str = "0" * 64, seconds: float = 0.0, batch_size: int = 4, **info: Any
    ) -> None:
        self.info = EncoderInfo(
            name=name,
            dim=DIM,
            similarity="cosine",
            modality="test pictures",
            text=False,
            weights_sha256=weights,
            preprocessing=f"resize {_SIDE}x{_SIDE} box",
            **{"licence": "Apache-2.0", **info},
        )
        self.notes: list[str] = []
        self.batch_size = batch_size
        self.seconds = seconds
        self.encoded = 0

    def prepare(self, image: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        small = image.resize((_SIDE, _SIDE), resample=4)
        return np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / 255

    def encode_prepared(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
        time.sleep(self.seconds)
        self.encoded += len(batch)
        return np.stack([self._one(picture) for picture in batch])

    def _one(self, picture: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
        cell = _SIDE // 4
        colours = picture.reshape(3, 4, cell, 4, cell).mean(axis=(2, 4)) - 0.5
        down, right = np.gradient(picture.mean(axis=0))
        angle = np.arctan2(down, right)
        directions, _ = np.histogram(angle, bins=8, range=(-np.pi, np.pi), weights=np.hypot(down, right))
        return np.concatenate([colours.ravel(), directions / cell]).astype(np.float32)


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A smooth, colourful picture that no other seed gives."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
