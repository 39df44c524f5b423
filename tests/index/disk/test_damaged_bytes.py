"""Files with some bytes changed and hashes that fit them: an answer, or one line; never a crash, never a hang."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retr.index.accelerators import faiss_index
from retr.index.accelerators.config import HNSW, IVF
from retr.index.disk import sidetable
from retr.index.encoder import EncoderInfo
from retr.index.errors import RetrError
from retr.index.rows.check import check_path
from retr.index.store import Store
from retr.index.tune import Tuning

DIM, ROWS, TRIES = 16, 400, 6
KINDS: dict[str, IVF | HNSW] = {"bits": IVF(), "bytes": IVF(codec="sq8"), "graph": HNSW()}
NUMBERS = (0, 255, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


def index(root: Path, kind: str) -> dict[str, Any]:
    """Make an index with a file of every role; return its manifest."""
    info = EncoderInfo(
        name="fake", dim=DIM, similarity="cosine", modality="", text=False, weights_sha256="0", preprocessing=""
    )
    rng = np.random.default_rng(0)
    ids = [f"r{i}" for i in range(ROWS)]
    table = pa.table(
        {"id": ids, "age": [i % 90 for i in range(ROWS)], "sex": [("F", "M", None)[i % 3] for i in range(ROWS)]}
    )
    with Store.create(root, encoder=info).writer() as writer:
        writer.append(table, rng.standard_normal((ROWS, DIM)))
        writer.commit()
        writer.delete(np.array([3, 7]))
        writer.record_skipped(pa.table({"path": ["x"], "reason": ["empty"]}))
        writer.commit()
        config = KINDS[kind]
        writer.accelerate(0, partial(faiss_index.train, writer.store.segments[0].vectors, config, budget=1 << 28))
        writer.note("tuning", Tuning(config, 0.9, {"image": 0.9}, 0.001, 10).to_json())
        writer.commit()
    manifest: dict[str, Any] = json.loads((root / (root / "CURRENT").read_text().split()[0]).read_bytes())
    return manifest


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Change a byte, a number, the length or a run of bytes."""
    new = bytearray(data)
    at = rng.randrange(len(new))
    how = rng.randrange(4)
    if how == 0:
        new[at] = rng.randrange(256)
    elif how == 1:
        new[at : at + 8] = rng.choice(NUMBERS).to_bytes(8, "little")
    elif how == 2:
        del new[at:]
    else:
        new[at:at] = rng.randbytes(rng.randrange(1, 64))
    return bytes(new)


def use(root: Path) -> None:
    store = Store.open(root)
    store.table()
    store.skipped()
    store.rows_of(["r5", "nobody"])
    queries = np.random.default_rng(1).standard_normal((2, DIM)).astype(np.float32)
    for where in (None, "age > 3 and sex = 'F'"):
        found = store.search(queries, 3, where=where)
        assert all(len(set(rows)) == 3 for rows in found.rows.tolist())
        assert ((found.rows >= 0) & (found.rows < ROWS)).all()


def child(root: Path, kind: str, role: str) -> None:
    """Damage one file of a copy again and again, and use it; the parent sees a crash."""
    sidetable.MIN_ROWS = 1
    manifest = index(root, kind)
    use(root)
    found = manifest["segments"][0] if role in manifest["segments"][0] else manifest
    file = root / found[role]["file"]
    data, name = file.read_bytes(), (root / "CURRENT").read_text().split()[0]
    for seed in range(TRIES):
        new = damaged(random.Random(seed), data)
        file.unlink()
        file.write_bytes(new)
        found[role] |= {"bytes": len(new), "sha256": hashlib.sha256(new).hexdigest()}
        text = json.dumps(manifest).encode()
        (root / name).write_bytes(text)
        (root / "CURRENT").write_text(f"{name} {hashlib.sha256(text).hexdigest()}\n")
        for look in (use, check_path):
            try:
                look(root)
            except RetrError as error:
                assert "\n" not in str(error)


def test_damaged_bytes_are_an_answer_or_one_line(tmp_path):
    pytest.importorskip("faiss")
    pairs = [f"{kind}:accelerator" for kind in KINDS]
    pairs += [f"bits:{role}" for role in ("table", "vectors", "ids", "deleted", "columns", "skipped")]
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__, str(tmp_path), *pairs],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, pairs), done.stderr[-2000:]


if __name__ == "__main__":
    for number, pair in enumerate(sys.argv[2:]):
        child(Path(sys.argv[1]) / str(number), *pair.split(":"))
        sys.stdout.write(f"{pair}\n")
        sys.stdout.flush()
