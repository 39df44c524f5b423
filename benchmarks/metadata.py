"""Metadata at size: what opening, rows, filters and groups cost, and whether that grows with the index.

Two indexes with the columns that a build leaves (id, path, sha256, patient, age, sex ...) and vectors of 8 numbers, so
that metadata is what is measured: one of ``--rows`` rows and one of a tenth. Each is written in streamed appends and
compacted by one process and asked by another. Times are CPU milliseconds of one thread, medians; "first" is the first
call in a fresh process, over warm files. The last table is large over small: 1 is "does not grow", 10 is "by the row".

Run: ``python -m retr.benchmarks.metadata [--rows 10000000]`` (10 million rows: about 3.5 GB of disk)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retr.benchmarks.record import record
from retr.index.encoder import EncoderInfo
from retr.index.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

DIM = 8
PIECE = 100_000
PER_PATIENT = 4
FILTERS = {
    "numeric range": "age between 40 and 60",
    "dictionary equality": "sex = 'F'",
    "three predicates": "age >= 60 and sex = 'F' and device in ('device 3', 'device 7')",
    "patient": "patient = 'P00000017'",
    "date": "date >= '2020-01-01'",
}


def texts(prefix: str, numbers: np.ndarray, count: int) -> pa.Array:
    """Return texts of a small vocabulary."""
    return pa.DictionaryArray.from_arrays(numbers, [f"{prefix} {i}" for i in range(count)]).cast(pa.string())


def piece(start: int, count: int) -> pa.Table:
    """Make the rows ``start`` to ``start + count``."""
    rng = np.random.default_rng(start)
    number = pa.array(np.arange(start, start + count))
    patient = pc.binary_join_element_wise(
        "P", pc.utf8_lpad(pc.divide(number, PER_PATIENT).cast(pa.string()), 8, "0"), ""
    )
    path = pc.binary_join_element_wise(
        "archive/", patient, "/", pc.utf8_lpad(number.cast(pa.string()), 9, "0"), ".png", ""
    )
    offsets = pa.array(64 * np.arange(count + 1), pa.int32())
    digests = pa.py_buffer(rng.bytes(32 * count).hex().encode())
    ages = rng.integers(0, 95, count)
    lengths = rng.integers(0, 3, count)
    findings = texts("finding", rng.integers(0, 40, int(lengths.sum())), 40)
    return pa.table(
        {
            "id": path,
            "path": path,
            "sha256": pa.StringArray.from_buffers(count, offsets.buffers()[1], digests),
            "patient": patient,
            "age": pa.array(ages, mask=ages == 7),
            "sex": pa.array(np.array(["F", "M", None], object)[rng.choice(3, count, p=[0.48, 0.48, 0.04])]),
            "label": texts("diagnosis", rng.integers(0, 40, count), 40),
            "findings": pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), findings),
            "date": pa.array(rng.integers(17_000, 20_000, count).astype(np.int32), pa.date32()),
            "device": texts("device", rng.integers(0, 20, count), 20),
            "sharpness": rng.random(count),
        }
    )


def anonymous_peak() -> Callable[[], float]:
    """Watch this process's memory beside mapped files; what is returned ends that and gives the peak in MiB."""
    import threading

    peak, ended = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            status = Path("/proc/self/status").read_text(encoding="ascii").split("RssAnon:")[1]
            peak = max(peak, int(status.split()[0]) / 1024)

    thread = threading.Thread(target=watch)
    thread.start()

    def end() -> float:
        ended.set()
        thread.join()
        return round(peak, 1)

    return end


def build(path: Path, rows: int) -> dict[str, float]:
    """Write an index in one commit and compact it."""
    info = EncoderInfo("synthetic", DIM, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    rng = np.random.default_rng(0)
    began, end = time.process_time(), anonymous_peak()
    with Store.create(path, encoder=info, dtype="float16").writer() as writer:
        for start in range(0, rows, PIECE):
            count = min(PIECE, rows - start)
            writer.append(piece(start, count), rng.standard_normal((count, DIM), np.float32))
        writer.set_group("patient")
        store = writer.commit()
        written = time.process_time() - began
        # one row a segment goes, so that compaction writes every segment again
        writer.delete(np.cumsum([0, *(len(segment) for segment in store.segments[:-1])]))
        writer.compact()
    return {"write_us_a_row": 1e6 * written / rows, "peak_mib": end()}


def milliseconds(call: Callable[[], object], repeats: int = 9) -> float:
    """Return the median CPU time of a call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - start))
    return round(statistics.median(times), 3)


def serve(path: Path) -> dict[str, Any]:
    """Ask the index what a query asks of metadata."""
    # The first array of a process makes pyarrow import pandas, where that is installed; the query command avoids it.
    pa.array(np.zeros(1))
    began, end = time.perf_counter(), anonymous_peak()
    store = Store.open(path)
    figures: dict[str, Any] = {"open_ms, first (wall)": round(1e3 * (time.perf_counter() - began), 3)}
    figures["open_ms"] = milliseconds(lambda: Store.open(path))
    rng = np.random.default_rng(1)

    def rows(k: int) -> np.ndarray:
        return rng.integers(0, store.n_total, k)

    for k in (5, 100):
        figures[f"rows_ms, k={k}, first"] = milliseconds(lambda: store.table(rows=rows(k)), 1)  # noqa: B023
        figures[f"rows_ms, k={k}"] = milliseconds(lambda: store.table(rows=rows(k)))  # noqa: B023
    ids = store.table(["id"], rows(1000))["id"].to_pylist()
    figures["rows_of_ms, one id"] = milliseconds(lambda: store.rows_of(ids[:1]))
    figures["rows_of_ms, 1000 ids"] = milliseconds(lambda: store.rows_of(ids))
    for name, expression in FILTERS.items():
        figures[f"where_ms, {name}, first"] = milliseconds(partial(store.where, expression), 1)
        figures[f"where_ms, {name}"] = milliseconds(partial(store.where, expression))
    for column in ("patient", "sha256"):
        values = store.table([column], rows(256))[column].combine_chunks()

        def same(values: pa.Array, column: str = column) -> object:
            return store.columns.groups(column).rows(values.unique())

        figures[f"exclude_same_ms, {column}, first"] = milliseconds(partial(same, values[:1]), 1)
        figures[f"exclude_same_ms, {column}"] = milliseconds(partial(same, values[:1]))
        figures[f"exclude_same_ms, {column}, 256 queries"] = milliseconds(partial(same, values), 3)
    some = rows(200)
    figures["one_per_ms, 200 candidates"] = milliseconds(lambda: store.columns.groups("patient")[some])
    figures["peak_mib, beside mapped files"] = end()
    figures["peak_mib, mapped files included"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return figures


def on_disk(store: Store) -> dict[str, float]:
    """Return the bytes a row of each kind of file."""
    kinds = ("table", "columns", "ids", "vectors")
    total = {kind: sum(getattr(info, kind).bytes for info in store.manifest.segments) for kind in kinds}
    return {kind: round(count / store.n_total, 1) for kind, count in total.items()}


def measured(rows: int) -> dict[str, Any]:
    """Build and ask an index of so many rows, in a process each."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index")
        done = []
        for step in ("build", "serve"):
            for file in path.rglob("*.*"):
                with file.open("rb") as stream:
                    hashlib.file_digest(stream, "md5")  # brings it into the page cache
            command = [sys.executable, "-m", "retr.benchmarks.metadata", f"--{step}", str(path), "--rows", str(rows)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            done.append(json.loads(output))
        store = Store.open(path)
        facts = {"segments": len(store.segments), "bytes_a_row": on_disk(store)}
    return {**facts, "build": done[0], "serve": done[1]}


def main() -> None:
    """Measure both sizes and record them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build or options.serve:
        pa.set_cpu_count(1)
        figures = build(options.build, options.rows) if options.build else serve(options.serve)
        print(json.dumps(figures))
        return
    small, large = (measured(rows) for rows in (options.rows // 10, options.rows))
    ratios = {name: round(value / max(small["serve"][name], 1e-3), 2) for name, value in large["serve"].items()}
    figures = {str(options.rows // 10): small, str(options.rows): large, "large over small": ratios}
    record("metadata", figures, command=f"python -m retr.benchmarks.metadata --rows {options.rows}")


if __name__ == "__main__":
    main()
