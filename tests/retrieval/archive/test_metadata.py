"""The table of labels: types without loss, keys, and clear errors."""

from __future__ import annotations

import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retr.index.errors import UsageError
from retr.retrieval.archive import hashed_lookup, matching
from retr.retrieval.archive.matching import clean
from retr.retrieval.archive.metadata import MAX_COLUMNS, join_tables, path_column_of, read_metadata, require_match
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
        "c.png,NA,12,.05,,x,R\n",
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
    metadata = read(file, relative=lambda path: clean(path, [str(tmp_path)]))
    rows = metadata.rows_of(["a/b.png", "a/c.png", "d.png", "shard.tar::0.png", "missing.png"])
    assert rows.tolist() == [0, 1, 2, 3, -1]
    assert metadata.take(rows)["n"].to_pylist() == [1, 2, 3, 4, None]


def test_rows_without_a_picture_are_listed(tmp_path):
    metadata = read(write(tmp_path, "path,n\na.png,1\nb.png,2\n"))
    assert metadata.matcher.see("a.png")
    assert not metadata.matcher.see("c.png")
    assert metadata.unmatched().to_pylist() == ["b.png"]


def test_a_column_that_the_index_needs_itself_is_renamed(tmp_path):
    metadata = read(write(tmp_path, "path,size,size_meta,id\na.png,big,1,x\n"))
    assert metadata.renamed == {"size": "size_meta_", "id": "id_meta"}
    assert metadata.table.column_names == ["size_meta_", "size_meta", "id_meta"]


def test_equal_double_rows_are_one(tmp_path):
    metadata = read(write(tmp_path, "path,n\na.png,1\na.png,1\n"))
    assert metadata.rows_of(["a.png"]).tolist() == [0]
    metadata.matcher.see("a.png")
    assert metadata.unmatched().to_pylist() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,age\nx,3\n", "has no path column"),
        ("path,n\na.png,1\na.png,2\n", r"different cells for the path 'a.png' in rows 2 and 3"),
        ("path,n,n\na.png,1,2\n", "has the column 'n' twice"),
        ("path,n \na.png,1\n,2\n,3,4\n", "the row of line 4 has 3 cells, the header 2"),
        ("path, n,n \na.png,1,2\n", "has the column 'n' twice"),
        ("", "there is no header"),
    ],
)
def test_a_table_that_cannot_be_meant(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read(write(tmp_path, text))


def test_a_table_that_is_not_text(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_bytes(b"path,n\n\xff\xfe,1\n")
    with pytest.raises(UsageError, match="cannot be read as CSV: it is not UTF-8 behind line 1"):
        read(file)
    with pytest.raises(UsageError, match="does not exist"):
        read(tmp_path / "missing.csv")


@pytest.mark.parametrize("modulus", [1, 5, 1 << 62])
def test_rows_are_found_by_their_path_whatever_the_hashes(tmp_path, monkeypatch, modulus):
    monkeypatch.setattr(hashed_lookup, "hash", lambda text: hash(text) % modulus, raising=False)
    monkeypatch.setattr(matching, "PIECE", 7)
    names = [f"{number * 37 % 100}.png" for number in range(30)]
    # every path stands there twice, with the same cells
    lines = [f"{name},{number}" for number, name in enumerate(names)] * 2
    found = read(write(tmp_path, "\n".join(["path,n", *lines])))
    assert found.rows_of([*names, "x.png", "c.zip::0.png"]).tolist() == [*range(30), -1, 0]
    for name in names[::2]:
        assert found.matcher.see(name)
    assert found.unmatched().to_pylist() == names[1::2]


def test_a_picture_that_fits_by_another_spelling_is_labelled_only_where_it_is_alone(tmp_path):
    composed, decomposed = "\u00e9/1.png", "e\u0301/1.png"
    text = f"path,n\n{composed},1\n00001,2\nb.png,3\nx/y.dcm,4\n"

    def rows(*pictures):
        metadata = read(write(tmp_path, text))
        for picture in pictures:
            metadata.matcher.see(picture)
        return metadata.rows_of(pictures).tolist(), metadata.matcher.torn().tolist(), metadata.matcher.contested()

    assert rows(decomposed, "00001.png", "s.tar::b.png") == ([0, 1, 2], [], False)
    assert rows(composed, decomposed) == ([0, -1], [], True)
    assert rows("00001.png", "00001.jpg") == ([-1, -1], [1], True)
    assert rows("00001.png", "00001") == ([-1, 1], [], True)
    assert rows("s.tar::b.png", "t.tar::b.png") == ([-1, -1], [2], True)
    assert rows("b.png", "t.tar::b.png") == ([2, -1], [], True)
    assert rows("B.png", "x/y.png", "1.png") == ([-1, -1, -1], [], False)
    assert rows(r"x\y.dcm") == ([3], [], False)


def test_rows_whose_paths_are_composed_alike_belong_each_to_its_own_picture(tmp_path):
    composed, decomposed = "\u00e9.png", "e\u0301.png"
    metadata = read(write(tmp_path, f"path,n\n{composed},1\n{decomposed},2\n"))
    assert metadata.rows_of([composed, decomposed]).tolist() == [0, 1]


@pytest.mark.parametrize(
    "header", ["Path", "path ", "PATH", "Image Index", "image", "Filename", "DICOM", "file_name", "imageId"]
)
def test_a_path_column_is_recognised_whatever_its_capitals_and_blanks(tmp_path, header):
    metadata = read(write(tmp_path, f"label ,{header}\nx,a.png\n"))
    assert metadata.key == header.strip()
    assert metadata.table.to_pydict() == {"label": ["x"]}


def test_the_path_column_can_be_named_and_is_asked_for(tmp_path):
    file = write(tmp_path, "left,path\na.png,b.png\n")
    assert read(file, path_column="Left").table.to_pydict() == {"path_meta": ["b.png"]}
    with pytest.raises(UsageError, match="no column 'right'; the columns are 'left', 'path'"):
        read(file, path_column="right")
    with pytest.raises(UsageError, match=r"no path column, only 'x', 'y'; say with --path-column"):
        path_column_of(["x", "y"], None, "t.csv")
    assert path_column_of(["PATH", "path"], None, "t.csv") == "path"
    with pytest.raises(UsageError, match="several path columns"):
        path_column_of(["PATH", "Path"], None, "t.csv")


def test_a_table_that_fits_no_picture_shows_both_sides(tmp_path):
    metadata = read(write(tmp_path, "path,n\n" + "".join(f"train/{n}.png,{n}\n" for n in range(5))))
    shown = r"the table has 'train/0.png', 'train/1.png', 'train/2.png', the archive '0.png', '1.png', '2.png'"
    with pytest.raises(UsageError, match=shown + ".*the folders do not"):
        require_match(metadata, iter([f"{n}.png" for n in range(9)]), "labels.csv")
    with pytest.raises(UsageError, match="upper and lower case differ"):
        require_match(metadata, iter(["Train/0.PNG"]), "labels.csv")
    require_match(metadata, iter(["x.png", "train/4.png"]), "labels.csv")


def test_identifiers_are_text_and_declared_types_are_kept(tmp_path):
    text = "path,patient,StudyID,group,acc,size\na.png,17,1.10,0.50,1.1,1e3\nb.png,18,1.1,0.5,1.10,7\n"
    metadata = read(write(tmp_path, text), group="group")
    assert metadata.table.to_pydict() == {
        "patient": ["17", "18"],
        "StudyID": ["1.10", "1.1"],
        "group": ["0.50", "0.5"],
        "acc": ["1.1", "1.10"],
        "size_meta": ["1e3", "7"],
    }
    assert metadata.notes == [
        f"column {name!r} stays text, since numbers would not keep its spelling; --type {name}=number stores numbers"
        for name in ("acc", "size_meta")
    ]
    types = {"acc": "number", "size": "number", "patient": "number", "group": "text"}
    table = read(write(tmp_path, text), types=types).table
    assert table.select(["acc", "size_meta", "patient"]).to_pydict() == {
        "acc": [1.1, 1.1],
        "size_meta": [1000.0, 7.0],
        "patient": [17, 18],
    }
    assert table["group"].to_pylist() == ["0.50", "0.5"]
    with pytest.raises(UsageError, match="column 'note' is declared a number, but row 2 of the table"):
        read(write(tmp_path, "path,note\na.png,1\nb.png,x\n"), types={"note": "number"})


def test_one_identifier_from_csv_and_parquet_is_one(tmp_path):
    pq.write_table(pa.table({"path": ["a.png"], "patient": pa.array([17.0, None])[:1]}), tmp_path / "p.parquet")
    ours = [
        read(tmp_path / "p.parquet"),
        read(write(tmp_path, "path,patient\na.png,17\n")),
        read(write(tmp_path, "path,patient\na.png,17.0\nb.png,\n")),
    ]
    assert [metadata.table["patient"][0].as_py() for metadata in ours] == ["17"] * 3
    pq.write_table(pa.table({"path": ["a.png"], "patient": [2.0**60]}), tmp_path / "p.parquet")
    assert "different identifiers may have become one" in read(tmp_path / "p.parquet").notes[0]


def test_types_that_an_index_cannot_hold_are_refused_and_texts_are_composed(tmp_path):
    pq.write_table(pa.table({"path": ["a.png"], "t": [{"x": 1}]}), tmp_path / "s.parquet")
    with pytest.raises(UsageError, match="column 't' has the type 'struct<x: int64>'"):
        read(tmp_path / "s.parquet")
    assert read(write(tmp_path, "path,label\na.png,dru\u0308sen\n")).table["label"].to_pylist() == ["dr\u00fcsen"]


def test_two_tables_of_one_list_are_one(tmp_path):
    first = read(write(tmp_path, "path,label,age\na.png,x,1\nb.png,y,2\n", "list.csv"))
    second = read(write(tmp_path, "path,label\nb.png,z\nc.png,w\n"))
    both = join_tables(first, second)
    assert both.table.to_pydict() == {"label": [None, "z"], "age": [1, 2]}
    assert both.notes == ["1 rows of the metadata table name nothing in the list"]


def test_a_table_of_very_many_columns_is_read_fast_or_refused(tmp_path):
    names = [f"c{number}" for number in range(MAX_COLUMNS)]
    file = write(tmp_path, f"path,{','.join(names[1:])}\na.png,{','.join('1' for _ in names[1:])}\n")
    assert read(file).table.num_columns == MAX_COLUMNS - 1
    with pytest.raises(UsageError, match=f"has {MAX_COLUMNS + 1} columns, more than {MAX_COLUMNS}"):
        read(write(tmp_path, f"path,{','.join(names)}\n"))
    pq.write_table(pa.table({"path": ["a.png"], **{name: [1] for name in names}}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="columns, more than"):
        read(tmp_path / "t.parquet")


def test_names_of_columns_are_composed(tmp_path):
    decomposed = unicodedata.normalize("NFD", "\u00e9tude")
    assert read(write(tmp_path, f"path,{decomposed}\na.png,1\n")).table.column_names == ["\u00e9tude"]
    pq.write_table(pa.table({"path": ["a.png"], decomposed: [1]}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet").table.column_names == ["\u00e9tude"]
    with pytest.raises(UsageError, match="has the column '\u00e9tude' twice"):
        read(write(tmp_path, f"path,{decomposed},\u00e9tude\na.png,1,2\n"))
    with pytest.raises(UsageError, match="its header holds NUL bytes, as UTF-16 does"):
        (tmp_path / "wide.csv").write_bytes("path,x\na.png,1\n".encode("utf-16-le"))
        read(tmp_path / "wide.csv")
