"""A million rows are written, compacted and tuned in memory that does not grow with them, as measured."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CODE = """
import json, sys, threading
import faiss, numpy as np, pyarrow as pa, pyarrow.parquet
from retr.index.config import IVF
from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.index.tune import tune

ROWS, DIM, PIECE = 1_000_000, 128, 25_000

def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024

peak, ended = 0.0, threading.Event()
def watch():
    global peak
    while not ended.wait(0.005):
        peak = max(peak, anonymous())

def used():
    # What this phase took at its peak beyond what was held before anything was done.
    global peak
    top, peak = peak, 0.0
    return top - before

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

info = EncoderInfo("fake", DIM, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
store = Store.create(sys.argv[1], encoder=info)
rng = np.random.default_rng(0)
spread = rng.standard_normal((12, DIM), np.float32)
rows(0)
before = anonymous()
threading.Thread(target=watch, daemon=True).start()
figures = {}
with store.writer() as writer:
    for start in range(0, ROWS, PIECE):
        writer.append(rows(start), rng.standard_normal((PIECE, 12), np.float32) @ spread)
        if start == ROWS // 2:
            writer.commit()
    writer.commit()
    figures["build"] = used()
    writer.delete(np.arange(0, ROWS, 10))
    writer.compact()
    figures["compact"] = used()
    tuned = tune(writer, recall=0.5, memory=int(sys.argv[2]) << 20, kinds=[IVF(lists=64)])
    figures["tune"] = used()
    store = writer.store
assert (len(store), len(store.segments), tuned.reason) == (900_000, 1, None), tuned
figures["accelerator"] = tuned.bytes / 2**20
figures["vectors"] = store.vectors().nbytes / 2**20
figures["metadata"] = store.manifest.segments[0].columns.bytes / 2**20
store = Store.open(sys.argv[1])
used()
store.where("age > 30 and patient != 'patient 000000017'")
store.search(spread[:1], 10, one_per="patient", exclude_same={"patient": ["patient 000000017"]})
store.table(rows=rng.integers(0, len(store), 100))
figures["query"] = used()
print(json.dumps(figures))
"""
# Metadata and vectors are half a gigabyte; what a phase takes is what pieces, row groups and dictionaries take.
PIECES_MIB = 300
BUDGET_MIB = 128


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    command = [sys.executable, "-c", CODE, str(tmp_path / "index"), str(BUDGET_MIB)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=500)
    mib = json.loads(done.stdout)
    assert mib["vectors"] + mib["metadata"] > 500
    assert mib["build"] < PIECES_MIB
    assert mib["compact"] < PIECES_MIB
    assert mib["query"] < PIECES_MIB
    # Memory that was freed before but not given back to the system is in this figure, too.
    assert mib["tune"] < PIECES_MIB + BUDGET_MIB
