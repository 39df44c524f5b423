"""A build that is killed, or runs out of disk, loses nothing that was committed and ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from retr.index.errors import RetrError
from retr.index.store import Store
from retr.retrieval.ingest.build import build

KILLS = 50

# Imports once and forks for each build: fifty starts of Python would be most of the test. For every line of its
# input, the seconds to live, it prints "killed" or "done".
DRIVER = """
    import json, os, signal, sys, time

    sys.path.insert(0, {tests!r})
    from fake_encoder import FakeEncoder
    from retr.retrieval.ingest.build import build

    def run():
        encoder = FakeEncoder(seconds=0.02)
        build({archive!r}, {index!r}, encoder, metadata={metadata!r}, commit_rows=8, workers=2)

    for line in sys.stdin:
        child = os.fork()
        if not child:
            try:
                run()
                os._exit(0)
            except BaseException as error:
                print(json.dumps(repr(error)), file=sys.stderr, flush=True)
                os._exit(1)
        end = time.monotonic() + float(line)
        ended, status = 0, 0
        while not ended and time.monotonic() < end:
            time.sleep(0.001)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        print(json.dumps("killed" if os.WIFSIGNALED(status) else "done" if status == 0 else "failed"), flush=True)
"""


def contents(path):
    store = Store.open(path)
    rows = store.table().to_pylist()
    vectors = store.vectors(store.live_rows())
    by_id = {row["id"]: (row, vector.tobytes()) for row, vector in zip(rows, vectors, strict=True)}
    return by_id, store.skipped().to_pylist(), store.schema, store.manifest.extra


@pytest.fixture
def long_archive(make_archive):
    folder = make_archive(400)
    (folder / "broken.png").symlink_to("nowhere")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    return folder


def test_a_build_killed_at_fifty_instants_equals_an_undisturbed_one(long_archive, tmp_path, fake_encoder, make_picture):
    index, undisturbed, metadata = tmp_path / "index", tmp_path / "undisturbed", long_archive / "labels.csv"
    # part of the archive was indexed in an older state, so that the kills also meet replaced rows
    old = tmp_path / "old"
    subprocess.run(["cp", "-a", long_archive, old], check=True)
    for file in sorted(old.rglob("*.png"))[:30]:
        if file.is_file() and file.name != "text.png":
            make_picture(1000).save(file)
    for file in sorted(old.rglob("*.tif")):
        file.unlink()
    build(old, index, fake_encoder, metadata=metadata, commit_rows=32)
    subprocess.run(["rm", "-r", old], check=True)
    before = len(Store.open(index))

    code = textwrap.dedent(DRIVER).format(
        tests=str(Path(__file__).parents[2]),
        archive=str(long_archive),
        index=str(index),
        metadata=str(metadata),
    )
    instants = random.Random(7)
    outcomes = []
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as driver:
        for _ in range(KILLS):
            print(instants.uniform(0, 0.12), file=driver.stdin, flush=True)
            outcomes.append(json.loads(driver.stdout.readline()))
            store = Store.open(index)
            assert store.check() == []
            assert len(store) >= before
        assert "failed" not in outcomes
        # the last one lives to its end
        while outcomes[-1] != "done":
            print(30, file=driver.stdin, flush=True)
            outcomes.append(json.loads(driver.stdout.readline()))
        driver.stdin.close()
    assert outcomes.count("killed") >= 40
    build(long_archive, undisturbed, fake_encoder, metadata=metadata)
    assert contents(index) == contents(undisturbed)


def test_a_full_disk_leaves_the_last_commit(make_archive, tmp_path, fake_encoder, make_picture):
    archive, index = make_archive(12), tmp_path / "index"
    build(archive, index, fake_encoder)
    before = contents(index)
    for number in range(100):
        make_picture(2000 + number).save(archive / f"new-{number}.png")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # a file of the index may not grow beyond 8 KB: the system refuses the write as a full disk does
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(RetrError, match="no space left"):
            build(archive, index, fake_encoder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(index) == before
    assert Store.open(index).check() == []
    assert build(archive, index, fake_encoder).rows == 112
