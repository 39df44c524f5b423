"""An archive that is embedded in parts becomes, merged, the index that one process would have made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from retr.index.errors import EncoderMismatchError, IndexCorruptError, IndexLockedError, RetrError, UsageError
from retr.index.store import Store
from retr.retrieval.index import Index
from retr.retrieval.ingest import parts
from retr.retrieval.ingest.build import build
from retr.retrieval.ingest.part_folder import Part, parts_folder

TESTS = str(Path(__file__).parents[2])


def contents(path):
    """Everything of an index but where it lies: rows by id with the bytes of their vectors, notes, what was skipped."""
    store = Store.open(path)
    assert store.check() == []
    rows = store.table().to_pylist()
    vectors = store.vectors(store.live_rows())
    by_id = {row["id"]: (row, vector.tobytes()) for row, vector in zip(rows, vectors, strict=True)}
    manifest = store.manifest
    encoder = manifest.encoder
    return by_id, list(by_id), store.skipped().to_pylist(), store.schema, manifest.extra, manifest.group, encoder


def build_parts(archive, index, encoder, of=3, which=None, **options):
    for number in which or range(1, of + 1):
        Index.build_part(archive, index, part=f"{number}/{of}", encoder=encoder, **options)


@pytest.fixture
def long_archive(make_archive, make_picture):
    folder = make_archive(60)
    (folder / "broken.png").symlink_to("nowhere")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    frames = [make_picture(100 + number) for number in range(3)]
    frames[0].save(folder / "pages.tif", save_all=True, append_images=frames[1:])
    (folder / "copy.png").write_bytes((folder / "healthy" / "000.png").read_bytes())
    return folder


@pytest.fixture
def options(long_archive):
    return {"metadata": long_archive / "labels.csv", "group": "patient", "transform": "whitening"}


@pytest.mark.parametrize("shards", [1, 3])
def test_merged_parts_equal_one_build(long_archive, tmp_path, fake_encoder, options, monkeypatch, shards):
    monkeypatch.setattr(parts, "UNIT_FILES", 7)
    index, alone = tmp_path / "index", tmp_path / "alone"
    build_parts(long_archive, index, fake_encoder, shards=shards, **options)
    assert not index.exists()
    merged = Index.merge(index)
    build(long_archive, alone, fake_encoder, shards=shards, **options)
    assert contents(index) == contents(alone)
    assert merged.store.manifest.encoder.transform is not None
    assert not parts_folder(index).exists()
    single = Index.open(alone, encoder=fake_encoder)
    for question in ("healthy/000.png", "pages.tif#2"):
        asked = {"id": question, "k": 9, "where": "age < 90 or age is null", "exclude_same": "patient"}
        if question == "pages.tif#2":
            asked = {"id": question, "k": 9}
        here, there = merged.search(**asked), single.search(**asked)
        assert here.ids == there.ids
        assert [hit.score for hit in here] == [hit.score for hit in there]


def test_an_index_is_brought_up_to_date_in_one_commit(long_archive, tmp_path, make_encoder, options, make_picture):
    index, alone, encoder = tmp_path / "index", tmp_path / "alone", make_encoder()
    for path in (index, alone):
        build(long_archive, path, encoder, **options)
    make_picture(500).save(long_archive / "healthy" / "000.png")
    os.utime(long_archive / "healthy" / "000.png", (1, 1))
    (long_archive / "healthy" / "002.tif").rename(long_archive / "moved.tif")
    make_picture(501).save(long_archive / "new.png")
    (long_archive / "glaucoma" / "001.jpg").unlink()
    encoder.encoded = 0
    version = Store.open(index).version
    build_parts(long_archive, index, encoder, prune=True, **options)
    assert encoder.encoded <= 3 * encoder.batch_size  # the two that the index has no vector of
    report = Index.merge(index).report
    build(long_archive, alone, encoder, prune=True, **options)
    assert contents(index) == contents(alone)
    assert (report.embedded, report.reused, report.changed, report.removed) == (2, 1, 1, 2)
    assert Store.open(index).version == version + 1


def test_a_part_goes_on_where_it_was_and_embeds_what_is_new(
    long_archive, tmp_path, make_encoder, make_picture, monkeypatch
):
    monkeypatch.setattr(parts, "UNIT_FILES", 4)
    index, encoder = tmp_path / "index", make_encoder()
    first = Index.build_part(long_archive, index, part="1/2", encoder=encoder)
    assert first.embedded == first.files > 20
    encoder.encoded = 0
    again = Index.build_part(long_archive, index, part="1/2", encoder=encoder)
    # what was out of reach is tried again
    assert (again.files, again.kept, encoder.encoded) == (first.files, first.files - again.embedded, 0)
    folder = Part(1, 2).folder(index)
    (folder / "part.json").unlink()
    for unit in sorted(folder.glob("*.unit"))[3:]:
        unit.unlink()
    (folder / "00000002deadbeef.unit").write_bytes(b"cut off")
    make_picture(700).save(long_archive / "more.png")
    encoder.encoded = 0
    rest = Index.build_part(long_archive, index, part="1/2", encoder=encoder)
    assert 8 <= rest.kept <= 12
    assert encoder.encoded > 0
    Index.build_part(long_archive, index, part="2/2", encoder=encoder)
    Index.merge(index)
    build(long_archive, tmp_path / "alone", encoder)
    assert contents(index) == contents(tmp_path / "alone")


def test_what_does_not_belong_together_is_refused(long_archive, tmp_path, make_encoder, options):
    index, encoder = tmp_path / "index", make_encoder()
    with pytest.raises(UsageError, match="no parts beside 'index'"):
        Index.merge(index)
    build_parts(long_archive, index, encoder, which=[1, 3], **options)
    with pytest.raises(UsageError, match=r"1 of 3 parts are missing or not finished: 2/3; .*--part 2/3"):
        Index.merge(index)
    Index.build_part(long_archive, index, part="2/3", encoder=make_encoder(weights="1" * 64), **options)
    with pytest.raises(EncoderMismatchError, match="part 2/3 was built with another 'fake'"):
        Index.merge(index)
    Index.build_part(long_archive, index, part="2/3", encoder=encoder, **{**options, "group": "label"})
    with pytest.raises(UsageError, match="part 2/3 was built with group 'label', and part 1/3 with 'patient'"):
        Index.merge(index)
    Index.build_part(long_archive, index, part="2/3", encoder=encoder, frames=2, **options)
    with pytest.raises(UsageError, match="part 2/3 was built with frames 2"):
        Index.merge(index)
    Index.build_part(long_archive, index, part="2/3", encoder=make_encoder(batch_size=8), **options)
    with pytest.raises(UsageError, match="part 2/3 was built with batch 8"):
        Index.merge(index)
    Index.build_part(long_archive, index, part="1/2", encoder=encoder, **options)
    with pytest.raises(UsageError, match="there are parts of 2 and of 3"):
        Index.merge(index)
    assert not index.exists()


@pytest.mark.parametrize("change", ["new", "changed", "gone"])
def test_an_archive_that_changed_is_refused_until_its_part_is_built_again(
    long_archive, tmp_path, fake_encoder, make_picture, change
):
    index = tmp_path / "index"
    build_parts(long_archive, index, fake_encoder)
    file = long_archive / "healthy" / "000.png"
    if change == "new":
        file = long_archive / "new.png"
    if change == "gone":
        file.unlink()
    else:
        make_picture(900).save(file)
    part = next(
        part for part in (Part(n, 3) for n in (1, 2, 3)) if part.holds(file.relative_to(long_archive).as_posix())
    )
    with pytest.raises(UsageError, match=f"what part {part} was built from"):
        Index.merge(index)
    assert not index.exists()
    Index.build_part(long_archive, index, part=str(part), encoder=fake_encoder)
    Index.merge(index)
    build(long_archive, tmp_path / "alone", fake_encoder)
    assert contents(index) == contents(tmp_path / "alone")


def test_an_index_that_changed_is_refused(long_archive, tmp_path, fake_encoder):
    index = tmp_path / "index"
    build(long_archive, index, fake_encoder)
    build_parts(long_archive, index, fake_encoder)
    opened = Index.open(index)
    opened.delete(ids=["copy.png"])
    before = contents(index)
    with pytest.raises(UsageError, match="the index was another, or in another state"):
        Index.merge(index)
    assert contents(index) == before


def test_altered_parts_are_refused(long_archive, tmp_path, fake_encoder):
    index = tmp_path / "index"
    build_parts(long_archive, index, fake_encoder)
    folder = Part(2, 3).folder(index)
    unit = next(folder.glob("*.unit"))
    data = unit.read_bytes()
    at = len(data) // 2
    unit.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(RetrError, match=r"of part 2/3 was changed|unit of a build|what part"):
        Index.merge(index)
    unit.unlink()
    with pytest.raises(IndexCorruptError, match="a file of part 2/3 is missing; build the part again with --part 2/3"):
        Index.merge(index)
    record = json.loads((folder / "part.json").read_text())
    (folder / "part.json").write_text(json.dumps({**record, "part": "1/3"}))
    with pytest.raises(IndexCorruptError, match="the record of part 2/3"):
        Index.merge(index)
    assert not index.exists()


def test_what_is_of_one_process_alone_is_refused(archive, tmp_path, fake_encoder):
    index = tmp_path / "index"
    for wrong in ("0/3", "4/3", "3", "a/b", "1/99999", "-1/3"):
        with pytest.raises(UsageError, match="a part is NUMBER/OF"):
            Index.build_part(archive, index, part=wrong, encoder=fake_encoder)
    with pytest.raises(UsageError, match="has a place, got a list"):
        Index.build_part([archive / "healthy" / "000.png"], index, part="1/1", encoder=fake_encoder)
    with pytest.raises(UsageError, match="the table of a build in parts is a file"):
        table = {"path": ["healthy/000.png"], "label": ["a"]}
        Index.build_part(archive, index, part="1/1", encoder=fake_encoder, metadata=table)
    with pytest.raises(UsageError, match="holds a user's name"):
        parts._recordable("s3://me:secret@bucket/a", parts.BuildOptions())
    assert not parts_folder(index).exists()
    folder = Part(1, 1).folder(index)
    folder.mkdir(parents=True)
    with parts.writer_lock(folder), pytest.raises(IndexLockedError, match="another process is building part 1/1"):
        Index.build_part(archive, index, part="1/1", encoder=fake_encoder)


# Does in a forked child what a line says, and kills it at the so-and-so-many-th call that leaves a trace on disk.
DRIVER = """
    import json, os, signal, sys
    sys.path.insert(0, {tests!r})
    from fake_encoder import FakeEncoder
    from retr.retrieval.index import Index
    from retr.retrieval.ingest import parts
    import PIL.Image, retr.retrieval.images.reader, retr.retrieval.images.raster, retr.retrieval.tuning
    PIL.Image.init()
    parts.UNIT_FILES = 5
    encoder = FakeEncoder()
    options = {{"metadata": {metadata!r}, "transform": "whitening", "shards": 2}}

    def run(what, calls):
        count = 0
        def audit(event, _):
            nonlocal count
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
                count += 1
                if count == calls:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(audit)
        if what == "merge":
            Index.merge({index!r})
        else:
            Index.build_part({archive!r}, {index!r}, part=what, encoder=encoder, **options)

    for line in sys.stdin:
        what, calls = json.loads(line)
        child = os.fork()
        if not child:
            try:
                run(what, calls)
                os._exit(0)
            except BaseException as error:
                print(json.dumps(repr(error)), file=sys.stderr, flush=True)
                os._exit(1)
        _, status = os.waitpid(child, 0)
        print(json.dumps("killed" if os.WIFSIGNALED(status) else "done" if status == 0 else "failed"), flush=True)
"""


def test_parts_and_merges_that_are_killed_leave_nothing_half_done(make_archive, tmp_path, fake_encoder, make_picture):
    archive, index = make_archive(40), tmp_path / "index"
    metadata = archive / "labels.csv"
    code = textwrap.dedent(DRIVER).format(tests=TESTS, archive=str(archive), index=str(index), metadata=str(metadata))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as driver:

        def run(what, calls):
            print(json.dumps([what, calls]), file=driver.stdin, flush=True)
            return json.loads(driver.stdout.readline())

        def until_done(what, steps, as_before):
            """Kill it after ever more calls until it ends, or until it is committed; return how often it was killed."""
            for killed, calls in enumerate(steps):
                outcome = run(what, calls)
                assert outcome != "failed"
                if outcome == "done" or not as_before():
                    return killed
            assert run(what, 0) == "done"
            return len(steps)

        for part in ("1/2", "2/2"):
            assert until_done(part, (20, 60), lambda: True) >= 1
        assert until_done("merge", range(25, 5000, 75), lambda: not index.exists()) >= 3
        options = {"metadata": metadata, "transform": "whitening", "shards": 2}
        build(archive, tmp_path / "alone", fake_encoder, **options)
        assert contents(index) == contents(tmp_path / "alone")
        shutil.rmtree(parts_folder(index), ignore_errors=True)
        # and once more, over an index that is there
        make_picture(800).save(archive / "new.png")
        before = contents(index)
        build(archive, tmp_path / "alone", fake_encoder, **options)
        after = contents(tmp_path / "alone")

        def as_before():
            now = contents(index)
            assert now in (before, after)
            return now == before

        for part in ("1/2", "2/2"):
            assert run(part, 0) == "done"
        assert until_done("merge", (30, 80, 120, 150, *range(180, 3000, 60)), as_before) >= 2
        driver.stdin.close()
    assert contents(index) == after
