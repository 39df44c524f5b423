"""An index written by format version 1 stays readable: by us, and by anybody who read docs/format.md."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retr.index.store import Store

GOLDEN = Path(__file__).parents[2] / "golden" / "index-v1"
LIVE = {
    "id": ["a.png", "c.png", "d.png", "e.png"],
    "age": [61.0, 7.0, 50.5, 40.0],
    "eye": ["left", None, None, None],
    "seen": [None, None, dt.date(2024, 5, 31), None],
}
VECTORS = np.array([[0.6, 0.8, 0], [1 / 3**0.5] * 3, [0, 0, -1], [1, 0, 0]])


@pytest.fixture
def golden(tmp_path) -> Path:
    shutil.copytree(GOLDEN, tmp_path / "golden")
    return tmp_path / "golden"


def test_the_store_reads_it(golden):
    store = Store.open(golden)
    assert store.check() == []
    assert (store.version, len(store), store.n_total) == (3, 4, 5)
    assert store.manifest.encoder.options == {"layer": 2}
    assert store.manifest.group == "eye"
    assert store.manifest.extra == {"note": {"a": 1}}
    assert store.file("note.txt") == b"golden\n"
    assert store.skipped().to_pylist() == [{"path": "x.png", "reason": "truncated"}]
    assert store.table().to_pydict() == LIVE
    np.testing.assert_allclose(store.vectors(store.live_rows()), VECTORS, atol=1e-3)
    assert store.rows_of(["e.png", "b.png"]).tolist() == [4, -1]
    assert store.search(np.array([[0, 0, -5]], np.float32), 1).rows.tolist() == [[3]]


def test_a_writer_goes_on_with_it(golden):
    with Store.open(golden).writer() as writer:
        writer.append(pa.table({"id": ["f.png"]}), np.ones((1, 3)))
        writer.commit()
        writer.purge()
        assert writer.store.check() == []
        assert writer.store.table().slice(0, 4).to_pydict() == LIVE


def test_the_documented_way_reads_it_without_retr():
    """The recipe of docs/format.md."""
    file, digest = (GOLDEN / "CURRENT").read_text().split()
    text = (GOLDEN / file).read_bytes()
    assert hashlib.sha256(text).hexdigest() == digest
    manifest = json.loads(text)
    tables, vectors = [], []
    for segment in manifest["segments"]:
        keep = np.ones(segment["rows"], bool)
        if segment["deleted"]:
            keep[np.load(GOLDEN / segment["deleted"]["file"])] = False
        tables.append(pq.read_table(GOLDEN / segment["table"]["file"]).filter(pa.array(keep)))
        vectors.append(np.load(GOLDEN / segment["vectors"]["file"], mmap_mode="r")[keep])
    table = pa.concat_tables(tables, promote_options="permissive")
    assert table.select(list(LIVE)).to_pydict() == LIVE
    np.testing.assert_allclose(np.concatenate(vectors), VECTORS, atol=1e-3)
    hashes, rows = np.load(GOLDEN / manifest["segments"][1]["ids"]["file"])
    wanted = int.from_bytes(hashlib.blake2b(b"e.png", digest_size=8).digest(), "little")
    assert rows[np.searchsorted(hashes, np.uint64(wanted))] == 1
