"""Questions for cases that sets keep: asked again as they were, their own case left out, purged with it."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from retr import Index, Query, UsageError
from retr.retrieval.deletion import delete
from retr.retrieval.sets import question as question_
from retr.sample import sample_encoder, sample_index

LEFT, RIGHT = "healthy/P01-left.png", "healthy/P01-right.png"


@pytest.fixture
def index():
    return sample_index()


def same(one, other):
    return (one.cases, one.ids, one.scores.tolist(), one.parts) == (
        other.cases,
        other.ids,
        other.scores.tolist(),
        other.parts,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"where": "age < 60", "min_score": 0.2},
        {"item_score": "mean"},
        {"include_self": True},
        {"exclude_same": "patient", "item_score": "best"},
        {"exclude_same": {"patient": ["P03"]}},
    ],
)
def test_a_question_for_cases_is_asked_again_as_it_was(index, options):
    archive = index.path.parent
    query = Query.image(archive / LEFT) * 2 + Query.image(archive / RIGHT)
    hits = index.search(query, item="patient", k=4, **options)
    assert len(hits) == 4
    index.sets.save("mine", hits.ids, question=hits)
    again = index.sets.reopen("mine")
    assert same(again.hits, hits)
    assert again.new == ()
    kept = index.sets["mine"].question
    assert kept["asked"] == "2 * picture + picture"
    # what is in the journal, and what the index took in, names no folder
    index.set_group("patient")
    files = subprocess.run(["grep", "-rlaF", str(archive), str(index.path)], capture_output=True, check=False)
    assert not files.stdout
    assert same(index.sets.reopen("mine").hits, hits)


def test_rows_vectors_and_a_whole_case_are_kept_too(index):
    vector = index.store.vectors([3])[0]
    for query in (Query.id("P01"), Query.id(LEFT), Query.vector(vector) + Query.id(RIGHT) * 0.5):
        hits = index.search(query, item="patient", k=5)
        index.sets.save("mine", hits.ids, question=query, k=5, item="patient")
        assert same(index.sets.reopen("mine").hits, hits)
    with pytest.raises(UsageError, match="for cases"):
        index.sets.question("mine")


def test_the_own_case_is_left_out_when_it_has_grown(index):
    archive = index.path.parent
    hits = index.search(id="P01", item="patient", k=11)
    assert len(hits) == 11
    index.sets.save("mine", hits.ids, question=hits)
    table = {"path": [f"P{number:02}-left.png" for number in range(1, 12, 2)], "patient": ["P01"] * 6}
    index.add(archive / "healthy", name="later", metadata=table)
    later = [row for row in index if row.startswith("later") and index[row]["patient"] == "P01"]
    assert later
    again = index.sets.reopen("mine")
    assert "P01" not in again.hits.cases
    assert not {part["id"] for parts in again.hits.parts for part in parts} & set(later)


def test_new_is_a_case_that_was_not_there_and_no_other_part_of_one_that_was(index):
    hits = index.search(id="P01", item="patient", k=2)
    index.sets.save("mine", hits.ids, question=hits)
    best = index.store.ids(index.store.rows_of(hits.ids[:1]))[0]
    # its best part goes: another part of the same case may answer, and a case that moves up is new
    index.delete(ids=[best])
    again = index.sets.reopen("mine")
    fresh = {case for case, row in zip(again.hits.cases, again.hits.ids, strict=True) if row in again.new}
    assert fresh == set(again.hits.cases) - set(hits.cases[1:])
    index.delete(where=f"patient = '{hits.cases[1]}'")
    assert len(index.sets.reopen("mine").new) == 2


def test_a_purge_of_a_part_takes_the_question_and_of_another_case_leaves_it(index):
    archive = index.path.parent
    for name, query in (
        ("the case", Query.id("P01")),
        ("one of several", Query.id("glaucoma/P00-left.png") + Query.image(archive / LEFT)),
        ("a picture's vector", Query.vector(index.store.vectors(index.store.rows_of([LEFT]))[0]) + Query.id(RIGHT)),
    ):
        index.sets.save(name, [RIGHT], question=query, item="patient", k=3)
    index.sets.save("others", [RIGHT], question=Query.id("P05") + Query.id("P07"), item="patient", k=11)
    delete(index, ids=[LEFT], purge=True)
    questions = {one.name: one.question for one in index.sets.all()}
    assert [name for name, one in questions.items() if one is not None] == ["others"]
    assert LEFT not in str(questions["others"])
    assert index.check() == []
    assert len(index.sets.reopen("others").hits) == 10


def test_what_a_case_is_called_outside_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("RETR_STATE_DIR", str(tmp_path / "state"))
    index = sample_index()
    # an identifier of which the index holds a hash
    monkeypatch.setattr(
        type(index.store.identity), "rows", lambda _, __, values: [np.arange(2) for _ in values], raising=True
    )
    index.sets.save("mine", [LEFT], question=Query.id("MRN-4711"), item="patient", k=2)
    assert index.sets["mine"].question["asked"] == "picture"
    assert "MRN" not in (index.path / "journal.jsonl").read_text()


def test_of_many_parts_is_said_how_many_and_of_too_many_that_they_are(index, monkeypatch):
    query = Query.id(LEFT) + Query.id(RIGHT) + Query.id("P03") + Query.id("P05")
    assert index.sets.save("mine", [LEFT], question=query, item="patient").question["asked"] == "4 parts of a case"
    monkeypatch.setattr(question_, "MOST_PARTS", 5)
    with pytest.raises(UsageError, match="at most 5 parts, got 6"):
        index.sets.save("many", [LEFT], question=query, item="patient")
    assert "many" not in index.sets


def test_it_is_asked_of_the_vectors_that_it_is_of(index):
    index.add(index.path.parent, name="again")
    index.refit(dim=8)
    query = Query.id(LEFT) + Query.id("healthy/P03-left.png") * 2
    hits = index.search(query, item="patient", k=5)
    index.sets.save("mine", hits.ids, question=hits)
    assert same(index.sets.reopen("mine").hits, hits)
    index.refit(power=1.5)
    assert same(index.sets.reopen("mine").hits, index.search(query, item="patient", k=5))
    index.adapt("label", index.path.with_name("adapted.retr"))
    adapted = Index.open(index.path.with_name("adapted.retr"))
    assert "mine" in adapted.sets


def test_a_question_for_regions_is_kept_with_where_it_matches(tmp_path):
    archive = sample_index().path.parent
    index = Index.build(archive / "healthy", tmp_path / "x", encoder=sample_encoder(), regions="grid")
    hits = index.search(id="P01-left.png", k=4, in_regions=True)
    index.sets.save("mine", hits.ids, question=hits)
    again = index.sets.reopen("mine").hits
    assert (again.ids, again.regions, len(again.regions)) == (hits.ids, hits.regions, 4)


def test_hits_know_their_question_though_what_is_left_out_is_read_once(index):
    hits = index.search(id=LEFT, item="patient", k=3, exclude_same={"patient": (one for one in ["P03", "P05"])})
    assert not {"P03", "P05"} & set(hits.cases)
    index.sets.save("mine", hits.ids, question=hits)
    assert same(index.sets.reopen("mine").hits, hits)
