"""Search by words: against sorting all rows by their scores, alone and fused, whatever becomes of the index."""

import json

import numpy as np
import pyarrow as pa
import pytest

from retr import Index, Query, UsageError
from retr.index.encoder import EncoderInfo
from retr.index.rows.check import stale
from retr.index.store import Store
from retr.retrieval.hits_arrow import from_arrow, to_arrow
from retr.retrieval.sets.question import ask_again
from retr.retrieval.words.analysis import terms
from retr.retrieval.words.kind import file_name
from retr.retrieval.words.postings import Bm25, Postings

WORDS = ["large effusion", "no effusion", "small mass", "heart normal", "No mass. Effusion seen", "clear lungs"]
N, DIM = 60, 8
INFO = EncoderInfo("none", DIM, "cosine", "", text=False, weights_sha256="0", preprocessing="")


def rows(start, stop):
    rng = np.random.default_rng(start)
    picked = [" and ".join(rng.choice(WORDS, rng.integers(1, 4))) for _ in range(start, stop)]
    texts = [None if number % 7 == 6 else text for number, text in enumerate(picked, start)]
    table = pa.table({
        # not in the order of the rows
        "id": [f"r{(number * 37) % 997:03}" for number in range(start, stop)],
        "findings": pa.array(texts, pa.string()),
        "impression": ["effusion" if number % 5 == 0 else "none" for number in range(start, stop)],
        "patient": [f"P{number // 3}" for number in range(start, stop)],
        "age": pa.array([number % 9 * 10 for number in range(start, stop)], pa.int64()),
    })  # fmt: skip
    return table, rng.normal(size=(stop - start, DIM))


def append(index, start, stop):
    with index.store.writer() as writer:
        writer.append(*rows(start, stop))
        writer.commit()
    index.refresh()


@pytest.fixture
def index(tmp_path):
    with Store.create(tmp_path / "x", encoder=INFO, group="patient").writer() as writer:
        writer.append(*rows(0, N))
        writer.commit()
    return Index.open(tmp_path / "x")


def by_definition(index, asked, *, columns=("findings",), where=None, min_score=None, one_per=None, hidden=()):
    """Return ids and scores of all rows that hold a word, best first, ties by id."""
    table = index.table(["id", *columns, "patient"])
    total = np.zeros(len(table))
    for column in columns:
        postings = Postings().with_texts(table[column].to_pylist())
        total += Bm25(postings, np.ones(len(table), bool)).scores([term.text for term in terms(asked)])
    allowed = set(table["id"].to_pylist() if where is None else index.table(["id"], where=where)["id"].to_pylist())
    found = [
        (-np.float32(score), row, patient)
        for score, row, patient in zip(total, table["id"].to_pylist(), table["patient"].to_pylist(), strict=True)
        if score > 0 and row in allowed and row not in hidden and (min_score is None or np.float32(score) >= min_score)
    ]
    found.sort()
    seen = set()
    if one_per:
        found = [one for one in found if one[2] not in seen and not seen.add(one[2])]
    return [row for _, row, _ in found], [-score for score, _, _ in found]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("asked", ["effusion", "no effusion", "large effusion", "the mass of lungs"])
@pytest.mark.parametrize(
    "given",
    [{}, {"where": "age >= 40"}, {"min_score": 0.5}, {"one_per": "patient"}, {"columns": ["findings", "impression"]}],
)
def test_an_answer_is_all_rows_sorted_by_score_and_id(index, kept, asked, given):
    if kept:
        index.words(["findings", "impression"])
    options = {key: value for key, value in given.items() if key != "columns"}
    ids, scores = by_definition(index, asked, **given)
    hits = index.search(text=asked, in_=list(given.get("columns", ["findings"])), k=200, **options)
    assert hits.ids == ids
    assert hits.scores.tolist() == [float(score) for score in scores]
    assert hits.exact
    pages = [index.search(text=asked, in_="findings", k=4, offset=at).ids for at in (0, 4, 8)]
    assert [row for page in pages for row in page] == by_definition(index, asked)[0][:12]


def test_a_denied_word_is_not_found_and_a_denial_is(index):
    texts = index.search(text="effusion", in_="findings", k=100, columns=["findings"]).metadata["findings"].to_pylist()
    assert texts
    assert all(any(term.text == "effusion" for term in terms(text)) for text in texts)
    denials = index.search(text="no effusion", in_="findings", k=100).metadata["findings"].to_pylist()
    assert all("no effusion" in text for text in denials)


def test_weights_move_towards_words_and_away_from_them(index):
    query = Query.text("effusion") - 2 * Query.text("mass")
    hits = index.search(query, in_="findings", k=100)
    scores = dict(zip(hits.ids, hits.scores.tolist(), strict=True))
    with_mass = [
        row["id"] for row in index.table(["id", "findings"]).to_pylist() if "small mass" in (row["findings"] or "")
    ]
    plain = index.search(text="effusion", in_="findings", k=100)
    assert {row for row in with_mass if row in scores} < set(scores)
    assert all(
        scores[row] < score for row, score in zip(plain.ids, plain.scores.tolist(), strict=True) if row in with_mass
    )


def test_fusion_is_the_sum_of_reciprocal_ranks(index):
    own = index.table(["id"])["id"].to_pylist()[0]
    query = Query.id(own) + Query.text("effusion")
    for share in (None, 0.25):
        hits = index.search(query, in_="findings", fuse=share, k=N)
        words = by_definition(index, "effusion", hidden={own})[0]
        vectors = index.search(id=own, k=N).ids
        weight = 0.5 if share is None else share
        score = {}
        for order, part in ((words, 1 - weight), (vectors, weight)):
            for rank, row in enumerate(order, 1):
                score[row] = score.get(row, 0) + part / (60 + rank)
        assert hits.ids == sorted(score, key=lambda row: (-np.float32(score[row]), row))[: len(hits)]
        assert len(hits) == len(score)
        assert hits.weights == {"words": 1 - weight, "vectors": weight}
        assert "reciprocal rank" in hits.note
    alone = index.search(query, in_="findings", exclude_same="patient", k=N)
    patient = index.row(own)["patient"]
    assert patient not in alone.metadata["patient"].to_pylist()


def test_highlights_say_where_the_words_stand_and_travel(index):
    hits = index.search(text="effusions", in_=["findings", "impression"], k=5)
    for hit, spans in zip(hits, hits.highlights, strict=True):
        assert spans
        for column, places in spans.items():
            assert all(hit.metadata[column][start:stop].lower() == "effusion" for start, stop in places)
    assert json.loads(json.dumps(hits.to_json()))["highlights"] == hits.highlights
    [back] = from_arrow(to_arrow([hits]))
    assert (back.highlights, back.weights) == (hits.highlights, None)
    assert hits[1:3].highlights == hits.highlights[1:3]
    assert "highlights" not in index.search(id=hits.ids[0], k=1).to_json()


def test_words_follow_the_rows_through_all_that_becomes_of_an_index(index, tmp_path):
    def agrees():
        assert index.check() == []
        for asked in ("effusion", "no effusion"):
            hits = index.search(text=asked, in_="findings", k=500)
            ids, scores = by_definition(index, asked)
            assert (hits.ids, hits.scores.tolist()) == (ids, [float(score) for score in scores])

    report = index.words("findings")
    assert (report.read, report.rows) == (N, N)
    append(index, N, N + 20)
    assert any("20 rows" in phrase for phrase in stale(index.store))
    agrees()
    assert index.words().read == 20
    assert stale(index.store) == []
    agrees()
    index.delete(where="age = 30")
    agrees()
    index.compact()
    assert stale(index.store) == []
    agrees()
    append(index, N + 20, N + 30)
    index.delete(where="patient = 'P4'", purge=True)
    agrees()
    index.shard(3)
    agrees()
    index.shard(1)
    agrees()


def test_a_purge_leaves_no_word_of_a_row(index):
    with index.store.writer() as writer:
        table = pa.table({"id": ["secret"], "findings": ["zwitschermaschine"], "patient": ["Q"]})
        writer.append(table, np.ones((1, DIM)))
        writer.commit()
    index.refresh()
    index.words("findings")
    assert b"zwitschermaschine" in index.store.file(file_name("findings"))
    index.delete(ids=["secret"], purge=True)
    assert not [file for file in index.path.rglob("*") if file.is_file() and b"zwitschermaschine" in file.read_bytes()]
    assert len(index.search(text="effusion", in_="findings", k=3)) == 3


def test_kept_words_that_are_not_those_of_the_texts_are_found_by_a_check(index):
    index.words("findings")
    texts = index.table(["findings"])["findings"].to_pylist()
    wrong = Postings().with_texts(["large mass", *texts[1:]])
    from retr.retrieval.words.kind import Words

    with index.store.writer() as writer:
        writer.add_file(file_name("findings"), wrong.to_bytes(), kind=Words())
        writer.commit()
    index.refresh()
    assert any("words" in str(finding) for finding in index.check())


@pytest.mark.parametrize(
    ("asked", "options", "said"),
    [
        ("effusion", {"in_": "nowhere"}, "there is no column 'nowhere'"),
        ("effusion", {"in_": "age"}, "words are looked for in text, and 'age' holds int64"),
        ("the", {"in_": "findings"}, "there are no words to look for"),
        ("effusion", {"in_": []}, "in_ names no column"),
        ("effusion", {"in_": "findings", "fuse": 1.5}, "the share of vectors lies between 0 and 1, got 1.5"),
        ("effusion", {"in_": "findings", "diverse": 0.3}, "diverse is told by vectors"),
        ("effusion", {"in_": "findings", "effort": 3}, "effort 3 says how far"),
        ("effusion", {"fuse": 0.5}, "no column of words"),
    ],
)
def test_what_cannot_be_meant_is_said(index, asked, options, said):
    with pytest.raises(UsageError, match=said):
        index.search(text=asked, **options)


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        (Query.text("effusion"), {"in_": "findings"}),
        (Query.text("no mass"), {"in_": ["findings", "impression"], "where": "age >= 20", "one_per": "patient"}),
        (Query.text("effusion") + Query.id("r037"), {"in_": "findings", "exclude_same": "patient"}),
        (Query.text("effusion") - Query.text("mass") + 2 * Query.id("r037"), {"in_": "findings", "fuse": 0.2}),
        (Query.text("effusion") + Query.vector(np.arange(DIM)), {"in_": "findings", "fuse": 0}),
        (Query.text("effusion").refine(like=["r074", "r111"]), {"in_": "findings", "include_self": True}),
    ],
)
def test_a_question_by_words_is_asked_again_from_a_set(index, asked, options):
    hits = index.search(asked, k=7, **options)
    index.sets.save("some", hits.ids, question=hits)
    index.sets.save("same", hits.ids, question=asked, k=7, **options)
    for name in ("some", "same"):
        again = index.sets.reopen(name)
        assert (again.hits.ids, again.new) == (hits.ids, ())
        assert again.hits.scores.tolist() == hits.scores.tolist()
        assert (again.hits.highlights, again.hits.weights) == (hits.highlights, hits.weights)
    append(index, N, N + 40)
    later = index.search(asked, k=7, **options)
    assert index.sets.reopen("some").hits.ids == later.ids
    assert index.sets.reopen("some").new == tuple(one for one in later.ids if one not in hits.ids)
    with pytest.raises(UsageError, match="by words of columns"):
        index.sets.question("some")


def test_a_kept_question_whose_vector_went_is_not_asked_as_words_alone(index):
    asked = Query.text("effusion") + Query.id("r037")
    index.sets.save("some", ["r037"], question=asked, in_="findings", k=3)
    question = {**index.sets["some"].question, "vector": None}
    with pytest.raises(UsageError, match="the vector of the question is of another index"):
        ask_again(index, question)


def test_what_negation_left_out_is_said(index):
    texts = index.table(["findings"])["findings"].to_pylist()
    read = [{term.text for term in terms(text or "")} for text in texts]
    denied = sum("!effusion" in one and "effusion" not in one for one in read)
    found = sum("effusion" in one and "!effusion" not in one for one in read)
    assert f"{denied} rows deny 'Effusions' and" in index.search(text="Effusions", in_="findings").note
    assert f"{found} rows say that there is 'effusion' and" in index.search(text="no effusion", in_="findings").note
    assert "heart" not in index.search(text="heart", in_="findings").note


def test_words_nobody_wrote_find_nothing(index):
    assert len(index.search(text="zebra", in_="findings")) == 0
    assert index.search(text="zebra", in_="findings").to_json()["highlights"] == []
