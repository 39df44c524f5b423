"""How many pictures a second each medical encoder embeds on this machine, in fp32 and in the precision it chooses.

``RETR_WEIGHTS=FOLDER python -m retr.benchmarks.encoder_speed`` measures every variant whose weights are in the folder.
``python tests/parity/standin.py FOLDER`` fills it with stand-ins of the published files' sizes; speed does not depend
on the values. Decoding and preparation are left out. ``images_per_second`` is wall time on all cores, the best of two
rounds over a batch; ``images_per_cpu_second`` counts the CPU time of one thread, which other work on the machine moves
less; ``prepare_ms`` is the CPU time of preparing one 1024 x 1024 picture.
"""

from __future__ import annotations

import gc
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from retr.benchmarks.record import record
from retr.index.errors import WeightsError
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.sample_picture import picture

if TYPE_CHECKING:
    from collections.abc import Callable

VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "flair": ("flair", {}),
    "retizero": ("retizero", {}),
    "lvm-med resnet50": ("lvm-med", {"arch": "resnet50"}),
    "lvm-med vit-b": ("lvm-med", {"arch": "vit-b"}),
    "rad-dino": ("rad-dino", {}),
    "kad": ("kad", {}),
}
ROUNDS, BATCH = 2, 8


def best_seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the shortest time of several calls by a clock."""
    taken = []
    for _ in range(ROUNDS):
        start = clock()
        work()
        taken.append(clock() - start)
    return min(taken)


def measure(name: str, options: dict[str, str]) -> dict[str, Any]:
    """Measure one variant."""
    figures: dict[str, Any] = {}
    cores = torch.get_num_threads()
    large = picture().resize((1024, 1024), Image.Resampling.BICUBIC)
    for precision in ("fp32", "auto"):
        encoder = load_encoder(name, precision=precision, **options)
        if precision == "auto" and encoder.info.precision == "fp32" and encoder.info.device == "cpu":
            break  # the same again
        batch = np.stack([encoder.prepare(picture())] * BATCH)
        encode = partial(encoder.encode_prepared, batch)
        encode()
        wall = best_seconds(encode, time.perf_counter)
        torch.set_num_threads(1)
        cpu = best_seconds(encode, time.process_time)
        prepare = best_seconds(partial(encoder.prepare, large), time.process_time)
        torch.set_num_threads(cores)
        figures["prepare_ms"] = round(prepare * 1e3, 1)
        figures[precision] = {
            "precision": encoder.info.precision,
            "device": encoder.info.device,
            "images_per_second": round(BATCH / wall, 2),
            "images_per_cpu_second": round(BATCH / cpu, 2),
        }
        del encoder, encode
        gc.collect()
    return figures


def main() -> None:
    """Measure what is there, print and write the result file."""
    figures: dict[str, Any] = {}
    for label, (name, options) in VARIANTS.items():
        try:
            figures[label] = measure(name, options)
        except WeightsError as error:
            figures[label] = f"not measured: {error.message}"
    record(
        "encoder_speed",
        figures,
        command="RETR_WEIGHTS=FOLDER python -m retr.benchmarks.encoder_speed",
        note="stand-in weights of the published sizes",
    )


if __name__ == "__main__":
    main()
