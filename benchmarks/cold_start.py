"""How much CPU a cold command or a first question takes, in processes of their own, one after another in turns.

``python -m retr.benchmarks.cold_start`` builds an index of the shipped photographs with `lite` and, of seeded vectors,
100,000 rows x 512 exact and tuned, in a temporary folder. Commands are shown as a share of ``import torch``, the first
question by vector of a fresh process as a share of importing numpy and pyarrow. Modules are compiled to bytecode, as
pip leaves them, and loops to machine code. ``--before FOLDER`` runs each command and question in another checkout,
too (its interpreter is ``FOLDER/.venv/bin/python``), on indexes that it builds itself, in the same turns.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from statistics import median

import numpy as np

from retr.benchmarks.record import record

ARCHIVE = Path("examples/hrf45")
RUNS = 11
ROWS, DIM, CLUSTERS = 100_000, 512, 1000
TORCH, ARROW = "import torch", "import numpy, pyarrow"
ASK = """
import numpy as np
from retr import Index
index = Index.open({path!r})
hits = index.search(vector=np.ones(index.store.manifest.encoder.dim, np.float32))
hits.ids, hits.scores
"""


def cpu_seconds(command: list[str], bytecode: Path) -> float:
    """Run a command once, with the bytecode of modules kept in a folder, and return its user and system time."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(bytecode)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} failed: {said}")
    return used.ru_utime + used.ru_stime


def indexes(folder: Path) -> dict[str, Path]:
    """Return where the indexes that are asked lie, by what they are called."""
    return {"45 rows": folder / "x.retr", "exact": folder / "exact.retr", "tuned": folder / "tuned.retr"}


def make(folder: Path) -> None:
    """Make the indexes that are asked."""
    from retr import Index

    paths = indexes(folder)
    Index.build(ARCHIVE, paths["45 rows"])
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLUSTERS, DIM), np.float32)
    vectors = centres[rng.integers(0, CLUSTERS, ROWS)] + rng.standard_normal((ROWS, DIM), np.float32)
    table = {"id": [f"{row:06d}" for row in range(ROWS)], "label": [f"{row % 7}" for row in range(ROWS)]}
    Index.from_vectors(vectors, table, paths["exact"], encoder="made", fingerprint="0")
    shutil.copytree(paths["exact"], paths["tuned"])
    Index.open(paths["tuned"]).tune()


def commands(python: str, paths: dict[str, Path]) -> dict[str, tuple[list[str], str]]:
    """Return what is run with one interpreter, and what each is compared with."""
    picture, retr = "glaucoma/05_g.jpg", [python, "-m", "retr"]
    query = [*retr, "query", "--index", str(paths["45 rows"])]
    found = {
        "retr --help": ([*retr, "--help"], TORCH),
        "retr query --id": ([*query, "--id", picture], TORCH),
        "retr query --image": ([*query, "--image", str(ARCHIVE / picture)], TORCH),
    }
    for name, path in paths.items():
        found[f"first question, {name}"] = [python, "-c", ASK.format(path=str(path))], ARROW
    return found


def main() -> None:
    """Measure, print and write the result file."""
    parser = ArgumentParser()
    parser.add_argument("--before", type=Path, help="another checkout, with its environment in .venv")
    parser.add_argument("--make", type=Path, help="make the indexes in this folder, and nothing else")
    given = parser.parse_args()
    if given.make is not None:
        make(given.make)
        return
    with tempfile.TemporaryDirectory() as folder:
        asked = {one: ([sys.executable, "-c", one], one) for one in (TORCH, ARROW)}
        checkouts = {"": sys.executable}
        if given.before is not None:
            checkouts[", before"] = str(given.before / ".venv/bin/python")
        for which, python in checkouts.items():
            place = Path(folder) / f"made{which.strip(', ')}"
            place.mkdir()
            # -P: the modules beside this one would hide others of their names
            subprocess.run([python, "-P", __file__, "--make", str(place)], check=True)
            for name, one in commands(python, indexes(place)).items():
                asked[name + which] = one
        times: dict[str, list[float]] = {name: [] for name in asked}
        for run in range(RUNS + 1):
            for name, (command, _) in asked.items():
                taken = cpu_seconds(command, Path(folder) / "bytecode")
                # the first round warms the disk cache, and compiles what is compiled once
                if run:
                    times[name].append(taken)
    medians = {name: median(taken) for name, taken in times.items()}
    shares = {TORCH: "of_import_torch", ARROW: "of_numpy_and_pyarrow"}
    figures = {}
    for name, (_, base) in asked.items():
        figures[name] = {"cpu_seconds": round(medians[name], 3), shares[base]: round(medians[name] / medians[base], 3)}
    record("cold_start", figures, note=f"CPU time, medians of {RUNS} runs in turns")


if __name__ == "__main__":
    main()
