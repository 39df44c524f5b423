"""An index's transform: fitted on its own rows, the same however they came, and in front of every question."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retr.index.encoder import EncoderInfo
from retr.index.errors import EncoderMismatchError, IndexCorruptError, UsageError
from retr.index.store import Store
from retr.retrieval.heads.adapted import head_of
from retr.retrieval.index import Index
from retr.retrieval.query import Query
from retr.retrieval.transforms import fitting
from retr.retrieval.transforms.transform import (
    FEATURES,
    FILE,
    NOTE,
    Transform,
    features_of,
    find_transform,
    own_vectors,
)

TESTS = Path(__file__).parents[2]


@pytest.fixture
def archive(make_archive):
    return make_archive(40)


@pytest.fixture
def index(archive, tmp_path, fake_encoder):
    return Index.build(archive, tmp_path / "i", encoder=fake_encoder, **_asked(archive))


def _asked(archive):
    return {"transform": "whitening", "metadata": archive / "labels.csv", "group": "patient"}


def bits(path):
    """All that a question meets: each row's vector and feature, by id, and the transform."""
    store = Store.open(path)
    rows = store.live_rows()
    both = zip(store.vectors(rows), own_vectors(store, rows), strict=True)
    of_row = {name: (one.tobytes(), other.tobytes()) for name, (one, other) in zip(store.ids(rows), both, strict=True)}
    return of_row, store.manifest.encoder.identity


def test_a_build_ends_with_a_transform_of_its_own_rows(index, archive, fake_encoder):
    store = index.store
    assert store.manifest.format_version == 2
    assert store.manifest.row_arrays[FEATURES].dim == fake_encoder.info.dim
    assert store.manifest.encoder.own == fake_encoder.info
    assert store.manifest.encoder.dim == 39  # one less than there are rows
    assert index.check() == []
    features = features_of(fake_encoder.encode_images([archive / name for name in store.ids(store.live_rows())]))
    assert np.array_equal(store.array(FEATURES), features)
    transform = find_transform(store)
    assert np.array_equal(store.vectors(), transform.whitening(features))
    # each alone as all together
    alone = np.concatenate([transform.whitening(one[None]) for one in features])
    assert alone.tobytes() == store.vectors().tobytes()
    said = index.info()["transform"]
    assert (said["name"], said["fitted"], said["rows"], said["of_dim"]) == ("whitening", True, 40, 56)
    assert any("have a transform fitted" in note for note in index.report.notes)


def test_without_being_asked_for_nothing_changes(archive, tmp_path, fake_encoder):
    index = Index.build(archive, tmp_path / "i", encoder=fake_encoder)
    assert index.store.manifest.format_version == 1
    assert index.info()["transform"] is None
    assert "transform" not in index.store.manifest.encoder.to_json()
    assert np.array_equal(own_vectors(index.store, np.arange(40)), index.store.vectors())


@pytest.mark.parametrize("rows", [3, 7])
def test_an_interrupted_build_gives_the_same_bits(index, archive, tmp_path, make_encoder, rows):
    class Failing(make_encoder):
        def encode_prepared(self, batch):
            if self.encoded >= 24:
                raise RuntimeError("the plug was pulled")
            return super().encode_prepared(batch)

    other = tmp_path / "other"
    with pytest.raises(RuntimeError, match="plug"):
        Index.build(archive, other, encoder=Failing(), commit_rows=rows, **_asked(archive))
    half = Store.open(other)
    assert 0 < len(half) < 40
    assert half.manifest.encoder.transform is None
    Index.build(archive, other, encoder=make_encoder(), commit_rows=rows, **_asked(archive))
    assert bits(other) == bits(index.path)


def test_rows_added_before_the_fit_are_as_if_built_at_once(archive, tmp_path, fake_encoder):
    whole = Index.build(archive, tmp_path / "whole", encoder=fake_encoder, transform="whitening")
    (archive / "healthy").rename(tmp_path / "later")
    parts = Index.build(archive, tmp_path / "parts", encoder=fake_encoder, transform="whitening")
    assert len(parts) == 20
    assert parts.store.manifest.encoder.transform is None
    assert any("too few to fit" in note for note in parts.report.notes)
    assert parts.info()["transform"] == {"name": "whitening", "fitted": False, "needs_rows": 30}
    with pytest.raises(UsageError, match="30 rows at least"):
        parts.refit()
    (tmp_path / "later").rename(archive / "healthy")
    Index.build(archive, tmp_path / "parts", encoder=fake_encoder)
    assert bits(tmp_path / "parts") == bits(whole.path)


def test_labels_and_patients_play_no_part(index, archive, tmp_path, fake_encoder):
    plain = Index.build(archive, tmp_path / "plain", encoder=fake_encoder, transform="whitening")
    lines = (archive / "labels.csv").read_text().splitlines()
    (archive / "labels.csv").write_text("\n".join([lines[0], *(line.replace("healthy", "x") for line in lines[1:])]))
    assert bits(plain.path) == bits(index.path)


def test_a_question_goes_through_it_however_it_is_asked(index, archive, fake_encoder):
    name = "healthy/004.webp"
    raw = fake_encoder.encode_images([archive / name])[0]
    placed = index.encoder.encode_images([archive / name])[0]
    row = index.store.rows_of([name])
    assert placed.tobytes() == index.store.vectors(row)[0].tobytes()
    for question in ({"image": archive / name}, {"vector": raw}, {"vector": placed}, {"id": name}):
        hits = index.search(**question, k=3, include_self=True)
        assert hits[0].id == name
        assert hits[0].score == pytest.approx(1, abs=1e-6)
        assert len(hits) == 3
    both = index.search([Query.vector(raw), Query.image(archive / name)], include_self=True)
    assert both[0].ids == both[1].ids
    with pytest.raises(UsageError, match=r"length 39 \(of the encoder's own 56\), got one of 12"):
        index.search(vector=np.ones(12))


def test_a_vector_is_answered_without_loading_the_encoder(index, fake_encoder):
    raw = fake_encoder.encode_images([np.zeros((8, 8, 3), np.uint8)])[0]
    opened = Index.open(index.path)  # nothing here is called "fake"
    assert opened.search(vector=raw, k=1).ids == index.search(vector=raw, k=1).ids


def test_appended_rows_go_through_the_stored_one(index, archive, make_picture, fake_encoder):
    before = index.store.manifest.encoder
    make_picture(99).save(archive / "healthy/new.png")
    (archive / "healthy/again.png").write_bytes((archive / "healthy/000.png").read_bytes())
    report = Index.build(archive, index.path, encoder=fake_encoder).report
    assert (report.embedded, report.reused) == (1, 1)
    index.refresh()
    store = index.store
    assert store.manifest.encoder == before
    assert index.check() == []
    new, again, old = store.rows_of(["healthy/new.png", "healthy/again.png", "healthy/000.png"])
    assert np.array_equal(store.array(FEATURES, np.array([again])), store.array(FEATURES, np.array([old])))
    assert np.array_equal(store.vectors(np.array([again])), store.vectors(np.array([old])))
    placed = index.encoder.encode_images([archive / "healthy/new.png"])
    assert np.array_equal(store.vectors(np.array([new])), placed)


def test_float16_and_compaction_carry_it(archive, tmp_path, fake_encoder):
    index = Index.build(
        archive, tmp_path / "i", encoder=fake_encoder, dtype="float16", commit_rows=6, **_asked(archive)
    )
    before = bits(index.path)[1]
    index.delete(where="patient = 'P03'")
    index.compact()
    assert len(index) == 37
    assert index.store.n_total == 37
    assert bits(index.path)[1] == before
    assert index.check() == []


def test_what_is_not_its_own_is_found(index):
    store = index.store
    other = Transform(replace(find_transform(store).whitening, mean=np.zeros(56)))
    with store.writer() as writer:
        writer.add_file(FILE, other.to_bytes())
        writer.commit()
    assert index.refresh()
    assert [finding.kind for finding in index.check()] == ["unreadable"]
    with pytest.raises(IndexCorruptError, match="transform"):
        index.search(vector=np.ones(56))


def test_moved_vectors_are_found(index):
    store = index.store
    with store.writer() as writer:
        writer.delete(store.live_rows()[:1])
        lines = {FEATURES: np.ones((1, 56), np.float16)}
        writer.append(pa.table({"id": ["x"]}), np.eye(39)[:1], arrays=lines)
        writer.commit()
    index.refresh()
    assert [finding.message for finding in index.check()] == ["the vectors are not those of the index's transform"]


def test_an_encoder_whose_vectors_cannot_meet_is_refused(index, archive, make_encoder, fake_encoder):
    with pytest.raises(EncoderMismatchError):
        Index.open(index.path, encoder=make_encoder(weights="1" * 64))
    # with another index's transform behind it, it is the same encoder
    assert Index.open(index.path, encoder=index.encoder).encoder.info == index.encoder.info
    with pytest.raises(UsageError, match="built with the transform 'whitening', got: 'none'"):
        Index.build(archive, index.path, encoder=fake_encoder, transform="none")


@pytest.mark.parametrize(("info", "why"), [({"text": True}, "text side"), ({"similarity": "dot"}, "dot product")])
def test_an_encoder_that_is_not_to_be_transformed_is_refused(archive, tmp_path, make_encoder, info, why):
    encoder = make_encoder()
    encoder.info = replace(encoder.info, **info)
    with pytest.raises(UsageError, match=why):
        Index.build(archive, tmp_path / "i", encoder=encoder, transform="whitening")
    assert not (tmp_path / "i").exists()
    assert not fitting.is_transformed(encoder)


def test_pictures_that_are_all_the_same_have_none(tmp_path, fake_encoder, make_picture):
    (tmp_path / "a").mkdir()
    for number in range(31):
        make_picture(1).save(tmp_path / "a" / f"{number}.png")
    index = Index.build(tmp_path / "a", tmp_path / "i", encoder=fake_encoder, transform="whitening")
    assert index.store.manifest.encoder.transform is None
    assert any("no transform was fitted" in note for note in index.report.notes)


def test_the_sample_does_not_depend_on_the_order_of_the_rows(index, archive, tmp_path, fake_encoder, monkeypatch):
    monkeypatch.setattr(fitting, "SAMPLE", 31)
    names = sorted(str(file.relative_to(archive)) for file in archive.rglob("*.*") if file.suffix != ".csv")
    one = Index.build(archive, tmp_path / "one", encoder=fake_encoder, transform="whitening")
    other = Index.build(archive, tmp_path / "other", encoder=fake_encoder, transform="whitening", commit_rows=4)
    chosen = [
        store.ids(fitting.sampled(store, store.live_rows()[::step]))
        for store, step in ((one.store, 1), (other.store, -1))
    ]
    assert chosen[0] == chosen[1] == sorted(chosen[0])
    assert len(chosen[0]) == 31
    assert set(chosen[0]) < set(names)
    assert one.info()["transform"]["sample"] == 31
    assert bits(one.path) == bits(other.path)
    assert bits(one.path)[1] != bits(index.path)[1]


def test_copies_are_told_by_the_encoders_own_vectors(index, archive, make_picture, fake_encoder):
    make_picture(7, (96, 80)).save(archive / "healthy/larger.jpg", quality=80)
    Index.build(archive, index.path, encoder=fake_encoder)
    index.refresh()
    assert [(pair.kind, {pair.a, pair.b}) for pair in index.duplicates().pairs] == [
        ("near", {"glaucoma/007.tif", "healthy/larger.jpg"})
    ]


def test_a_head_is_fitted_on_the_encoders_own_vectors(index, archive, tmp_path, fake_encoder):
    adapted = index.adapt("label", tmp_path / "adapted", features="stored")
    head = head_of(adapted.store)
    assert EncoderInfo.from_json(head.about["encoder"]) == fake_encoder.info
    assert adapted.store.manifest.row_arrays == {}
    assert NOTE not in adapted.store.manifest.extra
    assert adapted.store.check() == []
    opened = Index.open(adapted.store.path, encoder=None)
    with pytest.raises(UsageError, match="led by its head"):
        opened.refit()


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fake_encoder import FakeEncoder
from retr.index.rows import writer
from retr.retrieval.ingest.build import build
before, after = writer.publish, None
count = 0
def publish(root, manifest):
    global count
    if manifest.encoder.transform is not None and sys.argv[4] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    published = before(root, manifest)
    if manifest.encoder.transform is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return published
writer.publish = publish
build(Path(sys.argv[2]), Path(sys.argv[3]), FakeEncoder(), transform="whitening", commit_rows=16)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_the_switch_leaves_one_space_or_the_other(archive, tmp_path, fake_encoder, when):
    path = tmp_path / "killed"
    arguments = [sys.executable, "-c", KILLED, str(TESTS), str(archive), str(path), when]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    index = Index.open(path, encoder=fake_encoder)
    assert len(index) == 40
    assert index.check() == []
    assert (index.store.manifest.encoder.transform is None) == (when == "before")
    assert index.search(id="healthy/004.webp", k=1, include_self=True)[0].score == pytest.approx(1)
    Index.build(archive, path, encoder=fake_encoder)
    whole = Index.build(archive, tmp_path / "whole", encoder=fake_encoder, transform="whitening")
    assert bits(path) == bits(whole.path)
