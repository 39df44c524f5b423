"""Make ``index-v2``, once for each format version: ``python tests/golden/make_index_v2.py DIRECTORY``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))
from sets_kind import KIND, digits, equip, save

from retr.index.disk import side_data
from retr.index.encoder import EncoderInfo
from retr.index.store import Store

VECTORS = np.array([[3, 4, 0], [0, 1, 0], [1, 1, 1], [0, 0, -2], [1, 0, 0]], np.float32)


def main() -> None:
    side_data.register(KIND)
    info = EncoderInfo("golden", 3, "cosine", "none", text=False, weights_sha256="ab" * 32, preprocessing="none")
    store = Store.create(sys.argv[1], encoder=info)
    with store.writer() as writer:
        writer.append(pa.table({"id": ["r001", "r002", "r003"], "age": [61, None, 7]}), VECTORS[:3])
        equip(writer, {"doubtful": [1, 2]})
        writer.commit()
        ids = ["r104", "r105"]
        writer.append(pa.table({"id": ids, "age": [50, 40]}), VECTORS[3:], arrays={"digits": digits(ids)})
        writer.delete(np.array([1]))
        save(writer, {"doubtful": [2, 4]})
        # as format version 1 knew it: by its name
        writer.note("build", json.loads('{"frames": 1, "sources": [""]}'))
        writer.commit()


if __name__ == "__main__":
    main()
