"""Words stored row by row: appended, renumbered, purged, and scored as BM25 is defined."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retr.retrieval.words.analysis import terms
from retr.retrieval.words.postings import Bm25, Postings

REPORT = st.lists(st.sampled_from(["effusion", "mass", "no", "heart", "large", "lungs"]), max_size=6).map(" ".join)
REPORTS = st.lists(st.none() | REPORT, max_size=8)


def by_definition(texts, asked):
    """Score texts by Lucene's formula, one at a time."""
    docs = [[term.text for term in terms(text or "")] for text in texts]
    n = sum(bool(doc) for doc in docs)
    mean = sum(map(len, docs)) / max(n, 1)
    scores = []
    for doc in docs:
        score = 0.0
        for term in asked:
            df = sum(term in other for other in docs)
            if term in doc:
                tf = doc.count(term)
                idf = math.log(1 + (n - df + 0.5) / (df + 0.5))
                score += idf * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * len(doc) / mean))
        scores.append(score)
    return scores


@given(REPORTS, st.data())
def test_scores_are_those_of_the_definition_over_the_rows_that_are_alive(texts, data):
    alive = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))), bool)
    postings = Postings().with_texts(texts)
    asked = ["effusion", "!mass", "lung", "unknown", "effusion"]
    wanted = by_definition([text if one else None for text, one in zip(texts, alive, strict=True)], asked)
    assert Bm25(postings, alive).scores(asked) == pytest.approx(wanted, abs=1e-12)


@given(REPORTS, REPORTS)
def test_appending_is_as_reading_all_at_once(first, more):
    whole = Postings().with_texts([*first, *more])
    parts = Postings.from_bytes(Postings().with_texts(first).to_bytes()).with_texts(more)
    assert parts.same_as(whole)
    assert len(parts) == len(first) + len(more)


@given(REPORTS, st.randoms())
def test_rows_that_go_or_move_leave_what_reading_the_others_gives(texts, random):
    places = [number for number in range(len(texts)) if random.random() < 0.6]
    random.shuffle(places)
    numbers = np.full(len(texts), -1, np.int64)
    numbers[places] = np.arange(len(places))
    moved = Postings().with_texts(texts).renumbered(numbers)
    assert moved.same_as(Postings().with_texts([texts[at] for at in places]))
    gone = numbers < 0
    left = Postings().with_texts(texts).without(gone)
    kept = [None if one else text for text, one in zip(texts, gone, strict=True)]
    assert left.same_as(Postings().with_texts(kept))
    assert set(left.vocabulary) == set(Postings().with_texts(kept).vocabulary)


@pytest.mark.parametrize("field", ["offsets", "which", "counts", "vocabulary"])
def test_what_no_writer_wrote_is_refused(field):
    import io

    data = Postings().with_texts(["large effusion", "mass"]).to_bytes()
    arrays = dict(np.load(io.BytesIO(data)))
    arrays[field] = arrays[field][:-1] if field != "which" else arrays[field] + 5
    sink = io.BytesIO()
    np.savez(sink, **arrays)
    with pytest.raises((ValueError, KeyError)):
        found = Postings.from_bytes(sink.getvalue())
        # a shorter vocabulary may be a word with another ending, which a check of the texts tells
        assert field == "vocabulary"
        assert not found.same_as(Postings().with_texts(["large effusion", "mass"]))
        raise ValueError
