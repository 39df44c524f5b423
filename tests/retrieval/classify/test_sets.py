"""What `calibrate` promises, refuses and states of sets in which each patient counts once."""

import json
import shutil
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest
from index_standin import IndexStandIn

from retr.index.encoder import EncoderInfo
from retr.index.errors import IndexCorruptError, UsageError
from retr.index.json_fields import Fields
from retr.index.store import Store
from retr.index.vectors import unit
from retr.retrieval.classify import calibrate, calibration, classify, methods
from retr.retrieval.classify.answers import answer_pictures
from retr.retrieval.labels.labelled import Labelled, others
from retr.retrieval.stats.confidence import Temperature, Votes
from retr.retrieval.stats.conformal import threshold

DIM, CLASSES = 12, ("a", "b", "rare")
CENTRES = unit(np.random.default_rng(7).normal(size=(3, DIM)))
NOTHING = np.empty(0, dtype=np.int64)
INFO = EncoderInfo(
    name="drawn", dim=DIM, similarity="cosine", modality="many", text=False, weights_sha256="0", preprocessing="none",
    logit_scale=20.0,
)  # fmt: skip


def build(path, patients, *, images=2, group="patient", rare=3, seed=0):
    """A store of some patients; the last few are of the class ``rare``."""
    rng = np.random.default_rng(seed)
    truth = np.repeat([2 if p >= patients - rare else p % 2 for p in range(patients)], images)
    person = np.repeat(rng.normal(size=(patients, DIM)) * 0.3, images, axis=0)
    n = patients * images
    store = Store.create(path, encoder=INFO)
    with store.writer() as writer:
        table = {
            "id": [f"{i:04d}.png" for i in range(n)],
            "sha256": [f"{i:x}" for i in range(n)],
            "label": [CLASSES[t] for t in truth],
            "patient": [f"P{i // images}" for i in range(n)],
        }
        writer.append(pa.table(table), unit(CENTRES[truth] + person + rng.normal(size=(n, DIM)) * 0.1))
        if group:
            writer.set_group(group)
        return writer.commit()


def asked(store):
    return IndexStandIn(store=store, text_side=None, encoder=None)


@pytest.mark.parametrize(("alpha", "need"), [(0.1, 9), (0.2, 4), (0.07, 14)])
def test_exactly_so_many_patients_as_alpha_needs(tmp_path, alpha, need):
    few = build(tmp_path / "few.retr", need - 1, images=8, rare=1)
    refused = rf"alpha {alpha:g} needs {need} patients, and 'label' has {need - 1} to measure;"
    with pytest.raises(UsageError, match=refused):
        calibrate.calibrate(asked(few), "label", alpha=alpha)
    assert not Store.open(few.path).manifest.extra
    calibrate.Sets(alpha, False, "patient").require_groups(drawn(need)[1])


def drawn(patients, images=4, seed=0):
    """Logits of three classes for some patients, and their rows."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, 3, patients), images)
    logits = np.eye(3)[truth] + rng.normal(size=(len(truth), 3))
    rows = np.arange(len(truth))
    return logits, Labelled("label", rows, truth, rows // images, CLASSES)


def measured_sets(logits, rows, alpha, class_conditional=False, fit=lambda *_: Temperature()):
    sets = calibrate.Sets(alpha, class_conditional, "patient")
    return calibrate.measure_calibration("probe", logits, rows, sets, before=Temperature(), fit=fit)


def test_with_just_enough_patients_nothing_is_left_to_measure_the_sets():
    just = measured_sets(*drawn(9), 0.1, fit=Temperature.fit)
    assert (just.coverage, just.coverage_answered, just.abstained, just.set_size) == (None, None, None, None)
    assert just.threshold > 0
    assert "not measured" in just.promise
    more = measured_sets(*drawn(10), 0.1)
    assert None not in (more.coverage, more.abstained, more.set_size)
    assert more.set_size < 3


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """60 patients, four of the class ``rare``, calibrated by class."""
    store = build(tmp_path_factory.mktemp("made") / "x.retr", 60, rare=4)
    measured, _ = calibrate.calibrate(asked(store), "label", alpha=0.1, class_conditional=True)
    return Store.open(store.path), measured


def test_a_class_with_too_few_patients_is_said_and_in_every_set(uneven):
    store, measured = uneven
    method = methods.ByNeighbours(store, "label")
    stored, why = calibration.find_calibration(store, method.key, "label")
    assert why is None
    assert stored in measured
    assert stored.in_every_set == ("rare",)
    assert [(one.label, one.rows, one.groups) for one in stored.by_class] == [
        ("a", 56, 28),
        ("b", 56, 28),
        ("rare", 8, 4),
    ]
    assert "each class by itself" in stored.promise and "in every set for want of patients: rare" in stored.promise
    answers = answer_pictures(store, method, unit(CENTRES).astype(np.float32), ["x", "y", "z"], [NOTHING] * 3)
    for one, name in zip(answers, CLASSES, strict=True):
        assert {"rare", name} <= set(one.prediction_set)
        assert one.to_json()["promise"] == stored.promise
    with pytest.raises(
        UsageError, match=r"alpha 0.02 needs 49 patients, and no class of 'label' has more than 28 to measure"
    ):
        calibrate.calibrate(asked(store), "label", alpha=0.02, class_conditional=True)


def test_what_is_stored_is_what_was_measured(uneven):
    store, measured = uneven
    noted = store.manifest.extra["calibration"]["methods"]
    assert noted == json.loads(json.dumps({calibration.key_of(one.method, "label"): asdict(one) for one in measured}))


def test_a_calibration_that_counted_images_counts_no_longer(uneven):
    store, _ = uneven
    noted = json.loads(json.dumps(store.manifest.extra["calibration"]))
    for record in noted["methods"].values():
        for name in ("unit", "class_conditional", "by_class", "abstained", "coverage_answered"):
            del record[name]
    with store.writer() as writer:
        writer.note("calibration", noted)
        old = writer.preview()
    method = methods.ByNeighbours(old, "label")
    found, why = calibration.find_calibration(old, method.key, "label")
    assert found is None
    assert "older version" in why and "retr calibrate" in why
    (one,) = answer_pictures(old, method, old.vectors(np.array([0])), ["x"], [NOTHING])
    assert not one.calibrated and one.prediction_set is None and why in one.note


@pytest.mark.parametrize(
    ("name", "value"), [("groups", 8), ("alpha", 0.01), ("alpha", 0), ("alpha", 1), ("unit", "eye")]
)
def test_a_record_of_too_few_patients_is_not_believed(uneven, name, value):
    store, _ = uneven
    key = calibration.key_of("probe", "label")
    record = json.loads(json.dumps(store.manifest.extra["calibration"]["methods"][key]))
    assert calibration.Calibration.from_json(Fields(record)).groups == 60
    with pytest.raises(ValueError):
        calibration.Calibration.from_json(Fields({**record, name: value}))


@pytest.mark.parametrize("method", ["probe", "neighbours:5"])
def test_a_record_that_is_believed_gives_probabilities(uneven, method):
    """Whatever numbers a record holds: it is refused, or what it makes of evidence are finite shares of 1."""
    store, _ = uneven
    record = json.loads(json.dumps(store.manifest.extra["calibration"]["methods"][calibration.key_of(method, "label")]))
    votes = Votes(np.array([[0.9, 0.5], [0.7, 0.7]], np.float32), np.array([[0, 1], [2, -1]]), np.full(3, 1 / 3))
    evidence = votes if method != "probe" else np.array([[0, 80, -5], [1, 1, 1]], np.float32)
    other = {"bandwidth": 0.1, "prior_weight": 1.0} if method == "probe" else {"temperature": 1.0}
    refused = 0
    for name in (*record["scaling"], "threshold", "coverage", "set_size", "scaling"):
        for value in (0, -1, 1e-300, 1e30, 1e308, -1e308, other):
            odd = json.loads(json.dumps(record))
            (odd["scaling"] if name in odd["scaling"] else odd)[name] = value
            try:
                found = calibration.Calibration.from_json(Fields(odd))
            except ValueError:
                refused += 1
                continue
            chance = found.scale.probabilities(evidence)
            assert (chance >= 0).all()
            np.testing.assert_allclose(chance.sum(axis=1), 1)
            assert 0 <= (found.coverage or 0) <= 1 and 0 <= (found.set_size or 0) <= 3
    assert refused > 25


def test_a_record_of_other_classes_is_refused(uneven):
    store, _ = uneven
    noted = json.loads(json.dumps(store.manifest.extra["calibration"]))
    for record in noted["methods"].values():
        record["classes"].reverse()
        record["by_class"].reverse()
    with store.writer() as writer:
        writer.note("calibration", noted)
        edited = writer.preview()
    method = methods.ByNeighbours(edited, "label")
    with pytest.raises(IndexCorruptError, match="of other classes"):
        answer_pictures(edited, method, edited.vectors(np.array([0])), ["x"], [NOTHING])


@pytest.mark.parametrize("noted", [[], {"methods": {"[" * 10**5: {}}, "neighbours": 5}])
def test_measuring_again_mends_a_note_that_cannot_be_read(tmp_path, noted):
    store = build(tmp_path / "x.retr", 12)
    with store.writer() as writer:
        writer.note("calibration", noted)
        store = writer.commit()
    assert calibration.kept(store, "neighbours") == {}
    calibrate.calibrate(asked(store), "label", alpha=np.float32(0.3))
    store = Store.open(store.path)
    found, why = calibration.find_calibration(store, "probe", "label")
    assert why is None and found.alpha == np.float32(0.3)
    assert calibration.find_calibration(store, "probe", None)[0] == found


def test_what_no_longer_counts_is_listed_once_a_column(tmp_path):
    store = build(tmp_path / "x.retr", 20, images=1, rare=1)
    ids = store.table(["id"])["id"]
    with store.writer() as writer:
        writer.replace_columns(pa.table({"id": ids, "eye": [["left", "right"][i // 2 % 2] for i in range(20)]}))
        store = writer.commit()
    for column in ("label", "eye"):
        calibrate.calibrate(asked(store), column, alpha=0.3)
        store = Store.open(store.path)
    assert calibration.stale(store) == []
    calibrate.calibrate(asked(store), "eye", alpha=0.3, device_column="eye")
    store = Store.open(store.path)
    (why,) = calibration.stale(store)
    told = "the fence of novelty, then of all cameras together and now of each 'eye', changed"
    assert why.startswith(f"the calibration on 'label' is stale ({told}); run")
    calibrate.calibrate(asked(store), "label", alpha=0.3)
    store = Store.open(store.path)
    (why,) = calibration.stale(store)
    told = "the fence of novelty, then of each 'eye' and now of all cameras together, changed"
    assert why.startswith(f"the calibration on 'eye' is stale ({told}); run")
    noted = json.loads(json.dumps(store.manifest.extra["calibration"]))
    noted["methods"][calibration.key_of("probe", "label")]["alpha"] = "x"
    with store.writer() as writer:
        writer.note("calibration", noted)
        assert sorted(calibration.stale(writer.preview())) == sorted(
            [why, "the calibration on 'label' cannot be read; run `retr calibrate` again"]
        )


def test_what_was_measured_of_the_answered_is_said_for_the_limit_it_was_measured_with(uneven):
    store, _ = uneven
    method = methods.ByNeighbours(store, "label", 5)
    asked_with = {
        limit: answer_pictures(store, method, store.vectors(np.array([0])), ["x"], [NOTHING], max_set=limit)[0].promise
        for limit in (None, 1, 2, 3)
    }
    assert asked_with[None] == asked_with[2] != asked_with[1] == asked_with[3]
    assert "where answered" in asked_with[2] and "where answered" not in asked_with[1]


def test_rows_without_a_patient_are_counted(tmp_path):
    store = build(tmp_path / "x.retr", 20)
    ids = store.table(["id"])["id"]
    with store.writer() as writer:
        patients = [None if i < 5 else f"P{i // 2}" for i in range(40)]
        writer.replace_columns(pa.table({"id": ids, "patient": pa.array(patients, pa.string())}))
        store = writer.commit()
    measured, _ = calibrate.calibrate(asked(store), "label", alpha=0.1)
    assert {(one.alone, one.groups) for one in measured} == {(5, 5 + 18)}


def test_without_a_group_column_each_image_counts(tmp_path):
    store = build(tmp_path / "x.retr", 20, images=1, group=None)
    measured, _ = calibrate.calibrate(asked(store), "label", alpha=0.1)
    assert {(one.unit, one.alone) for one in measured} == {("image", 0)}
    assert not any("patient" in one.promise for one in measured)
    with pytest.raises(UsageError, match=r"alpha 0.01 needs 99 images, and 'label' has 20 to measure; label more"):
        calibrate.calibrate(asked(store), "label", alpha=0.01)


def test_figures_count_each_patient_once():
    """One patient with many images that are all answered right, five with one image that are all wrong."""
    groups = np.repeat(np.arange(20), [20] * 10 + [1] * 10)
    truth = np.where(groups < 10, 0, 1)
    logits = np.column_stack([np.full(len(truth), 2.0), np.zeros(len(truth))])
    rows = Labelled("label", np.arange(len(truth)), truth, groups, ("many", "few"))
    one = measured_sets(logits, rows, 0.4)
    want = threshold(Temperature().probabilities(logits)[np.arange(len(truth)), truth], groups, 0.4)
    assert one.threshold == want < 0.5  # half of the patients are wrong, though only 1 in 21 images
    assert (one.coverage, one.abstained, one.coverage_answered, one.set_size) == (1, 1, None, 2)
    one = measured_sets(logits, rows, 0.6)
    assert one.coverage == pytest.approx(0.5)
    assert (one.abstained, one.set_size) == (0, 1)
    assert one.coverage_answered == one.coverage
    assert [of.coverage for of in one.by_class] == [1, 0]


def test_a_sample_keeps_every_patient_there_is_room_for(monkeypatch):
    monkeypatch.setattr(calibrate, "MAX_ROWS", 100)
    groups = np.repeat(np.arange(40), [50] * 4 + [1] * 36)
    rows = Labelled("label", np.arange(len(groups)), np.arange(len(groups)) % 2, groups, ("a", "b"))
    part = calibrate.sample(rows)
    assert part.n_groups == 40
    assert 90 <= len(part) <= 100
    assert calibrate.sample(rows.part(groups > 2)) is not None
    many = Labelled("label", np.arange(600), np.arange(600) % 2, np.arange(600) // 2, ("a", "b"))
    part = calibrate.sample(many)
    assert 90 <= len(part) <= 100
    assert part.n_groups == len(part)


def test_a_limit_on_sets_is_kept_or_said_to_count_for_nothing(uneven, tmp_path):
    plain = build(tmp_path / "x.retr", 20)
    between, said = unit(CENTRES.sum(axis=0, keepdims=True)).astype(np.float32), []
    (one,) = answer_pictures(plain, methods.ByNeighbours(plain, "label"), between, ["x"], [NOTHING], max_set=1)
    assert one.abstain is None and "no limit on its classes" in one.note
    classify.classify_rows(asked(plain), by="label", max_set=1, say=said.append)
    assert any("no limit on its classes" in line for line in said)
    assert any("not calibrated" in line for line in said)
    for limit in (0, -1):
        with pytest.raises(UsageError, match="at least one class"):
            classify.classify_rows(asked(plain), by="label", max_set=limit)
    store, _ = uneven
    store = Store.open(store.path)
    method, rows = methods.ByNeighbours(store, "label"), store.live_rows()
    kept = {}
    for limit in (None, 1, 2, 3):
        answers = answer_pictures(
            store, method, store.vectors(rows), [""] * len(rows), others(store, rows), max_set=limit
        )
        sizes = np.array([len(one.prediction_set) for one in answers])
        undecided = [one.abstain is not None and one.abstain.startswith("undecided") for one in answers]
        assert undecided == (sizes > (limit or 2)).tolist()  # by default half of three, rounded up
        kept[limit] = sum(one.abstain is None for one in answers)
    assert kept[1] < kept[2] <= kept[3]
    copy = tmp_path / "copy.retr"
    shutil.copytree(store.path, copy)
    said.clear()
    told = classify.classify_rows(asked(Store.open(copy)), by="label", max_set=1, say=said.append)
    assert (told["answered"], said) == (kept[1], [])
    assert told["columns"].endswith(", neighbours_set")


def test_classes_that_nobody_votes_for_are_not_among_the_best(tmp_path):
    store = build(tmp_path / "x.retr", 40)
    method = methods.ByNeighbours(store, "label", 1)
    (one,) = answer_pictures(store, method, unit(CENTRES[1:2]).astype(np.float32), ["x"], [NOTHING])
    assert [shown["label"] for shown in one.to_json()["classes"]] == ["b"]
    assert one.note.startswith("not calibrated")


def test_equally_probable_classes_are_said(tmp_path):
    store = build(tmp_path / "x.retr", 40)

    class Split(methods.ByNeighbours):
        def evidence(self, vectors, exclude):
            votes, hits = super().evidence(vectors, exclude)
            return type(votes)(np.zeros((1, 2)), np.array([[1, 0]]), votes.prior), hits

    (one,) = answer_pictures(store, Split(store, "label", 2), unit(CENTRES[:1]).astype(np.float32), ["x"], [NOTHING])
    assert one.classes[:2] == ("a", "b")
    assert "equally probable: a, b" in one.note
    assert [shown["label"] for shown in one.to_json()["classes"]] == ["a", "b"]
