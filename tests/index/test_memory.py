"""A million rows are written, compacted and accelerated in memory that does not grow with them."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys, threading, time
from functools import partial
import faiss, numpy as np, pyarrow as pa
from retr.index import compaction
from retr.index.ann import train
from retr.index.config import IVF
from retr.index.encoder import EncoderInfo
from retr.index.store import Store

def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024

peak, ended = 0.0, threading.Event()
def watch():
    global peak
    while not ended.wait(0.01):
        peak = max(peak, anonymous())

info = EncoderInfo("fake", 128, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
store = Store.create(sys.argv[1], encoder=info)
rng = np.random.default_rng(0)
before = anonymous()
threading.Thread(target=watch).start()
with store.writer() as writer:
    for start in range(0, 1_000_000, 50_000):
        ids = [f"{i:09d}" for i in range(start, start + 50_000)]
        writer.append(pa.table({"id": ids, "n": range(50_000)}), rng.standard_normal((50_000, 128), np.float32))
        if start == 500_000:
            writer.commit()
    writer.commit()
    writer.delete(np.arange(0, 1_000_000, 10))
    writer.compact()
    store = writer.store
    budget = 64 << 20
    writer.accelerate(0, partial(train, store.segments[0].vectors, IVF(lists=64), budget=budget))
    store = writer.commit()
    held = store.manifest.segments[0].accelerator.bytes / 2**20
ended.set()
assert (len(store), len(store.segments)) == (900_000, 1)
print(peak - before, held, store.vectors().nbytes / 2**20)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "index")], capture_output=True, text=True, check=True, timeout=500
    )
    used, held, vectors = map(float, done.stdout.split())
    assert vectors > 400
    # The accelerator is in memory twice while faiss packs it; the rest is what pieces and samples take.
    assert used < 2 * held + 256
