"""An index of any format version stays readable: by us, and by anybody who read docs/format.md."""

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
from sets_kind import KIND, members

from retr.index.disk import side_data
from retr.index.errors import RetrError
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


def test_what_version_1_left_of_no_kind_is_dropped_with_a_word(golden):
    with Store.open(golden).writer() as writer:
        writer.note("other", {"seen": "note.txt"})
        writer.delete(np.array([0]))
        assert writer.purge().dropped == ("note.txt", "other")
        assert (dict(writer.store.manifest.files), dict(writer.store.manifest.extra)) == ({}, {"note": {"a": 1}})
        assert writer.store.manifest.format_version == 1


@pytest.fixture
def second(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(side_data, "_registered", dict(side_data._registered))
    shutil.copytree(GOLDEN.parent / "index-v2", tmp_path / "second")
    return tmp_path / "second"


def test_an_index_of_version_2_is_read_by_who_does_not_know_its_kind(second):
    store = Store.open(second)
    assert store.check() == []
    assert (store.version, len(store), store.n_total) == (3, 4, 5)
    assert store.table()["id"].to_pylist() == ["r001", "r003", "r104", "r105"]
    assert store.array("digits").tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 3], [1, 0, 4], [1, 0, 5]]
    with store.writer() as writer:
        writer.note("note", 1)
        kept = writer.commit()
        with pytest.raises(RetrError, match="holds side data of the kind 'sets', which this retr does not know"):
            writer.purge()
    assert (kept.manifest.side_data, kept.file("sets.json")) == (store.manifest.side_data, store.file("sets.json"))


def test_a_writer_that_knows_the_kind_goes_on_with_version_2(second):
    side_data.register(KIND)
    store = Store.open(second)
    assert store.check() == []
    assert members(store) == {"doubtful": ["r003", "r105"]}
    with store.writer() as writer:
        writer.delete(np.array([2]))
        assert writer.purge().dropped == ("1 rows of sets",)
        assert (writer.store.check(), members(writer.store)) == ([], {"doubtful": ["r105"]})
        assert writer.store.array("digits").tolist() == [[0, 0, 1], [1, 0, 4], [1, 0, 5]]


def test_lines_of_row_arrays_are_read_without_retr():
    """The recipe of docs/format.md."""
    root = GOLDEN.parent / "index-v2"
    manifest = json.loads((root / (root / "CURRENT").read_text().split()[0]).read_bytes())
    assert manifest["side_data"] == {
        "sets": {"files": ["sets.json"], "notes": ["sets"], "numbered": True, "version": 3}
    }
    for segment in manifest["segments"]:
        ids = pq.read_table(root / segment["table"]["file"])["id"].to_pylist()
        lines = np.load(root / segment["arrays"]["digits"]["file"], mmap_mode="r")
        assert lines.dtype == manifest["row_arrays"]["digits"]["dtype"]
        assert ["r" + "".join(map(str, line)) for line in lines] == ids


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


def test_an_index_of_version_3_is_read_and_changed_where_a_copy_lost_its_empty_folders(tmp_path):
    shutil.copytree(GOLDEN.parent / "index-v3", tmp_path / "third")
    for folder in [path for path in (tmp_path / "third").rglob("*") if path.is_dir() and not any(path.iterdir())]:
        folder.rmdir()
    store = Store.open(tmp_path / "third")
    assert store.check() == []
    assert (store.version, store.manifest.shards, len(store), store.file("note.txt")) == (3, 3, 6, b"golden\n")
    assert store.table().sort_by("id")["age"].to_pylist() == [61, 7, 5, 3, 2, 1]
    wanted = np.random.default_rng(0).standard_normal((7, 3))[[0, 1, 2, 4, 5, 6]]
    found = store.vectors(store.rows_of(list("abcefg")))
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)
    with store.writer() as writer:
        writer.append(pa.table({"id": ["h"], "patient": ["P9"]}), np.ones((1, 3)))
        writer.purge()
        assert (writer.store.check(), len(writer.store), writer.store.n_total) == ([], 7, 7)


def test_the_documented_way_reads_shards_without_retr():
    root = GOLDEN.parent / "index-v3"
    manifest = json.loads((root / (root / "CURRENT").read_text().split()[0]).read_bytes())
    ages = {}
    for number, ref in enumerate(manifest["shards"]):
        text = (root / ref["file"]).read_bytes()
        assert hashlib.sha256(text).hexdigest() == ref["sha256"]
        for segment in json.loads(text)["segments"]:
            table = pq.read_table(root / f"shards/{number:04d}" / segment["table"]["file"])
            for row in table.to_pylist():
                ages[row["id"]] = row["age"]
                text = row["patient"] or row["id"]
                place = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
                assert place % len(manifest["shards"]) == number
    # one of them is deleted
    assert ages == {"a": 61, "b": 7, "c": 5, "d": 4, "e": 3, "f": 2, "g": 1}
