"""Archives in remote stores, against a real S3 server and a real web server on the loopback."""

from __future__ import annotations

import functools
import http.server
import threading

import pytest
from s3_server import log_in, s3_server

from retr.index.errors import RetrError, UsageError
from retr.index.store import Store
from retr.retrieval.archive import locations, remote
from retr.retrieval.archive.opening import open_source
from retr.retrieval.ingest.build import build

s3fs = pytest.importorskip("s3fs", reason="needs the extra `remote`")
pytest.importorskip("moto", reason="needs the extra `dev`")


@pytest.fixture(scope="module")
def server():
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(server, monkeypatch):
    """An empty bucket; gives a function that copies a folder into it."""
    import boto3

    log_in(server, monkeypatch)
    client = boto3.client("s3")
    client.create_bucket(Bucket="archive")

    def upload(folder, prefix="images"):
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                client.upload_file(str(file), "archive", f"{prefix}/{file.relative_to(folder).as_posix()}")
        return f"s3://archive/{prefix}"

    upload.client = client
    yield upload
    for found in client.list_objects_v2(Bucket="archive").get("Contents", []):
        client.delete_object(Bucket="archive", Key=found["Key"])
    client.delete_bucket(Bucket="archive")
    s3fs.S3FileSystem.clear_instance_cache()


def contents(index):
    store = Store.open(index)
    rows = store.table().to_pylist()
    vectors = store.vectors(store.live_rows())
    kept = [{key: row[key] for key in row if key not in {"mtime", "etag"}} for row in rows]
    return {row["id"]: (row, vector.tobytes()) for row, vector in zip(kept, vectors, strict=True)}


def test_a_prefix_gives_the_same_rows_and_vectors_as_its_folder(make_archive, tmp_path, fake_encoder, bucket):
    folder = make_archive(500)
    build(folder, tmp_path / "local", fake_encoder, metadata=folder / "labels.csv")
    url = bucket(folder)
    report = build(url, tmp_path / "index", fake_encoder, metadata=folder / "labels.csv")
    assert (report.rows, report.skipped, report.other_files) == (500, {}, 1)
    assert contents(tmp_path / "index") == contents(tmp_path / "local")
    store = Store.open(tmp_path / "index")
    assert locations.open_item(store, "healthy/000.png") == (folder / "healthy/000.png").read_bytes()
    assert not [file for file in store.path.rglob("*") if file.is_file() and b"s3://" in file.read_bytes()]


def test_only_what_the_etag_says_is_changed_is_embedded(archive, tmp_path, fake_encoder, bucket, make_picture):
    url = bucket(archive)
    build(url, tmp_path / "index", fake_encoder)
    bucket(archive)  # uploaded again: other times, the same ETags
    report = build(url, tmp_path / "index", fake_encoder)
    assert (report.unchanged, report.embedded, report.reused) == (12, 0, 0)
    make_picture(900).save(archive / "healthy" / "000.png")
    bucket(archive)
    report = build(url, tmp_path / "index", fake_encoder)
    assert (report.unchanged, report.embedded, report.changed) == (11, 1, 1)


def test_failing_reads_are_tried_again(archive, tmp_path, fake_encoder, bucket, monkeypatch):
    url = bucket(archive)
    failures = {}
    cat_file = s3fs.S3FileSystem.cat_file

    def flaky(self, path, *args, **kwargs):
        failures[path] = failures.get(path, 0) + 1
        if failures[path] <= 2 or path.endswith("002.tif"):
            raise TimeoutError("no answer")
        return cat_file(self, path, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "cat_file", flaky)
    report = build(url, tmp_path / "index", fake_encoder)
    assert (report.rows, report.skipped) == (11, {"unreadable": 1})
    assert failures["archive/images/healthy/002.tif"] == remote.TRIES
    monkeypatch.undo()


def test_a_place_that_is_not_there(bucket):
    with pytest.raises(UsageError, match=r"'s3://nowhere/x' does not exist"):
        list(open_source("s3://nowhere/x").entries())
    with pytest.raises(UsageError, match="not a kind of store"):
        open_source("gopher://somewhere/x")


def test_a_store_whose_package_is_missing_is_named(monkeypatch):
    import fsspec

    def missing(url):
        raise ImportError("Please install gcsfs", name="gcsfs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(RetrError, match="gcsfs is not installed; install it with"):
        open_source("gs://bucket/x")


def test_a_web_servers_folder(archive, tmp_path, fake_encoder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(archive))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            report = build(url, tmp_path / "index", fake_encoder, metadata=archive / "labels.csv")
            one = list(open_source(f"{url}/healthy/000.png").entries())
        finally:
            server.shutdown()
            thread.join()
    build(archive, tmp_path / "local", fake_encoder, metadata=archive / "labels.csv")
    assert report.rows == 12
    assert contents(tmp_path / "index") == contents(tmp_path / "local")
    assert [item.path for item in one] == ["000.png"]
