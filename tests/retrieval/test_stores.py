"""An index in an object store: what travels, what is refused, what stays of a purge, and what a stop leaves."""

from __future__ import annotations

import shutil

import pytest
from s3_server import log_in, s3_server

from retr.index.errors import IndexCorruptError, IndexNotFoundError, RetrError, UsageError
from retr.index.store import Store
from retr.retrieval import stores
from retr.retrieval.index import Index

s3fs = pytest.importorskip("s3fs", reason="needs the extra `remote`")
pytest.importorskip("moto", reason="needs the extra `dev`")

PLACE = "s3://indexes/a/fundus.retr"


@pytest.fixture(scope="module")
def server():
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(server, monkeypatch):
    """A client of an empty bucket."""
    import boto3

    log_in(server, monkeypatch)
    client = boto3.client("s3")
    client.create_bucket(Bucket="indexes")
    yield client
    for name in names(client, ""):
        client.delete_object(Bucket="indexes", Key=name)
    client.delete_bucket(Bucket="indexes")
    client.close()
    s3fs.S3FileSystem.clear_instance_cache()


def names(client, prefix="a/fundus.retr/"):
    found = client.list_objects_v2(Bucket="indexes", Prefix=prefix).get("Contents", [])
    return [one["Key"].removeprefix(prefix) for one in found]


def contents(path):
    store = Store.open(path)
    assert store.check() == []
    return store.table().to_pylist(), store.vectors(store.live_rows()).tobytes(), store.manifest


def files(path):
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("shards", [1, 2])
def test_what_was_pushed_is_pulled_and_only_what_is_new_travels(
    bucket, archive, tmp_path, fake_encoder, make_picture, shards
):
    index = Index.build(archive, tmp_path / "index", encoder=fake_encoder, shards=shards, group="folder")
    first = index.push(PLACE)
    assert (first.version, first.kept, first.removed) == (index.version, 0, 0)
    copy = tmp_path / "copy"
    pulled = Index.pull(PLACE, copy)
    assert contents(copy) == contents(index.path)
    assert [name for name in files(copy) if name != "lock"] == [name for name in files(index.path) if name != "lock"]
    assert pulled.search(id="healthy/000.png", k=3).ids == index.search(id="healthy/000.png", k=3).ids
    again = index.push(PLACE)
    assert (again.files, again.bytes, again.removed) == (0, 0, 0)
    assert stores.pull(PLACE, copy).files == 0
    # a note is a commit without new rows
    make_picture(70).save(archive / "new.png")
    Index.build(archive, index.path, encoder=fake_encoder)
    index.refresh()
    more = index.push(PLACE)
    assert more.files > 0
    down = stores.pull(PLACE, copy)
    assert 0 < down.files <= more.files
    assert contents(copy) == contents(index.path)


def test_nothing_stays_of_purged_rows(bucket, archive, tmp_path, fake_encoder):
    index = Index.build(archive, tmp_path / "index", encoder=fake_encoder)
    index.push(PLACE)
    bucket.put_object(Bucket="indexes", Key="a/fundus.retr/notes.txt", Body=b"somebody's")
    copy = tmp_path / "copy"
    Index.pull(PLACE, copy)
    index.delete(ids=["healthy/000.png"], purge=True)
    done = index.push(PLACE)
    assert done.removed > 0
    live = [name for name in files(index.path) if name not in {"lock", "journal.lock", "journal.jsonl"}]
    assert sorted(names(bucket)) == sorted([*live, "notes.txt"])
    for name in names(bucket):
        body = bucket.get_object(Bucket="indexes", Key=f"a/fundus.retr/{name}")["Body"].read()
        assert b"healthy/000.png" not in body
    assert stores.pull(PLACE, copy).removed > 0
    assert [name for name in files(copy) if name in live] == live
    bucket.put_bucket_versioning(Bucket="indexes", VersioningConfiguration={"Status": "Enabled"})
    assert "keeps older versions" in index.push(PLACE).notes[0]
    bucket.put_bucket_versioning(Bucket="indexes", VersioningConfiguration={"Status": "Suspended"})
    for version in bucket.list_object_versions(Bucket="indexes").get("Versions", []):
        bucket.delete_object(Bucket="indexes", Key=version["Key"], VersionId=version["VersionId"])


def test_states_that_would_be_lost_are_kept(bucket, archive, tmp_path, fake_encoder):
    index = Index.build(archive, tmp_path / "index", encoder=fake_encoder)
    index.push(PLACE)
    copy = Index.pull(PLACE, tmp_path / "copy")
    copy.delete(ids=["healthy/000.png"])
    index.delete(ids=["healthy/002.tif"])
    index.push(PLACE)
    before = contents(copy.path)
    with pytest.raises(UsageError, match=r"would be lost"):
        copy.push(PLACE)
    with pytest.raises(UsageError, match=r"would be lost"):
        Index.pull(PLACE, copy.path)
    assert contents(copy.path) == before
    other = Index.build(archive, tmp_path / "other", encoder=fake_encoder)
    for act in (lambda: other.push(PLACE), lambda: Index.pull(PLACE, other.path)):
        with pytest.raises(UsageError, match="another index"):
            act()
    Index.pull(PLACE, copy.path, replace=True)
    assert contents(copy.path) == contents(index.path)


def test_who_pushes_at_the_same_time_is_told(bucket, archive, tmp_path, fake_encoder, monkeypatch):
    index = Index.build(archive, tmp_path / "index", encoder=fake_encoder)
    put = stores.ObjectStore.put

    def meanwhile(self, root, ref):
        bucket.put_object(Bucket="indexes", Key="a/fundus.retr/CURRENT", Body=b"of somebody else")
        put(self, root, ref)

    with monkeypatch.context() as patch:
        patch.setattr(stores.ObjectStore, "put", meanwhile)
        with pytest.raises(RetrError, match="at the same time"):
            index.push(PLACE)
    with pytest.raises(IndexCorruptError, match="names no manifest"):
        Index.pull(PLACE, tmp_path / "copy")
    bucket.delete_object(Bucket="indexes", Key="a/fundus.retr/CURRENT")
    index.push(PLACE)
    index.delete(ids=["healthy/000.png"])
    pointer = bucket.get_object(Bucket="indexes", Key="a/fundus.retr/CURRENT")["Body"].read()
    with monkeypatch.context() as patch:
        patch.setattr(stores.ObjectStore, "put", meanwhile)
        with pytest.raises(RetrError, match="at the same time"):
            index.push(PLACE)
    bucket.put_object(Bucket="indexes", Key="a/fundus.retr/CURRENT", Body=pointer)
    index.push(PLACE)
    Index.pull(PLACE, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(index.path)


def test_a_run_that_is_stopped_goes_on(bucket, archive, tmp_path, fake_encoder, monkeypatch):
    index = Index.build(archive, tmp_path / "index", encoder=fake_encoder)
    copy, total = tmp_path / "copy", None
    for what in ("put", "get"):
        whole, calls = getattr(stores.ObjectStore, what), []

        def stopping(self, root, ref, whole=whole, calls=calls):
            calls.append(ref.file)
            if len(calls) == 2:
                raise KeyboardInterrupt
            whole(self, root, ref)

        def act(what=what):
            return index.push(PLACE) if what == "put" else stores.pull(PLACE, copy)

        with monkeypatch.context() as patch:
            patch.setattr(stores.ObjectStore, what, stopping)
            with pytest.raises(KeyboardInterrupt):
                act()
        if what == "put":
            with pytest.raises(IndexNotFoundError, match=r"no index at 's3://indexes/a/fundus\.retr'"):
                stores.pull(PLACE, tmp_path / "none")
        else:
            assert not Store.exists(copy)
        done = act()
        assert done.kept >= 1
        total = total or done.files + done.kept
    assert contents(copy) == contents(index.path)


def test_what_is_not_as_it_was_written_is_refused(bucket, archive, tmp_path, fake_encoder):
    index = Index.build(archive, tmp_path / "index", encoder=fake_encoder)
    vectors = next(file for file in (index.path / "segments").glob("*.npy") if ".ids" not in file.name)
    data = vectors.read_bytes()
    broken = data[:-1] + bytes([data[-1] ^ 1])
    vectors.write_bytes(broken)
    with pytest.raises(IndexCorruptError, match="was changed after it was written"):
        index.push(PLACE)
    vectors.write_bytes(data)
    index.push(PLACE)
    key = f"a/fundus.retr/segments/{vectors.name}"
    bucket.put_object(Bucket="indexes", Key=key, Body=broken)
    with pytest.raises(IndexCorruptError, match="in the store is not as it was written"):
        Index.pull(PLACE, tmp_path / "copy")
    assert not Store.exists(tmp_path / "copy")
    for wrong in ("s3://indexes", "s3://", "/tmp/x", "gs://a/b", "s3://user:secret@bucket/a", "s3://a/b?c"):
        with pytest.raises(UsageError, match="s3://BUCKET/PREFIX"):
            index.push(wrong)
    with pytest.raises(RetrError, match=r"the store 's3://nowhere/x' refused|no index at"):
        Index.pull("s3://nowhere/x", tmp_path / "copy")
    with pytest.raises(UsageError, match="`retr index push` it there"):
        Index.build(archive, "s3://indexes/a", encoder=fake_encoder)
    shutil.rmtree(tmp_path / "copy")
