"""Rows dealt into folds: no patient on both sides, and every row once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.errors import UsageError
from retr.retrieval.labels.folds import by_class, by_patient, by_row, deal

PATIENTS = st.lists(st.integers(0, 9), min_size=2, max_size=60).filter(lambda groups: len(set(groups)) > 1)


@settings(max_examples=60, deadline=None)
@given(groups=PATIENTS, n=st.integers(2, 7), seed=st.integers(0, 5), data=st.data())
def test_whole_patients_are_held_out_and_every_row_once(groups, n, seed, data):
    groups = np.array(groups)
    codes = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(groups), max_size=len(groups))))
    dealt = deal(groups, n)
    ways = {
        "deal": [(np.flatnonzero(dealt != fold), np.flatnonzero(dealt == fold)) for fold in np.unique(dealt)],
        "by_patient": by_patient(groups, n, seed),
        "by_class": by_class(codes, groups, n, seed),
    }
    for way, folds in ways.items():
        assert len(folds) <= min(n, len(set(groups.tolist()))), way
        for inside, outside in folds:
            assert not set(groups[inside]) & set(groups[outside]), way
            assert sorted([*inside, *outside]) == list(range(len(groups))), way
        assert sorted(np.concatenate([outside for _, outside in folds])) == list(range(len(groups))), way


@pytest.mark.parametrize(
    "split", [lambda g: deal(g, 5), lambda g: by_patient(g, 5, 0), lambda g: by_class(np.array([0, 1, 0]), g, 5, 0)]
)
def test_one_patient_cannot_be_dealt(split):
    with pytest.raises(UsageError, match=r"one (group|patient)"):
        split(np.array([7, 7, 7]))


def test_rows_are_dealt_without_patients():
    assert sorted(np.concatenate([outside for _, outside in by_row(11, 5, 0)])) == list(range(11))
