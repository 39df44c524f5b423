"""Retrieval of cases, measured: each case asks as one, with its patient out of the gallery, and has one label."""

from __future__ import annotations

import numpy as np
import pytest

from retr import Index, UsageError


@pytest.fixture(scope="module")
def table():
    """Sixty studies of two to five pictures, one or two studies a patient, in three classes."""
    rng = np.random.default_rng(3)
    rows, vectors = [], []
    for study in range(60):
        label = "abc"[study % 3]
        centre = np.eye(8)["abc".index(label)] + 0.6 * rng.standard_normal(8)
        for part in range(rng.integers(2, 6)):
            mixed = study == 7 and part == 0
            rows.append((f"s{study:02d}/{part}", f"s{study:02d}", f"p{study // 2:02d}", "c" if mixed else label))
            vectors.append(centre + 0.5 * rng.standard_normal(8))
    rows.append(("alone", None, "p99", "a"))
    vectors.append(np.ones(8))
    names = ("id", "study", "patient", "label")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), np.array(vectors)


@pytest.fixture(scope="module")
def index(table, tmp_path_factory):
    columns, vectors = table
    path = tmp_path_factory.mktemp("index") / "i"
    return Index.from_vectors(vectors, columns, path, encoder="mine", fingerprint="1", group="patient")


def by_hand(table, score):
    """The share of cases whose nearest case of another patient has their label, and whether one of five has."""
    columns, vectors = table
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cases = {}
    for number, study in enumerate(columns["study"]):
        if study is not None and study != "s07":
            cases.setdefault(study, []).append(number)
    first, five = [], []
    for rows in cases.values():
        found = []
        for other, theirs in cases.items():
            if columns["patient"][theirs[0]] != columns["patient"][rows[0]]:
                pairs = vectors[rows] @ vectors[theirs].T
                total = {"maxsim": pairs.max(axis=1).sum(), "mean": pairs.mean(), "best": pairs.max()}[score]
                found.append((-total, other, columns["label"][theirs[0]] == columns["label"][rows[0]]))
        found.sort()
        first.append(found[0][2])
        five.append(any(hit for _, _, hit in found[:5]))
    return np.mean(first), np.mean(five), len(cases)


@pytest.mark.parametrize("score", ["maxsim", "mean", "best"])
def test_the_numbers_are_those_counted_by_hand(index, table, score):
    found = index.evaluate("retrieval", "label", item="study", item_score=score, k=[1, 5])
    first, five, n = by_hand(table, score)
    assert found.metrics["precision@1"].value == pytest.approx(first)
    assert found.metrics["any_hit@5"].value == pytest.approx(five)
    assert (found.facts["queries"], found.facts["gallery"], n) == (59, 59, 59)
    assert (found.facts["item"], found.facts["item_score"]) == ("study", score)
    assert found.facts["patients"] == 30
    assert 0 <= found.metrics["precision@1"].low < first < found.metrics["precision@1"].high <= 1
    assert sum(row["n"] for row in found.per_class) == 59


def test_cases_without_one_label_are_counted_and_left_out(index):
    notes = " ".join(index.evaluate("retrieval", "label", item="study").notes)
    assert "1 cases by 'study' carry more than one label" in notes
    assert "1 labelled rows are parts of no case" in notes


def test_a_case_of_one_row_is_a_row(index):
    """Where every row is a case of its own, the numbers are those of rows."""
    rows = index.evaluate("retrieval", "label", k=[1, 5])
    whole = index.table()
    own = Index.from_vectors(
        index.store.vectors(),
        {**whole.to_pydict(), "one": whole["id"].to_pylist()},
        index.path.with_name("rows"),
        encoder="mine",
        fingerprint="1",
        group="patient",
    )
    cases = own.evaluate("retrieval", "label", item="one", k=[1, 5])
    assert {name: one.value for name, one in cases.metrics.items()} == pytest.approx(
        {name: one.value for name, one in rows.metrics.items()}
    )


def test_who_asks_and_smaller_galleries(index):
    found = index.evaluate("retrieval", "label", item="study", k=[1], queries="label = 'a'", gallery_size=[20, "all"])
    assert found.facts["queries"] == 20
    assert [row["gallery"] for row in found.per_gallery] == [20, 59]
    assert found.per_gallery[1]["precision@1"].value == found.metrics["precision@1"].value


def test_what_cannot_be_measured_is_said(index):
    with pytest.raises(UsageError, match="measured by retrieval, not by probe"):
        index.evaluate("probe", "label", item="study")
    with pytest.raises(UsageError, match="does not say what a case is"):
        index.evaluate("retrieval", "label", item=True)
    with pytest.raises(UsageError, match="scored by"):
        index.evaluate("retrieval", "label", item="study", item_score="sum")
    with pytest.raises(UsageError, match="0 cases by 'label' have one label"):
        index.evaluate("retrieval", "study", item="label")
