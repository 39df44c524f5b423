"""Neighbours, probe, zero-shot and calibration on a store of drawn clusters with patients."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from index_standin import IndexStandIn

from retr.index.encoder import EncoderInfo
from retr.index.errors import IndexCorruptError, RetrError, UsageError
from retr.index.store import Store
from retr.index.vectors import unit
from retr.retrieval.classify import calibrate, calibration, findings, methods, probe
from retr.retrieval.classify.answers import answer_pictures, row_exclusions, store_answers
from retr.retrieval.classify.prompts import class_vectors
from retr.retrieval.labels import labelled
from retr.retrieval.labels.label_set import LabelClass, LabelSet, load_labels
from retr.retrieval.stats.confidence import Temperature

DIM, CLASSES = 16, ("a", "b", "c", "d")
CENTRES = unit(np.random.default_rng(7).normal(size=(4, DIM)))
INFO = EncoderInfo(
    name="drawn", dim=DIM, similarity="cosine", modality="many", text=True, weights_sha256="0", preprocessing="none",
    logit_scale=20.0,
)  # fmt: skip


def draw(n, seed, noise=0.22):
    """Vectors and classes; two rows a patient that resemble each other, three patients of unknown class."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, 4, n // 2), 2)
    person = np.repeat(rng.normal(size=(n // 2, DIM)) * noise, 2, axis=0)
    vectors = CENTRES[truth] + person + rng.normal(size=(n, DIM)) * noise
    return unit(vectors), truth


def build(path, n=400, seed=0, group="patient"):
    vectors, truth = draw(n, seed)
    store = Store.create(path, encoder=INFO)
    with store.writer() as writer:
        ids = [f"{i:04d}.png" for i in range(n)]
        table = pa.table(
            {
                "id": ids,
                "sha256": [f"{i:x}" for i in range(n)],
                "label": [CLASSES[t] if i % 10 else None for i, t in enumerate(truth)],
                "patient": [f"P{i // 2}" for i in range(n)],
            }
        )
        writer.append(table, vectors)
        if group:
            writer.set_group(group)
        return writer.commit()


@pytest.fixture
def store(tmp_path):
    return build(tmp_path / "x.retr")


NOTHING = np.empty(0, dtype=np.int64)


class Words:
    """A text side that knows the centres of the clusters."""

    info = INFO

    def class_embedding(self, prompts):
        return np.mean([CENTRES[CLASSES.index(p)] for p in prompts], axis=0)

    def similarity_logits(self, images, texts):
        return images @ texts.T


def test_labelled_rows_know_classes_and_groups(store):
    found = labelled.labelled_rows(store, "label")
    assert found.classes == CLASSES
    assert len(found) == 360
    assert found.n_groups == 200
    folds = found.folds(5)
    for group in np.unique(found.groups):
        assert len(set(folds[found.groups == group])) == 1
    assert set(folds) == set(range(5))


def test_labels_are_matched_by_alias(store):
    labels = LabelSet("s", (LabelClass("first", ("a",), ("A",)), LabelClass("b", ("b",))))
    found = labelled.labelled_rows(store, "label", labels=labels)
    assert found.classes == ("first", "b")
    assert len(found) < 360
    with pytest.raises(UsageError, match="fewer than two classes"):
        labelled.labelled_rows(store, "label", labels=load_labels("odir"))
    with pytest.raises(UsageError, match="no column"):
        labelled.labelled_rows(store, "diagnosis")


def test_the_data_version_follows_what_matters(store):
    version = labelled.data_version(store, "label")
    with store.writer() as writer:
        writer.replace_columns(pa.table({"id": ["0000.png"], "other": [1]}))
        other = writer.commit()
        assert labelled.data_version(other, "label") == version
        writer.compact()
        assert labelled.data_version(writer.store, "label") == version
        writer.delete(np.array([3]))
        assert labelled.data_version(writer.commit(), "label") != version


def test_neighbours_vote_without_the_patient(store):
    method = methods.ByNeighbours(store, "label", 5)
    rows = np.array([1, 2])
    exclude = row_exclusions(store, [rows[:1], rows[1:]])
    assert [e.tolist() for e in exclude] == [[0, 1], [2, 3]]
    answers = answer_pictures(store, method, store.vectors(rows), ["x", "y"], exclude)
    for row, one in zip(rows, answers, strict=True):
        assert len(one.neighbours) == 5
        assert f"P{row // 2}" not in one.neighbours.table.column("patient").to_pylist()
        assert not one.calibrated and one.prediction_set is None and "calibrate" in one.note
        votes = one.neighbours.table.column("label").to_pylist()
        assert one.label in votes
        assert sum(one.probabilities) == pytest.approx(1, abs=1e-5)


def test_a_known_patient_is_excluded_for_a_new_picture(store):
    assert row_exclusions(store, [NOTHING], "P7")[0].tolist() == [14, 15]
    assert row_exclusions(store, [NOTHING])[0].tolist() == []


def test_a_probe_is_stored_found_and_refused_when_stale(store):
    assert probe.find_probe(store, "label") is None
    trained = probe.train_and_store(store, "label")
    assert trained.figures["groups"] == 200
    assert trained.figures["accuracy"] > 0.8
    store = Store.open(store.path)
    found = probe.find_probe(store, "label")
    vectors, truth = draw(200, seed=5)
    np.testing.assert_array_equal(found.logits(vectors), trained.logits(vectors))
    assert (found.logits(vectors).argmax(axis=1) == truth).mean() > 0.8
    with store.writer() as writer:
        writer.delete(np.array([1]))
        store = writer.commit()
    with pytest.raises(RetrError, match=r"stale.*--retrain"):
        probe.find_probe(store, "label")
    with pytest.raises(IndexCorruptError):
        probe.Probe.from_bytes(b"no probe")
    for crafted in ({"fold_of": trained.fold_of + 9}, {"held_out": trained.held_out[1:]}, {"coef": trained.coef[:2]}):
        with pytest.raises(IndexCorruptError):
            probe.Probe.from_bytes(replace(trained, **crafted).to_bytes())


def test_a_probe_answers_a_known_patient_by_the_fold_that_has_not_seen_it(tmp_path):
    """Labels by chance: whoever is answered by a fit on its own label is found out."""
    store = build(tmp_path / "chance.retr", n=120)
    drawn = np.random.default_rng(3).choice(list(CLASSES), 120).tolist()
    with store.writer() as writer:
        writer.replace_columns(pa.table({"id": store.table(["id"])["id"], "label": drawn}))
        store = writer.commit()
    trained = probe.train_and_store(store, "label")
    store = Store.open(store.path)
    method, rows = methods.ByProbe(probe.find_probe(store, "label"), store), store.live_rows()
    vectors = np.asarray(store.vectors(rows), np.float32)
    own = method.evidence(vectors, row_exclusions(store, [rows[i : i + 1] for i in rows]))[0]
    np.testing.assert_allclose(own, trained.held_out, rtol=1e-4, atol=1e-5)
    truth = np.array([CLASSES.index(label) for label in drawn])
    in_sample = np.mean(trained.logits(vectors).argmax(axis=1) == truth)
    held_out = np.mean(own.argmax(axis=1) == truth)
    assert in_sample > held_out + 0.15
    # a new picture of a known patient, by name; and of nobody in the index
    new = vectors[14:15] + 0.01
    named = method.evidence(new, row_exclusions(store, [NOTHING], "P7"))[0]
    fold = trained.fold_of[14]
    np.testing.assert_allclose(named[0], new[0] @ trained.fold_coef[fold].T + trained.fold_intercept[fold], rtol=1e-5)
    np.testing.assert_array_equal(method.evidence(new, [NOTHING])[0], trained.logits(new))
    # two patients of two folds: a fit without both
    other = int(np.flatnonzero(trained.fold_of != fold)[0])
    both = np.union1d(*row_exclusions(store, [np.array([14]), np.array([other])]))
    rest = method._labelled.part(~np.isin(method._labelled.rows, both))
    coef, intercept = probe.fit_probe(vectors[rest.rows], rest.codes, 4, trained.figures["C"])
    np.testing.assert_allclose(method.evidence(new, [both])[0][0], new[0] @ coef.T + intercept, rtol=1e-4, atol=1e-5)


def test_a_probe_of_an_older_version_is_trained_again(store):
    import io

    trained = probe.train_and_store(store, "label")
    with np.load(io.BytesIO(trained.to_bytes())) as file:
        old = {name: file[name] for name in file.files if not name.startswith("fold")}
    sink = io.BytesIO()
    np.savez_compressed(sink, **old)
    with store.writer() as writer:
        writer.add_file(probe.file_name("label"), sink.getvalue())
        store = writer.commit()
    assert probe.find_probe(store, "label") is None


def test_a_patient_without_a_group_column_is_refused(tmp_path):
    store = build(tmp_path / "none.retr", n=20, group=None)
    with pytest.raises(UsageError, match=r"no column tells patients apart.*retr index group"):
        row_exclusions(store, [NOTHING], "P7")


def test_a_row_without_patient_belongs_to_the_copy_that_has_one(tmp_path):
    store = build(tmp_path / "copies.retr", n=20)
    ids = store.table(["id"])["id"]
    patients = [None, " ", *(f"P{i // 2}" for i in range(2, 20))]
    with store.writer() as writer:
        hashes = ["same", "b", "same", *(f"{i}" for i in range(3, 20))]
        writer.replace_columns(pa.table({"id": ids, "patient": patients, "sha256": hashes}))
        store = writer.commit()
    groups = labelled.row_groups(store, store.live_rows())
    assert groups[0] == groups[2] == groups[3]
    assert (groups == groups[1]).sum() == 1


def test_a_probe_of_two_classes(tmp_path):
    store = build(tmp_path / "two.retr")
    labels = ["a" if value == "a" else "rest" for value in store.table(["label"])["label"].to_pylist()]
    with store.writer() as writer:
        writer.replace_columns(pa.table({"id": store.table(["id"])["id"], "label": labels}))
        store = writer.commit()
    trained = probe.train(store, "label")
    vectors, truth = draw(200, seed=5)
    assert trained.logits(vectors).shape == (200, 2)
    assert ((trained.logits(vectors).argmax(axis=1) == 0) == (truth == 0)).mean() > 0.9


def test_a_probe_needs_several_patients(tmp_path):
    store = build(tmp_path / "one.retr", n=20)
    with store.writer() as writer:
        writer.replace_columns(pa.table({"id": store.table(["id"])["id"], "patient": ["P"] * 20}))
        store = writer.commit()
    with pytest.raises(UsageError, match="one group"):
        probe.train(store, "label")


def test_identifiers_are_no_classes(store):
    for column in ("id", "patient"):
        with pytest.raises(UsageError, match=f"each class of '{column}' is of one patient alone"):
            probe.train(store, column)


def test_a_group_column_is_a_new_state_of_the_data_even_if_it_is_the_labels(tmp_path):
    store = build(tmp_path / "x.retr", n=20, group=None)
    before = {column: labelled.data_version(store, column) for column in ("label", "patient")}
    with store.writer() as writer:
        writer.set_group("label")
        store = writer.commit()
    assert all(labelled.data_version(store, column) != before[column] for column in before)


@pytest.fixture
def calibrated(store):
    words = methods.ByWords(Words(), load_labels(CLASSES))
    index = IndexStandIn(store=store, text_side=Words())
    measured, novelty = calibrate.calibrate(index, "label", labels=load_labels(CLASSES), alpha=0.1)
    return Store.open(store.path), measured, novelty, words


def test_calibration_is_measured_stored_and_holds_on_new_patients(calibrated):
    store, measured, novelty, words = calibrated
    assert {one.method.split(":")[0] for one in measured} == {"neighbours", "probe", "zero-shot"}
    vectors, truth = draw(1000, seed=9)
    names = [""] * len(truth)
    exclude = [NOTHING] * len(truth)
    for method in (
        methods.ByNeighbours(store, "label"),
        methods.ByProbe(probe.find_probe(store, "label"), store),
        words,
    ):
        stored, why = calibration.find_calibration(store, method.key, method.column)
        assert why is None
        assert stored in measured
        assert stored.ece_after < 0.08
        answers = answer_pictures(store, method, vectors, names, exclude)
        assert all(one.calibrated and one.alpha == 0.1 for one in answers)
        covered = np.mean([CLASSES[t] in one.prediction_set for t, one in zip(truth, answers, strict=True)])
        assert covered == pytest.approx(0.9, abs=0.06)
        right = np.mean([CLASSES[t] == one.label for t, one in zip(truth, answers, strict=True)])
        assert right > 0.75
    scores = store.search(vectors, 1).scores[:, 0]
    assert np.mean([bool(novelty.unlike(score)) for score in scores]) <= novelty.high


def test_it_abstains_with_a_reason(calibrated):
    store, _, _, words = calibrated
    other = -CENTRES.sum(axis=0, keepdims=True)
    between = CENTRES.sum(axis=0, keepdims=True)
    method = methods.ByProbe(probe.find_probe(store, "label"), store)
    (one,) = answer_pictures(store, method, unit(other).astype(np.float32), ["x"], [NOTHING])
    assert one.abstain.startswith("unlike anything in this archive")
    assert one.to_json()["label"] is None
    (one,) = answer_pictures(store, words, unit(between).astype(np.float32), ["x"], [NOTHING], max_set=1)
    assert one.abstain


def test_a_stale_calibration_says_so(calibrated):
    store, _, _, _ = calibrated
    with store.writer() as writer:
        writer.delete(np.array([1]))
        store = writer.commit()
    (one,) = answer_pictures(
        store, methods.ByNeighbours(store, "label"), store.vectors(np.array([0])), ["x"], [NOTHING]
    )
    assert not one.calibrated
    assert "stale" in one.note


def test_a_part_of_the_rows_votes_uncalibrated(calibrated):
    store, _, _, _ = calibrated
    method = methods.ByNeighbours(store, "label", where="label in ('a', 'b')")
    assert method.classes == ("a", "b")
    with pytest.raises(UsageError, match="fewer than two classes in the rows where label = 'a'"):
        methods.ByNeighbours(store, "label", where="label = 'a'")
    with pytest.raises(UsageError, match="k must be at least 1"):
        methods.ByNeighbours(store, "label", 0).evidence(store.vectors(np.array([0])), [NOTHING])
    for way, why in (
        (method, "a vote of neighbours among some of the rows is another than was measured"),
        (methods.ByNeighbours(store, "label", 7), "a vote of 7 neighbours is another than was measured"),
        (methods.ByNeighbours(store, "patient", 7), "see `retr calibrate`"),
    ):
        (one,) = answer_pictures(store, way, store.vectors(np.array([0])), ["x"], [NOTHING])
        assert not one.calibrated
        assert why in one.note


def test_the_whole_index_is_answered_as_if_unseen(calibrated):
    store, _, _, _ = calibrated
    method = methods.ByProbe(probe.find_probe(store, "label"), store)
    answered = store_answers(store, method, prefix="probe")
    store = Store.open(store.path)
    table = store.table(["label", "probe_label", "probe_probability", "probe_set"])
    assert answered == 400 - table.column("probe_label").null_count
    known = labelled.labelled_rows(store, "label")
    logits = probe.find_probe(store, "label").held_out  # the new columns do not make it stale
    said = table.take(pa.array(known.rows)).column("probe_label").to_pylist()
    want = [CLASSES[i] for i in logits.argmax(axis=1)]
    assert all(a is None or a == b for a, b in zip(said, want, strict=True))
    assert sum(a is not None for a in said) > 250


def test_answers_replace_answers_alone(calibrated):
    store, _, _, _ = calibrated
    method = methods.ByNeighbours(store, "label", 5)
    store_answers(store, method, prefix="said")
    assert Store.open(store.path).table(["said_set"])["said_set"].null_count < 400
    # another number of neighbours is not calibrated: no set of before may stand beside its answers
    store_answers(Store.open(store.path), methods.ByNeighbours(store, "label", 7), prefix="said")
    store = Store.open(store.path)
    assert store.table(["said_set"])["said_set"].null_count == 400
    with store.writer() as writer:
        writer.note("build", {"metadata": {"": {"columns": ["gold_set"]}}, "beside": ["folder_label"]})
        store = writer.commit()
    asked = methods.ByNeighbours(store, "said_label")
    for method, prefix, column in (
        (asked, "said", "said_label"),
        (asked, "gold", "gold_set"),
        (asked, "folder", "folder_label"),
    ):
        with pytest.raises(UsageError, match=f"would replace the column '{column}'"):
            store_answers(store, method, prefix=prefix)


def test_findings_that_may_be_present_together():
    labels = load_labels("chexpert-5")
    with pytest.raises(UsageError, match="present together"):
        methods.ByWords(Words(), labels)

    class Kad:
        def score(self, pictures, names):
            return np.linspace(0, 1, len(names))[None].repeat(len(pictures), axis=0)

    scores = findings.from_pictures(Kad(), [None, None], labels)
    assert findings.present(scores, labels, ["x", "y"])[1].names[0] == "pleural effusion"
    assert findings.from_pictures(Words(), [None], labels) is None

    class Pairs:
        def class_embedding(self, prompts):
            return np.array([0.0, 1.0]) if prompts[0].startswith("no ") else np.array([1.0, 0.0])

        def similarity_logits(self, images, texts):
            return images @ texts.T

    np.testing.assert_allclose(findings.from_vectors(Pairs(), np.array([[1.0, 0.0]]), labels), np.e / (np.e + 1))
    sure = np.array([[500.0, 0.0], [400.0, 0.0]])
    assert (findings.from_vectors(Pairs(), sure, labels) == 1).all()
    np.testing.assert_allclose(findings.log_odds(Pairs(), sure, labels)[:, 0], [500, 400])


def test_prompts_are_embedded_once_for_each_text_side():
    class Counting(Words):
        asked = 0

        def class_embedding(self, prompts):
            self.asked += 1
            return super().class_embedding(prompts)

    one, other = Counting(), Counting()
    for labels in (CLASSES, CLASSES, CLASSES[::-1]):
        vectors = class_vectors(one, [[name] for name in labels])
        np.testing.assert_array_equal(vectors, [CENTRES[CLASSES.index(name)] for name in labels])
    class_vectors(other, [["a", "b"]])
    assert (one.asked, other.asked) == (4, 1)


def test_zero_shot_without_an_index():
    words = methods.ByWords(Words(), load_labels(CLASSES))
    (one,) = answer_pictures(None, words, CENTRES[2:3], ["x"], [NOTHING])
    assert one.label == "c"
    assert one.nearest is None
    assert not one.calibrated


def test_a_scaling_that_measures_worse_than_none_is_not_applied():
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(120, 4)) * 1.5
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([rng.choice(4, p=row) for row in chance])
    rows = labelled.Labelled("label", np.arange(120), truth, np.arange(120), CLASSES)
    none, fit, sets = Temperature(), Temperature.fit, calibrate.Sets(0.1, False, "image")

    def measured(evidence):
        return calibrate.measure_calibration("probe", evidence, rows, sets, before=none, fit=fit)

    right = measured(logits)  # drawn from these very probabilities: nothing to correct
    assert right.scale == none
    assert right.ece_after == right.ece_before
    sure = measured(4 * logits)  # four times too sure
    assert sure.scale != none
    assert sure.ece_after < sure.ece_before / 2
