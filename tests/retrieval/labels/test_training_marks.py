"""Marks of whom was fitted on: they outlast rows, ids and columns."""

import numpy as np
import pyarrow as pa
import pytest

from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.retrieval.labels.training_marks import Marks

INFO = EncoderInfo(
    name="drawn", dim=2, similarity="cosine", modality="many", text=False, weights_sha256="0", preprocessing="none"
)


def rows(ids, patients, hashes):
    return pa.table({"id": ids, "patient": patients, "sha256": hashes})


@pytest.fixture
def store(tmp_path):
    made = Store.create(tmp_path / "x.retr", encoder=INFO)
    with made.writer() as writer:
        writer.append(rows(["a", "b", "c"], ["P1", "P2", None], ["1", "2", "3"]), np.eye(3)[:, :2] + 0.1)
        return writer.commit()


def test_a_patient_a_file_and_an_id_are_known_again(store):
    marks = Marks.from_arrays(Marks.of(store, np.array([0, 2]), ["patient", None]).to_arrays())
    assert marks.columns == ("patient",)
    assert marks.among(store, store.live_rows()).tolist() == [True, False, True]
    assert marks.patients_among(store, store.live_rows()).tolist() == [True, False, False]
    with store.writer() as writer:
        writer.delete(np.arange(3))
        new = rows(["d", "e", "f", "a"], ["P1", "P3", None, "P4"], ["4", "5", "3", "6"])
        writer.append(new, np.ones((4, 2)))
        store = writer.commit()
    live = store.live_rows()
    found = marks.among(store, live) | marks.patients_among(store, live)
    assert found.tolist() == [True, False, True, True]  # the patient, nobody, the file, the id
    # a value of another column is nobody's
    other = Marks.of(store, live[:1], ["id"])
    assert not other.patients_among(store, live[1:]).any()


def test_nothing_marks_nothing(store):
    marks = Marks.of(store, np.empty(0, np.int64), ["patient"])
    assert not marks.among(store, store.live_rows()).any()
    assert not marks.patients_among(store, store.live_rows()).any()
    assert Marks.from_arrays({}) is None
