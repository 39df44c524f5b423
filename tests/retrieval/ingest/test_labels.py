"""Rows carry their own labels, through changes of the table, and one bad input never stops a build."""

from __future__ import annotations

import io
import json
import tarfile
import unicodedata
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retr import Index
from retr.index.errors import UsageError
from retr.index.store import Store
from retr.retrieval.archive.tars import TarContainer
from retr.retrieval.ingest import labels as module
from retr.retrieval.ingest.build import add, build
from retr.retrieval.ingest.labels import Labels


def png(number):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (number * 7 % 256, 50, 90)).save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "archive"
    place.mkdir()
    for number in range(3):
        (place / f"{number}.png").write_bytes(png(number))
    return place


@pytest.fixture
def index(tmp_path):
    return tmp_path / "index"


def table(tmp_path, text, name="labels.csv"):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


def cells(index, *columns):
    store = Store.open(index)
    assert store.check() == []
    return {row["id"]: tuple(row[name] for name in columns) for row in store.table(["id", *columns]).to_pylist()}


def pack(file, members):
    with zipfile.ZipFile(file, "w") as container:
        for name, data in members.items():
            container.writestr(name, data if isinstance(data, bytes) else json.dumps(data))
    return file


def test_a_column_that_left_the_table_and_a_cell_that_was_cleared_are_cleared(tmp_path, folder, index, fake_encoder):
    build(folder, index, fake_encoder, metadata=table(tmp_path, "path,label,age\n0.png,x,30\n1.png,y,40\n"))
    report = build(folder, index, fake_encoder, metadata=table(tmp_path, "path,label\n0.png,\n1.png,y\n"))
    assert (report.embedded, report.unchanged) == (0, 3)
    assert cells(index, "label", "age") == {"0.png": (None, None), "1.png": ("y", None), "2.png": (None, None)}
    # the name is free for cells of another type
    build(folder, index, fake_encoder, metadata=table(tmp_path, "path,age\n0.png,old\n"))
    assert cells(index, "label", "age")["0.png"] == (None, "old")


def test_a_column_of_another_source_stays(tmp_path, folder, index, fake_encoder):
    first = table(tmp_path, "path,age\n0.png,30\n")
    build(folder, index, fake_encoder, metadata=first)
    add(folder, index, fake_encoder, name="b", metadata=table(tmp_path, "path,age\n0.png,31\n", "b.csv"))
    build(folder, index, fake_encoder, metadata=table(tmp_path, "path,label\n0.png,x\n"))
    assert cells(index, "age", "label")["0.png"] == (None, "x")
    assert cells(index, "age", "label")["b/0.png"] == (31, None)


def test_the_group_column_is_not_lost_with_the_table(tmp_path, folder, index, fake_encoder):
    build(folder, index, fake_encoder, metadata=table(tmp_path, "path,who\n0.png,1.10\n1.png,1.1\n"), group="who")
    assert cells(index, "who")["0.png"] == ("1.10",)
    with pytest.raises(UsageError, match="no longer has the column 'who', which tells patients apart"):
        build(folder, index, fake_encoder, metadata=table(tmp_path, "path,label\n0.png,x\n"))
    # the group column is text in later builds, too
    build(folder, index, fake_encoder, metadata=table(tmp_path, "path,who\n0.png,7\n1.png,8\n"))
    assert cells(index, "who") == {"0.png": ("7",), "1.png": ("8",), "2.png": (None,)}
    # a column that the table names otherwise is the group from then on
    renamed = table(tmp_path, "path,whose\n0.png,7\n1.png,8\n2.png,0\n")
    assert build(folder, index, fake_encoder, metadata=renamed, group="whose").notes == ()
    assert Store.open(index).manifest.group == "whose"
    assert cells(index, "whose", "who")["2.png"] == ("0", None)


def test_pictures_of_nobody_are_said(tmp_path, folder, index, fake_encoder):
    metadata = table(tmp_path, "path,patient\n0.png,P1\n1.png, \n")
    first = build(folder, index, fake_encoder, metadata=metadata, group="patient")
    assert "2 pictures of this source have no 'patient': nothing says whose they are" in first.notes
    other = table(tmp_path, "path,PatientID\n0.png,P1\n1.png,P1\n2.png,P2\n", "b.csv")
    (note,) = add(folder, index, fake_encoder, name="b", metadata=other).notes
    assert note.startswith("3 pictures of this source have no 'patient'")
    assert note.endswith("is it the table's column 'PatientID'?")
    assert build(folder, index, fake_encoder, group="path").notes == ()


def test_the_group_column_is_never_read_as_numbers(tmp_path, folder, index, fake_encoder):
    metadata = table(tmp_path, "path,who\n0.png,0123\n1.png,123\n")
    message = "the column 'who' tells patients apart and stays text"
    with pytest.raises(UsageError, match=message):
        build(folder, index, fake_encoder, metadata=metadata, types={"who": "number"}, group="who")
    build(folder, index, fake_encoder, metadata=metadata, types={"who": "number"})
    for declare in (
        lambda: build(folder, index, fake_encoder, group="who"),
        lambda: build(folder, index, fake_encoder, metadata=metadata, group="who"),
        lambda: Index.open(index).set_group("who"),
    ):
        with pytest.raises(UsageError, match=message):
            declare()
    build(folder, index, fake_encoder, metadata=metadata, types={"who": "text"}, group="who")
    assert cells(index, "who") == {"0.png": ("0123",), "1.png": ("123",), "2.png": (None,)}


def test_a_group_that_the_index_has_a_column_of_its_own_for_is_not_mistaken(tmp_path, folder, index, fake_encoder):
    metadata = table(tmp_path, "path,id,folder\n0.png,7.10,345.10\n1.png,7.10,2\n")
    for name in ("id", "folder"):
        with pytest.raises(UsageError, match=f"'{name}'.* stored as '{name}_meta'"):
            build(folder, index, fake_encoder, metadata=metadata, group=name)
    build(folder, index, fake_encoder, metadata=metadata, group="folder_meta")
    assert cells(index, "id_meta", "folder_meta")["0.png"] == ("7.10", "345.10")
    with pytest.raises(UsageError, match="tells no patients apart"):
        Index.open(index).set_group("id")
    build(folder, tmp_path / "new", fake_encoder, metadata=metadata, group="id_meta", types={"folder": "number"})
    assert cells(tmp_path / "new", "id_meta", "folder_meta")["0.png"] == ("7.10", 345.1)


def test_a_table_takes_no_label_from_a_picture_that_it_does_not_name(tmp_path, index, fake_encoder):
    members = {f"{n}.png": png(n) for n in range(3)} | {f"{n}.json": {"patient": f"P{n}", "v": n} for n in range(3)}
    archive = pack(tmp_path / "a.zip", members)
    own = {"0.png": ("P0", 0), "1.png": ("P1", 1), "2.png": ("P2", 2)}
    build(archive, index, fake_encoder, metadata=table(tmp_path, "path,patient,v\n0.png,Q,7\n"), group="patient")
    assert cells(index, "patient", "v") == {**own, "0.png": ("Q", 7)}
    # the same of a changed one, also where the build that joined it was killed
    changed = table(tmp_path, "path,patient,v\n1.png,R,8\n2.png,,\n")
    with pytest.MonkeyPatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(Labels, "see", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        build(archive, index, fake_encoder, metadata=changed)
    encoded = fake_encoder.encoded
    report = build(archive, index, fake_encoder, metadata=changed)
    assert cells(index, "patient", "v") == {**own, "1.png": ("R", 8)}
    assert (report.reused, fake_encoder.encoded) == (3, encoded)
    assert any("'patient', 'v' stand in the table and beside pictures" in note for note in report.notes)
    assert any("give it again" in note for note in build(archive, index, fake_encoder).notes)
    assert build(archive, index, fake_encoder, metadata=changed).unchanged == 3
    build(archive, index, fake_encoder, metadata=table(tmp_path, "path,patient\n2.png,S\n"))
    assert cells(index, "patient", "v") == {**own, "2.png": ("S", 2)}


def test_declared_types_are_kept_for_later_builds(tmp_path, folder, index, fake_encoder):
    metadata = table(tmp_path, "path,acc\n0.png,1E3\n1.png,2.50\n")
    report = build(folder, index, fake_encoder, metadata=metadata)
    assert "--type acc=number" in report.notes[-1]
    assert cells(index, "acc")["0.png"] == ("1E3",)
    build(folder, index, fake_encoder, metadata=metadata, types={"acc": "number"})
    build(folder, index, fake_encoder, metadata=metadata)
    assert cells(index, "acc") == {"0.png": (1000.0,), "1.png": (2.5,), "2.png": (None,)}


def test_one_identifier_from_several_sources_is_one(tmp_path, folder, index, fake_encoder):
    pq.write_table(pa.table({"path": ["0.png"], "patient": [17]}), tmp_path / "a.parquet")
    build(folder, index, fake_encoder, metadata=tmp_path / "a.parquet", group="patient")
    add(folder, index, fake_encoder, name="b", metadata=table(tmp_path, "path,patient\n0.png,17\n1.png,017\n"))
    members = {"0.png": png(9), "0.json": {"patient": 17}, "1.png": png(10), "1.json": {"patient": "017"}}
    add(pack(tmp_path / "c.zip", members), index, fake_encoder, name="c")
    found = cells(index, "patient")
    assert {found[name] for name in ("0.png", "b/0.png", "c/0.png")} == {("17",)}
    assert {found[name] for name in ("b/1.png", "c/1.png")} == {("017",)}


def test_columns_of_two_types_are_refused_before_anything_is_embedded(tmp_path, folder, index, fake_encoder):
    build(folder, index, fake_encoder, metadata=table(tmp_path, "path,grade,score\n0.png,mild,1\n"))
    seen = fake_encoder.encoded
    (folder / "3.png").write_bytes(png(3))
    numbers = table(tmp_path, "path,grade\n0.png,1\n")
    with pytest.raises(UsageError, match=r"'grade' is numbers in the table and text in the index; --type grade=text"):
        add(folder, index, fake_encoder, name="b", metadata=numbers)
    assert fake_encoder.encoded == seen
    add(folder, index, fake_encoder, name="b", metadata=numbers, types={"grade": "text"})
    assert cells(index, "grade")["b/0.png"] == ("1",)


def test_mixed_values_beside_pictures_become_text_and_none_is_lost(tmp_path, index, fake_encoder):
    members = {f"{n:03d}.png": png(n) for n in range(6)}
    members |= {f"{n:03d}.cls": str(n).encode() if n < 4 else b"severe" for n in range(6)}
    report = build(pack(tmp_path / "a.zip", members), index, fake_encoder, commit_rows=2)
    assert [value for (value,) in cells(index, "cls").values()] == ["0", "1", "2", "3", "severe", "severe"]
    assert "column 'cls' holds text and numbers: it is text now" in report.notes


@pytest.mark.parametrize(
    ("first", "second", "stored"),
    [
        (3, 2.5, [3.0, 2.5]),
        (2.5, 3, [2.5, 3.0]),
        (2**60 + 1, 0.5, [str(2**60 + 1), "0.5"]),
        (0.5, 2**60 + 1, ["0.5", str(2**60 + 1)]),
        (True, 1, ["true", "1"]),
        (7, None, [7, None]),
        ("x", 17.0, ["x", "17"]),
        (1, [1, 2], ["1", "[1, 2]"]),
    ],
)
@pytest.mark.parametrize("commit_rows", [1, 2])
def test_no_value_beside_a_picture_is_changed(tmp_path, index, fake_encoder, first, second, stored, commit_rows):
    members = {"0.png": png(0), "0.json": {"v": first}, "1.png": png(1), "1.json": {"v": second}}
    build(pack(tmp_path / "a.zip", members), index, fake_encoder, commit_rows=commit_rows)
    found = [value for (value,) in cells(index, "v").values()]
    assert [(type(value), value) for value in found] == [(type(value), value) for value in stored]


def test_texts_beside_pictures_are_numbers_where_that_was_declared(tmp_path, index, fake_encoder):
    members = {"0.png": png(0), "0.json": {"acc": "1E3"}, "1.png": png(1), "1.json": {"acc": "2.50"}}
    build(pack(tmp_path / "a.zip", members), index, fake_encoder, types={"acc": "number"})
    assert cells(index, "acc") == {"0.png": (1000.0,), "1.png": (2.5,)}


def test_pictures_of_equal_bytes_do_not_share_the_labels_beside_them(tmp_path, index, fake_encoder):
    build(pack(tmp_path / "a.zip", {"a.png": png(1), "a.json": {"patient": "P1", "age": 3}}), index, fake_encoder)
    members = {"a.png": png(1), "a.json": {"patient": "P1"}, "b.png": png(1)}
    report = build(pack(tmp_path / "a.zip", members), index, fake_encoder)
    assert report.reused == 2
    assert cells(index, "patient", "age") == {"a.png": ("P1", None), "b.png": (None, None)}


def test_names_that_the_index_needs_are_kept_apart(tmp_path, index, fake_encoder):
    labels = {"size": 1, "size_meta": 2, "id": "x", "score": 3, "etag": "e"}
    build(pack(tmp_path / "a.zip", {"a.png": png(1), "a.json": labels}), index, fake_encoder)
    assert cells(index, "size_meta_", "size_meta", "id_meta", "score_meta", "etag_meta") == {
        "a.png": (1, 2, "x", 3, "e")
    }


def test_a_bad_label_is_a_record_and_the_picture_is_there(tmp_path, index, fake_encoder, monkeypatch):
    monkeypatch.setattr(module, "MAX_BESIDE", 40)
    members = {f"{n}.png": png(n) for n in range(5)}
    members |= {"0.json": b'{"a": "\\ud800"}', "1.json": {f"k{n}": n for n in range(100_000)}, "2.json": b"\xff"}
    members |= {"3.json": {"a": 1}, "4.json": {f"k{n}": n for n in range(100)}}
    report = build(pack(tmp_path / "a.zip", members), index, fake_encoder)
    assert report.rows == 5
    assert report.skipped == {"unreadable labels": 3}
    assert cells(index, "a", "k38")["3.png"] == (1, None)
    assert cells(index, "k38")["4.png"] == (38,)
    assert "k39" not in Store.open(index).schema.names
    assert any("more than 40 columns" in note for note in report.notes)


def test_a_changed_list_changes_its_rows(tmp_path, folder, index, fake_encoder):
    file = table(folder, "Path ,label\n0.png,x\n.\\1.png,y\n", "list.csv")
    build(file, index, fake_encoder)
    assert cells(index, "label") == {"0.png": ("x",), "1.png": ("y",)}
    table(folder, "Path,label\n0.png,z\n1.png,\n", "list.csv")
    report = build(file, index, fake_encoder, metadata=table(tmp_path, "path,age\n0.png,3\n"))
    assert (report.embedded, report.unchanged) == (0, 2)
    assert cells(index, "label", "age") == {"0.png": ("z", 3), "1.png": (None, None)}
    with pytest.raises(UsageError, match=r"different cells for the path '0\.png' in rows 2 and 3"):
        build(table(folder, "path,label\n0.png,z\n.\\0.png,a\n", "list.csv"), index, fake_encoder)


def test_members_that_an_older_version_called_otherwise_are_told_of_and_pruned(tmp_path, index, fake_encoder):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as container:
        for number in range(2):
            member = tarfile.TarInfo(f"./{number}.png")
            member.size = len(png(number))
            container.addfile(member, io.BytesIO(png(number)))
    now = TarContainer.entries
    with pytest.MonkeyPatch.context() as old:
        old.setattr(TarContainer, "entries", lambda self: (replace(one, path=f"./{one.path}") for one in now(self)))
        build(archive, index, fake_encoder)
    report = build(archive, index, fake_encoder)
    assert (report.reused, report.vanished) == (2, 2)
    assert "2 rows have ids with ./" in report.notes[0]
    assert build(archive, index, fake_encoder, prune=True).notes == ()
    assert set(cells(index)) == {"0.png", "1.png"}


def test_accents_decide_nothing(folder, index, fake_encoder, tmp_path):
    name = unicodedata.normalize("NFD", "\u00c9tude")
    (folder / name).mkdir()
    (folder / name / "3.png").write_bytes(png(3))
    who = unicodedata.normalize("NFD", "Zo\u00eb")
    metadata = table(tmp_path, f"path,label,patient\n\u00c9tude/3.png,x,{who}\n")
    build(folder, index, fake_encoder, metadata=metadata, group="patient")
    store = Store.open(index)
    for text in (f"{name}/3.png", "\u00c9tude/3.png"):
        assert np.flatnonzero(store.where(f"id = '{text}'")).tolist() == store.rows_of([text]).tolist()
        assert [rows.tolist() for rows in store.identity.rows("path", [text])] == [store.rows_of([text]).tolist()]
    assert store.identity.rows("patient", [who])[0].tolist() == store.rows_of([f"{name}/3.png"]).tolist()
    assert store.identity.of("path", store.rows_of([f"{name}/3.png"])) == ["\u00c9tude/3.png"]
    assert store.rows_of(["\u00c9tude/3.png"]).tolist() == store.rows_of([f"{name}/3.png"]).tolist() != [-1]
    assert cells(index, "folder", "label")[f"{name}/3.png"] == ("\u00c9tude", "x")
    # two pictures that read alike: the table's row belongs to the one that is spelled so
    (folder / "\u00c9tude").mkdir()
    (folder / "\u00c9tude" / "3.png").write_bytes(png(4))
    build(folder, index, fake_encoder, metadata=tmp_path / "labels.csv")
    assert cells(index, "label")[f"{name}/3.png"] == (None,)
    assert cells(index, "label")["\u00c9tude/3.png"] == ("x",)


def test_a_row_that_fits_two_pictures_labels_neither(tmp_path, folder, index, fake_encoder):
    metadata = table(tmp_path, "path,label\n0,x\n1,y\n")
    report = build(folder, index, fake_encoder, metadata=metadata)
    assert cells(index, "label") == {"0.png": ("x",), "1.png": ("y",), "2.png": (None,)}
    assert report.unmatched_metadata == 0
    Image.new("RGB", (8, 8)).save(folder / "1.jpg")
    report = build(folder, index, fake_encoder, metadata=metadata)
    assert cells(index, "label") == {"0.png": ("x",), "1.jpg": (None,), "1.png": (None,), "2.png": (None,)}
    assert "1 rows of the table fit several pictures and label none of them, e.g. '1'" in report.notes


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "path,x\nimages/0.png,1\n",
            {},
            "no path of the table .* the table has 'images/0.png', the archive '0.png', '1",
        ),
        ("path,x\n", {}, "the table has none"),
        ('path,x\n0.png,"a\n1.png,b\n', {}, "a quote is never closed in the row that begins in line 2"),
        ("where,x\n0.png,1\n", {}, "no path column, only 'where', 'x'; say with --path-column"),
        ("path,x\n0.png,1\n", {"path_column": "y"}, "has no column 'y'"),
        ("path,x\n0.png,a\n", {"types": {"x": "number"}}, "declared a number, but row 1"),
        ("path,x\n0.png,1\n", {"types": {"y": "number"}}, "there is no column 'y'"),
    ],
)
def test_what_cannot_be_joined_is_said_before_anything_is_embedded(
    tmp_path, folder, index, fake_encoder, text, options, message
):
    with pytest.raises(UsageError, match=message):
        build(folder, index, fake_encoder, metadata=table(tmp_path, text), **options)
    assert not index.exists()
    assert fake_encoder.encoded == 0


def test_a_first_build_that_fails_leaves_no_index(folder, index, fake_encoder, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("retr.retrieval.ingest.pipeline.make_rows", fail)
    with pytest.raises(MemoryError):
        build(folder, index, fake_encoder)
    assert not index.exists()


def test_a_clash_of_ids_is_a_record(tmp_path, folder, index, fake_encoder):
    pages = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (10, 200)]
    pages[0].save(folder / "p.tif", save_all=True, append_images=pages[1:])
    (folder / "p.tif#2").write_bytes(png(5))
    pack(folder / "z.zip", {"a.png": png(6)})
    (folder / "z.zip::a.png").write_bytes(png(7))
    for _ in range(2):
        report = build(folder, index, fake_encoder)
        assert report.rows == 6
        assert report.skipped == {"id of another picture": 2}
    assert set(cells(index, "folder")) == {"0.png", "1.png", "2.png", "p.tif#1", "p.tif#2", "z.zip::a.png"}


def test_a_folder_that_is_named_like_another_source_is_a_record(folder, index, fake_encoder):
    build(folder, index, fake_encoder)
    add(folder, index, fake_encoder, name="site2")
    (folder / "site2").mkdir()
    (folder / "site2" / "9.png").write_bytes(png(9))
    report = build(folder, index, fake_encoder)
    assert report.skipped == {"id of another picture": 1}
    assert report.rows == 6
