"""Pictures for `gpu_encoders`: eight to compare embeddings of, and an archive of JPEGs of which no two are alike."""

from __future__ import annotations

import io
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retr.retrieval.encoders.sample_picture import picture

SIDE = 512
ORIGINALS = Path("examples/hrf45")


@lru_cache(maxsize=1)
def eight() -> list[Image.Image]:
    """Return eight different pictures: the built-in one, turned and cropped, shipped photographs, and noise."""
    whole = picture()
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    made = [whole, whole.rotate(90), whole.crop((200, 100, 456, 356)), Image.fromarray(noise)]
    return (made + originals()[:4] + [whole.rotate(angle) for angle in (20, 40, 60, 80)])[:8]


@lru_cache(maxsize=1)
def originals() -> list[Image.Image]:
    """Return the shipped photographs at 512 pixels; the built-in picture where they are not at hand."""
    files = sorted(ORIGINALS.rglob("*.jpg"))[::5]
    return [Image.open(file).convert("RGB").resize((SIDE, SIDE)) for file in files] or [picture()]


def make_archive(folder: Path, count: int, processes: int) -> dict[str, Any]:
    """Write the JPEGs, in processes."""
    folder.mkdir()
    start = time.perf_counter()
    share = -(-count // (4 * processes))
    starts = range(0, count, share)
    if processes > 1:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            stops = [min(first + share, count) for first in starts]
            sizes = list(pool.map(_write, [folder] * len(starts), starts, stops))
    else:
        sizes = [_write(folder, 0, count)]
    seconds = time.perf_counter() - start
    return {"images": count, "KB each": round(sum(sizes) / count / 1e3, 1), "seconds": round(seconds, 1)}


def _write(folder: Path, first: int, stop: int) -> int:
    """Write the JPEGs of some numbers, no two alike; return their bytes."""
    drawn = np.random.default_rng(first).normal(0, 2, (2 * SIDE, 2 * SIDE, 1)).astype(np.int16)
    written = 0
    for number in range(first, stop):
        image = np.asarray(originals()[number % len(originals())], dtype=np.int16)
        down, right = number % SIDE, (number * 7) % SIDE
        grainy = np.clip(image + drawn[down : down + SIDE, right : right + SIDE], 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(grainy).save(stream, "JPEG", quality=90)
        (folder / f"{number:06d}.jpg").write_bytes(stream.getvalue())
        written += len(stream.getvalue())
    return written
