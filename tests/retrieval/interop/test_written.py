"""What is written for other people's tools is read by their own libraries, and by retr again."""

from __future__ import annotations

import gc
import json
import warnings
from importlib.util import find_spec

import numpy as np
import pyarrow.parquet as pq
import pytest
from dicom_file import dicom
from fake_encoder import FakeEncoder

from retr import Index
from retr.index.errors import UsageError
from retr.retrieval.interop import written


@pytest.fixture
def index(archive, tmp_path, fake_encoder):
    (archive / "healthy/scan.dcm").write_bytes(dicom("P1", 3, frames=2))
    return Index.build(archive, tmp_path / "x", encoder=fake_encoder, metadata=archive / "labels.csv")


def test_parquet_has_every_row_with_its_vector(index, tmp_path):
    assert index.export(tmp_path / "out", form="parquet") == 14
    table = pq.read_table(tmp_path / "out" / "rows.parquet")
    rows = index.store.rows_of(table["id"].to_pylist())
    assert np.array_equal(np.stack(table["vector"].to_numpy()), index.store.vectors(rows))
    assert table.drop_columns(["vector"]).equals(index.store.table(rows=rows))
    duckdb = pytest.importorskip("duckdb")
    file = tmp_path / "out/rows.parquet"
    query = "(SELECT vector FROM read_parquet($file) WHERE id = 'healthy/000.png')"
    order = f"SELECT id FROM read_parquet($file) ORDER BY list_dot_product(vector, {query}) DESC LIMIT 2"
    with duckdb.connect() as connection:
        nearest = connection.execute(order, {"file": str(file)}).fetchall()
    assert [id_ for (id_,) in nearest] == index.search(id="healthy/000.png", k=2, include_self=True).ids


def test_webdataset_reads_the_shards_and_so_does_a_build(index, tmp_path, monkeypatch, fake_encoder):
    webdataset = pytest.importorskip("webdataset")
    monkeypatch.setattr(written, "SHARD_ROWS", 5)
    assert index.export(tmp_path / "out", form="webdataset") == 14
    shards = sorted(map(str, (tmp_path / "out").iterdir()))
    assert len(shards) == 3
    # its readers leave their files to the garbage
    with warnings.catch_warnings(action="ignore"):
        samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
        gc.collect()
    rows = {row["id"]: row for row in index.store.table().to_pylist()}
    for sample in samples:
        row = rows.pop(sample["json"]["id"])
        assert sample["json"]["label"] == row["label"] if row["label"] else "label" not in sample["json"]
        (at,) = index.store.rows_of([row["id"]])
        assert np.array_equal(sample["npy"], index.store.vectors([at])[0])
    assert not rows
    again = Index.build(tmp_path / "out", tmp_path / "again", encoder=FakeEncoder())
    table = again.store.table(["id_meta", "label"]).to_pylist()
    assert {row["id_meta"]: row["label"] for row in table} == {
        row["id"]: row["label"] for row in index.store.table(["id", "label"]).to_pylist()
    }
    # files as they lie in the archive; a frame as the picture that was embedded
    assert again.report.skipped == {}
    framed = [row for row in again.store.table(["id_meta", "width", "height"]).to_pylist() if "#" in row["id_meta"]]
    assert [(row["width"], row["height"]) for row in framed] == [(16, 16)] * 2


def test_fiftyone_gets_the_folder_that_its_importer_reads(index, tmp_path):
    assert index.export(tmp_path / "out", form="fiftyone", label="label", where="label is not null") == 12
    found = json.loads((tmp_path / "out/labels.json").read_text())
    assert found["classes"] == ["glaucoma", "healthy"]
    names = json.loads((tmp_path / "out/names.json").read_text())
    files = {file.stem: file for file in (tmp_path / "out/data").iterdir()}
    assert sorted(found["labels"]) == sorted(files) == names
    for name, label in found["labels"].items():
        # a label of FiftyOne has an id of its own
        assert not {"id", "label", "confidence", "logits", "tags"} & set(label["attributes"])
        row = index[label["attributes"]["id_meta"]]
        assert label["label"] == row["label"]
        assert files[name].read_bytes() == (tmp_path / "archive" / row["path"]).read_bytes()
    assert np.load(tmp_path / "out/vectors.npy").shape == (12, 56)
    for way, said in (({"form": "fiftyone"}, "--label COLUMN"), ({"form": "npy", "label": "label"}, "all columns")):
        with pytest.raises(UsageError, match=said):
            index.export(tmp_path / "no", **way)
    with pytest.raises(UsageError, match="'parquet', 'lance'"):
        index.export(tmp_path / "no", form="csv")
    assert not (tmp_path / "no").exists()


@pytest.mark.skipif(not (find_spec("lance") and find_spec("lancedb")), reason="needs pylance and lancedb: in no extra")
def test_lancedb_opens_the_table(index, tmp_path):
    import lancedb

    index.export(tmp_path / "db/rows.lance", form="lance")
    table = lancedb.connect(tmp_path / "db").open_table("rows")
    (at,) = index.store.rows_of(["healthy/000.png"])
    found = table.search(index.store.vectors([at])[0]).metric("cosine").limit(3).to_list()
    assert [row["id"] for row in found] == index.search(id="healthy/000.png", k=3, include_self=True).ids


def test_a_picture_out_of_reach_leaves_nothing(index, tmp_path, archive):
    (archive / "healthy/000.png").unlink()
    with pytest.raises(Exception, match="cannot read"):
        index.export(tmp_path / "out", form="webdataset")
    assert not (tmp_path / "out").exists()
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".out")]
