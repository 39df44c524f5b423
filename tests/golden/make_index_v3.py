"""Make ``index-v3``, once for each format version: ``python tests/golden/make_index_v3.py DIRECTORY``."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa

from retr.index.encoder import EncoderInfo
from retr.index.store import Store


def main() -> None:
    info = EncoderInfo("golden", 3, "cosine", "none", text=False, weights_sha256="ab" * 32, preprocessing="none")
    store = Store.create(sys.argv[1], encoder=info, group="patient", shards=3)
    table = {
        "id": list("abcdefg"),
        "patient": ["P1", "P1", "P2", "P3", None, "P4", "P4"],
        "age": [61, 7, 5, 4, 3, 2, 1],
    }
    with store.writer() as writer:
        writer.append(pa.table(table), np.random.default_rng(0).standard_normal((7, 3)))
        writer.add_file("note.txt", b"golden\n")
        writer.note("note", {"a": 1})
        writer.commit()
        writer.delete(writer.store.rows_of(["d"]))
        writer.commit()


if __name__ == "__main__":
    main()
