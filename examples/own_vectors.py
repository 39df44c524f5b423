"""Index vectors that were made elsewhere, and take them out again: ``python examples/own_vectors.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from retr import Index, UnknownIdError


def main(folder: Path) -> None:
    """Make two indexes in ``folder``, the second from what the first exports."""
    vectors = np.random.default_rng(0).standard_normal((100, 32)).astype(np.float32)
    table = {"id": [f"scan{number}" for number in range(100)], "patient": [f"P{number // 4}" for number in range(100)]}
    own = Index.from_vectors(
        vectors, table, folder / "own.retr", encoder="my-net", fingerprint="run 7", group="patient"
    )

    with own as index:
        hits = index.search(vector=vectors[7], k=5, one_per="patient", columns=["patient"])
        print(hits.to_pandas())
        print(index["scan7"], "scan7" in index, len(index))
        try:
            index["scan700"]
        except UnknownIdError as error:
            print(error)
        pages = [index.search(id="scan7", k=10, offset=start) for start in (0, 10)]
        print([hit.id for page in pages for hit in page[:2]])
        index.export(folder / "out")

    again = Index.from_vectors(folder / "out/vectors.npy", folder / "out/metadata.parquet", folder / "again.retr")
    print(again)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
