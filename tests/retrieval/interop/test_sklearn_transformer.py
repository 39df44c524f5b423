"""An index's vectors in scikit-learn's own pipelines and searches."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from retr import Index, UnknownIdError, UsageError
from retr.interop import IndexTransformer


@pytest.fixture
def index(archive, tmp_path, fake_encoder):
    return Index.build(archive, tmp_path / "x", encoder=fake_encoder, metadata=archive / "labels.csv")


def test_vectors_are_the_indexs(index, archive):
    rows = index.store.table(["id"]).to_pydict()["id"]
    by_id = IndexTransformer(index).fit(rows).transform(rows)
    assert by_id.dtype == np.float32
    assert np.array_equal(by_id, index.store.vectors(index.store.rows_of(rows)))
    assert np.array_equal(IndexTransformer(index).fit_transform(np.array(rows, object).reshape(-1, 1)), by_id)
    by_image = IndexTransformer(index, by="image").fit_transform([archive / id_ for id_ in rows])
    assert np.allclose(by_image, by_id, atol=1e-6)
    assert IndexTransformer(index).fit(rows).get_feature_names_out()[:2].tolist() == ["vector0", "vector1"]


def test_folds_of_a_pipeline(index):
    rows = index.store.table(["id", "label", "patient"]).to_pydict()
    pipeline = make_pipeline(IndexTransformer(index.path), LogisticRegression())
    scores = cross_val_score(pipeline, rows["id"], rows["label"], groups=rows["patient"], cv=GroupKFold(3))
    assert len(scores) == 3 and np.isfinite(scores).all()


def test_what_cannot_be_meant_is_said(index):
    with pytest.raises(NotFittedError):
        IndexTransformer(index).transform(["healthy/000.png"])
    with pytest.raises(UnknownIdError):
        IndexTransformer(index).fit([]).transform(["healthy/999.png"])
    for wrong in (IndexTransformer(), IndexTransformer(index, by="path")):
        with pytest.raises(UsageError):
            wrong.fit([])


def test_parameters_are_kept_and_cloned(index):
    made = IndexTransformer(index.path, by="image")
    assert made.get_params() == {"index": index.path, "by": "image"}
    assert clone(made).get_params() == made.get_params()
    assert made.set_params(by="id").by == "id"


def test_scikit_learns_own_checks(index):
    results = check_estimator(IndexTransformer(index.path), on_fail=None, on_skip=None)
    passed = {one["check_name"] for one in results if one["status"] == "passed"}
    assert {
        "check_estimator_cloneable",
        "check_no_attributes_set_in_init",
        "check_get_params_invariance",
        "check_set_params",
        "check_estimator_repr",
    } <= passed
