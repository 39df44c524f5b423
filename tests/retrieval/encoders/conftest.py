"""Each test session exports `lite` once, into a cache of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

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


@pytest.fixture(scope="session")
def odd_pictures() -> dict[str, Image.Image]:
    """One picture of every kind that readers are known to trip over; none of them is white."""
    deep = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    return {
        "16-bit": Image.fromarray(deep.astype(np.uint16)),
        "12-in-16": Image.fromarray((deep / 16).astype(np.uint16)),
        "grey": Image.fromarray((deep / 257).astype(np.uint8)),
        "rgba": Image.new("RGBA", (30, 40), (10, 200, 30, 128)),
        "palette": Image.new("RGB", (30, 40), (10, 200, 30)).quantize(4),
        "cmyk": Image.new("CMYK", (30, 40), (10, 200, 30, 0)),
        "one pixel wide": Image.fromarray(np.arange(250, dtype=np.uint8).reshape(250, 1)),
        "one pixel high": Image.fromarray(np.arange(250, dtype=np.uint8).reshape(1, 250)),
        "one pixel": Image.new("RGB", (1, 1), (10, 20, 30)),
        "a thread": Image.new("L", (1, 20_000), 60),
    }


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """Model folders in small: ``hf``, ``clip`` and its text side ``bert`` (see ``small_models``)."""
    from small_models import make

    root = tmp_path_factory.mktemp("made")
    make(root)
    return root


@pytest.fixture
def copy(made, tmp_path):
    """``copy("hf")``: one of the model folders, to spoil."""
    return lambda name: Path(shutil.copytree(made / name, tmp_path / name))
