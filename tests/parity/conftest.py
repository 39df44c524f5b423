"""Stand-in checkpoints and odd pictures for the parity tests.

The checkpoints are rebuilt (1 to 30 s each, 3.6 GB in all) into the folder that ``RETR_TEST_CACHE`` names, where later
runs find them; without it into a temporary folder that each module leaves empty.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import standin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# run by hand, beside the authors' own code
collect_ignore_glob = ["make/*"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that needs a full-size checkpoint."""
    for item in items:
        if "checkpoints" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep remembered digests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETR_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("RETR_WEIGHTS", raising=False)
        yield


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """``checkpoints("flair", seed=0)``: the folder with a system's files."""
    kept = os.environ.get("RETR_TEST_CACHE")
    root = Path(kept) if kept else tmp_path_factory.mktemp("checkpoints")

    def build(system: str, seed: int = 0) -> Path:
        folder = root / f"{system}-{seed}"
        if not folder.exists():
            scratch = root / f".{folder.name}.{os.getpid()}"
            standin.save(system, scratch, seed)
            scratch.rename(folder)
        return folder

    yield build
    if not kept:
        shutil.rmtree(root)


def odd_pictures() -> dict[str, Image.Image]:
    """One picture in every form that a reader or a resize gets wrong."""
    rng = np.random.default_rng(5)
    grey = np.asarray(Image.fromarray(rng.integers(0, 256, (7, 9), dtype=np.uint8)).resize((90, 70)))
    colour = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((90, 70))
    return {
        "16 bit": Image.fromarray(grey.astype(np.uint16) * 200 + 3000),
        "12 in 16 bit": Image.fromarray(grey.astype(np.uint16) * 15),
        "grey": Image.fromarray(grey),
        "RGBA": Image.merge("RGBA", (*colour.split(), Image.fromarray(grey))),
        "palette": colour.quantize(64),
        "CMYK": colour.convert("CMYK"),
        "one wide": colour.resize((1, 600)),
        "one high": colour.resize((600, 1)),
        "one pixel": colour.resize((1, 1)),
    }


@pytest.fixture
def check_odd_pictures() -> Callable[..., None]:
    """``check(encoder)``: all of them reach the network, none of them white, and are embedded to finite vectors."""

    def check(encoder: Any) -> None:
        from retr.retrieval.images import read_image

        odd = odd_pictures()
        prepared = {
            form: encoder.prepare(read_image(picture, grey16=encoder.info.grey16).image)
            for form, picture in odd.items()
        }
        for form in ("16 bit", "12 in 16 bit", "grey"):
            pixels = prepared[form]
            assert (pixels >= pixels.max() - 1e-6).mean() < 0.1, f"{form}: white"
            assert np.unique(np.round(pixels, 3)).size > 100, f"{form}: few levels are left"
        for form, pixels in prepared.items():
            assert pixels.shape == prepared["grey"].shape, form
            assert np.isfinite(pixels).all(), form
        # what is left is the network's, for which two of them will do
        vectors = encoder.encode_images([odd["one wide"], odd["16 bit"]])
        assert vectors.shape == (2, encoder.info.dim)
        assert np.isfinite(vectors).all()

    return check
