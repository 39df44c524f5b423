"""The table of labels: types without loss, keys, and clear errors."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retr.index.errors import UsageError
from retr.retrieval.archive import lookup
from retr.retrieval.archive import metadata as module
from retr.retrieval.archive.metadata import read_metadata
from retr.retrieval.ingest.rows import RESERVED


def read(file, **options):
    return read_metadata(file, reserved=RESERVED, **options)


def write(folder, text, name="labels.csv"):
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_cells_become_numbers_only_where_nothing_is_lost(tmp_path):
    file = write(
        tmp_path,
        "path,age,patient,dose,seen,note,laterality\n"
        'a.png,61,0012,1.5,true,"two, three",NA\n'
        "b.png,,7,2,False,,L\n"
        "c.png,NA,12,.5e-1,,x,R\n",
    )
    table = read(file).table
    assert table["age"].to_pylist() == [61, None, None]
    assert table["patient"].to_pylist() == ["0012", "7", "12"]
    assert table["dose"].to_pylist() == [1.5, 2.0, 0.05]
    assert table["seen"].to_pylist() == [True, False, None]
    assert table["note"].to_pylist() == ["two, three", None, "x"]
    assert table["laterality"].to_pylist() == ["NA", "L", "R"]


@pytest.mark.parametrize(("name", "separator"), [("labels.tsv", "\t"), ("labels.csv", ","), ("labels.csv", ";")])
def test_separators(tmp_path, name, separator):
    text = "\ufeffpath,label\na.png,x\n".replace(",", separator)
    assert read(write(tmp_path, text, name)).table.to_pydict() == {"label": ["x"]}


def test_parquet_and_a_key_of_another_name(tmp_path):
    table = pa.table(
        {"age": pa.array([3], pa.int8()), "file_name": ["a.png"], "kind": pa.array(["x"]).dictionary_encode()}
    )
    pq.write_table(table, tmp_path / "labels.parquet")
    metadata = read(tmp_path / "labels.parquet")
    assert metadata.key == "file_name"
    assert metadata.table.to_pydict() == {"age": [3], "kind": ["x"]}


def test_paths_are_understood_in_several_forms(tmp_path):
    file = write(tmp_path, f"path,n\n./a/b.png,1\na\\c.png,2\n{tmp_path}/d.png,3\n0.png,4\n")
    metadata = read(file, root=str(tmp_path))
    rows = metadata.rows_of(["a/b.png", "a/c.png", "d.png", "shard.tar::0.png", "missing.png"])
    assert rows.tolist() == [0, 1, 2, 3, -1]
    assert metadata.take(rows)["n"].to_pylist() == [1, 2, 3, 4, None]


def test_rows_without_a_picture_are_listed(tmp_path):
    metadata = read(write(tmp_path, "path,n\na.png,1\nb.png,2\n"))
    assert metadata.mark("a.png")
    assert not metadata.mark("c.png")
    assert metadata.unmatched().to_pylist() == ["b.png"]


def test_a_column_that_the_index_needs_itself_is_renamed(tmp_path):
    metadata = read(write(tmp_path, "path,size,size_meta,id\na.png,big,1,x\n"))
    assert metadata.renamed == {"size": "size_meta_", "id": "id_meta"}
    assert metadata.table.column_names == ["size_meta_", "size_meta", "id_meta"]


def test_equal_double_rows_are_one(tmp_path):
    metadata = read(write(tmp_path, "path,n\na.png,1\na.png,1\n"))
    assert metadata.rows_of(["a.png"]).tolist() == [0]
    metadata.mark("a.png")
    assert metadata.unmatched().to_pylist() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,age\nx,3\n", "has no path column"),
        ("path,n\na.png,1\na.png,2\n", r"different cells for the path 'a.png' in rows 2 and 3"),
        ("path,n,n\na.png,1,2\n", "has the column 'n' twice"),
        ("path,n\na.png,1,2\n", "cannot be read as CSV"),
        ("", "cannot be read as CSV"),
    ],
)
def test_a_table_that_cannot_be_meant(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read(write(tmp_path, text))


def test_a_table_that_is_not_text(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_bytes(b"path,n\n\xff\xfe,1\n")
    with pytest.raises(UsageError, match="cannot be read as CSV"):
        read(file)
    with pytest.raises(UsageError, match="does not exist"):
        read(tmp_path / "missing.csv")


@pytest.mark.parametrize("modulus", [1, 5, 1 << 62])
def test_rows_are_found_by_their_path_whatever_the_hashes(tmp_path, monkeypatch, modulus):
    monkeypatch.setattr(lookup, "hash", lambda text: hash(text) % modulus, raising=False)
    monkeypatch.setattr(module, "PIECE", 7)
    names = [f"{number * 37 % 100}.png" for number in range(30)]
    # every path stands there twice, with the same cells
    lines = [f"{name},{number}" for number, name in enumerate(names)] * 2
    found = read(write(tmp_path, "\n".join(["path,n", *lines])))
    assert found.rows_of([*names, "x.png", "c.zip::0.png"]).tolist() == [*range(30), -1, 0]
    for name in names[::2]:
        assert found.mark(name)
    assert found.unmatched().to_pylist() == names[1::2]
