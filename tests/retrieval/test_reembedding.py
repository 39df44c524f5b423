"""Moving an index to another encoder: the same rows, another network, one commit."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retr.index.errors import RetrError, UsageError
from retr.index.store import Store
from retr.retrieval import reembedding
from retr.retrieval.index import Index
from retr.retrieval.transforms.transform import FEATURES

TESTS = Path(__file__).parents[1]


@pytest.fixture
def archive(make_archive):
    return make_archive(40)


@pytest.fixture
def index(archive, tmp_path, fake_encoder):
    asked = {"metadata": archive / "labels.csv", "group": "patient"}
    return Index.build(archive, tmp_path / "i", encoder=fake_encoder, **asked)


@pytest.fixture
def other(make_encoder):
    class Other(make_encoder):
        """Another network, which breaks down after so many pictures."""

        most = 10**9

        def encode_prepared(self, batch):
            if self.encoded >= self.most:
                raise RuntimeError("the plug was pulled")
            return super().encode_prepared(batch)[:, ::-1] ** 3

    return Other(name="other", weights="1" * 64)


def by_id(store):
    rows = store.live_rows()
    return dict(zip(store.ids(rows), map(bytes, store.vectors(rows)), strict=True))


@pytest.mark.parametrize("transform", ["none", "whitening"])
def test_it_gives_what_a_build_with_the_other_encoder_gives(index, archive, tmp_path, other, transform):
    index.align("label")
    index.calibrate("label")
    index.delete(ids=["healthy/000.png"])
    (archive / "healthy/000.png").unlink()
    before, table, reader = index.store, index.table(), Index.open(index.path, encoder=index.encoder)
    done = index.reembed(encoder=other, transform=transform)
    assert (done.rows, done.embedded, done.encoder) == (39, 39, "other")
    assert "bridge" in done.dropped
    assert any("calibrat" in phrase for phrase in done.stale)
    assert (index.store.uuid, index.store.version) == (before.uuid, before.version + 1)
    assert index.table().equals(table)
    assert index.info()["group"] == "patient"
    assert index.check() == []
    built = Index.build(archive, tmp_path / "built", encoder=other, transform=transform)
    assert by_id(index.store) == by_id(built.store)
    assert index.store.manifest.encoder == built.store.manifest.encoder
    assert (FEATURES in index.store.manifest.row_arrays) == (transform == "whitening")
    assert not index.path.with_name("i.reembed").exists()
    # who had it open goes on undisturbed
    assert reader.search(image=archive / "healthy/002.tif", k=1, include_self=True)[0].score == pytest.approx(1)
    # and later builds go on with the new one
    assert Index.build(archive, index.path, encoder=other).report.embedded == 0


def test_a_run_that_was_stopped_goes_on(index, other, monkeypatch):
    monkeypatch.setattr(reembedding, "_COMMIT_ROWS", 8)
    other.most = 20
    before = by_id(index.store)
    with pytest.raises(RuntimeError, match="plug"):
        index.reembed(encoder=other)
    assert by_id(Store.open(index.path)) == before
    assert len(Store.open(index.path.with_name("i.reembed"))) == 16
    index.delete(ids=["glaucoma/001.jpg"])  # a row that is embedded already
    other.most = 10**9
    done = index.reembed(encoder=other)
    assert (done.rows, done.embedded) == (39, 24)
    assert index.check() == []


def test_what_another_encoder_began_is_not_used(index, other, make_encoder, monkeypatch):
    monkeypatch.setattr(reembedding, "_COMMIT_ROWS", 8)
    other.most = 20
    with pytest.raises(RuntimeError):
        index.reembed(encoder=other)
    third = make_encoder(name="third", weights="2" * 64)
    assert index.reembed(encoder=third).embedded == 40


def test_from_a_transform_to_another_encoders(index, archive, tmp_path, other):
    index.refit(dim=6)
    done = index.reembed(encoder=other, transform="whitening")
    assert "transform" not in done.dropped
    assert index.check() == []
    built = Index.build(archive, tmp_path / "built", encoder=other, transform="whitening")
    assert by_id(index.store) == by_id(built.store)
    assert index.reembed(encoder=other).embedded == 0
    with pytest.raises(UsageError, match="with the transform 'whitening', got: 'none'"):
        index.reembed(encoder=other, transform="none")


def test_a_picture_that_is_gone_changes_nothing(index, archive, other):
    before = index.store.manifest
    (archive / "healthy/008.tif").unlink(missing_ok=True)
    gone = next(iter((archive / "healthy").iterdir()))
    gone.unlink()
    with pytest.raises(RetrError, match="cannot be read again") as raised:
        index.reembed(encoder=other)
    assert "features" not in str(raised.value)
    assert Store.open(index.path).manifest == before


def test_what_cannot_be_moved_is_refused(index, tmp_path, other, make_encoder):
    adapted = Index(index.adapt("label", tmp_path / "adapted", features="stored").store)
    with pytest.raises(UsageError, match="led by its head"):
        adapted.reembed(encoder=other)
    with pytest.raises(UsageError, match="got: 'pca'"):
        index.reembed(encoder=other, transform="pca")
    words = make_encoder(name="words")
    words.info = replace(words.info, text=True)
    with pytest.raises(UsageError, match="text side"):
        index.reembed(encoder=words, transform="whitening")
    index.path.with_name("i.reembed").mkdir()
    with pytest.raises(RetrError, match="beside the index"):
        index.reembed(encoder=other)


def test_vectors_without_pictures_are_refused(tmp_path, other):
    rows = {"id": [str(number) for number in range(40)]}
    made = Index.from_vectors(np.eye(40), rows, tmp_path / "v", encoder="mine", fingerprint="1")
    with pytest.raises(RetrError):
        made.reembed(encoder=other)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from fake_encoder import FakeEncoder
from retr import Index
from retr.index.rows import writer
from retr.retrieval import reembedding
real, at, when = writer.publish, int(sys.argv[3]), sys.argv[4]
reembedding._COMMIT_ROWS = 16
count = 0
def publish(root, manifest):
    global count
    count += 1
    if count == at and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    done = real(root, manifest)
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
writer.publish = publish
Index.open(sys.argv[2]).reembed(encoder=FakeEncoder(name="next", weights="3" * 64), transform="whitening")
"""


@pytest.mark.parametrize(("at", "when", "left"), [(3, "after", 8), (5, "before", 0), (5, "after", 0)])
def test_a_kill_leaves_the_one_encoder_or_the_other(index, archive, make_encoder, at, when, left):
    before = by_id(index.store)
    arguments = [sys.executable, "-c", KILLED, str(TESTS), str(index.path), str(at), when]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    killed, encoder = Index.open(index.path), make_encoder(name="next", weights="3" * 64)
    moved = (at, when) == (5, "after")
    assert killed.check() == []
    assert (by_id(killed.store) == before) != moved
    assert killed.reembed(encoder=encoder, transform="whitening").embedded == left
    assert not index.path.with_name("i.reembed").exists()
    assert killed.check() == []
    assert killed.search(image=archive / "healthy/002.tif", k=1, include_self=True)[0].score == pytest.approx(1)


def test_an_open_index_goes_on_with_the_encoder_that_was_loaded(index, other):
    opened = Index(index.store, options={"weights": "elsewhere.safetensors", "device": "cpu"})
    same = Index(index.store, options={"weights": "elsewhere.safetensors", "device": "cpu"})
    opened.reembed(encoder=other, transform="none")
    assert opened.encoder is other
    # one that moves on by itself does not take the weights of the encoder before for those of this one
    assert same._loading == {"weights": "elsewhere.safetensors", "device": "cpu"}
    assert same.refresh()
    assert same._loading == {"device": "cpu"}


def test_a_large_index_is_tuned_again(index, other, monkeypatch):
    monkeypatch.setattr(reembedding, "tune_if_large", lambda one: [f"tuned at version {one.version}"])
    done = index.reembed(encoder=other)
    assert done.notes == (f"tuned at version {index.version}",)
    assert index.reembed(encoder=other).notes == ()
