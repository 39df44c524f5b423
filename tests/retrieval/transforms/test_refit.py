"""Fitting a transform again: by command, and by a purge of rows that it was fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from retr.index.disk.side_data import Change, Kind, register
from retr.index.errors import RetrError, UsageError
from retr.index.store import Store
from retr.retrieval.index import Index
from retr.retrieval.transforms import fitting
from retr.retrieval.transforms.transform import FEATURES, NOTE, find_transform, own_vectors


@pytest.fixture
def archive(make_archive):
    return make_archive(40)


@pytest.fixture
def index(archive, tmp_path, fake_encoder):
    asked = {"metadata": archive / "labels.csv", "group": "patient"}
    return Index.build(archive, tmp_path / "i", encoder=fake_encoder, transform="whitening", **asked)


def vectors_by_id(store):
    rows = store.live_rows()
    return dict(zip(store.ids(rows), map(bytes, store.vectors(rows)), strict=True))


def test_a_refit_keeps_fewer_dimensions_and_all_else(index):
    before, open_before = index.store, Index.open(index.path)
    raw = own_vectors(before, before.live_rows()).copy()
    table = before.table()
    done = index.refit(dim=8)
    assert (done.rows, done.sample, done.dim) == (40, 40, 8)
    assert index.store.version == before.version + 1
    assert index.store.manifest.encoder.dim == 8
    assert index.store.table().equals(table)
    assert np.array_equal(own_vectors(index.store, index.store.live_rows()), raw)
    assert index.check() == []
    # what was asked for once is kept
    assert index.refit().dim == 8
    assert index.refit(power=1.0).dim == 8
    assert index.store.manifest.extra[NOTE]["power"] == 1.0
    # who had it open sees what they saw, and then moves on with the encoder, too
    vector = np.asarray(raw[3], np.float32)
    assert open_before.search(vector=vector, k=1, include_self=True)[0].score == pytest.approx(1, abs=1e-3)
    assert open_before.refresh()
    assert open_before.search(vector=vector, k=1, include_self=True)[0].score == pytest.approx(1, abs=1e-3)
    assert open_before.info()["transform"]["sha256"] == index.info()["transform"]["sha256"]


def test_an_open_index_asks_with_the_transform_of_its_version(index, archive):
    index.encoder.encode_images([archive / "healthy/000.png"])
    old = index.snapshot()
    index.refit(dim=5)
    assert index.encoder.info.dim == 5
    assert index.search(image=archive / "healthy/000.png", k=1, include_self=True)[0].score == pytest.approx(1)
    assert old.encoder.info.dim == 39
    assert old.search(image=archive / "healthy/000.png", k=1, include_self=True)[0].score == pytest.approx(1)


def test_an_index_that_was_built_without_gets_its_first(archive, tmp_path, fake_encoder, index):
    plain = Index.build(
        archive, tmp_path / "plain", encoder=fake_encoder, group="patient", metadata=archive / "labels.csv"
    )
    assert plain.refit().dim == 39
    assert vectors_by_id(plain.store) == vectors_by_id(index.store)
    assert plain.store.manifest.encoder == index.store.manifest.encoder


def test_what_was_made_for_other_vectors_is_dropped_or_says_so(index):
    index.align("label")
    index.calibrate("label")
    assert index.search(text="healthy", k=1).ids
    done = index.refit(dim=39, power=0.9)  # of the same length
    assert "bridge" in done.dropped
    assert index.bridge is None
    assert any("calibrat" in phrase for phrase in done.stale)
    # measured on the encoder's own vectors, which are what they were
    assert not any("unlike" in phrase for phrase in done.stale)
    assert index.check() == []
    with pytest.raises(RetrError):
        index.search(text="healthy")


def test_side_data_that_nothing_here_knows_refuses_it(index, monkeypatch):
    class Foreign(Kind):
        name = "foreign"

        def checks(self, snapshot):
            return {}

        def stale(self, snapshot):
            return ()

        def purge(self, snapshot, gone):
            return Change()

    from retr.index.disk import side_data

    monkeypatch.setattr(side_data, "_registered", dict(side_data._registered))
    register(Foreign())
    with index.store.writer() as writer:
        writer.note("theirs", 1, kind=Foreign())
        writer.commit()
    del side_data._registered["foreign"]
    index.refresh()
    before = index.version
    with pytest.raises(RetrError, match="'foreign'"):
        index.refit(dim=3)
    assert not index.refresh()
    assert index.version == before


def test_a_refit_is_due_when_the_index_has_grown(index, archive, make_picture, fake_encoder, monkeypatch):
    assert not index.info()["transform"]["refit_due"]
    monkeypatch.setattr(fitting, "GROWN", 1.1)
    for number in range(5):
        make_picture(100 + number).save(archive / f"new{number}.png")
    built = Index.build(archive, index.path, encoder=fake_encoder)
    assert built.info()["transform"]["refit_due"]
    assert any("retr index refit" in note for note in built.report.notes)
    built.refit()
    assert not built.info()["transform"]["refit_due"]


@pytest.mark.parametrize("asked", [{"dim": 0}, {"dim": 2.5}, {"dim": True}, {"power": -1}, {"power": 9.0}])
def test_what_cannot_be_fitted_is_refused(index, asked):
    with pytest.raises(UsageError):
        index.refit(**asked)


def test_a_purge_leaves_what_a_build_without_the_patient_gives(index, archive, tmp_path, fake_encoder):
    without = tmp_path / "without"
    gone = [row["id"] for row in index.table(where="patient = 'P02'").to_pylist()]
    before = [find_transform(index.store).whitening.sha256, index.store.array(FEATURES, index.store.rows_of(gone))]
    index.delete(where="patient = 'P02'", purge=True)
    for name in gone:
        (archive / name).unlink()
    Index.build(
        archive, without, encoder=fake_encoder, transform="whitening", group="patient", metadata=archive / "labels.csv"
    )
    assert vectors_by_id(index.store) == vectors_by_id(Store.open(without))
    assert index.store.manifest.encoder == Store.open(without).manifest.encoder
    assert index.check() == []
    left = b"".join(file.read_bytes() for file in index.path.rglob("*") if file.is_file())
    assert before[0].encode() not in left
    assert not any(row.tobytes() in left for row in before[1])


def test_a_purge_that_leaves_too_few_goes_back_to_the_encoders_own(index, archive, fake_encoder, make_picture):
    index.delete(where="age < 60", purge=True)
    store = index.store
    assert len(store) == 20
    assert store.manifest.encoder == fake_encoder.info
    assert store.manifest.row_arrays == {}
    assert index.check() == []
    expected = fake_encoder.encode_images([archive / name for name in store.ids(store.live_rows())])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(store.vectors(store.live_rows()), expected, atol=1e-3)
    assert index.search(image=np.zeros((9, 9)), k=1).ids
    # and has one again once there are enough
    for number in range(15):
        make_picture(200 + number).save(archive / f"new{number}.png")
    assert Index.build(archive, index.path, encoder=fake_encoder).store.manifest.encoder.transform is not None


def test_rows_that_were_deleted_and_compacted_before_leave_it_with_the_next_purge(index):
    index.delete(where="patient = 'P02'")
    index.compact()
    left = index.store.live_rows()
    index.delete(where="patient = 'P03'", purge=True)
    assert index.store.manifest.extra[NOTE]["rows"] == len(left) - 3


def test_an_export_can_have_its_transform_fitted_again(index, tmp_path, fake_encoder):
    index.export(tmp_path / "out")
    files = [tmp_path / "out" / name for name in ("vectors.npy", "metadata.parquet")]
    made = Index.from_vectors(*files, tmp_path / "made", encoder=fake_encoder)
    assert made.store.manifest.encoder.own.agrees_with(fake_encoder.info)
    assert made.store.manifest.encoder.transform is None
    made.refit()
    assert made.store.manifest.encoder.transform == index.store.manifest.encoder.transform
    assert made.check() == []
