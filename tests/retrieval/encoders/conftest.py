"""Each test session exports `lite` once, into a cache of its own."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from retr.retrieval.encoders.registry import load_encoder


@pytest.fixture(scope="session")
def lite():
    return load_encoder("lite")


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Twelve different coloured pictures of several shapes."""
    rng = np.random.default_rng(7)
    made = []
    for number in range(12):
        small = rng.integers(0, 256, (6 + number, 9, 3), dtype=np.uint8)
        made.append(Image.fromarray(small).resize((180 + 20 * number, 240), Image.Resampling.BICUBIC))
    return made
