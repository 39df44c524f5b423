"""How near an end-to-end build comes to what its two halves allow, and to a plain loop, with 2,000-pixel JPEGs.

``python -m retr.benchmarks.build_speed`` makes the JPEGs from the shipped photographs (enlarged, with fresh grain so
that no two are equal), measures decoding and encoding alone in CPU-seconds, a whole build in wall seconds, and a
plain loop of PIL open, resize and encode one image in fp32 on torch; every figure is the best of several rounds, in
turns. It also measures the cosine of vectors from reduced JPEG decoding to vectors from full decoding.
"""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from retr.benchmarks.record import record
from retr.retrieval.encoders.networks import lite_pixels
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.systems import lite
from retr.retrieval.images import read_image
from retr.retrieval.ingest.build import build

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder

ARCHIVE = Path("examples/hrf45")
SIDE, IMAGES, ROUNDS, LOOP_IMAGES = 2000, 256, 3, 16


def make_archive(folder: Path, images: int = IMAGES) -> list[Path]:
    """Write the JPEGs."""
    originals = sorted(ARCHIVE.rglob("*.jpg"))

    def write(number: int) -> Path:
        image = Image.open(originals[number % len(originals)]).convert("RGB").resize((SIDE, SIDE), 3)
        grain = np.random.default_rng(number).normal(0, 2, (SIDE, SIDE, 1))
        noisy = np.clip(np.asarray(image, dtype=np.float32) + grain, 0, 255).astype(np.uint8)
        file = folder / f"{number:04d}.jpg"
        Image.fromarray(noisy).save(file, quality=90)
        return file

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(write, range(images)))


def decode(encoder: BaseEncoder, file: Path) -> NDArray[np.generic]:
    """Do what the build does with a file, but for the hash."""
    return encoder.prepare(read_image(file.read_bytes(), draft_size=encoder.info.draft_size).image)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of a call, over all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def both_seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the wall time of a call and its CPU time."""
    wall = time.perf_counter()
    cpu = cpu_seconds(work)
    return time.perf_counter() - wall, cpu


def plain_loop(files: list[Path]) -> Callable[[], None]:
    """Return the loop most people would write: open, resize, encode one image in fp32."""
    import torch

    from retr.retrieval.encoders.networks.lite import load_network

    net = load_network(lite._find(None))

    def loop() -> None:
        with torch.inference_mode():
            for file in files:
                size = (lite_pixels.SIDE, lite_pixels.SIDE)
                small = Image.open(file).convert("RGB").resize(size, Image.Resampling.BILINEAR)
                net(torch.from_numpy(np.asarray(small).transpose(2, 0, 1).copy())[None])

    return loop


def draft_cosine(encoder: BaseEncoder, files: list[Path]) -> NDArray[np.floating]:
    """Return the cosine between the vectors of reduced and of full decoding, one a file."""
    reduced = encoder.encode_images(files)
    full = np.concatenate([encoder.encode_images([read_image(file).image]) for file in files])
    norms = np.linalg.norm(reduced, axis=1) * np.linalg.norm(full, axis=1)
    return np.asarray((reduced * full).sum(axis=1) / norms)


def main() -> None:
    """Measure, print and write the result file."""
    # what the plain loop computes, too
    encoder = load_encoder("lite", quality="fast")
    cores = len(os.sched_getaffinity(0))
    names = ("decode", "encode", "build", "build cpu", "loop", "loop cpu")
    times: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "archive"
        folder.mkdir()
        files = make_archive(folder)
        some = files[:32]
        batch = np.stack([decode(encoder, file) for file in some[: encoder.batch_size]])
        loop = plain_loop(files[:LOOP_IMAGES])
        loop()
        for turn in range(ROUNDS):
            times["decode"].append(cpu_seconds(lambda: [decode(encoder, file) for file in some]) / len(some))
            encoded = cpu_seconds(lambda: [encoder.encode_prepared(batch) for _ in range(2)])
            times["encode"].append(encoded / (2 * len(batch)))
            index = Path(temporary) / f"index-{turn}"
            wall, cpu = both_seconds(lambda index=index: build(folder, index, encoder))  # type: ignore[misc]
            times["build"].append(wall / len(files))
            times["build cpu"].append(cpu / len(files))
            wall, cpu = both_seconds(loop)
            times["loop"].append(wall / LOOP_IMAGES)
            times["loop cpu"].append(cpu / LOOP_IMAGES)
        cosine = draft_cosine(encoder, files[:45])
    best = {name: min(taken) for name, taken in times.items()}
    allowed = cores / (best["decode"] + best["encode"])
    record(
        "build_speed",
        {
            "images": IMAGES,
            "side_pixels": SIDE,
            "decode_cpu_ms": round(best["decode"] * 1e3, 2),
            "encode_cpu_ms": round(best["encode"] * 1e3, 2),
            "allowed_images_per_second": round(allowed, 1),
            "build_images_per_second": round(1 / best["build"], 1),
            "plain_loop_images_per_second": round(1 / best["loop"], 1),
            "share_of_allowed": round(1 / best["build"] / allowed, 3),
            "times_plain_loop": round(best["loop"] / best["build"], 2),
            # on a machine that others use at the same time only these two say something
            "halves_over_build_cpu": round((best["decode"] + best["encode"]) / best["build cpu"], 3),
            "plain_loop_cpu_over_build_cpu": round(best["loop cpu"] / best["build cpu"], 2),
            "draft_cosine_min": round(float(cosine.min()), 5),
            "draft_cosine_mean": round(float(cosine.mean()), 5),
        },
        note=f"load on the {cores} cores during the run, this process included: {os.getloadavg()[1]:.1f}",
    )


if __name__ == "__main__":
    main()
