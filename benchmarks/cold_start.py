"""How long a cold command takes, as a share of ``python -c "import torch"`` in the same run.

``python -m retr.benchmarks.cold_start`` builds an index of the shipped photographs with `lite` in a temporary folder,
then starts each command as a process of its own, in turn with ``import torch``, and prints the medians.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from retr.benchmarks.record import record

ARCHIVE = Path("examples/hrf45")
RUNS = 9


def seconds(command: list[str]) -> float:
    """Run a command once and give its wall time."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and write the result file."""
    from retr import Index

    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "x.retr"
        Index.build(ARCHIVE, index)
        retr = [sys.executable, "-m", "retr"]
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "retr --help": [*retr, "--help"],
            "retr query --id": [*retr, "query", "--id", "glaucoma/05_g.jpg", "--index", str(index)],
            "retr query --image": [
                *retr,
                "query",
                "--image",
                str(ARCHIVE / "glaucoma/05_g.jpg"),
                "--index",
                str(index),
            ],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for run in range(RUNS + 1):
            for name, command in commands.items():
                taken = seconds(command)
                # the first round warms the disk cache
                if run:
                    times[name].append(taken)
    medians = {name: median(taken) for name, taken in times.items()}
    base = medians["import torch"]
    record(
        "cold_start",
        {
            name: {"seconds": round(taken, 3), "of_import_torch": round(taken / base, 3)}
            for name, taken in medians.items()
        },
    )


if __name__ == "__main__":
    main()
