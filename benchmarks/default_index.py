"""What a default index costs beside one of before, and the better setting: ``python -m retr.benchmarks.default_index``.

Settings take turns: an archive of 2,000-pixel JPEGs is built end to end (reading, decoding, embedding, fitting the
transform, writing), and the best CPU time of several rounds counts, as other programs of the machine cost it wall time.
Beside it stand the bytes that an index has for each picture, those that a search reads, and an exact search of vectors
of that length and type in ``--rows`` rows. ``--also NAME=VALUE,NAME=VALUE`` measures other settings, too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from retr.benchmarks.build_speed import cpu_seconds, make_archive
from retr.benchmarks.exact import synthetic
from retr.benchmarks.query_latency import take_turns
from retr.benchmarks.record import record
from retr.index.store import Store
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.ingest.build import build

if TYPE_CHECKING:
    from collections.abc import Callable

#: Name, options of `lite`, and what is put behind it.
BEFORE, NOW, HIGH = "before", "default", "quality=high"


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--also", action="append", default=[], metavar="NAME=VALUE,...", help="other settings")
    options = parser.parse_args()

    settings: dict[str, tuple[dict[str, Any], Literal["none", "auto"]]] = {
        BEFORE: ({"quality": "fast"}, "none"),
        NOW: ({}, "auto"),
    }
    settings[HIGH] = ({"quality": "high"}, "auto")
    for one in options.also:
        chosen = dict(part.split("=") for part in one.split(","))
        given = {name: int(value) if value.isdigit() else value for name, value in chosen.items()}
        settings[one] = (given, "auto")
    encoders = {name: load_encoder("lite", **given) for name, (given, _) in settings.items()}
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "archive"
        folder.mkdir()
        make_archive(folder, options.images)
        for turn in range(options.rounds):
            for number, (name, (_, transform)) in enumerate(settings.items()):
                path = Path(temporary) / f"{number}-{turn}.retr"
                run = partial(build, folder, path, encoders[name], transform=transform)
                seconds[name].append(cpu_seconds(run) / options.images)
        calls: dict[str, Callable[[], object]] = {}
        for number, name in enumerate(settings):
            path = Path(temporary) / f"{number}-0.retr"
            store = Store.open(path)
            dim = store.manifest.encoder.own.dim if name == BEFORE else min(256, store.manifest.encoder.own.dim - 1)
            own, itemsize = store.manifest.encoder.own.dim, np.dtype(store.manifest.dtype).itemsize
            kept = 2 * own if store.manifest.row_arrays else 0
            rows = synthetic(Path(temporary) / f"rows-{number}", options.rows, dim, store.manifest.dtype)
            query = rows.vectors(np.arange(1)).astype(np.float32)
            calls[name] = partial(rows.search, query, 10)
            figures[name] = {
                "build CPU ms an image": round(1000 * min(seconds[name]), 1),
                "over before": round(min(seconds[name]) / min(seconds[BEFORE]), 3),
                "median of the rounds' ratios": round(
                    statistics.median(a / b for a, b in zip(seconds[name], seconds[BEFORE], strict=True)), 3
                ),
                "dimensions searched": dim,
                "bytes a picture, searched": dim * itemsize,
                "bytes a picture, with features": dim * itemsize + kept,
            }
        for name, spent in take_turns(calls, 15).items():
            figures[name][f"exact search of {options.rows} rows, ms"] = spent
    record(
        "default_index",
        {"images": options.images, "rounds": options.rounds, **figures},
        command="python -m retr.benchmarks.default_index" + "".join(f" --also {one}" for one in options.also),
        note="the time of a build includes fitting the transform, whose share falls as the archive grows",
    )


if __name__ == "__main__":
    main()
