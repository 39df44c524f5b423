"""Sets: saved with their question, labelled, reopened, handed on; purged, copied and checked with the index."""

from __future__ import annotations

import csv
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest

from retr import Index, Query, RetrError, UnknownIdError, UsageError
from retr.index.disk import journal
from retr.index.disk.journal import Entry
from retr.retrieval.deletion import delete
from retr.sample import sample_encoder, sample_index

LEFT, RIGHT = "healthy/P01-left.png", "healthy/P01-right.png"


@pytest.fixture
def index():
    return sample_index()


def holds(index, text):
    """The files of an index in which a text stands."""
    done = subprocess.run(["grep", "-rlaF", text, str(index.path)], capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[:-1]


def test_a_set_is_there_at_once_for_everybody_and_after_commits(index):
    hits = index.search(id=LEFT, k=3)
    other = Index.open(index.path)
    made = index.sets.save("to discuss", hits.ids, question=hits, author="anna", note="for Monday")
    assert (made.author, made.note, list(made.ids)) == ("anna", "for Monday", hits.ids)
    other.sets.label(hits.ids[:1], "glaucoma?", set="to discuss", author="ben")
    other.sets.label(hits.ids[:1], "sure", set="to discuss", author="anna")
    index.sets.label([RIGHT], "glaucoma?", set="to discuss", author="anna")
    for _ in range(3):
        found = other.sets["to discuss"]
        assert list(found.ids) == [*hits.ids, RIGHT]
        assert found.labels == {hits.ids[0]: ("glaucoma?", "sure"), RIGHT: ("glaucoma?",)}
        assert [(one.label, one.author) for one in found.given][:2] == [("glaucoma?", "ben"), ("sure", "anna")]
        index.set_group(None)
        index.compact()
    index.sets.unlabel(hits.ids[:1], "glaucoma?", set="to discuss")
    index.sets.remove("to discuss", [RIGHT])
    found = other.sets["to discuss"]
    assert found.labels == {hits.ids[0]: ("sure",)}
    assert list(found.ids) == hits.ids
    assert found.note == "for Monday"
    assert found.question is not None
    other.sets.remove("to discuss")
    assert "to discuss" not in index.sets
    assert index.check() == []


def test_a_question_is_asked_again_with_its_conditions_and_tells_what_is_new(index, tmp_path):
    archive = index.path.parent
    asked = {"k": 3, "where": "age < 60", "exclude_same": "patient", "min_score": 0.1}
    picture = archive / LEFT
    hits = index.search(image=picture, **asked)
    index.sets.save("mine", hits.ids, question=hits)
    again = index.sets.reopen("mine")
    assert again.hits.ids == hits.ids
    assert np.allclose(again.hits.scores, hits.scores)
    assert again.new == ()
    assert index.sets["mine"].question["asked"] == "picture"
    assert not holds(index, str(archive))
    # another picture of the same patient comes later: it is left out, a copy of the best hit is not
    index.add(archive / hits.ids[0], name="later")
    assert index.sets.reopen("mine").new == ()
    later = next(row for row in index if row.startswith("later"))
    assert index.sets.reopen("mine").hits.ids == hits.ids
    assert later
    index.delete(ids=[hits.ids[1]])
    again = index.sets.reopen("mine")
    assert len(again.new) == 1
    assert again.new[0] in again.hits.ids
    assert index[again.new[0]]["patient"] != "P01"


def test_a_query_is_saved_with_the_options_of_its_search(index):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
    query = Query.image(noise) + Query.id(LEFT) * 0.5
    hits = index.search(query, k=4, where="label = 'healthy'")
    with pytest.raises(UsageError, match="do not hold the question that found them"):
        index.sets.save("x", hits.ids, question=hits)
    with pytest.raises(UsageError, match="do not hold the question"):
        index.sets.save("x", [LEFT], question=index.search(id=LEFT, k=4)[:2])
    index.sets.save("x", hits.ids, question=query, k=4, where="label = 'healthy'")
    assert index.sets.reopen("x").hits.ids == hits.ids
    with pytest.raises(UsageError, match="has no question"):
        index.sets.reopen(index.sets.save("y", [LEFT]).name)


def test_a_purge_leaves_nothing_of_the_rows_in_sets_labels_questions_and_the_open_journal(index):
    hits = index.search(id=LEFT, k=3)
    index.sets.save("asked with it", hits.ids, question=hits)
    index.sets.save("P01", [RIGHT, LEFT], note=f"compare {LEFT}")
    index.set_group(None)
    index.sets.label([LEFT, RIGHT], f"as {LEFT}", set="open")
    other = index.search(id="glaucoma/P00-left.png", k=24)
    index.sets.save("finds it", [LEFT], question=other)
    done = delete(index, ids=[LEFT], purge=True)
    assert {"1 rows of saved sets", "1 saved questions"} <= set(done.dropped)
    assert not holds(index, "P01-left")
    assert index.sets["asked with it"].question is None
    assert list(index.sets["asked with it"].ids) == hits.ids
    assert index.sets["open"].labels == {RIGHT: ("purged",)}
    assert index.sets["finds it"].ids == ()
    assert index.sets["finds it"].question is not None
    assert LEFT not in index.sets["finds it"].question["hits"]
    assert index.check() == []
    # whoever looks at an older version cannot bring it back
    with pytest.raises(UnknownIdError):
        index.sets.save("again", [LEFT])


def test_a_question_asked_with_the_picture_of_a_purged_row_goes(index):
    vector = index.store.vectors(index.store.rows_of([LEFT]))[0]
    index.sets.save("by vector", [RIGHT], question=Query.vector(vector), k=2)
    index.sets.save("by where", [RIGHT], question=Query.id(RIGHT), k=2, where=f"id != '{LEFT}'")
    delete(index, ids=[LEFT], purge=True)
    assert [one.question for one in index.sets.all()] == [None, None]
    assert not holds(index, LEFT)


def test_an_entry_of_a_newer_version_is_kept_and_purged(index):
    with journal.held(index.path) as held:
        held.append("anna", "draw", {"boxes": [{"on": LEFT}]})
        held.append("anna", "sing", {"set": "x"})
    index.set_group(None)
    assert index.sets.names() == []
    assert holds(index, '"draw"')
    assert index.check() == []
    assert "1 entries of the journal that this retr does not know" in delete(index, ids=[LEFT], purge=True).dropped
    assert not holds(index, LEFT)
    assert holds(index, '"sing"')


def test_rows_that_are_deleted_or_have_another_file_are_told(index, make_picture):
    index.sets.save("s", [LEFT, RIGHT])
    index.delete(ids=[RIGHT])
    assert (index.sets["s"].ids, index.sets["s"].missing) == ((LEFT,), (RIGHT,))
    archive = index.path.parent
    built = Index.build(archive / "healthy", index.path.with_name("changed.retr"), encoder=sample_encoder())
    built.sets.label(["P03-left.png"], "x", set="s")
    make_picture(3).save(archive / "healthy/P03-left.png")
    built = Index.build(archive / "healthy", built.path, encoder=sample_encoder())
    assert built.sets["s"].changed == ("P03-left.png",)
    built.sets.label(["P03-left.png"], "x", set="s")
    assert built.sets["s"].changed == ()


def test_an_index_with_a_head_takes_the_sets_along_but_not_questions_of_another_space(index, tmp_path):
    hits = index.search(id=LEFT, k=3)
    index.sets.save("committed", hits.ids, question=hits)
    index.set_group("patient")
    index.sets.save("open", [LEFT], question=hits)
    index.adapt("label", tmp_path / "adapted.retr")
    adapted = Index.open(tmp_path / "adapted.retr")
    assert adapted.sets.names() == ["committed", "open"]
    assert list(adapted.sets["committed"].ids) == hits.ids
    with pytest.raises(UsageError, match="of another index"):
        adapted.sets.reopen("committed")
    adapted.sets.label([LEFT], "x", set="open")
    assert adapted.sets["open"].labels == {LEFT: ("x",)}
    assert adapted.check() == []


def test_a_set_is_handed_on_as_tables_and_as_copies(index, tmp_path):
    index.sets.save("s", [LEFT, RIGHT])
    index.sets.label([LEFT], "=cmd()", set="s", author="anna")
    index.sets.label([LEFT], "b", set="s", author="ben")
    assert index.sets.export("s", tmp_path / "s.csv") == 2
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [LEFT, RIGHT]
    assert rows[0]["set_labels"] == "'=cmd()|b"
    assert rows[0]["set_labelled_by"] == "anna|ben"
    assert rows[0]["age"] == "41"
    index.sets.export("s", tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert table["set_labels"].to_pylist() == [["=cmd()", "b"], []]
    assert table["age"].to_pylist() == [41, 41]
    index = Index.build(index.path.parent / "healthy", tmp_path / "built.retr", encoder=sample_encoder())
    index.sets.save("s", ["P01-left.png", "P01-right.png"])
    index.sets.export("s", tmp_path / "copies")
    assert sorted(path.name for path in (tmp_path / "copies").iterdir()) == [
        "1-P01-left.png",
        "2-P01-right.png",
        "set.csv",
    ]
    source = index.store.path  # what was copied is what lies in the archive
    assert source.exists()
    with pytest.raises(UsageError, match="is something at"):
        index.sets.export("s", tmp_path / "copies")
    with pytest.raises(RetrError):
        index.sets.export("s", tmp_path / "s.csv" / "below")


@pytest.mark.parametrize("name", ["", " ", "a/b", ".hidden", "x" * 101, "a\nb", "\ud800", 3])
def test_names_that_cannot_be_are_refused(index, name):
    with pytest.raises(UsageError):
        index.sets.save(name, [LEFT])
    assert not (index.path / "journal.jsonl").exists()


def test_what_cannot_be_meant_is_refused_and_leaves_nothing(index):
    sets = index.sets
    for wrong in (
        lambda: sets.save("s", ["no such"]),
        lambda: sets.save("s", LEFT),
        lambda: sets.save("s", [LEFT], k=3),
        lambda: sets.label([LEFT], " ", set="s"),
        lambda: sets.label([LEFT], "x" * 201, set="s"),
        lambda: sets.label([LEFT], "x", set="s", author=""),
        lambda: sets.unlabel([LEFT], "x", set="s"),
        lambda: sets.remove("s"),
        lambda: sets["s"],
    ):
        with pytest.raises(UsageError):
            wrong()
    assert sets.names() == []


def test_a_folded_entry_that_no_version_writes_is_found(index):
    index.sets.save("s", [LEFT])
    index.set_group(None)
    line = Entry(7, "t", "a", "label", {"set": "s", "rows": [["x"]]}).to_line()
    with index.store.writer() as writer:
        writer.add_file("journal.jsonl", writer.store.file("journal.jsonl") + line)
        writer.commit()
    index.refresh()
    assert [one.kind for one in index.check()] == ["unreadable"]


def test_a_question_is_asked_of_the_vectors_that_it_is_of(index):
    index.add(index.path.parent, name="again")
    index.refit(dim=8)
    hits = index.search(id=LEFT, k=5, include_self=True)
    index.sets.save("one row", hits.ids, question=hits)
    mixed = Query.id(LEFT) + Query.id(RIGHT)
    index.sets.save("a mix", [LEFT], question=mixed, k=3)
    assert [index.sets.reopen(name).new for name in ("one row", "a mix")] == [(), ()]
    same = index.sets.reopen("one row").hits
    assert (same.ids, same.scores.tolist()) == (hits.ids, hits.scores.tolist())
    # of the same length, and another space
    index.refit(power=1.5)
    again = index.sets.reopen("one row").hits
    found = index.search(id=LEFT, k=5, include_self=True)
    assert (again.ids, again.scores.tolist()) == (found.ids, found.scores.tolist())
    with pytest.raises(UsageError, match="of what this one searched before"):
        index.sets.reopen("a mix")
    # of a vector that can no longer be compared it is not known whether it was asked with a purged row
    gone = next(row for row in index.store.ids(index.store.live_rows()) if row not in {LEFT, RIGHT, *hits.ids})
    assert "1 saved questions" in delete(index, ids=[gone], purge=True).dropped
    assert index.sets["a mix"].question is None
    assert index.sets.reopen("one row").hits.ids
