"""What the authors' own code gave for the stand-in checkpoints, and the comparison with it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent


class Expected:
    """Inputs and arrays of one system (``expected/SYSTEM``).

    ``images`` are the input files in the order of the arrays' rows, ``prompts`` the texts, ``ensemble`` a class with
    its descriptors. `check` returns the largest difference, so that it can be reported.
    """

    def __init__(self, system: str) -> None:
        self.folder = HERE / "expected" / system
        self.info: dict[str, Any] = json.loads((self.folder / "expected.json").read_text())
        self.arrays: dict[str, Any] = self.info["arrays"]
        self.images = [HERE / "images" / name for name in self.info["images"]]
        self.prompts: list[str] = self.info.get("prompts", [])
        self.ensemble: dict[str, Any] = self.info.get("ensemble", {})

    def array(self, name: str) -> np.ndarray:
        return np.load(self.folder / self.arrays[name]["file"])

    def check(self, name: str, got: Any) -> float:
        """Compare an array with the authors', inside its own tolerance."""
        want, got = self.array(name), np.asarray(got)
        assert got.shape == want.shape, (name, got.shape, want.shape)
        if want.dtype.kind != "f":
            assert (got == want).all(), f"{name}: {(got != want).sum()} integers differ"
            return 0.0
        assert np.isfinite(got).all(), name
        difference = float(np.abs(got.astype(np.float64) - want).max())
        allowed = self.arrays[name]["tolerance_abs"]
        assert difference <= allowed, f"{name}: largest difference {difference:.3g}, allowed {allowed:.3g}"
        return difference

    def check_pixels(self, name: str, pixels: np.ndarray) -> int:
        """Compare network inputs ``(n, 3, h, w)`` by a sample, mean and spread; count the equal hashes."""
        entry, sample = self.arrays[f"{name}_s8"], self.array(f"{name}_s8").astype(np.float32)
        assert list(pixels.shape) == entry["full_shape"], (pixels.shape, entry["full_shape"])
        difference = np.abs(pixels[:, :, ::8, ::8] - sample)
        assert (difference <= 6e-4 * np.abs(sample) + 1e-4).all(), f"{name}: differs by {difference.max():.3g}"
        means, spreads = pixels.mean((2, 3), dtype=np.float64), pixels.std((2, 3), dtype=np.float64)
        for key, values in (("mean", means), ("std", spreads)):
            np.testing.assert_allclose(values, entry[f"{key}_per_image_channel"], rtol=0, atol=2e-6)
        return sum(_sha(one) == sha for one, sha in zip(pixels, entry["sha256_round1e-4_per_image"], strict=True))


def _sha(pixels: np.ndarray) -> str:
    rounded = np.round(pixels.astype(np.float64), 4) + 0.0
    return hashlib.sha256(rounded.astype("<f4").tobytes()).hexdigest()


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
