"""An index whose transform an earlier version fitted is searched as it was, told what is unlike it, and goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from retr.retrieval.index import Index
from retr.retrieval.query import Query

GOLDEN = Path(__file__).parents[2] / "golden" / "index-transform"


@pytest.fixture
def golden(tmp_path) -> Index:
    return Index.open(shutil.copytree(GOLDEN, tmp_path / "golden"))


def test_it_answers_as_it_did(golden):
    assert golden.check() == []
    assert len(golden) == 39
    hits = golden.search(id="07.png", k=3)
    assert hits.ids == ["23.png", "29.png", "19.png"]
    assert hits.scores == pytest.approx([0.969005, 0.884040, 0.783514], abs=1e-5)
    # of the encoder's own six numbers, and of the transform's three
    asked = [Query.vector([90, 0, 0, 1, 0, 2]), Query.vector(golden.store.vectors(np.array([7]))[0])]
    assert [golden.search(one, k=2).ids for one in asked] == [["23.png", "13.png"], ["07.png", "23.png"]]


def test_what_is_unlike_it_is_told_as_it_was(golden):
    assert golden.search(Query.vector([90, 0, 0, 1, 0, 2]), k=1).note is None
    said = golden.search(Query.vector([0, 0, -9, 1, 0, 2]), k=1).note
    assert "before the transform the nearest row scores 0.261" in said


def test_it_goes_on(golden):
    golden.refit()
    assert golden.check() == []
    golden.delete(ids=["07.png"], purge=True)
    assert (golden.check(), len(golden)) == ([], 38)


def test_it_is_read_without_retr():
    """The recipe of docs/format.md: a feature, less the mean, by the weights, of unit length."""
    manifest = json.loads((GOLDEN / (GOLDEN / "CURRENT").read_text().split()[0]).read_bytes())
    (segment,) = manifest["segments"]
    arrays = np.load(GOLDEN / manifest["files"]["transform.npz"]["file"])
    features = np.load(GOLDEN / segment["arrays"]["features"]["file"]).astype(np.float64)
    placed = (features - arrays["mean"]) @ arrays["weights"]
    placed /= np.linalg.norm(placed, axis=1, keepdims=True)
    assert np.allclose(placed, np.load(GOLDEN / segment["vectors"]["file"]), atol=1e-6)
