"""Make ``index-v1``, once for each format version: ``python tests/golden/make_index_v1.py DIRECTORY``."""

from __future__ import annotations

import datetime as dt
import sys

import numpy as np
import pyarrow as pa

from retr.index.encoder import EncoderInfo
from retr.index.store import Store

VECTORS = np.array([[3, 4, 0], [0, 1, 0], [1, 1, 1], [0, 0, -2], [1, 0, 0]], np.float32)


def main() -> None:
    info = EncoderInfo(
        "golden", 3, "cosine", "none", text=False, weights_sha256="ab" * 32, preprocessing="none", options={"layer": 2}
    )
    store = Store.create(sys.argv[1], encoder=info, dtype="float16")
    with store.writer() as writer:
        first = {"id": ["a.png", "b.png", "c.png"], "age": [61, None, 7], "eye": ["left", "right", None]}
        writer.append(pa.table(first), VECTORS[:3])
        writer.commit()
        second = {"id": ["d.png", "e.png"], "age": [50.5, 40.0], "seen": [dt.date(2024, 5, 31), None]}
        writer.append(pa.table(second), VECTORS[3:])
        writer.delete(np.array([1]))
        writer.set_group("eye")
        writer.note("note", {"a": 1})
        writer.add_file("note.txt", b"golden\n")
        writer.record_skipped(pa.table({"path": ["x.png"], "reason": ["truncated"]}))
        writer.commit()


if __name__ == "__main__":
    main()
