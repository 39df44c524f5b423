"""Whether a fence of unlike pictures still counts, whose rows it is measured on, and what a camera makes of it."""

import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from retr.index.encoder import EncoderInfo
from retr.index.errors import IndexCorruptError, UsageError
from retr.index.store import Store
from retr.index.vectors import unit
from retr.retrieval import novelty
from retr.retrieval.classify import calibrate
from retr.retrieval.index import Index
from retr.retrieval.query import Query

DIM = 12
INFO = EncoderInfo(
    name="drawn", dim=DIM, similarity="cosine", modality="many", text=False, weights_sha256="0", preprocessing="none"
)
CENTRE = np.eye(DIM)[0]


def table(n, start=0, camera="A", patient=None):
    numbers = range(start, start + n)
    return pa.table(
        {
            "id": [f"{i:04d}.png" for i in numbers],
            "sha256": [f"{i:x}" for i in numbers],
            "label": [("a", "b")[i % 2] for i in numbers],
            "patient": [f"P{i // 2}" for i in numbers] if patient is None else [patient] * n,
            "camera": [camera] * n,
        }
    )


def draw(n, seed=0, spread=0.1, centre=CENTRE):
    return unit(centre + spread * np.random.default_rng(seed).normal(size=(n, DIM))).astype(np.float32)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """120 patients of two pictures, in two segments, with a fence."""
    path = tmp_path_factory.mktemp("fence") / "x.retr"
    store = Store.create(path, encoder=INFO)
    with store.writer() as writer:
        writer.append(table(120), draw(120, 0))
        writer.set_group("patient")
        writer.commit()
    with store.writer() as writer, pytest.MonkeyPatch.context() as patch:
        patch.setattr("retr.index.rows.writer.last_run", lambda *_, **__: [])
        writer.append(table(120, 120), draw(120, 1))
        store = writer.commit()
    with store.writer() as writer:
        writer.note(novelty.NOVELTY_NOTE, novelty.novelty_note(store, novelty.measure_novelty(store)))
        writer.commit()
    return path


@pytest.fixture
def path(original, tmp_path):
    return shutil.copytree(original, tmp_path / "x.retr")


def columns(store, **named):
    return pa.table({"id": store.table(["id"])["id"], **named})


def remark(store, vector):
    return Index(store).search(Query.vector(vector), k=1).note


STALE = {
    "rows are deleted": lambda w: w.delete(np.array([3])),
    "the archive is cut": lambda w: w.delete(np.arange(100, 240)),
    "rows are added": lambda w: w.append(table(2, 900, patient="P900"), draw(2, 5)),
    "a row is another patient's": lambda w: w.replace_columns(
        columns(w.store, patient=["P9999", *w.store.table(["patient"])["patient"].to_pylist()[1:]])
    ),
    "nobody tells patients apart any more": lambda w: w.set_group(None),
}
FRESH = {
    "labels change": lambda w: w.replace_columns(columns(w.store, label=["c"] * 240)),
    "a column is added": lambda w: w.replace_columns(columns(w.store, grade=list(range(240)))),
    "segments are merged": lambda w: w.compact(),
    "something is noted": lambda w: w.note("other", {"x": 1}),
}


@pytest.mark.parametrize("change", STALE.values(), ids=STALE)
def test_what_a_fence_depends_on_makes_it_stale(path, change):
    with Store.open(path).writer() as writer:
        change(writer)
        writer.commit()
    store = Store.open(path)
    assert novelty.find_novelty(store) == (None, novelty.STALE)
    # said, and nothing is called unlike by it
    assert remark(store, -CENTRE) == novelty.STALE


@pytest.mark.parametrize("change", FRESH.values(), ids=FRESH)
def test_what_it_does_not_depend_on_leaves_it(path, change):
    with Store.open(path).writer() as writer:
        change(writer)
        if writer.store.version == Store.open(path).version:
            writer.commit()
    store = Store.open(path)
    fence, why = novelty.find_novelty(store)
    assert why is None
    assert fence is not None
    assert "unlike anything in this archive" in remark(store, -CENTRE)
    assert remark(store, CENTRE) is None


def test_another_encoder_under_the_same_rows(path):
    store = Store.open(path)
    other = dataclasses.replace(INFO, weights_sha256="1")
    store.manifest = dataclasses.replace(store.manifest, encoder=other)
    assert novelty.find_novelty(store)[1] == novelty.STALE


def test_the_same_rows_again_and_it_counts_again(path):
    store = Store.open(path)
    names = store.table(["patient"])["patient"].to_pylist()
    for values in (["P7"] * 240, names):
        with store.writer() as writer:
            writer.replace_columns(columns(store, patient=values))
            store = writer.commit()
        assert (novelty.find_novelty(store)[1] is None) == (values is names)


def test_a_fence_of_before_that_says_not_what_it_depends_on(path):
    store = Store.open(path)
    with store.writer() as writer:
        writer.note(novelty.NOVELTY_NOTE, None)
        writer.commit()
    assert novelty.find_novelty(Store.open(path)) == (None, None)
    with Store.open(path).writer() as writer:
        writer.note("calibration", {"novelty": {"threshold": 0.9}})
        writer.commit()
    assert novelty.find_novelty(Store.open(path)) == (None, novelty.STALE)


def test_a_remark_names_the_rate_and_the_camera(path):
    said = remark(Store.open(path), -CENTRE)
    assert "at most 1 % of its own kind score below" in said
    assert "another camera" in said
    # a mix of pictures is no picture, and words are none
    mixed = Query.vector(-CENTRE) + Query.vector(np.roll(-CENTRE, 1))
    assert Index(Store.open(path)).search(mixed, k=1).note is None


def build(tmp_path, *parts, group="patient"):
    store = Store.create(tmp_path / "y.retr", encoder=INFO)
    with store.writer() as writer:
        for rows, vectors in parts:
            writer.append(rows, vectors)
        writer.set_group(group)
        return writer.commit()


@pytest.mark.parametrize("group", ["patient", None])
@pytest.mark.parametrize("n", [8, 36, 40, 196, 198])
def test_a_small_archive_states_what_it_can_promise(tmp_path, n, group):
    store = build(tmp_path, (table(n), draw(n)), group=group)
    found = novelty.measure_novelty(store)
    units = n // 2 if group else n
    assert (found.groups, found.rows) == (units, n)
    assert (found.threshold is None) == (units < 19)
    assert found.rate == max(0.01, 1 / (units + 1))
    said = " ".join(found.says())
    assert ("patient" in said) == (group is not None)
    if units < 19:
        assert found.unlike(-1.0) is None
        assert f"it takes 19 {'patients' if group else 'images'}, {units} are here" in said
    else:
        assert novelty.percent(found.rate) in said
        assert novelty.percent(found.high) in said


def test_an_empty_archive_has_no_fence(tmp_path):
    assert novelty.measure_novelty(build(tmp_path, group=None)).threshold is None


def test_rows_of_nobody_known_measure_nothing(tmp_path):
    """Two pictures of one patient that nobody named would each be the other's near neighbour."""
    near = np.repeat(draw(100, 3), 2, axis=0)
    nobody = table(200, 500).set_column(3, "patient", pa.array([None] * 200, pa.string()))
    found = novelty.measure_novelty(build(tmp_path, (table(200), draw(200)), (nobody, near)))
    assert (found.groups, found.rows) == (100, 200)
    assert found.threshold < 0.99


def cameras(tmp_path, n=60):
    """A camera whose pictures are alike, and one of far fewer patients whose pictures differ more."""
    far = unit(CENTRE + np.eye(DIM)[1])
    return build(
        tmp_path,
        (table(400), draw(400, 0, 0.02)),
        (table(n, 400, camera="B"), draw(n, 1, 0.25, far)),
        (table(4, 800, camera=None), draw(4, 2, 0.02)),
    )


def test_a_camera_has_a_fence_of_its_own(tmp_path):
    store = cameras(tmp_path)
    far = unit(CENTRE + np.eye(DIM)[1])
    new = draw(2000, 9, 0.25, far)
    scores = store.search(new, 1).scores[:, 0]
    one, each = novelty.measure_novelty(store), novelty.measure_novelty(store, "camera")
    assert set(each.devices) == {"A", "B", ""}
    assert (each.devices["B"].groups, each.devices["B"].rate) == (30, 1 / 31)
    assert each.threshold == min(fence.threshold for fence in each.devices.values())
    called = [np.mean([bool(fence.unlike(score)) for score in scores]) for fence in (one, each)]
    # of so few patients the rate is anywhere below what is stated with 95 % confidence
    assert called[1] <= each.devices["B"].high
    assert called[1] < called[0]
    assert each.unlike(-1.0).endswith("or a camera that is not in it")
    said = list(each.says())
    assert any("camera 'B'" in line and "3.2 %" in line and "30 patients" in line for line in said)
    assert any("without 'camera'" in line for line in said)


def test_a_remark_hides_no_camera_of_few_patients(tmp_path):
    fences = novelty.measure_novelty(cameras(tmp_path), "camera")
    rates = [fence.rate for fence in fences.devices.values()]
    assert max(rates) > 0.3
    said = fences.unlike(-1.0)
    assert f"at most 1 % of its own kind ({novelty.percent(max(rates))} of the smallest camera's) score below" in said


def test_a_camera_is_one_however_its_letters_are_coded(tmp_path):
    spelled = [(table(40, 0, "é "), draw(40)), (table(40, 40, "e\u0301"), draw(40, 1)), (table(40, 80, "  "), draw(40))]
    found = novelty.measure_novelty(build(tmp_path, *spelled), "camera")
    assert {name: fence.groups for name, fence in found.devices.items()} == {"é": 40, "": 20}


def test_patients_that_a_head_has_seen_are_said_to_be_left_out(path, monkeypatch):
    store = Store.open(path)
    monkeypatch.setattr(novelty, "seen_by_head", lambda store: np.arange(store.n_total) < 220)
    found = novelty.measure_novelty(store)
    assert (found.threshold, found.groups, found.seen) == (None, 10, 220)
    assert "10 are here; 220 rows are left out: the head has seen their patients" in next(found.says())
    with store.writer() as writer:
        writer.note(novelty.NOVELTY_NOTE, novelty.novelty_note(store, found))
        assert novelty.find_novelty(writer.commit()) == (found, None)


@pytest.mark.parametrize(
    "hostile", [{"rate": -1}, {"high": 7}, {"threshold": "0.5"}, {"devices": {"A": 3}}, {"seen": -2}]
)
def test_a_damaged_note_is_refused(path, hostile):
    store = Store.open(path)
    with store.writer() as writer:
        writer.note(novelty.NOVELTY_NOTE, store.manifest.extra[novelty.NOVELTY_NOTE] | hostile)
        store = writer.commit()
    with pytest.raises(IndexCorruptError, match="unlike pictures cannot be read"):
        novelty.find_novelty(store)


def test_what_a_fence_depends_on_is_read_once_a_snapshot(path, monkeypatch):
    with Store.open(path).writer() as writer:
        writer.compact()
    read = []
    original = novelty._of_rows
    monkeypatch.setattr(novelty, "_of_rows", lambda *args: read.append(1) or original(*args))
    store = Store.open(path)
    assert [novelty.find_novelty(store)[1] for _ in range(3)] == [None] * 3
    assert len(read) == 1


def test_a_fence_by_camera_depends_on_the_cameras(tmp_path):
    store = cameras(tmp_path)
    calibrate.calibrate(Index(store), "label", device_column="camera")
    store = Store.open(store.path)
    found, _ = novelty.find_novelty(store)
    assert found == novelty.measure_novelty(store, "camera")
    with store.writer() as writer:
        writer.replace_columns(columns(store, camera=["A"] * len(store)))
        writer.commit()
    assert novelty.find_novelty(Store.open(store.path))[1] == novelty.STALE
    with store.writer() as writer:
        noted = writer.store.manifest.extra[novelty.NOVELTY_NOTE]
        writer.note(novelty.NOVELTY_NOTE, {**noted, "column": "scanner"})
        assert "of each 'scanner', a column that is gone" in novelty.find_novelty(writer.commit())[1]
    with pytest.raises(UsageError, match="'camra'"):
        novelty.measure_novelty(store, "camra")


def test_many_rows_are_drawn_by_patient(tmp_path, monkeypatch):
    monkeypatch.setattr(novelty, "_MOST_ROWS", 100)
    monkeypatch.setattr(novelty, "_MOST_OF_A_GROUP", 5)
    store = build(tmp_path, (table(200), draw(200)), (table(300, 500, patient="many"), draw(300, 2)))
    found = novelty.measure_novelty(store)
    assert found.rows == 100
    assert 48 <= found.groups <= 50


def test_a_purge_drops_it(path):
    from retr.retrieval.deletion import delete

    done = delete(Index(Store.open(path)), ids=["0003.png"], purge=True)
    assert any("fence" in phrase for phrase in done.dropped)
    assert novelty.find_novelty(Store.open(path)) == (None, None)


def test_a_search_loads_nothing_that_classifies():
    code = (
        "import sys; from retr import Index; assert not [m for m in sys.modules if m.startswith('retr.retrieval.cla')]"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
