"""A build over a large index takes tens of bytes of memory for each of its files, as measured."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CODE = """
    import hashlib, json, sys, threading
    from dataclasses import dataclass

    sys.path.insert(0, {tests!r})
    import numpy as np, pyarrow as pa, pyarrow.parquet
    from fake_encoder import DIM, FakeEncoder
    from retr.index.store import Store
    from retr.retrieval.archive.sources import Item, Skipped
    from retr.retrieval.novelty import find_novelty
    from retr.retrieval.ingest.seen_files import PIECE
    from retr.retrieval.ingest.options import BuildOptions, Order
    from retr.retrieval.ingest.reading import BuildJob, run_builds
    from retr.retrieval.ingest.file_states import FileStates, content_key

    ROWS = 300_000

    def anonymous():
        for line in open("/proc/self/status"):
            if line.startswith("RssAnon"):
                return int(line.split()[1]) / 1024

    def path(number):
        return f"folder {{number // 1000:05d}}/study {{number:09d}}/picture_{{number:09d}}.png"

    def data(number):
        return b"%d" % number

    class Source:
        location = {location!r}

        def entries(self):
            # the first tenth is gone, every thousandth file is touched
            for number in range(ROWS // 10, ROWS):
                mtime = number + (number % 1000 == 0)
                yield Item(path(number), len(data(number)), mtime, stamp=f"{{number}}:1")

        def count(self):
            return ROWS

        def read(self, name):
            number = int(name[-13:-4])
            return data(number), len(data(number)), None

    def build(store):
        order = Order(Source(), Source().entries(), next(Source().entries()), BuildOptions(prune=True))
        return run_builds([BuildJob(order, encoder, store)], False)[0][0]

    def make(store):
        rng = np.random.default_rng(0)
        with store.writer() as writer:
            for start in range(0, ROWS, PIECE):
                numbers = range(start, start + PIECE)
                paths = [path(number) for number in numbers]
                table = {{
                    "id": paths, "path": paths, "size": [len(data(number)) for number in numbers],
                    "mtime": [float(number) for number in numbers],
                    "sha256": [hashlib.sha256(data(number)).hexdigest() for number in numbers],
                }}
                writer.append(pa.table(table), rng.standard_normal((PIECE, DIM), np.float32))
            writer.commit()
        states = FileStates(store.uuid, "")
        for number in range(ROWS):
            states.note(path(number), f"{{number}}:1", content_key(hashlib.sha256(data(number)).hexdigest()))
        states.settle()

    encoder = FakeEncoder()
    if not Store.exists({index!r}):
        make(Store.create({index!r}, encoder=encoder.info))
        sys.exit()
    store = Store.open({index!r})
    store.table(rows=np.array([0]))
    before = peak = anonymous()
    ended = threading.Event()

    def watch():
        global peak
        while not ended.wait(0.005):
            peak = max(peak, anonymous())

    threading.Thread(target=watch, daemon=True).start()
    report = build(store)
    figures = {{name: getattr(report, name) for name in ("rows", "embedded", "reused", "unchanged", "removed")}}
    fence = find_novelty(Store.open(store.path))[0]
    print(json.dumps({{**figures, "fence": fence.rows, "mib": peak - before}}))
"""
# What reading the texts of one piece after another, the libraries and the writer take.
FIXED_MIB = 80
BYTES_A_FILE = 120


@pytest.mark.slow
def test_a_build_over_a_large_index_keeps_tens_of_bytes_a_file(tmp_path):
    code = textwrap.dedent(CODE).format(
        tests=str(Path(__file__).parents[2]), location=str(tmp_path), index=str(tmp_path / "index")
    )
    # the index is made by a process of its own: memory that it freed would be taken again unseen
    for _ in ("make", "build"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    mib = figures.pop("mib")
    assert figures == {
        "rows": 270_000,
        "embedded": 0,
        "reused": 270,
        "unchanged": 269_730,
        "removed": 30_000,
        "fence": 2000,
    }
    assert mib < FIXED_MIB + BYTES_A_FILE * 300_000 / 2**20
