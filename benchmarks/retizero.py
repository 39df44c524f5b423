"""RetiZero's protocols on a public set: ``python -m retr.benchmarks.retizero --data FOLDER``.

``--map retizero-14 --also hrf=FOLDER`` joins it, as the set ``--name``, with others under RetiZero's 14 names.
Runs ``retr bench retizero`` as anybody would, in a process of its own, and keeps its figures and its wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from retr.benchmarks.record import record


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and one folder a class")
    parser.add_argument("--encoder", default="lite")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of the encoder")
    parser.add_argument("--map", help="a table of class names")
    parser.add_argument("--name", default="odir", help="what the table calls the set")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=FOLDER")
    options = parser.parse_args()
    name = options.data.resolve().name
    of = f"{options.name}=" if options.map else ""
    chosen = ["--group", f"{of}patient", "--most", "120", "--least", "5", "--without", "multiple"]
    chosen += ["--map", options.map] if options.map else []
    chosen += [part for one in options.set for part in ("--set", one)]
    chosen += [part for other in options.also for part in ("--data", other)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        start, load = time.monotonic(), os.getloadavg()[0]
        command = ["bench", "retizero", "--data", f"{of}{options.data}", "--encoder", options.encoder]
        table = ["--metadata", f"{of}{options.data / 'labels.csv'}"]
        own = ["--work", str(Path(folder) / "work"), "--out", str(file)]  # nothing embedded before is reused
        subprocess.run([sys.executable, "-m", "retr", *command, *table, *chosen, *own], check=True)
        seconds = time.monotonic() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = json.loads(file.read_text(encoding="utf-8"))
    data = result.pop("data")
    record(
        "_".join([f"retizero{'14' if options.map else ''}", options.encoder, *map(_value, options.set), name]),
        {
            "data": name,
            "images": data["images"],
            "left_out": data["left_out"]["count"],
            "classes": len(data["classes"]),
            "seconds": round(seconds, 1),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "load_average_at_start": round(load, 1),
            **({"sets": data["sets"]} if options.map else {}),
            **result,
        },
        command=f"retr bench retizero --data {of}{name} --encoder {options.encoder} --metadata {of}{name}/labels.csv "
        + " ".join(chosen),
        note="the paper's numbers are of other data, EYE-15 and EYE-52, which are not public",
    )


def _value(option: str) -> str:
    return option.partition("=")[2]


if __name__ == "__main__":
    main()
