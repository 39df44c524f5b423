"""How many pictures a second each medical encoder embeds on this machine, in fp32 and in the precision it chooses.

``RETR_WEIGHTS=FOLDER python -m retr.benchmarks.encoder_speed`` measures every variant whose weights are in the folder.
``python tests/parity/standin.py FOLDER`` fills it with stand-ins of the published files' sizes; speed does not depend
on the values. A figure is the best of three rounds over one full batch of the built-in picture, preparation and
decoding left out; ``prepare_ms`` is the preparation of one 1024 x 1024 picture on one core.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retr.benchmarks.record import record
from retr.index.errors import WeightsError
from retr.retrieval.encoders._picture import picture
from retr.retrieval.encoders.registry import load_encoder

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
ROUNDS = 3


def best_seconds(work: Callable[[], object]) -> float:
    """Give the shortest wall time of several calls, after one that is not counted."""
    work()
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def measure(name: str, options: dict[str, str]) -> dict[str, Any]:
    """Measure one variant."""
    figures: dict[str, Any] = {}
    large = picture().resize((1024, 1024), Image.Resampling.BICUBIC)
    for precision in ("fp32", "auto"):
        encoder = load_encoder(name, precision=precision, **options)
        batch = np.stack([encoder.prepare(picture())] * encoder.batch_size)
        seconds = best_seconds(lambda encoder=encoder, batch=batch: encoder.encode_prepared(batch))  # type: ignore[misc]
        figures[precision] = {
            "precision": encoder.info.precision,
            "device": encoder.info.device,
            "batch": len(batch),
            "images_per_second": round(len(batch) / seconds, 2),
        }
        prepare = best_seconds(lambda encoder=encoder: encoder.prepare(large))  # type: ignore[misc]
        figures["prepare_ms"] = round(prepare * 1e3, 1)
        del encoder
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
