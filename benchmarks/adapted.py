"""What a fitted head is worth on patients it never saw: ``python -m retr.benchmarks.adapted --data FOLDER``.

The images are those of ``neighbours.py``: ``--data`` holds images and ``labels.csv``, at most ``--most`` a class. The
head is fitted on half of the patients (``--seed`` draws them, several are averaged) and measured on the other half,
strictly: neither the query nor, in the first figures, anything in the gallery was fitted on.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from retr.benchmarks.neighbours import select
from retr.benchmarks.record import record


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and the images")
    parser.add_argument("--group", default="patient", help="column that tells patients apart; '' for none")
    parser.add_argument("--most", type=int, default=120)
    parser.add_argument("--least", type=int, default=5)
    parser.add_argument("--without", default="multiple")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with (options.data / "labels.csv").open(newline="", encoding="utf-8") as stream:
        rows = select(list(csv.DictReader(stream)), most=options.most, least=options.least, without=options.without)
    name = options.data.resolve().name
    with tempfile.TemporaryDirectory() as work:
        os.environ["RETR_STATE_DIR"] = work
        figures = measure(options.data.resolve(), rows, options.group or None, options.seeds, Path(work))
    record(
        f"adapted_lite_{name}",
        {"data": name, "encoder": "lite", "images": len(rows), "classes": len({r["label"] for r in rows}), **figures},
        command=f"python -m retr.benchmarks.adapted --data {name}" + ("" if options.group else " --group ''"),
        note="means over the seeds; 'before' is what the index searches, 'after' through the head",
    )


def measure(data: Path, rows: list[dict[str, str]], group: str | None, seeds: int, work: Path) -> dict[str, Any]:
    """Build indexes of the chosen images: of the default of before, of today's, of the better setting; adapt each."""
    from retr.retrieval.index import Index

    for row in rows:
        link = work / "data" / row["path"]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(data / row["path"])
    figures: dict[str, Any] = {"seeds": seeds}
    for quality, transform in (("fast", "none"), ("standard", "auto"), ("high", "auto")):
        path = work / f"{quality}.retr"
        labels = data / "labels.csv"
        Index.build(work / "data", path, metadata=labels, group=group, transform=transform, quality=quality)
        chosen = Index.open(path)
        runs = [
            chosen.adapt("label", work / f"{quality}{seed}.retr", features="stored", seed=seed) for seed in range(seeds)
        ]
        for when in ("before", "after"):
            for measured in runs[0].before:
                values = [getattr(run, when)[measured].value for run in runs]
                figures[f"{when}, quality={quality}: {measured}"] = round(float(np.mean(values)), 4)
    return figures


if __name__ == "__main__":
    main()
