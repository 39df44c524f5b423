"""Judged relevance: nDCG as scikit-learn computes it, patients apart, and files that say something else."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from retr import UsageError
from retr.retrieval.evaluation.graded import ndcg
from retr.sample import sample_index


@given(st.lists(st.integers(0, 3), min_size=2, max_size=9).filter(any), st.integers(1, 9), st.randoms())
def test_ndcg_is_that_of_scikit_learn(grades, k, random):
    order = list(range(len(grades)))
    random.shuffle(order)
    scores = np.empty(len(grades))
    scores[order] = -np.arange(len(grades))
    wanted = ndcg_score([grades], [scores], k=k)
    assert ndcg([grades[at] for at in order], grades, k) == pytest.approx(wanted)


@pytest.fixture
def judged(tmp_path):
    def write(*lines):
        file = tmp_path / "judged.qrels"
        file.write_text("\n".join(lines) + "\n")
        return file

    return write


def test_questions_are_rows_and_their_own_patient_does_not_count(judged):
    index = sample_index()
    own = "healthy/P01-left.png"
    found = index.search(id=own, k=10, exclude_same="patient").ids
    grades = {found[0]: 1, found[2]: 3, "healthy/P01-right.png": 3, own: 3, "nowhere.png": 1, found[4]: -1}
    file = judged(*(f"{own} 0 {row} {grade}" for row, grade in grades.items()))
    result = index.evaluate_graded(file, k=[5], group="patient")
    assert result.ndcg[5].value == pytest.approx(ndcg([1, 0, 3, 0, 0], [1, 3, 0], 5))
    assert (result.questions, result.judged) == (1, 3)
    assert "3 judgements do not count" in result.notes[0]


def test_copies_of_a_question_are_no_answers_and_are_not_missed(judged, tmp_path):
    made = sample_index()
    own = "healthy/P01-left.png"
    table = made.store.table(made.store.schema.names).to_pylist()
    sha = next(row["sha256"] for row in table if row["id"] == own)
    copy = {**next(row for row in table if row["id"] == own), "id": "copy.png", "patient": "P77"}
    with made.store.writer() as writer:
        writer.append(
            pa.Table.from_pylist([copy], schema=made.store.schema), made.store.vectors(made.store.rows_of([own]))
        )
        writer.commit()
    made.refresh()
    assert made["copy.png"]["sha256"] == sha
    first = made.search(id=own, k=1, exclude_same="patient").ids[0]
    file = judged(f"{own} 0 copy.png 3", f"{own} 0 {first} 1")
    result = made.evaluate_graded(file, k=[5])
    assert (result.ndcg[5].value, result.judged) == (1, 1)
    assert "of its copies" in result.notes[0]
    # who lets copies answer is measured with them
    assert made.evaluate_graded(file, k=[5], include_self=True).judged == 2


def test_questions_are_texts_by_words(judged, tmp_path):
    index = sample_index()
    texts = tmp_path / "questions.tsv"
    texts.write_text("q 1\tleft glaucoma\n")
    first, second = index.search(text="left glaucoma", in_="caption", k=2).ids
    file = judged(f"q 1\t0\t{first}\t1", f"q 1\t0\t{second}\t2")
    result = index.evaluate_graded(file, questions=texts, k=[2], in_="caption")
    assert result.ndcg[2].value == pytest.approx(ndcg([1, 2], [1, 2], 2))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a b c", "line 1 of the judgements is no QUESTION 0 ROW GRADE"),
        ("healthy/P01-left.png 0 x nan", "line 1 of the judgements"),
        ("nobody 0 healthy/P01-left.png 1", "the question 'nobody' is no row"),
        ("healthy/P01-left.png 0 nowhere.png 1", "no question has a row that is judged above 0"),
        ("", "the file of judgements is empty"),
    ],
)
def test_a_file_that_says_something_else_is_refused(judged, line, said):
    with pytest.raises(UsageError, match=said):
        sample_index().evaluate_graded(judged(line))
    with pytest.raises(UsageError, match="cannot be read as a text"):
        sample_index().evaluate_graded("nowhere.qrels")
