"""The protocols on small sets, and what they must never claim."""

import json

import numpy as np
import pytest

from retr.index.errors import UsageError
from retr.retrieval.evaluation.protocols import flair, kad, lvm_med, rad_dino, retizero
from retr.retrieval.evaluation.protocols.folder import read_folder
from retr.retrieval.evaluation.protocols.names import in_words, unknown_names
from retr.retrieval.evaluation.protocols.vectors import WORK
from retr.retrieval.images import read_image
from retr.retrieval.labels.label_set import load_labels


@pytest.fixture
def data(archive):
    return read_folder(archive, metadata=archive / "labels.csv", group="patient")


def test_a_folder_is_read_in_order_with_its_patients(archive, data):
    assert data.classes == ("glaucoma", "healthy")
    assert data.counts() == {"glaucoma": 6, "healthy": 6}
    assert list(data.paths) == sorted(data.paths)
    assert len(np.unique(data.groups)) == 4
    assert len(np.unique(read_folder(archive).groups)) == 12
    assert read_folder(archive, most=2).counts() == {"glaucoma": 2, "healthy": 2}
    assert data.fingerprint() != read_folder(archive, most=2).fingerprint()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group": "patient"}, "needs the table"),
        ({"least": 7}, "holds 0 classes"),
        ({"without": ("healthy",)}, "holds 1 classes"),
        ({"without": ("helthy",)}, "no class 'helthy' to leave out; did you mean 'healthy'"),
    ],
)
def test_folders_that_cannot_be_meant(archive, options, words):
    with pytest.raises(UsageError, match=words):
        read_folder(archive, **options)


def test_a_table_may_name_the_classes(archive, data):
    table = archive / "labels.csv"
    named = read_folder(archive, metadata=table, label="label", group="patient")
    assert (named.paths, named.counts()) == (data.paths, data.counts())
    by_patient = read_folder(archive, metadata=table, label="patient")
    assert by_patient.counts() == {f"P{i:02}": 3 for i in range(4)}
    with pytest.raises(UsageError, match="has no column 'diagnosis'"):
        read_folder(archive, metadata=table, label="diagnosis")


def test_every_column_is_filled_or_empty_with_a_reason(data, fake_encoder):
    result = retizero.run(data, fake_encoder, clustered=False)
    json.dumps(result)
    for part in (result["published_protocol"], result["strict"]):
        for name in ("precision", "any_hit"):
            assert set(part[name]) == {"1", "3", "5"}
            assert all(0 <= value <= 1 for value in part[name].values())
    assert result["published_protocol"]["clustered"] is None
    assert result["zero_shot"]["5"] is None
    assert "no text side" in result["zero_shot"]["reason"]
    assert result["strict"]["precision"] == result["steps"][-1]["precision"]
    assert result["published_protocol"]["precision"] == result["steps"][0]["precision"]


def test_the_papers_numbers_are_never_this_runs(data, fake_encoder):
    result = retizero.run(data, fake_encoder, clustered=False)
    published = {value for cells in retizero.PUBLISHED.values() for value in cells.values()}
    measured = json.dumps({key: value for key, value in result.items() if key != "paper"})
    assert not any(str(value) in measured for value in published)
    assert result["data_is_the_papers"] is False


def test_the_papers_data_is_known_by_its_class_counts_alone(data):
    assert not retizero.is_paper_set(data, {})[0]
    assert retizero.is_paper_set(data, {"EYE-15": data.counts()}) == (
        True,
        "class names and counts are those given for EYE-15",
    )
    assert not retizero.is_paper_set(data, {"EYE-15": {"glaucoma": 6, "healthy": 7}})[0]


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"EYE-15": 3}', '{"EYE-15": {"Normal": "many"}}', '{"EYE-15": {"N": true}}']
)
def test_the_papers_counts_are_read_by_type(tmp_path, text):
    file = tmp_path / "sets.json"
    file.write_text('{"EYE-15": {"Normal": 500}}')
    assert retizero.read_paper_sets(file) == {"EYE-15": {"Normal": 500}}
    file.write_text(text)
    with pytest.raises(UsageError, match=r"sets\.json"):
        retizero.read_paper_sets(file)


def test_strict_leaves_the_patient_out():
    """Pairs of a patient are nearly equal and share a class; across patients the vectors mean nothing."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 2)
    own = rng.normal(size=(40, 16))[groups]
    vectors = (own + 0.01 * rng.normal(size=own.shape)).astype(np.float32)
    answers = retizero.retrieve(retizero.Pool(vectors, rng.integers(0, 4, 40)[groups], groups))
    assert answers["published"].summary()["precision"]["1"] == 1
    assert answers["strict"].summary()["precision"]["1"] < 0.5


def test_an_exact_duplicate_may_be_dropped_instead_of_the_query():
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [5, 5], [6, 6]], np.float32)
    scores = retizero.similarity(vectors, vectors)
    first = retizero.drop_first(scores, 1)[:, 0]
    assert first[0] == 0  # of the two equal rows the later came first and was dropped: the query found itself
    strict = retizero.excluding(scores, np.eye(6, dtype=bool), 1)[:, 0]
    assert strict[0] == 1


def test_near_duplicates_across_patients_and_classes_are_counted():
    vectors = np.array([[1, 0], [1, 0.001], [0, 1], [0.001, 1]], np.float32)
    pool = retizero.Pool(vectors, np.array([0, 0, 1, 0]), np.array([0, 0, 1, 2]))
    found = retizero.near_duplicates(pool)
    assert (found["pairs"], found["of_different_groups"], found["of_different_classes"]) == (2, 1, 1)


def test_too_small_a_pool_for_the_clusters_is_an_error():
    with pytest.raises(UsageError, match="at least 258 images, got 20"):
        retizero.clusters(np.zeros((20, 4), np.float32))


class Worded:
    """The fake encoder with a text side that knows one colour a class."""

    def __init__(self, encoder, vectors):
        self._encoder, self._vectors = encoder, vectors
        self.info = type(encoder.info)(**{**encoder.info.to_json(), "text": True})

    def __getattr__(self, name):
        return getattr(self._encoder, name)

    def class_embedding(self, prompts):
        return self._vectors[prompts[0]]

    def similarity_logits(self, images, texts):
        return images @ texts.T


def test_zero_shot_is_measured_or_refused_by_name(data, fake_encoder):
    vectors = WORK.embed(data, [fake_encoder]).vectors[0]
    means = {name: vectors[data.labels == c].mean(axis=0) for c, name in enumerate(data.classes)}
    worded = Worded(fake_encoder, means)
    found = retizero.run(data, worded, labels=load_labels(["glaucoma", "healthy"]), clustered=False)["zero_shot"]
    logits = vectors @ np.stack([means["glaucoma"], means["healthy"]]).T
    assert found["1"] == pytest.approx((logits.argmax(axis=1) == data.labels).mean())
    assert (found["3"], found["5"], found["classes_asked"]) == (None, None, 2), "of two classes any is among three"


def test_zero_shot_is_of_the_classes_that_the_labels_know(data, fake_encoder):
    vectors = WORK.embed(data, [fake_encoder]).vectors[0]
    means = {"glaucoma": vectors[data.labels == 0].mean(axis=0), "helthy": vectors[data.labels == 1].mean(axis=0)}
    worded = Worded(fake_encoder, means)
    found = retizero.run(data, worded, labels=load_labels(["glaucoma", "helthy"]), clustered=False)["zero_shot"]
    assert found["not_in_the_label_set"] == [{"name": "healthy", "images": 6, "nearest": "helthy"}]
    assert (found["images"], found["of_images"], found["classes"]) == (6, 12, ["glaucoma"])
    chosen = (vectors @ np.stack(list(means.values())).T).argmax(axis=1)
    assert found["1"] == pytest.approx((chosen[data.labels == 0] == 0).mean())


@pytest.mark.parametrize("protocol", [retizero, flair, kad])
def test_names_are_compared_before_anything_is_embedded(data, fake_encoder, protocol):
    worded = Worded(fake_encoder, {})
    given = {"labels": load_labels(["healty", "gluacoma"])}
    with pytest.raises(UsageError, match=r"'glaucoma' \(6 images; 'gluacoma'\?\)"):
        protocol.run(data, worded, **given, **({"clustered": False} if protocol is retizero else {}))
    assert fake_encoder.encoded == 0


def test_flair_probes_by_image_and_by_patient(data, fake_encoder):
    measured = flair.run(data, fake_encoder)["measured"]
    assert measured["zero-shot"] == {"reason": "encoder 'fake' has no text side"}
    for name in ("linear probe, published (folds by image)", "linear probe, strict (folds by group)"):
        assert set(measured[name]) == {"ACA", "kappa", "macro F1", "kappa_quadratic"}
        assert measured[name]["kappa_quadratic"]["value"] is None
        assert "--grades" in measured[name]["kappa_quadratic"]["reason"]


@pytest.mark.parametrize(
    ("patients", "words"),
    [
        ({"healthy": "A", "glaucoma": "A"}, "all pictures are of one patient"),
        ({"healthy": "A", "glaucoma": "B"}, "fewer than two classes are left"),
    ],
)
@pytest.mark.parametrize("protocol", [flair, rad_dino, lvm_med])
def test_too_few_patients_for_a_probe_are_said_before_anything_is_embedded(
    archive, fake_encoder, protocol, patients, words
):
    table = archive / "few.csv"
    rows = [f"{name}/{file.name},{patients[name]}" for name in patients for file in (archive / name).iterdir()]
    table.write_text("\n".join(["where,patient", *rows]))
    data = read_folder(archive, metadata=table, path_column="where", group="patient")
    with pytest.raises(UsageError, match=words):
        protocol.run(data, fake_encoder)
    assert fake_encoder.encoded == 0


def test_one_patient_answers_no_strict_question(archive, fake_encoder):
    table = archive / "one.csv"
    rows = [f"{path},A" for path in read_folder(archive).paths]
    table.write_text("\n".join(["path,patient", *rows]))
    data = read_folder(archive, metadata=table, group="patient")
    with pytest.raises(UsageError, match="of one patient"):
        retizero.run(data, fake_encoder, clustered=False)
    assert fake_encoder.encoded == 0


def test_two_pictures_are_too_few_for_a_probe(make_archive, fake_encoder):
    data = read_folder(make_archive(2))
    with pytest.raises(UsageError, match="cannot be fitted"):
        flair.run(data, fake_encoder)


def test_flair_cannot_tell_two_classes_of_one_prototype(make_archive, fake_encoder, tmp_path):
    root = make_archive()
    (root / "healthy").rename(root / "severe_NPDR")
    (root / "glaucoma").rename(root / "PDR")
    (tmp_path / "set.yaml").write_text("[normal, {name: advanced, aliases: [severe NPDR, PDR]}]")
    labels = load_labels(tmp_path / "set.yaml")
    with pytest.raises(UsageError, match="'PDR' and 'severe_NPDR' are one class of the label set 'set'"):
        flair.run(read_folder(root), Worded(fake_encoder, {}), labels=labels)
    assert fake_encoder.encoded == 0


@pytest.mark.parametrize("grades", [[""], ["healthy", "", "glaucoma"], ["healthy", "glaucoma", "Healthy"]])
def test_grades_are_named_once_each(data, fake_encoder, grades):
    with pytest.raises(UsageError, match="name one twice, or none"):
        flair.run(data, fake_encoder, grades=grades)


def test_classes_that_differ_in_spelling_alone_are_pointed_at(archive, caplog):
    (archive / "Healthy").mkdir()
    (archive / "healthy" / "000.png").rename(archive / "Healthy" / "000.png")
    assert read_folder(archive).counts() == {"Healthy": 1, "glaucoma": 6, "healthy": 5}
    assert "'Healthy' and 'healthy' differ in spelling alone" in caplog.text


def test_flairs_quadratic_kappa_needs_a_declared_order(data, fake_encoder, tmp_path):
    (tmp_path / "grades.yaml").write_text("ordered: true\nclasses: [healthy, glaucoma]\n")
    measured = flair.run(data, fake_encoder, labels=load_labels(tmp_path / "grades.yaml"))["measured"]
    strict = measured["linear probe, strict (folds by group)"]
    assert set(strict) == {"ACA", "kappa", "kappa_quadratic", "macro F1"}
    assert strict["kappa_quadratic"]["value"] == pytest.approx(strict["kappa"]["value"]), "two grades have one distance"


def test_flairs_zero_shot_is_the_nearest_prototype(data, fake_encoder):
    vectors = WORK.embed(data, [fake_encoder]).vectors[0]
    means = {name: vectors[data.labels == c].mean(axis=0) for c, name in enumerate(data.classes)}
    worded = Worded(fake_encoder, means)
    found = flair.run(data, worded, labels=load_labels(["glaucoma", "healthy"]))["measured"]["zero-shot"]
    answer = (vectors @ np.stack(list(means.values())).T).argmax(axis=1)
    recalls = [(answer[data.labels == c] == c).mean() for c in range(2)]
    assert found["ACA"]["value"] == pytest.approx(np.mean(recalls))


def test_grades_are_named_in_their_order_and_whole(make_archive, fake_encoder):
    from sklearn.metrics import cohen_kappa_score

    root = make_archive(12)
    (root / "healthy").rename(root / "moderate")  # alphabetical order is not the order of the grades
    (root / "absent").mkdir()
    for file in sorted((root / "glaucoma").iterdir())[:3]:
        file.rename(root / "absent" / file.name)
    (root / "glaucoma").rename(root / "mild")
    data = read_folder(root)
    order = ["absent", "mild", "moderate", "severe"]
    measured = flair.run(data, fake_encoder, grades=order)["measured"]
    found = measured["linear probe, published (folds by image)"]["kappa_quadratic"]["value"]
    vectors = WORK.embed(data, [fake_encoder]).vectors[0]
    folds = flair.by_row(12, flair.FOLDS, 0)
    answers = flair.held_out(vectors, data.labels, 3, folds, strength=flair.STRENGTH).argmax(axis=1)
    assert found == pytest.approx(cohen_kappa_score(data.labels, answers, weights="quadratic"))
    with pytest.raises(UsageError, match="do not name 'mild'"):
        flair.run(data, fake_encoder, grades=["absent", "midl", "moderate"])


def test_rad_dino_gives_areas_and_no_published_number(data, fake_encoder):
    result = rad_dino.run(data, fake_encoder)
    assert set(result["measured"]) == {"macro", "glaucoma", "healthy"}
    assert result["published"][0]["value"] is None


def test_lvm_med_keeps_what_was_seen_out(data, fake_encoder, tmp_path, caplog):
    listed = tmp_path / "file_list.txt"
    listed.write_text("train\\000.png\nsomewhere/else/001.jpg\n\n")
    names = lvm_med.read_exclusions([listed])
    assert names == {"000.png", "001.jpg"}
    result = lvm_med.run(data, fake_encoder, exclude=names)
    assert result["data"]["excluded_as_seen_in_pre-training"] == 2
    assert result["data"]["images"] == 10
    listed.write_bytes(b"\xff\xfe0")
    with pytest.raises(UsageError, match="is not UTF-8"):
        lvm_med.read_exclusions([listed])
    lvm_med.run(data, fake_encoder, exclude=frozenset({"none"}))
    assert "nothing was left out" in caplog.text
    accuracies = [result["measured"][f"run {i}"]["accuracy"]["value"] for i in (1, 2, 3)]
    assert result["measured"]["mean of the runs"]["accuracy"] == pytest.approx(np.mean(accuracies))
    with pytest.raises(UsageError, match="fewer than two classes are left"):
        lvm_med.run(data, fake_encoder, exclude=frozenset(path.split("/")[1] for path in data.paths))


class Finder:
    """The fake encoder with a query network that calls dark pictures ``glaucoma``."""

    def __init__(self, encoder):
        self._encoder = encoder
        self.info = encoder.info

    def __getattr__(self, name):
        return getattr(self._encoder, name)

    def encode_and_score(self, batch, findings):
        dark = 1 - batch.mean(axis=(1, 2, 3))
        return self._encoder.encode_prepared(batch), np.tile(dark[:, None], len(findings))


def test_kad_scores_every_image_and_finding(data, fake_encoder):
    from sklearn.metrics import roc_auc_score

    finder = Finder(fake_encoder)
    result = kad.run(data, finder, load_labels(["glaucoma", "drusen"]))["measured"]
    dark = [1 - fake_encoder.prepare(read_image(data.root / path).image).mean() for path in data.paths]
    assert result["glaucoma"]["AUROC"]["value"] == pytest.approx(roc_auc_score(data.labels == 0, dark))
    assert (result["glaucoma"]["positives"], result["drusen"]["positives"]) == (6, 0)
    assert result["drusen"]["MCC"] is None
    with pytest.raises(UsageError, match="no class names a finding"):
        kad.run(data, finder, load_labels(["edema", "drusen"]), ignore_unknown=True)


def test_what_may_be_misspelt_is_named_first():
    labels = load_labels("chestxray14")
    counts = {"Mass": 9, "catheter": 40, "Pleural_Effusions": 1, "scar": 50, "pneumothoraks": 3}
    found = unknown_names(counts, labels)
    assert [one["name"] for one in found] == ["pneumothoraks", "Pleural_Effusions", "scar", "catheter"]
    assert [one["nearest"] for one in found] == ["pneumothorax", "pleural effusion", None, None]
    many = in_words(unknown_names({f"finding {n}": n for n in range(20)}, labels))
    assert many.endswith("and 12 more")


def test_kad_takes_no_misspelt_finding_for_absent(make_archive, fake_encoder):
    root = make_archive()
    (root / "healthy").rename(root / "No Finding")
    (root / "glaucoma").rename(root / "Edema|Massss|other")
    data, finder = read_folder(root), Finder(fake_encoder)
    findings = load_labels(["edema", "mass"])
    with pytest.raises(UsageError, match=r"'Massss' \(6 images; 'mass'\?\), 'other' \(6 images\);") as refused:
        kad.run(data, finder, findings, separator="|")
    assert "--ignore-unknown" in refused.value.hint
    with pytest.raises(UsageError) as joined:
        kad.run(data, finder, findings)
    assert "--separator" in joined.value.hint
    result = kad.run(data, finder, findings, separator="|", ignore_unknown=True)
    assert [one["name"] for one in result["names_not_asked_about"]] == ["Massss", "other"]
    assert result["measured"]["edema"]["positives"] == 6
    (root / "No Finding").rename(root / "|")
    with pytest.raises(UsageError, match=r", '\|' \(6 images\)"):
        kad.run(read_folder(root), finder, findings, separator="|")


def test_the_best_threshold_is_that_of_scikit_learn():
    from sklearn.metrics import f1_score, matthews_corrcoef

    rng = np.random.default_rng(0)
    truth = rng.random(200) < 0.3
    scores = (rng.normal(size=200) + truth).round(1)
    found = kad.best_threshold(scores, truth)
    tried = {t: matthews_corrcoef(truth, scores >= t) for t in np.unique(scores)}
    assert found["MCC"] == pytest.approx(max(tried.values()))
    assert found["F1"] == pytest.approx(f1_score(truth, scores >= found["threshold"]))
