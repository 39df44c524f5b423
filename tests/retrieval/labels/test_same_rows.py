"""Who evaluates, calibrates and adapts reads the same labels and keeps the same rows together."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retr.index.encoder import EncoderInfo
from retr.index.errors import UsageError
from retr.index.store import Store
from retr.retrieval.labels.cases import find_cases
from retr.retrieval.labels.labelled import classes_of, labelled_rows

INFO = EncoderInfo(
    name="fake", dim=4, similarity="cosine", modality="none", text=False, weights_sha256="0" * 64, preprocessing="none"
)
LABELS = st.sampled_from([None, "", " ", "a", " a", "a ", "b", "\tb", "a|b", "A"])
ROWS = st.tuples(LABELS, st.sampled_from([None, "P1", " P1 ", "P2", " "]), st.sampled_from([None, "x", "y", "z"]))


def make(path, rows, group):
    store = Store.create(path, encoder=INFO, group=group)
    label, patient, sha = (list(part) for part in zip(*rows, strict=True))
    columns = {"label": pa.array(label, pa.string()), "patient": pa.array(patient, pa.string())}
    table = pa.table({"id": [f"r{i:03}" for i in range(len(rows))], **columns, "sha256": pa.array(sha, pa.string())})
    with store.writer() as writer:
        writer.append(table, np.ones((len(rows), 4), np.float32))
        return writer.commit()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROWS, min_size=2, max_size=12), st.sampled_from([None, "patient"]))
def test_evaluating_and_calibrating_see_the_same_rows_classes_and_groups(tmp_path_factory, rows, group):
    store = make(tmp_path_factory.mktemp("same") / "x.retr", rows, group)
    try:
        cases = find_cases(store, "label")
    except UsageError as refused:
        if "cannot be excluded" not in str(refused):
            with pytest.raises(UsageError):
                labelled_rows(store, "label")
        return
    labelled = labelled_rows(store, "label")
    assert cases.rows.tolist() == labelled.rows.tolist()
    assert cases.classes == labelled.classes
    assert cases.truth.tolist() == labelled.codes.tolist()
    assert cases.groups.tolist() == labelled.groups.tolist()


def test_a_list_is_its_classes_and_several_of_them_are_no_answer(tmp_path):
    assert classes_of(["a ", "b", "a"]) == ("a", "b")
    store = Store.create(tmp_path / "x.retr", encoder=INFO)
    with store.writer() as writer:
        table = pa.table({"id": ["r", "s", "t"], "one": [["a"], ["b"], None], "more": [["a"], ["b"], ["a", "b"]]})
        writer.append(table, np.ones((3, 4), np.float32))
        store = writer.commit()
    assert labelled_rows(store, "one").classes == find_cases(store, "one").classes == ("a", "b")
    with pytest.raises(UsageError, match="1 rows of 'more' hold several classes"):
        labelled_rows(store, "more")
    assert find_cases(store, "more").several
