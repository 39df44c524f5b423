"""What a picture is like at all, asked of the encoder's own vectors where an index searches others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from shards_standin import Shards

from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.index.vectors import unit
from retr.retrieval import novelty
from retr.retrieval.classify.probe import STANDARDISED, TOGETHER, Scaling, fit_probe, train
from retr.retrieval.deletion import delete
from retr.retrieval.index import Index
from retr.retrieval.query import Query
from retr.retrieval.raw_vectors import nearest_own
from retr.retrieval.transforms.transform import find_transform, own_vectors

DIM, CENTRE = 24, np.eye(24)[0]
INFO = EncoderInfo(
    name="drawn", dim=DIM, similarity="cosine", modality="many", text=False, weights_sha256="0", preprocessing="none"
)
UNLIKE, OUT_OF_DATE = "unlike anything in this archive: before the transform", novelty.STALE


def draw(n, seed=0):
    return unit(CENTRE + 0.1 * np.random.default_rng(seed).normal(size=(n, DIM))).astype(np.float32)


def rows(n, start=0):
    numbers = range(start, start + n)
    columns = {"patient": [f"P{i // 2}" for i in numbers], "camera": [("A", "B")[i % 4 // 2] for i in numbers]}
    return pa.table({"id": [f"{i:04d}.png" for i in numbers], "label": [("a", "b")[i % 2] for i in numbers], **columns})


@pytest.fixture
def index(tmp_path, monkeypatch):
    """60 patients of two pictures in three segments, behind a transform, with a fence."""
    monkeypatch.setattr("retr.index.rows.writer.last_run", lambda *_, **__: [])
    store = Store.create(tmp_path / "x.retr", encoder=INFO, group="patient")
    for start in (0, 40, 80):
        with store.writer() as writer:
            writer.append(rows(40, start), draw(40, start))
            store = writer.commit()
    index = Index(store)
    index.refit(dim=8)
    return fenced(index)


def fenced(index, column="camera"):
    """Note a fence, as `retr calibrate` does."""
    with index.store.writer() as writer:
        found = novelty.measure_novelty(writer.store, column)
        writer.note(novelty.NOVELTY_NOTE, novelty.novelty_note(writer.store, found))
        writer.commit()
    index.refresh()
    return index


def remark(index, vector):
    return index.search(Query.vector(vector), k=3).note


def test_a_picture_of_another_kind_is_unlike_behind_a_transform(index):
    assert len(index.store.segments) == 3
    fence, _ = novelty.find_novelty(index.store)
    assert set(fence.devices) == {"A", "B"}
    assert fence.before_transform
    assert "before the transform" in next(fence.says())
    foreign = unit(np.random.default_rng(5).normal(size=(50, DIM)))
    assert all(UNLIKE in remark(index, vector) for vector in foreign)
    # what the index searches does not tell them: one lies as near to a row as some rows do to each other
    live = index.store.live_rows()
    placed = find_transform(index.store)(foreign)
    scores = index.store.search(placed, 1).scores[:, 0]
    own = index.store.search(np.asarray(index.store.vectors(live), np.float32), 2).scores[:, 1]
    assert scores.max() > own.min()
    assert np.mean([remark(index, vector) is not None for vector in draw(100, 7)]) <= 0.1


@pytest.mark.parametrize("exactly", [True, False])
@pytest.mark.parametrize("gone", [(), (3, 41, 119)])
def test_the_nearest_row_is_the_nearest_of_all_that_may_be(index, gone, exactly):
    if gone:
        delete(index, ids=[f"{one:04d}.png" for one in gone])
    store = index.store
    asked, live = draw(30, 9), store.live_rows()
    exclude = [np.sort(np.random.default_rng(at).choice(live, 7, replace=False))[::-1] for at in range(30)]
    scores = asked @ own_vectors(store, np.arange(store.n_total)).astype(np.float32).T
    for number, left_out in enumerate(exclude):
        scores[number, left_out] = -1
    scores[:, ~store.alive()] = -1
    found = nearest_own(store, asked, exclude, exactly=exactly)
    assert np.array_equal(found.rows[:, 0], scores.argmax(1))
    assert np.allclose(found.scores[:, 0], scores.max(1), atol=1e-5)


def test_shards_that_are_held_elsewhere_say_the_same(index):
    near = Index.open(index.path)
    index.shard(3)
    fenced(index)
    index.store.remote = Shards(index.path)
    foreign = unit(np.random.default_rng(5).normal(size=(5, DIM)))
    assert all(UNLIKE in remark(index, vector) for vector in foreign)
    asked = [*foreign, *draw(5, 7)]
    assert [remark(index, vector) for vector in asked] == [remark(near, vector) for vector in asked]
    some = np.ones(near.store.n_total, bool)
    some[:50] = False
    names = near.store.ids(np.flatnonzero(some))
    mask = np.zeros(index.store.n_total, bool)
    mask[index.store.rows_of(names)] = True
    nothing = [np.empty(0, np.int64)] * 5
    one = nearest_own(near.store, foreign, nothing, k=4, among=some)
    other = nearest_own(index.store, foreign, nothing, k=4, among=mask)
    assert one.scores.tobytes() == other.scores.tobytes()
    assert near.store.ids(one.rows.ravel()) == index.store.ids(other.rows.ravel())
    # what did not answer may hold what a picture is like
    index.store.remote.down = {1}
    note = index.search(Query.vector(foreign[0]), k=3, partial=True).note
    assert "partial: " in note
    assert "unlike" not in note


def test_an_index_of_nothing_but_deleted_rows_calls_nothing_unlike(index):
    store = index.store
    fence, _ = novelty.find_novelty(store)
    every = np.arange(store.n_total)
    assert novelty.unlike(store, fence, CENTRE, every[:0], every) is None


def test_a_fence_outlives_what_leaves_the_encoders_vectors(index):
    before = novelty.find_novelty(index.store)
    assert index.refit(dim=5, power=0.2).stale == ()
    index.compact()
    assert novelty.find_novelty(index.store) == before
    assert UNLIKE in remark(index, -CENTRE)
    assert remark(index, CENTRE) is None


@pytest.mark.parametrize("what", ["rows are deleted", "rows are added", "a patient is purged"])
def test_a_fence_is_out_of_date_or_gone_when_rows_change(index, what):
    if what == "rows are added":
        with index.store.writer() as writer:
            arrays = {"features": draw(2, 3).astype(np.float16)}
            writer.append(rows(2, 900), find_transform(index.store)(draw(2, 3)), arrays=arrays)
            writer.commit()
        index.refresh()
    else:
        delete(index, ids=["0003.png"], purge="purge" in what)
    assert remark(index, -CENTRE) == (None if "purge" in what else OUT_OF_DATE)
    assert UNLIKE in remark(fenced(index), -CENTRE)


def test_a_fence_of_before_a_transform_counts_behind_it(tmp_path):
    store = Store.create(tmp_path / "x.retr", encoder=INFO, group="patient")
    with store.writer() as writer:
        writer.append(rows(80), draw(80))
        writer.commit()
    index = fenced(Index.open(store.path))
    assert not novelty.find_novelty(index.store)[0].before_transform
    assert "before" not in remark(index, -CENTRE)
    index.refit()
    assert UNLIKE in remark(index, -CENTRE)


def test_a_vector_of_what_is_searched_does_not_tell(index):
    searched = np.asarray(index.store.vectors(np.arange(1))[0], np.float32)
    assert remark(index, searched) == novelty.UNTOLD
    # a row and a vector that the encoder gave do, a mix says nothing of its parts
    assert index.search(id="0000.png", k=3).note is None
    assert index.search(Query.vector(-CENTRE) + Query.id("0000.png"), k=3).note is None
    assert index.search(Query.vector(-CENTRE), k=3, where="camera = 'A'").note is None


@pytest.fixture
def pictures(make_archive, tmp_path, fake_encoder):
    archive = make_archive(60)
    asked = {"metadata": archive / "labels.csv", "group": "patient"}
    return fenced(Index.build(archive, tmp_path / "i", encoder=fake_encoder, transform="whitening", **asked), None)


def test_pictures_rows_and_remembered_questions_hold_the_encoders_own_vector(pictures, make_picture):
    white, ordinary = Image.new("RGB", (40, 40), (255, 255, 255)), make_picture(77)
    for picture, unlike in ((white, True), (ordinary, False)):
        asked, [known] = Query.image(picture), pictures.embed([Query.image(picture)])
        encoded = pictures.encoder.inner.encoded
        again = pictures.search(known, k=5)
        assert pictures.encoder.inner.encoded == encoded
        one = pictures.search(asked, k=5)
        # the same bits whether a question is remembered or asked
        assert (one.ids, one.scores.tolist(), one.note) == (again.ids, again.scores.tolist(), again.note)
        assert (UNLIKE in (one.note or "")) == unlike
    first, second = pictures.classify([white, ordinary], by="label")
    assert UNLIKE in first.abstain
    assert second.abstain is None
    # one in 21 patients may be
    assert pictures.classify_rows(by="label")["answered"] >= 54


def test_a_probe_behind_a_transform_leaves_the_dimensions_as_they_are(tmp_path):
    """Standardised each by itself, dimensions that hold nothing would count as much as those that tell the classes."""
    store, labels = Store.create(tmp_path / "x.retr", encoder=replace(INFO, dim=200)), rows(80)["label"]
    vectors = np.random.default_rng(0).normal(size=(80, 200)) * 0.1
    vectors[:, 0] += [0.5 if label == "a" else -0.5 for label in labels.to_pylist()]
    with store.writer() as writer:
        writer.append(rows(80), unit(vectors))
        writer.set_group("patient")
        writer.commit()
    index = Index.open(store.path)
    index.refit()
    assert Scaling.of(index.store) == TOGETHER
    vectors, codes = np.asarray(index.store.vectors(), np.float32), np.arange(80) % 2
    shares = [
        float(np.mean((vectors[40:] @ coef.T + offset).argmax(1) == codes[40:]))
        for coef, offset in (fit_probe(vectors[:40], codes[:40], 2, one.fixed, one) for one in (STANDARDISED, TOGETHER))
    ]
    assert shares[0] < shares[1]
    assert index.evaluate("probe", "label").metrics["top1"].value >= 0.95
    assert train(index.store, "label").figures["accuracy"] >= 0.95
