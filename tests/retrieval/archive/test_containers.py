"""Zip, tar, webdataset shards, Parquet, Arrow and lists of paths: the same rows and vectors as a folder."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
import warnings
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retr.index.errors import RetrError, UsageError
from retr.index.store import Store
from retr.retrieval.archive import locations, tars
from retr.retrieval.archive.containers import ZipContainer
from retr.retrieval.archive.opening import open_source
from retr.retrieval.archive.sources import Item, Other, Skipped
from retr.retrieval.archive.tars import TarContainer
from retr.retrieval.ingest.build import build

COUNT = 500


def labels(folder):
    with (folder / "labels.csv").open() as stream:
        return {row.pop("path"): row for row in csv.DictReader(stream)}


def pack_zip(folder, target, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(target, "w", compression) as container:
        for file in sorted(folder.rglob("*")):
            container.write(file, file.relative_to(folder))
    return target


def pack_tar(folder, target, mode="w"):
    with tarfile.open(target, mode) as container:
        container.add(folder, arcname=".", filter=_plain_name)
    return target


def _plain_name(member):
    member.name = member.name.removeprefix("./")
    return member


def pack_webdataset(folder, target, shards=5):
    target.mkdir()
    rows = sorted(labels(folder).items())
    for number in range(shards):
        with tarfile.open(target / f"{number:04d}.tar", "w") as container:
            for path, row in rows[number::shards]:
                data = (folder / path).read_bytes()
                stem, _, suffix = path.rpartition(".")
                members = {
                    f"{stem}.{suffix}": data,
                    f"{stem}.json": json.dumps({**row, "age": int(row["age"])}).encode(),
                }
                for name, content in members.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    container.addfile(info, io.BytesIO(content))
    return target


def pack_table(folder, target, *, struct=True):
    rows = sorted(labels(folder).items())
    images = [(folder / path).read_bytes() for path, _ in rows]
    column = (
        pa.array([{"bytes": data, "path": path} for data, (path, _) in zip(images, rows, strict=True)])
        if struct
        else pa.array(images, pa.binary())
    )
    table = pa.table(
        {
            "image": column,
            "label": [row["label"] for _, row in rows],
            "patient": [row["patient"] for _, row in rows],
            "age": [int(row["age"]) for _, row in rows],
        }
    )
    if target.suffix == ".parquet":
        pq.write_table(table, target, row_group_size=64)
    else:
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=50)
    return target


def pack_list(folder, target):
    text = (folder / "labels.csv").read_text().splitlines()
    lines = [text[0], *(f"{folder}/{line}" for line in text[1:])]
    target.write_text("\n".join(lines) + "\n")
    return target


def rows_and_vectors(index, strip=None):
    store = Store.open(index)
    assert store.check() == []
    table = store.table().to_pylist()
    result = {}
    for row, vector in zip(table, store.vectors(store.live_rows()), strict=True):
        path = row["path"].partition("::")[2] or row["path"]
        # when and where: the only things that differ between a folder and its container
        kept = {key: row[key] for key in row if key not in {"id", "path", "mtime"}}
        result[path] = (kept, vector.tobytes())
    return result


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A folder of 500 pictures and what its index holds."""
    from fake_encoder import FakeEncoder, picture

    folder = tmp_path_factory.mktemp("reference") / "archive"
    lines = ["path,label,patient,age"]
    for number in range(COUNT):
        label = ("healthy", "glaucoma")[number % 2]
        suffix = ("png", "jpg", "bmp")[number % 3]
        file = folder / label / f"{number:03d}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(file)
        lines.append(f"{label}/{file.name},{label},P{number // 3:03d},{40 + number % 50}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    index = folder.parent / "index"
    build(folder, index, FakeEncoder(), metadata=folder / "labels.csv")
    return folder, rows_and_vectors(index)


@pytest.mark.parametrize("form", ["zip", "deflated.zip", "tar", "tar.gz", "webdataset", "parquet", "arrow", "list.csv"])
def test_every_form_gives_the_same_rows_and_vectors(form, reference, tmp_path, fake_encoder):
    folder, expected = reference
    target = tmp_path / f"packed.{form}"
    metadata = None
    if form.endswith("zip"):
        pack_zip(folder, target, zipfile.ZIP_DEFLATED if "deflated" in form else zipfile.ZIP_STORED)
        metadata = folder / "labels.csv"
    elif form.startswith("tar"):
        pack_tar(folder, target, "w:gz" if form == "tar.gz" else "w")
        metadata = folder / "labels.csv"
    elif form == "webdataset":
        pack_webdataset(folder, target)
    elif form == "list.csv":
        pack_list(folder, target)
    else:
        pack_table(folder, target)
    index = tmp_path / "index"
    report = build(target, index, fake_encoder, metadata=metadata, commit_rows=128)
    assert (report.rows, report.skipped) == (COUNT, {})
    assert rows_and_vectors(index) == expected
    store = Store.open(index)
    # random access is kept
    for row in store.table(["id", "path"], np.array([0, 77, 499])).to_pylist():
        path = row["path"].partition("::")[2] or row["path"]
        assert locations.open_item(store, row["id"]) == (folder / path).read_bytes()
    report = build(target, index, fake_encoder, metadata=metadata)
    assert (report.embedded, report.reused, report.unchanged) == (0, 0, COUNT)


def test_a_container_in_a_folder_is_looked_into(archive, tmp_path, fake_encoder, make_archive):
    packed = tmp_path / "mixed"
    (packed / "shards").mkdir(parents=True)
    pack_zip(archive, packed / "shards" / "a.zip")
    (archive / "healthy" / "000.png").rename(packed / "loose.png")
    (packed / "broken.tar").write_bytes(b"not a tar at all")
    (packed / "labels.parquet").write_bytes((pack_labels(tmp_path)).read_bytes())
    report = build(packed, tmp_path / "index", fake_encoder, metadata=archive / "labels.csv")
    store = Store.open(tmp_path / "index")
    assert store.rows_of(["shards/a.zip::glaucoma/001.jpg", "loose.png"]).min() >= 0
    assert report.rows == 13
    assert report.skipped == {"damaged": 1}
    assert report.other_files == 2  # labels.parquet, and labels.csv inside the zip
    assert store.where("label = 'glaucoma'").sum() == 6
    assert locations.open_item(store, "shards/a.zip::glaucoma/001.jpg") == (archive / "glaucoma/001.jpg").read_bytes()


def pack_labels(tmp_path):
    target = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"path": ["a.png"], "label": ["x"]}), target)
    return target


def test_a_container_written_again_is_read_again(archive, tmp_path, fake_encoder, make_picture):
    target = pack_zip(archive, tmp_path / "a.zip")
    build(target, tmp_path / "index", fake_encoder)
    make_picture(500).save(archive / "healthy" / "000.png")
    pack_zip(archive, target)
    os.utime(target, (2_000_000_000, 2_000_000_000))
    report = build(target, tmp_path / "index", fake_encoder)
    assert (report.embedded, report.reused) == (1, 11)


def test_binary_columns_without_paths_are_numbered(reference, tmp_path, fake_encoder):
    folder, _ = reference
    target = pack_table(folder, tmp_path / "a.parquet", struct=False)
    build(target, tmp_path / "index", fake_encoder)
    store = Store.open(tmp_path / "index")
    assert store.table(["id"])["id"][7].as_py() == "row-00000007"
    path = sorted(labels(folder))[7]
    assert locations.open_item(store, "row-00000007") == (folder / path).read_bytes()


def test_siblings_become_columns(tmp_path, fake_encoder, make_picture):
    buffer = io.BytesIO()
    make_picture(1).save(buffer, "PNG")
    members = {
        "0001.png": buffer.getvalue(),
        "0001.txt": b"a fundus with drusen",
        "0001.cls": b"3\n",
        "0001.json": json.dumps({"age": 61, "eyes": ["left", "right"], "size": "large"}).encode(),
        "0002.txt": b"alone",
    }
    with tarfile.open(tmp_path / "a.tar", "w") as container:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            container.addfile(info, io.BytesIO(content))
    report = build(tmp_path / "a.tar", tmp_path / "index", fake_encoder)
    (row,) = Store.open(tmp_path / "index").table(["txt", "cls", "age", "eyes", "size_meta", "size"]).to_pylist()
    assert row == {
        "txt": "a fundus with drusen",
        "cls": 3,
        "age": 61,
        "eyes": '["left", "right"]',
        "size_meta": "large",
        "size": len(buffer.getvalue()),
    }
    assert report.other_files == 1


def test_a_sibling_s_column_can_tell_patients_apart(tmp_path, fake_encoder, make_picture):
    """Also where the listing does not begin with the container: the column is not known before it is read."""
    folder = tmp_path / "folder"
    folder.mkdir()
    make_picture(1).save(folder / "a.png")
    (folder / "b.json").write_text("{}")
    with zipfile.ZipFile(folder / "c.zip", "w") as made:
        made.write(folder / "a.png", "1.png")
        made.writestr("1.json", json.dumps({"who": "P1"}))
    build(folder, tmp_path / "index", fake_encoder, group="who")
    assert Store.open(tmp_path / "index").manifest.group == "who"


def test_columns_of_odd_samples_do_not_stop_a_build(tmp_path, fake_encoder, make_picture):
    with tarfile.open(tmp_path / "a.tar", "w") as container:
        for number, age in enumerate([61, 61.5, "sixty", None, [1], 2**70]):
            buffer = io.BytesIO()
            make_picture(number).save(buffer, "PNG")
            members = {f"{number}.png": buffer.getvalue(), f"{number}.json": json.dumps({"age": age}).encode()}
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                container.addfile(info, io.BytesIO(content))
    report = build(tmp_path / "a.tar", tmp_path / "index", fake_encoder, commit_rows=1)
    assert report.rows == 6


def test_hostile_members_of_a_zip_are_records(tmp_path, make_picture):
    buffer = io.BytesIO()
    make_picture(1).save(buffer, "PNG")
    target = tmp_path / "a.zip"
    with zipfile.ZipFile(target, "w") as container:
        container.writestr("../outside.png", buffer.getvalue())
        container.writestr("/absolute.png", buffer.getvalue())
        container.writestr("good.png", buffer.getvalue())
        container.writestr("notes.txt", "x")
        container.writestr(".hidden.png", b"x")
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        container.writestr(link, "/etc/passwd")
    entries = list(ZipContainer(target).entries())
    assert {entry.path: entry.reason for entry in entries if isinstance(entry, Skipped)} == {
        "../outside.png": "name leads out of the container",
        "/absolute.png": "name leads out of the container",
        "link.png": "link in a container",
    }
    assert [entry.path for entry in entries if isinstance(entry, Item)] == ["good.png"]
    assert [entry.path for entry in entries if isinstance(entry, Other)] == ["notes.txt"]


def test_a_zip_bomb_is_a_record(tmp_path, fake_encoder, make_picture, monkeypatch):
    monkeypatch.setattr("retr.retrieval.archive.containers.MAX_MEMBER_BYTES", 1 << 20)
    target = tmp_path / "a.zip"
    buffer = io.BytesIO()
    make_picture(1).save(buffer, "PNG")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as container:
        container.writestr("bomb.png", b"\0" * (8 << 20))
        container.writestr("good.png", buffer.getvalue())
    report = build(target, tmp_path / "index", fake_encoder)
    assert (report.rows, report.skipped) == (1, {"too large": 1})


def test_links_in_a_tar_are_records(tmp_path, make_picture):
    buffer = io.BytesIO()
    make_picture(1).save(buffer, "PNG")
    target = tmp_path / "a.tar"
    with tarfile.open(target, "w") as container:
        info = tarfile.TarInfo("../outside.png")
        info.size = len(buffer.getvalue())
        container.addfile(info, io.BytesIO(buffer.getvalue()))
        for kind, name in ((tarfile.SYMTYPE, "sym.png"), (tarfile.LNKTYPE, "hard.png"), (tarfile.FIFOTYPE, "pipe.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            container.addfile(info)
    entries = {entry.path: entry for entry in TarContainer(target).entries()}
    assert entries["../outside.png"].reason == "name leads out of the container"
    assert entries["sym.png"].reason == entries["hard.png"].reason == "link in a container"
    assert isinstance(entries["pipe.png"], Other)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.arrow"])
def test_a_damaged_container_as_archive_is_a_clear_error(tmp_path, fake_encoder, name):
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match=r"cannot be opened|holds no picture"):
        build(tmp_path / name, tmp_path / "index", fake_encoder)
    assert not (tmp_path / "index").exists()


def test_an_index_from_elsewhere_cannot_name_files_outside(archive, tmp_path, fake_encoder):
    build(archive, tmp_path / "index", fake_encoder)
    store = Store.open(tmp_path / "index")
    (tmp_path / "secret.png").write_bytes(b"secret")
    with store.writer() as writer:
        row = {**store.table().slice(0, 1).to_pylist()[0], "id": "evil", "path": "../secret.png"}
        writer.append(pa.Table.from_pylist([row]), np.ones((1, store.manifest.encoder.dim), np.float32))
        writer.commit()
    with pytest.raises(RetrError, match="missing"):
        locations.open_item(Store.open(store.path), "evil")
    with pytest.raises(UsageError, match="no row has the id"):
        locations.open_item(store, "../secret.png")


def test_an_arrow_file_with_wrong_offsets_is_damaged_not_a_crash(tmp_path):
    batch = pa.record_batch({"image": [b"\x89PNG\r\n\x1a\n", b"12345"]})
    stream = io.BytesIO()
    with pa.ipc.new_file(stream, batch.schema) as file:
        file.write_batch(batch)
    right, wrong = (np.array(offsets, np.int32).tobytes() for offsets in ((0, 8, 13), (0, 1 << 30, 1 << 30)))
    assert right in stream.getvalue()
    (tmp_path / "x.arrow").write_bytes(stream.getvalue().replace(right, wrong))
    assert list(open_source(tmp_path).entries()) == [Skipped("x.arrow", "damaged")]


def test_a_nameless_member_of_a_zip_is_left_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as container:
        container.writestr("a.png", b"\x89PNG\r\n\x1a\n")
        nameless = zipfile.ZipInfo("b")
        nameless.filename = ""
        container.writestr(nameless, b"")
    assert [entry.path for entry in open_source(tmp_path).entries()] == ["x.zip::a.png"]


def tar_of(file, members, mode="w"):
    with tarfile.open(file, mode) as container:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            container.addfile(info, io.BytesIO(data))
    return file


def listed(file):
    return {entry.path: getattr(entry, "reason", entry) for entry in open_source(file).entries()}


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_names_are_those_of_a_folder_and_the_last_of_one_name_counts(tmp_path, form):
    file = tmp_path / f"a.{form}"
    members = [
        ("./a.png", b"old"),
        ("x\\b.png", b"b"),
        ("./a.png", b"a"),
        ("c.png", b"1"),
        ("./c.png", b"c"),
        ("../e.png", b"e"),
    ]
    members += [("C:\\f.png", b"f"), ("d/./g.json", b'{"n": 1}'), ("d//g.png", b"g")]
    if form == "zip":
        with zipfile.ZipFile(file, "w") as container, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, data in members:
                container.writestr(name, data)
    else:
        tar_of(file, members, "w" if form == "tar" else f"w:{form[4:]}")
    source = open_source(file)
    entries = list(source.entries())
    pictures = {entry.path: source.read(entry.path)[0] for entry in entries if isinstance(entry, Item)}
    assert pictures == {"a.png": b"a", "x/b.png": b"b", "c.png": b"c", "d/g.png": b"g"}
    assert {entry.path: entry.columns for entry in entries if isinstance(entry, Item)}["d/g.png"] == {"n": 1}
    assert {entry.path: entry.reason for entry in entries if isinstance(entry, Skipped)} == {
        "c.png": "id of another picture",
        "../e.png": "name leads out of the container",
        "C:/f.png": "name leads out of the container",
    }
    assert source.read("./a.png")[0] == b"a"
    if form.startswith("tar."):
        assert all(entry.data == pictures[entry.path] for entry in entries if isinstance(entry, Item))


def test_names_in_utf8_that_a_zip_does_not_declare_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as container:
        container.writestr("\u00e9.png", b"x")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"\x00\x08", b"\x00\x00"))
    assert list(listed(tmp_path / "a.zip")) == ["\u00e9.png"]


@pytest.mark.parametrize("form", ["tar", "tar.gz"])
def test_tars_behind_each_other_are_read_to_the_end(tmp_path, form):
    mode = "w" if form == "tar" else "w:gz"
    parts = [tar_of(tmp_path / f"{n}.{form}", [(f"{n}.png", b"x" * 700)], mode).read_bytes() for n in range(3)]
    (tmp_path / f"all.{form}").write_bytes(b"".join(parts))
    assert list(listed(tmp_path / f"all.{form}")) == ["0.png", "1.png", "2.png"]
    (tmp_path / f"torn.{form}").write_bytes(parts[0] + b"not a tar" * 100)
    found = listed(tmp_path / f"torn.{form}")
    assert isinstance(found["0.png"], Item)
    assert found[f"torn.{form}"] == "damaged"


def test_what_a_compressed_tar_takes_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "_MAX_UNFOLDED_BYTES", 1 << 21)
    monkeypatch.setattr(tars, "_MAX_UNFOLDED", 1)
    monkeypatch.setattr(tars, "_MAX_LABELS", 3000)
    members = [
        ("k.1.png", b"1"),
        *((f"k.{n}.json", b'{"n": %d}' % n + b" " * 1000) for n in range(9)),
        ("k.2.png", b"2"),
    ]
    found = listed(tar_of(tmp_path / "a.tar.gz", [*members, ("k.png", bytes(1 << 22)), ("z.png", b"z")], "w:gz"))
    assert found["k.1.png"].columns == {"n": 1}
    assert found["k.2.json"] == "unreadable labels"
    assert found["k.2.png"].data == b"2"
    assert found["a.tar.gz"] == "too large"
    assert "z.png" not in found


def test_a_large_member_that_does_not_begin_like_a_picture_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "MAX_MEMBER_BYTES", 1 << 20)
    found = listed(tar_of(tmp_path / "a.tar.gz", [("a.png", bytes(1 << 17)), ("b.png", bytes(10))], "w:gz"))
    assert found["a.png"] == "not an image"
    assert found["b.png"].data == bytes(10)
