"""An index that others handed over is data: whoever wrote its files also wrote its hashes."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import os
import shutil
import socket
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retr.index.disk import parquet_file, segment_writer, segments
from retr.index.errors import IndexCorruptError, RetrError
from retr.index.rows.check import check_path
from retr.index.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def full(make) -> Store:
    """Make an index with a file of every role but an accelerator and a side table."""
    store = make(30, 20)
    with store.writer() as writer:
        writer.delete(np.array([1, 2]))
        writer.add_file("side", b"some bytes")
        writer.record_skipped(pa.table({"path": ["x"], "reason": ["empty"]}))
        writer.set_group("patient")
        return writer.commit()


def rewrite(root: Path, data: Any) -> None:
    """Make ``data`` the live manifest, with the right hash."""
    text = json.dumps(data).encode() if not isinstance(data, bytes) else data
    name = (root / "CURRENT").read_text().split()[0]
    (root / name).write_bytes(text)
    (root / "CURRENT").write_text(f"{name} {hashlib.sha256(text).hexdigest()}\n")


def use(root: Path) -> None:
    """Open an index and use all of it; `RetrError` where it cannot be."""
    store = Store.open(root)
    store.table()
    store.skipped()
    for name in store.manifest.files:
        store.file(name)
    store.where("age > 3")
    store.search(np.ones((1, store.manifest.encoder.dim), np.float32), 3, one_per=store.manifest.group)


def odd(path: Path, kind: str) -> socket.socket | None:
    """Put something that is no regular file at a path."""
    if path.is_dir():
        path.rename(path.with_name("elsewhere"))
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/dev/zero")
    else:
        bound = socket.socket(socket.AF_UNIX)
        # the name of a socket may be no longer than 107 bytes
        with contextlib.chdir(path.parent):
            bound.bind(path.name)
        return bound
    return None


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "socket"])
def test_what_is_no_regular_file_is_never_opened(make, tmp_path, kind):
    store = full(make)
    names = ["CURRENT", store.manifest.file, *(ref.file for ref in store.manifest.refs())]
    for name in names:
        root = tmp_path / "copy"
        shutil.copytree(store.path, root)
        bound = odd(root / name, kind)
        said = {"pipe": "a pipe", "folder": "a folder", "link": "a link", "socket": "a socket"}[kind]
        with pytest.raises(IndexCorruptError, match=rf"^'{name}' is {said}; "):
            Store.open(root)
        assert any(said in finding.message for finding in check_path(root))
        assert Store.exists(root)
        with pytest.raises(RetrError), Store.open(root).writer():
            pass
        shutil.rmtree(root)
        if bound is not None:
            bound.close()


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "socket"])
def test_a_lock_that_is_no_file_is_refused(make, kind):
    store = make(3)
    bound = odd(store.path / "lock", kind)
    with pytest.raises(IndexCorruptError, match=r"^'lock' is a "), store.writer():
        pass
    assert [(finding.kind, finding.file) for finding in check_path(store.path)] == [("unreadable", "lock")]
    if bound is not None:
        bound.close()


def test_a_linked_lock_leaves_the_file_it_leads_to_as_it_is(make, tmp_path):
    store = make(3)
    mine = tmp_path / "thesis.txt"
    mine.write_text("years of work")
    for link in (os.symlink, os.link):
        (store.path / "lock").unlink()
        link(mine, store.path / "lock")
        try:
            with store.writer() as writer:
                writer.note("a", 1)
                writer.commit()
        except IndexCorruptError:
            assert link is os.symlink
        assert mine.read_text() == "years of work"


def test_a_linked_draft_is_not_written_through(make, tmp_path):
    store = make(3)
    mine = tmp_path / "thesis.txt"
    mine.write_text("years of work")
    (store.path / "CURRENT.tmp").symlink_to(mine)
    (store.path / f"manifests/{store.version + 1:08d}.json.tmp").symlink_to(mine)
    with store.writer() as writer:
        (store.path / "CURRENT.tmp").symlink_to(mine)
        writer.note("a", 1)
        writer.commit()
    assert mine.read_text() == "years of work"
    assert Store.open(store.path).manifest.extra == {"a": 1}


@pytest.mark.parametrize("folder", ["segments", "files", "manifests"])
def test_a_linked_folder_is_refused_and_what_it_leads_to_left_alone(make, tmp_path, folder):
    store = full(make)
    (store.path / folder).rename(tmp_path / "elsewhere")
    (store.path / folder).symlink_to(tmp_path / "elsewhere")
    left = tmp_path / "elsewhere" / "00000001-0123abcd.parquet"
    left.write_bytes(b"mine")
    with pytest.raises(IndexCorruptError, match=rf"^'{folder}' in the index is a link instead of a folder; "):
        Store.open(store.path)
    with pytest.raises(IndexCorruptError, match=r"instead of a folder"), store.writer():
        pass
    assert any("instead of a folder" in finding.message for finding in check_path(store.path))
    assert left.read_bytes() == b"mine"


def test_an_index_behind_a_link_is_used_as_any_other(make, tmp_path):
    store = full(make)
    (tmp_path / "link").symlink_to(store.path)
    with Store.open(tmp_path / "link").writer() as writer:
        writer.purge()
    assert Store.open(store.path).check() == []


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"manifests/00000004.json", b"../x " + b"0" * 64 + b"\n"])
def test_a_current_that_names_nothing_is_one_line(make, text):
    store = make(3)
    (store.path / "CURRENT").write_bytes(text)
    with pytest.raises(IndexCorruptError, match=r"^the file 'CURRENT' does not name a manifest; "):
        Store.open(store.path)


def test_a_huge_current_is_not_read(make):
    store = make(3)
    os.truncate(store.path / "CURRENT", 1 << 40)
    with pytest.raises(IndexCorruptError, match=r"^'CURRENT' is longer than 200 bytes; "):
        Store.open(store.path)


ODD = [None, True, 10**30, "../\ud800", [[]]]


def changed(data: Any, at: tuple[Any, ...], value: Any) -> Any:
    data = copy.deepcopy(data)
    inner = data
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return data


def places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the way to every value of a manifest; of a list only its first."""
    pairs = data.items() if isinstance(data, dict) else list(enumerate(data))[:1] if isinstance(data, list) else ()
    for key, value in pairs:
        yield (*at, key)
        yield from places(value, (*at, key))


def test_no_value_in_a_manifest_makes_more_than_one_line(make):
    store = full(make)
    data = json.loads((store.path / store.manifest.file).read_bytes())
    refused = 0
    for at in places(data):
        for value in ODD:
            rewrite(store.path, changed(data, at, value))
            try:
                use(store.path)
            except RetrError as error:
                assert "\n" not in str(error)
                refused += 1
    # names, dates and notes may be any text; little else may
    assert refused > 220
    rewrite(store.path, data)
    use(store.path)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../index/segments/00000002-0123abcd.npy",
        "segments/../../x",
        "segments\\00000002-0123abcd.npy",
        "segments/00000002-0123abcd.npy\0",
        "segments/00000002-0123abcd.npy\n",
        "segments//00000002-0123abcd.npy",
        "files/00000002-0123abcd-x",
        "segments/00000002-0123abcd.parquet",
        "segments/\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0662-0123abcd.npy",
        "CURRENT",
        "lock",
        "",
    ],
)
def test_a_manifest_names_files_of_their_role_only(make, name):
    store = make(3)
    data = json.loads((store.path / store.manifest.file).read_bytes())
    rewrite(store.path, changed(data, ("segments", 0, "vectors", "file"), name))
    with pytest.raises(IndexCorruptError, match=r"^the manifest cannot be read; "):
        Store.open(store.path)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"a":' * 200 + b"1" + b"}" * 200,
        b"\xff",
        b"null",
        b'{"format_version": NaN}',
        b'{"format_version": 1, "format_version": 1}',
        b'{"format_version": true}',
        b"1" * 5000,
    ],
)
def test_a_manifest_that_is_no_manifest_is_one_line(make, text):
    store = make(3)
    rewrite(store.path, text)
    with pytest.raises(IndexCorruptError, match=r"^the manifest cannot be read; "):
        Store.open(store.path)


@pytest.mark.parametrize("option", ["weights", "text_model", "device", "precision"])
def test_an_index_names_no_place_and_no_device_for_its_encoder(make, option):
    store = make(3)
    data = json.loads((store.path / store.manifest.file).read_bytes())
    rewrite(store.path, changed(data, ("encoder", "options"), {option: "/dev/zero"}))
    with pytest.raises(IndexCorruptError, match=r"^the manifest cannot be read; "):
        Store.open(store.path)


def test_a_segment_named_twice_is_refused(make):
    store = make(3)
    data = json.loads((store.path / store.manifest.file).read_bytes())
    data["segments"] *= 2
    rewrite(store.path, data)
    with pytest.raises(IndexCorruptError, match=r"^the manifest cannot be read; "):
        Store.open(store.path)


def test_a_manifest_that_lies_about_its_version_is_not_swept_away(make):
    store = make(3)
    data = json.loads((store.path / store.manifest.file).read_bytes())
    rewrite(store.path, {**data, "version": 77})
    with pytest.raises(IndexCorruptError, match=r"says that it is .manifests/00000077\.json."):
        Store.open(store.path)
    assert (store.path / store.manifest.file).exists()


def honest(data: Any, root: Path, ref: dict[str, Any], text: bytes) -> None:
    """Replace a file, and its hash and size in the manifest."""
    (root / ref["file"]).write_bytes(text)
    ref.update(sha256=hashlib.sha256(text).hexdigest(), bytes=len(text))
    rewrite(root, data)


def packed(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=10_000, **options)
    return sink.getvalue()


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("which", ["table", "skipped"])
def test_a_small_table_that_fills_the_memory_is_refused(make, which, dictionary, monkeypatch):
    monkeypatch.setattr(parquet_file, "_FREE", 1 << 20)
    store = full(make)
    data = json.loads((store.path / store.manifest.file).read_bytes())
    ref = data["segments"][0]["table"] if which == "table" else data["skipped"]
    table = pq.read_table(store.path / ref["file"])
    name = "patient" if which == "table" else "reason"
    long = pa.array(["x" * (1 << 20)])
    words = pa.DictionaryArray.from_arrays(np.zeros(table.num_rows, np.int32), long)
    if which == "skipped":
        table, data["n_skipped"] = table.take([0] * 30), 30
        words = pa.DictionaryArray.from_arrays(np.zeros(30, np.int32), long)
    table = table.set_column(table.schema.get_field_index(name), name, words)
    text = packed(table, use_dictionary=dictionary, write_statistics=False, store_schema=False)
    assert len(text) < 100 << 10
    honest(data, store.path, ref, text)
    with pytest.raises(IndexCorruptError, match=r"more than it may|record of skipped files cannot be read"):
        Store.open(store.path)
    assert check_path(store.path)


def lists(store: Store) -> Store:
    with store.writer() as writer:
        findings = [None, [], ["a"], ["b", None, "c" * 3000], *[[str(i // 40)] * (i % 4) for i in range(96)]]
        writer.append(pa.table({"id": [f"list{i}" for i in range(100)], "findings": findings}), np.ones((100, 8)))
        return writer.commit()


@pytest.mark.usefixtures("unmerged")
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("shape", ["many rows", "one row"])
def test_a_small_table_whose_lists_fill_the_memory_is_refused(make, shape, dictionary, monkeypatch):
    monkeypatch.setattr(parquet_file, "_FREE", 1 << 20)
    store = lists(make(3))
    data = json.loads((store.path / store.manifest.file).read_bytes())
    ref = data["segments"][1]["table"]
    table = pq.read_table(store.path / ref["file"])
    value = [["x" * (1 << 20)]] * 100 if shape == "many rows" else [["x"] * (1 << 20), *[None] * 99]
    place = table.schema.get_field_index("findings")
    table = table.set_column(place, "findings", pa.array(value, pa.list_(pa.string())))
    text = packed(table, use_dictionary=dictionary, write_statistics=False)
    assert len(text) < 100 << 10
    honest(data, store.path, ref, text)
    with pytest.raises(IndexCorruptError, match="more than it may"):
        Store.open(store.path)


def test_lists_of_an_honest_table_are_read(make, monkeypatch, tmp_path):
    monkeypatch.setattr(segments, "ROW_GROUP", 40)
    monkeypatch.setattr(segment_writer, "ROW_GROUP", 40)
    monkeypatch.setenv("RETR_STATE_DIR", str(tmp_path / "another machine"))
    monkeypatch.setattr(parquet_file, "_FREE", 1 << 14)
    store = Store.open(lists(make(3)).path)
    assert store.check() == []
    assert store.table(["findings"])["findings"].to_pylist()[6] == ["b", None, "c" * 3000]


@pytest.mark.parametrize(
    "kind",
    [
        pa.map_(pa.string(), pa.string()),
        pa.struct({"a": pa.string()}),
        pa.list_(pa.list_(pa.string())),
        pa.list_(pa.struct({"a": pa.string()})),
    ],
    ids=str,
)
def test_a_record_of_skipped_files_nests_nothing_deeper_than_a_list(make, kind):
    store = full(make)
    data = json.loads((store.path / store.manifest.file).read_bytes())
    table = pq.read_table(store.path / data["skipped"]["file"])
    honest(data, store.path, data["skipped"], packed(table.append_column("x", pa.nulls(table.num_rows, kind))))
    with pytest.raises(IndexCorruptError, match="record of skipped files cannot be read"):
        Store.open(store.path)


@pytest.mark.parametrize("text", [b"PAR1", packed(pa.table({"a": [1]})), packed(pa.table({"path": ["x", "y"]}))])
def test_a_record_of_skipped_files_is_one(make, text):
    store = full(make)
    data = json.loads((store.path / store.manifest.file).read_bytes())
    honest(data, store.path, data["skipped"], text)
    with pytest.raises(IndexCorruptError, match="record of skipped files cannot be read"):
        Store.open(store.path)
    assert [finding.file for finding in check_path(store.path)] == [data["skipped"]["file"]]
