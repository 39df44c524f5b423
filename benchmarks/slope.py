"""What one shard costs as it grows: building, bytes, memory, opening, one question and many, recall; in float16.

Vectors are those of `retr.benchmarks.ann`: Gaussians of unlike sizes, as many as the rows ask for; no picture is
embedded (`retr.benchmarks.build_speed` tells what that costs). Each size is built in a process of its own, tuned with
the default goal, and asked in another, which begins cold: what it holds for itself is its resident memory without
mapped files, which the system may drop. Sizes above ``--tuned`` rows are searched exactly alone, since tuning them
takes long. Times are CPU seconds on one thread, medians; recall is against exact search of
the same questions, which the index does not hold. Each size is recorded as it ends, so that a run can be stopped.

Run: ``OMP_NUM_THREADS=1 python -m retr.benchmarks.slope --sizes 1000000x256,2000000x256,5000000x256``
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.benchmarks.ann import mixture
from retr.benchmarks.record import record
from retr.index.accelerators.config import shown, to_json
from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.index.tune import tune

if TYPE_CHECKING:
    from collections.abc import Callable

K, QUESTIONS, EXACTLY, AT_ONCE, PATIENTS = 10, 256, 16, 200_000, 4


def build(path: Path, rows: int, dim: int, *, tuned: bool) -> dict[str, Any]:
    """Build and perhaps tune an index, and return what it cost."""
    info = EncoderInfo("synthetic", dim, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    store = Store.create(path, encoder=info, dtype="float16")
    began = time.process_time()
    drawn = 0.0
    with store.writer() as writer:
        for block, start in enumerate(range(0, rows, AT_ONCE)):
            drawing = time.process_time()
            n = min(AT_ONCE, rows - start)
            vectors = mixture(n, dim, block, archive=rows)
            numbers = range(start, start + n)
            ids, patients = [f"{one:09d}" for one in numbers], [f"P{one // PATIENTS:08d}" for one in numbers]
            table = pa.table({"id": ids, "patient": patients})
            drawn += time.process_time() - drawing
            writer.append(table, vectors)
        writer.commit()
    ingested = time.process_time() - began - drawn
    found: dict[str, Any] = {
        "ingest: CPU s": round(ingested, 1),
        "ingest: largest resident set, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "bytes a row before tuning": round(_bytes(path) / rows),
    }
    if not tuned:
        return found
    began = time.process_time()
    with Store.open(path).writer() as writer:
        tuning = tune(writer)
    return found | {
        "tune: CPU s": round(time.process_time() - began, 1),
        "build: largest resident set, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "bytes a row": round(_bytes(path) / rows),
        "searched by": shown(to_json(tuning.config)),
        "recall stated": round(tuning.recall, 4),
    }


def ask(path: Path, dim: int, rows: int, *, tuned: bool) -> dict[str, Any]:
    """Open an index in this process, which has done nothing yet, and return what its answers cost."""
    before, began = _memory(), time.process_time()
    store = Store.open(path)
    opened = time.process_time() - began
    questions = mixture(QUESTIONS, dim, 1 << 20, archive=rows)
    began = time.process_time()
    store.search(questions[:1], K)
    first = time.process_time() - began
    alone = _median(lambda at: store.search(questions[at : at + 1], K), QUESTIONS if tuned else EXACTLY)
    found: dict[str, Any] = {
        "opening: CPU ms": round(opened * 1e3, 2),
        "first question: CPU ms": round(first * 1e3, 2),
        "one question: CPU ms": round(alone * 1e3, 3),
    }
    began = time.process_time()
    near = store.search(questions, K)
    found["256 questions at once: CPU ms each"] = round((time.process_time() - began) / QUESTIONS * 1e3, 3)
    now = _memory()
    found["resident, its own: MiB"] = round((now["RssAnon"] - before["RssAnon"]) / 1024)
    found["resident, mapped files: MiB"] = round((now["RssFile"] - before["RssFile"]) / 1024)
    if not tuned:
        return found
    exactly = _median(lambda at: store.search(questions[at : at + 1], K, exact=True), EXACTLY)
    found["one question, exactly: CPU ms"] = round(exactly * 1e3, 1)
    true = store.search(questions, K, exact=True)
    share = np.mean(near.scores >= true.scores[:, -1:] - 1e-6)
    found["recall@10"] = round(float(share), 4)
    return found


def _median(call: Callable[[int], object], n: int) -> float:
    times = []
    for at in range(n):
        began = time.process_time()
        call(at)
        times.append(time.process_time() - began)
    return statistics.median(times)


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _memory() -> dict[str, int]:
    """Return the resident memory of this process by kind, KiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if name in _KINDS}


_KINDS = {"RssAnon", "RssFile"}


def main() -> None:
    """Run it, and write the result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--sizes", default="1000000x256,2000000x256,5000000x256,10000000x256,1000000x768,2000000x768")
    parser.add_argument("--tuned", type=int, default=1_000_000, help="Up to so many rows.")
    parser.add_argument("--work", type=Path, help="Keeps what was measured, so that a run that was stopped goes on.")
    parser.add_argument("--note", default=None)
    parser.add_argument("--worker", choices=["build", "ask"], help=argparse.SUPPRESS)
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    sizes = [[int(number) for number in size.split("x")] for size in given.sizes.split(",")]
    if given.worker:
        [(rows, dim)] = sizes
        tuned = rows <= given.tuned
        measured = build(given.index, rows, dim, tuned=tuned) if given.worker == "build" else None
        print(json.dumps(measured or ask(given.index, dim, rows, tuned=tuned)))
        return
    work = given.work or Path(tempfile.mkdtemp())
    work.mkdir(exist_ok=True)
    figures: dict[str, Any] = {}
    for rows, dim in sizes:
        name = f"{rows}x{dim}"
        kept = work / f"{name}.json"
        if not kept.exists():
            shutil.rmtree(work / name, ignore_errors=True)
            one: dict[str, Any] = {}
            for worker in ("build", "ask"):
                asked = [sys.executable, "-m", "retr.benchmarks.slope", "--worker", worker, "--sizes", name]
                asked += ["--index", str(work / name), "--tuned", str(given.tuned)]
                done = subprocess.run(asked, stdout=subprocess.PIPE, check=True)
                one |= json.loads(done.stdout.splitlines()[-1])
            kept.write_text(json.dumps(one))
            shutil.rmtree(work / name)
        figures[name] = json.loads(kept.read_text())
        command = f"OMP_NUM_THREADS=1 python -m retr.benchmarks.slope --sizes {','.join(figures)} --tuned {given.tuned}"
        record("slope", figures, command=command, note=given.note, quiet=True)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
