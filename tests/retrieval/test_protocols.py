"""The protocols on small sets, and what they must never claim."""

import json

import numpy as np
import pytest

from retr.index.errors import UsageError
from retr.retrieval.prompts import load_labels
from retr.retrieval.protocols import retizero
from retr.retrieval.protocols.folder import read_folder


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
        ({"least": 7}, "holds 0 folders"),
        ({"without": ("healthy",)}, "holds 1 folders"),
    ],
)
def test_folders_that_cannot_be_meant(archive, options, words):
    with pytest.raises(UsageError, match=words):
        read_folder(archive, **options)


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
    assert (found["pairs"], found["of_different_patients"], found["of_different_classes"]) == (2, 1, 1)


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
    vectors = data.embed(fake_encoder)
    means = {name: vectors[data.labels == c].mean(axis=0) for c, name in enumerate(data.classes)}
    worded = Worded(fake_encoder, means)
    found = retizero.run(data, worded, labels=load_labels(["glaucoma", "healthy"]), clustered=False)["zero_shot"]
    logits = vectors @ np.stack([means["glaucoma"], means["healthy"]]).T
    assert found["1"] == pytest.approx((logits.argmax(axis=1) == data.labels).mean())
    refused = retizero.run(data, worded, labels=load_labels(["glaucoma", "drusen"]), clustered=False)["zero_shot"]
    assert "does not know healthy" in refused["reason"]
