"""The fence of unlike pictures that a build measures: which rows it rests on, and when it is measured again."""

import shutil

import numpy as np
import pyarrow as pa
import pytest
from fake_encoder import FakeEncoder, picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retr.index.encoder import EncoderInfo
from retr.index.errors import IndexCorruptError
from retr.index.rows.check import stale
from retr.index.store import Store
from retr.index.vectors import unit
from retr.retrieval import novelty, novelty_renewal
from retr.retrieval.deletion import delete
from retr.retrieval.index import Index
from retr.retrieval.novelty_renewal import renew, shared, sketch
from retr.retrieval.query import Query

DIM = 12
INFO = EncoderInfo(
    name="drawn", dim=DIM, similarity="cosine", modality="many", text=False, weights_sha256="0", preprocessing="none"
)
CENTRE = np.eye(DIM)[0]


def table(numbers, patient=None):
    numbers = list(numbers)
    return pa.table(
        {
            "id": [f"{i:04d}.png" for i in numbers],
            "sha256": [f"{i:x}" for i in numbers],
            "label": [("a", "b")[i % 2] for i in numbers],
            "patient": [f"P{i // 2}" for i in numbers] if patient is None else [patient] * len(numbers),
        }
    )


def draw(n, seed=0, spread=0.1, centre=CENTRE):
    return unit(centre + spread * np.random.default_rng(seed).normal(size=(n, DIM))).astype(np.float32)


def changed(store, change, *, first=False):
    """Change an index, and renew its fence as who changed it does; return what is said."""
    with store.writer() as writer:
        change(writer)
        writer.commit()
        said = renew(writer, first=first)
        writer.commit()
    return said


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    store = Store.create(tmp_path_factory.mktemp("fence") / "x.retr", encoder=INFO)

    def fill(writer):
        writer.append(table(range(200)), draw(200))
        writer.set_group("patient")

    assert "at most 1 % of the pictures of new patients" in changed(store, fill, first=True)
    return store.path


@pytest.fixture
def store(original, tmp_path):
    return Store.open(shutil.copytree(original, tmp_path / "x.retr"))


def note(store):
    return Store.open(store.path).manifest.extra.get(novelty.NOVELTY_NOTE)


def remark(store, vector):
    return Index(Store.open(store.path)).search(Query.vector(vector), k=1).note


def append(numbers, seed=7, **options):
    return lambda writer: writer.append(table(numbers), draw(len(numbers), seed, **options))


KEPT = {
    "a few rows are added": append(range(500, 540)),
    "a few rows are deleted": lambda writer: writer.delete(np.arange(30)),
    "segments are merged": lambda writer: writer.compact(),
    "something is noted": lambda writer: writer.note("other", {"x": 1}),
}
RENEWED = {
    "the archive grows by a third": append(range(500, 566)),
    "another kind of picture comes": append(range(500, 600), spread=0.2, centre=np.eye(DIM)[3]),
    "a third is deleted": lambda writer: writer.delete(np.arange(70)),
    "nobody tells patients apart any more": lambda writer: writer.set_group(None),
    "half of the rows are other patients'": lambda writer: writer.replace_columns(
        pa.table({"id": table(range(100))["id"], "patient": [f"Q{i}" for i in range(100)]})
    ),
    "a third is replaced by others": lambda writer: (writer.delete(np.arange(70)), append(range(500, 570))(writer)),
}


@pytest.mark.parametrize("change", KEPT.values(), ids=KEPT)
def test_a_small_change_leaves_the_fence_and_says_nothing(store, change):
    before = note(store)
    assert changed(store, change, first=True) is None
    assert note(store) == before
    assert stale(Store.open(store.path)) == []
    assert remark(store, CENTRE) is None
    assert "unlike anything in this archive" in remark(store, -CENTRE)


@pytest.mark.parametrize("change", RENEWED.values(), ids=RENEWED)
def test_a_large_one_has_it_measured_again(store, change):
    before = note(store)
    assert changed(store, change) is not None
    after = note(store)
    assert after != before
    opened = Store.open(store.path)
    measured = novelty.measure_novelty(opened)
    assert novelty.find_novelty(opened) == (measured, None)
    assert "unlike anything in this archive" in remark(store, -CENTRE)


def test_what_nobody_measured_again_is_stale_by_the_number_of_rows(store):
    with store.writer() as writer:
        writer.append(table(range(500, 600)), draw(100, 3))
        writer.commit()
    assert novelty.find_novelty(Store.open(store.path)) == (None, novelty.CHANGED)
    assert stale(Store.open(store.path)) == [novelty.CHANGED]
    assert remark(store, -CENTRE) == novelty.CHANGED
    assert changed(store, lambda _: None) is not None
    assert remark(store, CENTRE) is None


def test_a_few_rows_at_a_time_have_it_measured_as_often_as_the_archive_grows_by_a_quarter(store):
    said = [changed(store, append(range(start, start + 10), start), first=True) for start in range(500, 570, 10)]
    assert 1 <= sum(one is not None for one in said) <= 2


def test_only_a_build_measures_a_first_one(tmp_path):
    store = Store.create(tmp_path / "y.retr", encoder=INFO)
    assert changed(store, append(range(40))) is None
    assert note(store) is None
    assert changed(store, lambda _: None, first=True) is not None
    # done once
    assert changed(store, lambda _: None, first=True) is None


def test_few_patients_have_none_and_a_build_says_so_once(tmp_path):
    store = Store.create(tmp_path / "y.retr", encoder=INFO)

    def few(writer):
        append(range(36))(writer)
        writer.set_group("patient")

    said = changed(store, few, first=True)
    assert said == "nothing is called unlike this archive: it takes 19 patients, 18 are here"
    assert changed(store, lambda writer: writer.note("other", 1), first=True) is None
    assert remark(store, -CENTRE) is None
    assert "is called unlike" in changed(store, append(range(36, 60)), first=True)


def test_a_fence_of_calibrate_is_its_own_until_a_build_finds_it_stale(store):
    Index(store).calibrate("label", device_column="label")
    calibrated = note(store)
    assert novelty.SKETCH not in calibrated
    assert changed(Store.open(store.path), lambda writer: writer.compact(), first=True) is None
    change = append([900], 9)
    assert changed(Store.open(store.path), change) is None
    assert novelty.find_novelty(Store.open(store.path)) == (None, novelty.STALE)
    assert changed(Store.open(store.path), lambda _: None, first=True) is not None
    # by the same cameras
    assert set(note(store)["devices"]) == {"a", "b"}
    assert novelty.find_novelty(Store.open(store.path))[1] is None


def test_rows_are_measured_against_all_and_not_against_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(novelty_renewal, "MOST_ROWS", 60)
    store = Store.create(tmp_path / "y.retr", encoder=INFO)
    vectors = draw(1000, 0, 0.3)
    with store.writer() as writer:
        writer.append(table(range(1000)), vectors)
        writer.commit()
        renew(writer, first=True)
        store = writer.commit()
    fence, _ = novelty.find_novelty(store)
    assert (fence.rows, fence.groups) == (60, 60)
    products = vectors @ vectors.T
    np.fill_diagonal(products, -1)
    # the lowest of 60 nearest of a thousand: one of those that all rows have
    assert np.isclose(np.sort(products.max(axis=1)), fence.threshold, atol=1e-6).any()


def test_a_purge_leaves_no_hash_of_what_is_gone(store):
    everything = sketch(store)
    gone = store.ids(np.arange(4))
    lost = np.setdiff1d(everything, _without(store, gone))
    done = delete(Index(store), ids=gone, purge=True)
    assert not any("fence" in phrase for phrase in done.dropped)
    after = Store.open(store.path)
    assert np.array_equal(novelty.noted_sketch(after), sketch(after))
    assert not np.isin(lost, novelty.noted_sketch(after)).any()
    assert novelty.find_novelty(after) == (novelty.measure_novelty(after), None)


def _without(store, ids):
    copy = shutil.copytree(store.path, store.path.with_name("copy.retr"))
    with Store.open(copy).writer() as writer:
        writer.delete(writer.store.rows_of(ids))
        return sketch(writer.commit())


@pytest.mark.parametrize("hostile", ["zz", "00", 7])
def test_a_damaged_sketch_is_refused_and_measured_anew_by_a_build(store, hostile):
    with store.writer() as writer:
        writer.note(novelty.NOVELTY_NOTE, note(store) | {novelty.SKETCH: hostile})
        damaged = writer.commit()
    with pytest.raises(IndexCorruptError, match="unlike pictures cannot be read"):
        novelty.noted_sketch(damaged)
    assert changed(damaged, lambda _: None, first=True) is not None
    assert novelty.find_novelty(Store.open(store.path))[1] is None


@given(st.sets(st.integers(0, 300), max_size=100), st.sets(st.integers(0, 300), max_size=100))
def test_few_rows_are_compared_exactly(one, other):
    union = one | other
    found = shared(np.array(sorted(one), "<u8"), np.array(sorted(other), "<u8"))
    if len(union) <= 128:
        assert found == (len(one & other) / len(union) if union else 1.0)


def test_many_rows_are_compared_by_the_lowest_hashes():
    hashes = np.random.default_rng(0).integers(0, 2**63, 3000).astype("<u8")
    lowest = [np.sort(part)[:128] for part in (hashes[:2500], hashes[500:])]
    assert shared(*lowest) == pytest.approx(2 / 3, abs=0.12)


def pictures(folder, numbers):
    """Pictures of one kind: what all have in common, with a little of their own."""
    common = picture(1000)
    for number in numbers:
        file = folder / f"P{number // 2:02d}" / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.blend(common, picture(number), 0.3).save(file)


@pytest.mark.parametrize("transform", ["none", "whitening"])
def test_the_first_build_knows_what_is_unlike_the_archive(tmp_path, transform):
    pictures(tmp_path / "archive", range(44))
    built = {}
    for name, options in {"single": {}, "shards": {"shards": 3}, "small commits": {"commit_rows": 16}}.items():
        index = Index.build(
            tmp_path / "archive", tmp_path / f"{name}.retr", encoder=FakeEncoder(), transform=transform, **options
        )
        assert "is called unlike this archive" in index.report.fence
        built[name] = index
    fences = [novelty.find_novelty(index.store) for index in built.values()]
    assert fences[0][1] is None
    assert fences[0] == fences[1] == fences[2]
    sketches = [novelty.noted_sketch(index.store).tolist() for index in built.values()]
    assert sketches[0] == sketches[1] == sketches[2]
    index = built["shards"]
    like = Image.blend(picture(1000), picture(999), 0.3)
    assert index.search(image=like, k=3).note is None
    assert "unlike anything in this archive" in index.search(image=picture(77), k=3).note
    # nothing new, nothing done
    version = index.store.version
    index = Index.build(tmp_path / "archive", index.path, encoder=FakeEncoder())
    assert index.store.version == version


def test_a_build_that_was_stopped_before_the_fence_measures_it_when_it_goes_on(tmp_path, monkeypatch):
    pictures(tmp_path / "archive", range(40))
    with monkeypatch.context() as patch:
        patch.setattr("retr.retrieval.ingest.pipeline.renew", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Index.build(tmp_path / "archive", tmp_path / "a.retr", encoder=FakeEncoder())
    stopped = Index.build(tmp_path / "archive", tmp_path / "a.retr", encoder=FakeEncoder())
    whole = Index.build(tmp_path / "archive", tmp_path / "b.retr", encoder=FakeEncoder())
    assert novelty.find_novelty(stopped.store) == novelty.find_novelty(whole.store)
    assert novelty.find_novelty(whole.store)[0].threshold is not None
