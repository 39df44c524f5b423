"""A million rows are written, compacted and tuned in memory that does not grow with them, as measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

CODE = """
import json, sys, threading
import faiss, numpy as np, pyarrow as pa, pyarrow.parquet
from retr.index import adverse, measuring
from retr.index.accelerators import rabitq, rotation
from retr.index.accelerators.config import IVF
from retr.index.scan import matmul
from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.index.tune import tune

ROWS, DIM, PIECE = 1_000_000, 128, 25_000

def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024

def rows(start):
    numbers = range(start, start + PIECE)
    return pa.table({
        "id": [f"folder/{i // 4:09d}/{i:09d}.png" for i in numbers],
        "sha256": [f"{i * 7919:064x}" for i in numbers],
        "patient": [f"patient {i // 4:09d}" for i in numbers],
        "sex": ["FM"[i % 2] for i in numbers],
        "age": [i % 90 for i in numbers],
        "findings": [["effusion", "nodule"][: i % 3] for i in numbers],
    })

def build():
    info = EncoderInfo("fake", DIM, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    with Store.create(path, encoder=info).writer() as writer:
        for start in range(0, ROWS, PIECE):
            writer.append(rows(start), rng.standard_normal((PIECE, 12), np.float32) @ spread)
            if start == ROWS // 2:
                writer.commit()
        writer.commit()

def compact():
    with Store.open(path).writer() as writer:
        writer.delete(np.arange(0, ROWS, 10))
        writer.compact()

def tuning():
    # what a question takes is there once for each batch of them: a batch of each kind is enough to be seen
    measuring._QUERIES, adverse._QUESTIONS = measuring.BATCH // 2, 8
    with Store.open(path).writer() as writer:
        tuned = tune(writer, recall=0.5, memory=int(budget) << 20, kinds=[IVF(lists=64)])
    assert tuned.reason is None, tuned

def query():
    store = Store.open(path)
    assert (len(store), len(store.segments)) == (900_000, 1)
    store.where("age > 30 and patient != 'patient 000000017'")
    store.search(spread[:1], 10, one_per="patient", exclude_same={"patient": ["patient 000000017"]})
    store.table(rows=rng.integers(0, len(store), 100))

peak, ended = 0.0, threading.Event()
def watch():
    global peak
    while not ended.wait(0.005):
        peak = max(peak, anonymous())

path, budget, phase = sys.argv[1:]
rng = np.random.default_rng(0)
spread = rng.standard_normal((12, DIM), np.float32)
rows(0)
# what is imported, loaded or compiled at its first use is no memory of rows
for loop in (rabitq._SEARCH_LISTS, rabitq._SEARCH_UNTIL, rotation._ROTATED, matmul._PRODUCTS, matmul._PRODUCTS_OF):
    loop.load(np.dtype(np.float32))
before = anonymous()
threading.Thread(target=watch, daemon=True).start()
{"build": build, "compact": compact, "tune": tuning, "query": query}[phase]()
store = Store.open(path)
held = sum(segment.columns.bytes for segment in store.manifest.segments) + store.n_total * DIM * 4
print(json.dumps({"mib": peak - before, "held": held / 2**20}))
"""
# Metadata and vectors are half a gigabyte; what a phase takes is what pieces, row groups and dictionaries take.
PIECES_MIB = 300
# A query takes the blocks it reads and a few bytes a row: the mask, the groups.
QUERY_MIB = 200
# what the accelerators may take; it is in the figure of tuning
BUDGET_MIB = 128


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    # each thread of pyarrow, numpy and faiss has buffers of its own: the same number of them on every machine
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    mib = {}
    # Each in a process of its own: memory that an earlier one freed but kept would be counted, or taken again unseen.
    for phase in ("build", "compact", "tune", "query"):
        command = [sys.executable, "-c", CODE, str(tmp_path / "index"), str(BUDGET_MIB), phase]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        mib[phase], held = json.loads(done.stdout).values()
        assert held > 500
    assert max(mib.values()) < PIECES_MIB
    assert mib["query"] < QUERY_MIB
