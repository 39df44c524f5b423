"""Make ``index-transform``, once for each way of fitting: ``python tests/golden/make_index_transform.py FOLDER``."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa

from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.retrieval import novelty
from retr.retrieval.index import Index

ROWS, DIM = 40, 6


def vectors() -> np.ndarray:
    """Return whole numbers: the same on any machine and with any numpy."""
    row, column = np.arange(ROWS)[:, None], np.arange(DIM)
    return (90 * (column == 0) + (row * (2 * column + 3) + column * column) % 41 - 20).astype(np.float32)


def main() -> None:
    info = EncoderInfo("golden", DIM, "cosine", "none", text=False, weights_sha256="ab" * 32, preprocessing="none")
    store = Store.create(sys.argv[1], encoder=info, group="patient")
    with store.writer() as writer:
        ids, patients = [f"{row:02d}.png" for row in range(ROWS)], [f"P{row // 2}" for row in range(ROWS)]
        writer.append(pa.table({"id": ids, "patient": patients}), vectors())
        writer.commit()
    index = Index.open(sys.argv[1])
    index.refit(dim=3)
    with index.store.writer() as writer:
        writer.delete(np.array([1]))
        store = writer.commit()
        writer.note(novelty.NOVELTY_NOTE, novelty.novelty_note(store, novelty.measure_novelty(store)))
        writer.commit()


if __name__ == "__main__":
    main()
