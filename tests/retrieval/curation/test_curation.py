"""Outliers, suspects and samples on vectors that are made so that the answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retr.index.errors import UsageError
from retr.retrieval.curation.suspects import judge
from retr.retrieval.index import Index

CLASSES = ("cataract", "drusen", "healthy")


def directions(labels: np.ndarray[Any, Any], rng: np.random.Generator, dim: int = 12) -> np.ndarray[Any, Any]:
    """Unit vectors around one axis a class."""
    found = np.eye(dim)[labels] + rng.normal(0, 0.12, (len(labels), dim))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def make_index(tmp_path):
    """``make_index(vectors, **columns)``: an index of rows ``r000`` ..., two of each patient."""

    def make(vectors: Any, *, group: str | None = "patient", **columns: Any) -> Index:
        n = len(vectors)
        table = {"id": [f"r{at:03d}" for at in range(n)], "patient": [f"P{at // 2}" for at in range(n)]} | columns
        number = sum(1 for _ in tmp_path.iterdir())
        return Index.from_vectors(vectors, table, tmp_path / f"{number}", encoder="m", fingerprint="1", group=group)

    return make


@pytest.fixture
def classes():
    """The class of each of 120 rows, equal in the two of a patient, and vectors that tell it."""
    codes = np.repeat(np.arange(60) % 3, 2)
    return codes, directions(codes, np.random.default_rng(0))


class TestOutliers:
    def test_a_patients_other_picture_does_not_make_a_row_ordinary(self, make_index, classes):
        _, vectors = classes
        odd = np.eye(12)[10] + np.random.default_rng(1).normal(0, 0.01, (2, 12))
        index = make_index(np.concatenate([vectors, odd]))
        found = index.outliers(2)
        assert set(found.ids) == {"r120", "r121"}
        assert found[0]["novelty"] > 0.7
        assert index[found[0]["nearest"]]["patient"] != "P60"
        assert index.outliers(1, where="patient = 'P3'").ids[0] in {"r006", "r007"}
        # nobody says that the two are of one person
        assert "no group key" in make_index(vectors, group=None).outliers(1).notes[0]

    def test_a_few_that_are_odd_alike_are_found(self, make_index, classes):
        _, vectors = classes
        odd = np.eye(12)[10] + np.random.default_rng(1).normal(0, 0.01, (6, 12))
        assert set(make_index(np.concatenate([vectors, odd])).outliers(6).ids) == {f"r{at}" for at in range(120, 126)}

    def test_raw_features_and_dot_products_give_the_same(self, make_index, classes, tmp_path):
        _, vectors = classes
        scaled = vectors * np.linspace(1, 3, len(vectors))[:, None]
        rows = {"id": [f"r{at:03d}" for at in range(120)], "patient": [f"P{at // 2}" for at in range(120)]}
        asked = {"encoder": "m", "fingerprint": "1", "group": "patient"}
        dot = Index.from_vectors(scaled, rows, tmp_path / "dot", similarity="dot", **asked)
        assert dot.outliers(20).ids == make_index(vectors).outliers(20).ids

    @pytest.mark.parametrize("n", [0, -1, True, 1.5])
    def test_a_number_of_rows_that_is_none(self, make_index, classes, n):
        with pytest.raises(UsageError, match="whole number from 1"):
            make_index(classes[1]).outliers(n)

    def test_one_patient_and_no_row(self, make_index, classes):
        index = make_index(classes[1][:2])
        with pytest.raises(UsageError, match="all rows are of one patient"):
            index.outliers()
        with pytest.raises(UsageError, match="no row to look at where patient = 'x'"):
            index.outliers(where="patient = 'x'")


class TestSuspects:
    def wrong(self, codes):
        names = [CLASSES[code] for code in codes]
        for at in (4, 5, 30, 77):
            names[at] = CLASSES[(codes[at] + 1) % 3]
        return names

    def test_labels_that_were_made_wrong_come_first(self, make_index, classes):
        codes, vectors = classes
        index = make_index(vectors, label=self.wrong(codes))
        found = index.suspects("label", 10)
        # both rows of a patient are wrong in one case: they must not vouch for each other
        assert set(found.ids[:4]) == {"r004", "r005", "r030", "r077"}
        assert [record["confident"] for record in found][:5] == [True] * 4 + [False]
        assert found.facts == {"rows": 120, "groups": 60, "classes": 3, "confident": 4}
        first = found[0]
        assert first["likely"] == CLASSES[codes[int(first["id"][1:])]]
        assert first["p_given"] < 0.1 < 0.5 < first["p_likely"]
        assert {index[name]["label"] for name in first["evidence"]} == {first["likely"]}
        assert found.table().column_names[:3] == ["rank", "id", "given"]
        assert index.suspects("label", 10).records == found.records

    def test_a_class_of_one_patient_is_left_out_and_said(self, make_index, classes):
        codes, vectors = classes
        names = [CLASSES[code] for code in codes]
        names[10] = names[11] = "rare"
        names[12] = None
        found = make_index(vectors, label=names).suspects("label", 200)
        assert not {"r010", "r011", "r012"} & set(found.ids)
        assert len(found) == 117
        assert any("of one patient each: 'rare'" in note for note in found.notes)
        assert any("1 rows have no 'label'" in note for note in found.notes)

    def test_several_classes_a_row(self, make_index):
        rng = np.random.default_rng(0)
        carried = rng.random((160, 3)) < 0.4
        carried[1::2] = carried[::2]
        vectors = np.concatenate([carried, np.full((160, 1), 0.5)], axis=1) + rng.normal(0, 0.08, (160, 4))
        given = carried.copy()
        given[7, 0] ^= True
        given[20, 2] ^= True
        names = ["|".join(name for name, one in zip(CLASSES, row, strict=True) if one) for row in given]
        index = make_index(np.concatenate([vectors, rng.normal(0, 0.01, (160, 4))], axis=1), label=names)
        found = index.suspects("label", 5, separator="|")
        for name, column in (("r007", 0), ("r020", 2)):
            at = int(name[1:])
            assert given[at].any()
            record = next(one for one in found if one["id"] == name)
            assert (CLASSES[column] in record["likely"].split("|")) == bool(carried[at, column])
            assert record["p_likely"] > record["p_given"]

    def test_what_cannot_be_judged(self, make_index, classes):
        codes, vectors = classes
        index = make_index(vectors, label=["healthy"] * 120, each=[f"c{at // 2}" for at in range(120)])
        with pytest.raises(UsageError, match="holds 1 classes"):
            index.suspects("label")
        with pytest.raises(UsageError, match="0 classes of 'each' are of more than one patient"):
            index.suspects("each")
        with pytest.raises(UsageError, match="labl"):
            index.suspects("labl")
        names = [CLASSES[code] for code in codes]
        with pytest.raises(UsageError, match="one patient"):
            make_index(vectors, label=names, patient=["P"] * 120).suspects("label")

    def test_the_labels_of_an_adapted_index_do_not_vouch_for_themselves(self, make_index, classes):
        index = make_index(classes[1], label=[CLASSES[code] for code in classes[0]])
        with index.store.writer() as writer:
            writer.note("adapted", {"label": "label"})
            writer.commit()
        index.refresh()
        with pytest.raises(UsageError, match="fitted on its labels"):
            index.suspects("label")

    def test_confident_learning_by_hand(self):
        # thresholds: 0.6 of the first class, 0.7 of the second
        probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.3, 0.7], [0.3, 0.7]])
        member = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], bool)
        found = judge(probabilities, member, several=False)
        assert found.order.tolist()[0] == 1
        assert found.confident.tolist() == [False, True, False, False]
        assert found.likely.tolist() == [1, 1, 0, 0]


class TestSample:
    @pytest.mark.parametrize("strategy", ["diverse", "coverage"])
    def test_every_patient_comes_once_before_any_comes_twice(self, make_index, classes, strategy):
        index = make_index(classes[1])
        found = index.sample(70, strategy=strategy)
        patients = [index[name]["patient"] for name in found.ids]
        assert len(set(found.ids)) == 70
        assert len(set(patients[:60])) == 60
        assert index.sample(5, strategy=strategy).ids == found.ids[:5]
        assert len(index.sample(500, strategy=strategy)) == 120

    @pytest.mark.parametrize("strategy", ["diverse", "coverage"])
    def test_the_kinds_are_met_first(self, make_index, classes, strategy):
        codes, vectors = classes
        found = make_index(vectors).sample(3, strategy=strategy)
        assert {int(codes[int(name[1:])]) for name in found.ids} == {0, 1, 2}

    def test_what_is_labelled_is_done(self, make_index, classes):
        codes, vectors = classes
        names = [CLASSES[code] if code < 2 else None for code in codes]
        index = make_index(vectors, label=names)
        for strategy in ("diverse", "coverage", "uncertain"):
            found = index.sample(4, strategy=strategy, label="label")
            assert {int(codes[int(name[1:])]) for name in found.ids} == {2}
            assert found.facts["labelled"] == 80
        with pytest.raises(UsageError, match="every row has a 'patient'"):
            index.sample(label="patient")

    def test_the_uncertain_lie_between_classes(self, make_index, classes):
        codes, vectors = classes
        between = np.concatenate([vectors, [(np.eye(12)[0] + np.eye(12)[1]) / 2**0.5]])
        names = [CLASSES[code] if at < 60 else None for at, code in enumerate([*codes, 0])]
        found = make_index(between, label=names).sample(5, strategy="uncertain", label="label")
        assert found.ids[0] == "r120"
        assert found[0]["score"] < found[1]["score"]

    def test_what_cannot_be_chosen(self, make_index, classes):
        index = make_index(classes[1])
        with pytest.raises(UsageError, match="one of diverse, uncertain, coverage, got: 'best'"):
            index.sample(strategy="best")
        with pytest.raises(UsageError, match="'uncertain' needs labelled rows"):
            index.sample(strategy="uncertain")
        with pytest.raises(UsageError, match="no row fits"):
            index.sample(where="patient = 'x'")


def test_raw_features_are_compared_where_the_index_holds_them(make_index, classes):
    """Vectors that were fitted on the archive would call other rows odd."""
    from retr.retrieval import raw_vectors as raw

    index = make_index(classes[1])
    before, odd = raw.raw_vectors(index.store, np.arange(3)), index.outliers(5).ids
    index.refit(dim=4)
    assert not raw.searches_raw(index.store)
    assert index.outliers(5).ids == odd
    assert np.allclose(raw.raw_vectors(index.store, np.arange(3)), before, atol=1e-3)
