"""Nothing that was fitted is measured on what it was fitted on, in whatever order things are done to an index.

The labels are drawn by chance: whoever is measured on rows that a head, a bridge or a probe has seen looks far better
than chance, and is found out.
"""

from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from fake_encoder import FakeEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from retr.index.encoder import EncoderInfo
from retr.index.errors import RetrError, UsageError
from retr.index.store import Store
from retr.retrieval.classify import calibration, methods, probe
from retr.retrieval.classify.answers import SEEN, answer_pictures
from retr.retrieval.evaluation import classification
from retr.retrieval.evaluation.protocols.folder import read_index
from retr.retrieval.evaluation.protocols.vectors import Built
from retr.retrieval.exporting import METADATA, VECTORS
from retr.retrieval.heads.adapted import AdaptedEncoder, head_of
from retr.retrieval.index import Index
from retr.retrieval.labels.held_out_views import Unseen, Views
from retr.retrieval.labels.label_set import load_labels
from retr.retrieval.labels.labelled import others
from retr.retrieval.labels.trained_rows import BRIDGE_FILE, HEAD_FILE, SPLIT, VIEWS_FILE, seen_by_bridge, seen_by_head
from retr.retrieval.labels.training_marks import row_marks

DIM, CLASSES = 60, ("drusen", "glaucoma", "myopia")
INFO = EncoderInfo(
    name="drawn", dim=DIM, similarity="cosine", modality="many", text=False, weights_sha256="0", preprocessing="none"
)
LABELS = load_labels(CLASSES)
# of about 80 rows, three classes at a chance of a third: five deviations above it
LUCK = 0.6


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One strength instead of four sees the same rows, and intervals are measured elsewhere."""
    monkeypatch.setattr(probe, "STANDARDISED", replace(probe.STANDARDISED, tried=(0.01,)))
    monkeypatch.setattr(classification, "jackknife_intervals", lambda *_, **__: {})


def drawn(rng, names, patients):
    """Rows of noise: a vector for each name, a label by chance."""
    table = {
        "id": names,
        "sha256": [f"{int(one):x}" for one in rng.integers(1 << 60, size=len(names))],
        "label": rng.choice(CLASSES, len(names)).tolist(),
        "patient": patients,
    }
    return pa.table(table), rng.normal(size=(len(names), DIM)).astype(np.float32)


def build(path, seed=0, n=80):
    rng = np.random.default_rng(seed)
    store = Store.create(path, encoder=INFO)
    with store.writer() as writer:
        writer.append(*drawn(rng, [f"{i:03d}" for i in range(n)], [f"P{i // 4}" for i in range(n)]))
        writer.set_group("patient")
        return Index(writer.commit())


def ways(index):
    yield methods.ByNeighbours(index.store, "label")
    if index.bridge is not None:
        yield methods.ByWords(index.text_side, LABELS)
    try:
        found = probe.find_probe(index.store, "label")
    except RetrError:
        return
    if found is not None:
        yield methods.ByProbe(found, index.store)


def records(index):
    """The records that count now, by method."""
    found = [calibration.find_calibration(index.store, way.key, "label")[0] for way in ways(index)]
    return {one.method: one for one in found if one is not None}


class World:
    """An index and what is done to it."""

    def __init__(self, folder, seed):
        self.folder, self.rng, self.number = folder, np.random.default_rng(seed), count()
        self.index = build(folder / "plain.retr", seed)

    def adapt(self, *, refit):
        if HEAD_FILE not in self.index.store.manifest.files:
            path = self.folder / "adapted.retr"
            self.index = Index(self.index.adapt("label", path, refit=refit, mix=0).store)

    def align(self):
        self.index.align("label")

    def calibrate(self):
        try:
            self.index.calibrate("label", labels=LABELS if self.index.bridge else None)
        except UsageError as error:  # the bridge was fitted on texts that are there no more
            assert "retr align" in str(error)
            self.align()
            self.index.calibrate("label", labels=LABELS)
        assert records(self.index)

    def classify(self):
        self.index.classify_rows(by="label")
        self.index.classify_rows(probe="label", retrain=True)

    def delete(self):
        with self.index.store.writer() as writer:
            writer.delete(self.rng.choice(self.index.store.live_rows(), 3, replace=False))
            writer.commit()
        self.index.refresh()

    def add(self):
        """A second look at known patients, and new ones."""
        names = [f"new{next(self.number)}" for _ in range(4)]
        table, vectors = drawn(self.rng, names, ["P0", "P3", f"N{names[0]}", f"N{names[0]}"])
        with self.index.store.writer() as writer:
            writer.append(table, vectors[:, : self.index.store.manifest.encoder.dim])
            writer.commit()
        self.index.refresh()

    def rename(self):
        """The same pictures of the same patients under other names."""
        store = self.index.store
        rows = self.rng.choice(store.live_rows(), 6, replace=False)
        table = store.table(["id", "sha256", "label", "patient"], rows)
        names = pa.array([f"renamed{next(self.number)}" for _ in rows])
        with store.writer() as writer:
            writer.delete(rows)
            writer.append(table.set_column(0, "id", names), np.asarray(store.vectors(rows)))
            writer.commit()
        self.index.refresh()

    def relabel(self):
        ids = self.index.store.table(["id"])["id"]
        labels = np.array(self.index.store.table(["label"])["label"].to_pylist(), object)
        at = self.rng.choice(len(labels), 5, replace=False)
        labels[at] = [CLASSES[(CLASSES.index(one) + 1) % 3] for one in labels[at]]
        self.replace(ids, label=labels.tolist())

    def overwrite(self):
        """The column that says who was fitted on is nobody's promise."""
        ids = self.index.store.table(["id"])["id"]
        self.replace(ids, **{SPLIT: ["held out"] * len(ids)})

    def replace(self, ids, **columns):
        with self.index.store.writer() as writer:
            writer.replace_columns(pa.table({"id": ids, **columns}))
            writer.commit()
        self.index.refresh()

    def measured(self):
        """All that the index says of itself, as shares of right answers."""
        yield from (one.accuracy for one in records(self.index).values())
        for task in ("retrieval", "neighbours", "probe"):
            try:
                found = self.index.evaluate(task, "label").metrics
            except UsageError as error:
                assert "nothing is held out" in str(error)
            else:
                yield found["precision@1" if task == "retrieval" else "top1"].value


CHANGES = ("delete", "add", "rename", "relabel")
STEPS = st.sampled_from(["align", "calibrate", "classify", "overwrite", *CHANGES])
# in any order; there is always a bridge, a calibration and a change
AFTER = st.tuples(st.sampled_from(CHANGES), STEPS).flatmap(lambda two: st.permutations(["align", "calibrate", *two]))


@settings(
    max_examples=3, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(before=st.lists(STEPS, max_size=1), refit=st.booleans(), after=AFTER, seed=st.integers(0, 99))
def test_no_measure_is_better_than_chance(tmp_path_factory, before, refit, after, seed):
    world = World(tmp_path_factory.mktemp("world"), seed)
    for step in [*before, "adapt", *after, "calibrate"]:
        bridge = world.index.store.manifest.files.get(BRIDGE_FILE)
        if step == "adapt":
            world.adapt(refit=refit)
            assert not records(world.index)  # another encoder
        else:
            getattr(world, step)()
        if step in CHANGES:
            assert not records(world.index), step
        if step == "align" and bridge not in {None, world.index.store.manifest.files[BRIDGE_FILE]}:
            assert all(not one.startswith("zero-shot") for one in records(world.index))
    assert max(world.measured()) < LUCK


def test_a_head_measured_on_its_own_patients_would_look_better(tmp_path):
    """What the property above would find."""
    world = World(tmp_path, 1)
    world.adapt(refit=True)
    store = world.index.store
    rows = store.live_rows()
    found = store.search(np.asarray(store.vectors(rows), np.float32), 1, exclude=others(store, rows)).rows[:, 0]
    labels = np.array(store.table(["label"])["label"].to_pylist())
    assert (labels[found] == labels).mean() > LUCK + 0.3
    assert seen_by_head(store).all()


def test_a_bridge_is_measured_by_bridges_without_the_patient(tmp_path):
    index = build(tmp_path / "x.retr")
    index.align("label")
    words = methods.ByWords(index.text_side, LABELS)
    labels = np.array([CLASSES.index(one) for one in index.store.table(["label"])["label"].to_pylist()])
    in_sample = (words.logits(index.store.vectors()).argmax(axis=1) == labels).mean()
    index.calibrate("label", labels=LABELS)
    stated = calibration.find_calibration(index.store, words.key, None)[0].accuracy
    assert in_sample > 0.7
    assert stated < 0.45


def test_a_bridge_promises_nothing_to_whom_it_was_fitted_on(tmp_path):
    index = build(tmp_path / "x.retr")
    index.align("label", where="id < '040'")
    assert seen_by_bridge(index.store).tolist() == [True] * 40 + [False] * 40
    index.calibrate("label", labels=LABELS)
    words = methods.ByWords(index.text_side, LABELS)
    assert calibration.find_calibration(index.store, words.key, None)[0].accuracy < LUCK
    rows = np.array([5, 75])
    asked = np.asarray(index.store.vectors(rows), np.float32)
    known, new = answer_pictures(index.store, words, asked, ["x", "y"], others(index.store, rows))
    assert (known.calibrated, new.calibrated, known.prediction_set) == (False, True, None)
    assert SEEN in known.note
    # another bridge in its place
    index.align("label", where="id >= '040'")
    found, why = calibration.find_calibration(index.store, words.key, None)
    assert found is None
    assert "the bridge or the encoder of words changed" in why
    # other texts than it was fitted on: it cannot be fitted again
    with index.store.writer() as writer:
        writer.delete(np.array([7]))
        writer.commit()
    index.refresh()
    with pytest.raises(UsageError, match=r"from .label. was fitted on other rows or texts.*retr align --text-"):
        index.calibrate("label", labels=LABELS)


def test_the_calibration_that_is_asked_for_is_found(tmp_path):
    index = build(tmp_path / "x.retr")
    ids, labels = (index.store.table([name])[name].to_pylist() for name in ("id", "label"))
    columns = {name: np.roll(labels, 2).tolist() for name in ("a b", "a_b", "A_B", "l" * 200)}
    with index.store.writer() as writer:
        writer.replace_columns(pa.table({"id": ids, **columns}))
        writer.commit()
    index.refresh()
    index.align("label")
    for column in ("label", "a b"):
        index.calibrate(column, labels=LABELS)
    for column in ("a_b", "A_B", "l" * 200):
        probe.train_and_store(index.store, column)
    index.refresh()
    names = [probe.file_name(column).lower() for column in ("label", *columns)]
    assert len(set(names)) == 5
    for column in ("label", *columns):
        assert probe.find_probe(index.store, column).column == column
    words = methods.ByWords(index.text_side, LABELS)
    found, why = calibration.find_calibration(index.store, words.key, None)
    assert found is None
    assert "calibrated on 'a b' and 'label': name one of them (--calibrated-on)" in why
    for column in ("label", "a b"):
        assert calibration.find_calibration(index.store, words.key, column)[0].column == column
    with pytest.raises(UsageError, match="--calibrated-on"):
        index.classify(["x.png"], by="label", calibrated_on="label")
    # the fence is measured anew with each of them, and is the same
    assert calibration.find_calibration(index.store, "probe", "label")[0] is not None


def test_a_patient_of_today_that_was_dealt_into_two_folds_is_not_asked(tmp_path):
    world = World(tmp_path, 2)
    world.adapt(refit=True)
    index = world.index
    rows = index.store.live_rows()
    unseen = Unseen(index.store, rows)
    assert unseen.asked.all()
    assert (unseen.fold >= 0).all()
    one, other = rows[unseen.fold == 0][0], rows[unseen.fold == 1][0]
    patients = index.store.table(["patient"])["patient"].to_pylist()
    same = {patients[one], patients[other]}
    world.replace(index.store.table(["id"])["id"], patient=["both" if one in same else one for one in patients])
    asked = Unseen(index.store, rows).asked
    assert rows[~asked].tolist() == [row for row, one in enumerate(patients) if one in same]


def test_what_a_head_has_seen_of_a_patient_is_known_by_another_column(tmp_path):
    """Labels are by chance, one for each patient: whoever has seen the other eye knows them."""
    rng = np.random.default_rng(5)
    store = Store.create(tmp_path / "x.retr", encoder=INFO)
    owner = np.arange(80) // 2
    table, vectors = drawn(rng, [f"{i:02d}" for i in range(80)], [f"P{one}" for one in owner])
    labels = rng.choice(CLASSES, 40)[owner].tolist()
    table = table.set_column(2, "label", pa.array(labels)).append_column("eye", table["id"])
    with store.writer() as writer:
        writer.append(table, vectors + 1.5 * rng.normal(size=(40, DIM))[owner].astype(np.float32))
        writer.set_group("eye")
        index = Index(writer.commit())
    adapted = Index(index.adapt("label", tmp_path / "adapted.retr", refit=True, mix=0).store)
    unseen = Unseen(adapted.store, adapted.store.live_rows(), "patient")
    patients = np.array(adapted.store.table(["patient"])["patient"].to_pylist())
    for one in np.unique(patients):  # of a patient in two folds none is asked
        assert len(set(unseen.fold[patients == one])) == 1
    # without refitting, the other eye of a patient that was fitted on does not ask in the index itself
    half = Index(index.adapt("label", tmp_path / "half.retr", mix=0).store)
    fitted = set(half.table(["patient"], where=f"{SPLIT} = 'fitted'")["patient"].to_pylist())
    plain = Unseen(half.store, half.store.live_rows(), "patient").plain
    patients = np.array(half.store.table(["patient"])["patient"].to_pylist())
    assert not fitted & set(patients[plain])
    assert (plain | np.isin(patients, list(fitted))).all()
    assert half.evaluate("retrieval", "label", group="patient").metrics["precision@1"].value < LUCK


def test_the_column_of_an_older_version_is_believed_as_far_as_its_note_goes(tmp_path):
    world = World(tmp_path, 8)
    world.adapt(refit=False)
    known = seen_by_head(world.index.store)
    head = replace(head_of(world.index.store), seen=None)
    with world.index.store.writer() as writer:
        writer.add_file(HEAD_FILE, head.to_bytes())
        writer.commit()
    world.index.refresh()
    np.testing.assert_array_equal(seen_by_head(world.index.store), known)
    assert not known.all()
    world.overwrite()
    assert seen_by_head(world.index.store).all()


def test_an_index_made_by_the_encoder_of_an_adapted_one_has_its_head(tmp_path):
    archive = tmp_path / "pictures"
    archive.mkdir()
    rng = np.random.default_rng(6)
    lines = ["path,patient,label"]
    for i in range(24):
        picture = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
        picture.save(archive / f"{i}.png")
        lines.append(f"{i}.png,P{i // 2},{CLASSES[i % 2]}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    asked = {"metadata": tmp_path / "m.csv", "group": "patient"}
    plain = Index.build(archive, tmp_path / "plain.retr", encoder=FakeEncoder(), **asked)
    adapted = plain.adapt("label", tmp_path / "adapted.retr", refit=True, mix=0).store
    encoder = AdaptedEncoder(FakeEncoder(), head_of(adapted))
    index = Index.build(archive, tmp_path / "new.retr", encoder=encoder, **asked)
    assert seen_by_head(index.store).all()
    for measure in (lambda: index.calibrate("label"), lambda: index.evaluate("neighbours", "label")):
        with pytest.raises(UsageError, match="nothing is"):
            measure()
    with pytest.raises(UsageError, match="adapted one already"):
        index.adapt("label", tmp_path / "twice.retr", mix=0)
    # and one that is made of its vectors
    index.export(tmp_path / "exported")
    vectors, table = (tmp_path / "exported" / name for name in (VECTORS, METADATA))
    for number, named in enumerate((None, encoder)):
        again = Index.from_vectors(vectors, table, tmp_path / f"{number}.retr", encoder=named)
        assert seen_by_head(again.store).all()
        assert head_of(again.store).sha256 == head_of(adapted).sha256


def test_a_probe_is_asked_on_the_rows_that_it_was_trained_on(tmp_path):
    """Another process may have changed them since this index was opened."""
    index = build(tmp_path / "x.retr")
    world = SimpleNamespace(index=Index.open(tmp_path / "x.retr"), rng=np.random.default_rng(7), number=count())
    World.rename(world)
    index.classify_rows(probe="label", retrain=True)
    table = index.table(["label", "probe_label"])
    right = [a == b for a, b in zip(*(table[name].to_pylist() for name in table.column_names), strict=True)]
    assert np.mean(right) < LUCK
    assert probe.find_probe(index.store, "label") is not None
    World.rename(world)
    index.calibrate("label")
    assert records(index)


def test_a_published_protocol_does_not_take_the_vectors_of_an_adapted_index(tmp_path):
    world = World(tmp_path, 4)
    world.adapt(refit=False)
    store = world.index.store
    with pytest.raises(UsageError, match="have seen its labels"):
        Built((store,)).embed(read_index(store, label="label"), [SimpleNamespace(info=store.manifest.encoder)])


def test_a_purge_takes_rows_out_of_the_views(tmp_path):
    world = World(tmp_path, 3)
    world.adapt(refit=False)
    store = world.index.store
    held_out = store.rows_of(world.index.table(["id"], where=f"{SPLIT} = 'held out'")["id"].to_pylist())[:2]
    gone = row_marks(store, held_out)
    before = Views.from_bytes(store.file(VIEWS_FILE))
    assert np.isin(gone, before.marks).all()
    world.index.delete(ids=store.table(["id"], held_out)["id"].to_pylist(), purge=True)
    after = Views.from_bytes(world.index.store.file(VIEWS_FILE))
    assert not np.isin(gone, after.marks).any()
    assert after.vectors.shape[1] == before.vectors.shape[1] - 2
    # and rows that were deleted and compacted before
    world.index.delete(ids=world.index.table(["id"], where=f"{SPLIT} = 'held out'")["id"].to_pylist()[:3])
    with world.index.store.writer() as writer:
        writer.compact()
    world.index.refresh()
    last = world.index.table(["id"], where=f"{SPLIT} = 'held out'")["id"].to_pylist()[:1]
    world.index.delete(ids=last, purge=True)
    assert Views.from_bytes(world.index.store.file(VIEWS_FILE)).vectors.shape[1] == after.vectors.shape[1] - 4
    # written over, the column does not hide who was fitted on
    world.overwrite()
    fitted = world.index.store.live_rows()[seen_by_head(world.index.store)][:1]
    with pytest.raises(RetrError, match="was fitted on 1 of the rows"):
        world.index.delete(ids=world.index.store.table(["id"], fitted)["id"].to_pylist(), purge=True)
