"""The forms in which rows to leave out are given, among them those that can be read once."""

from __future__ import annotations

import pytest

from retr import Query, UsageError
from retr.sample import sample_index


@pytest.fixture(scope="module")
def index():
    return sample_index()


def left(index, ids, exclude_same):
    found = index.search([Query.id(one) for one in ids], k=24, exclude_same=exclude_same)
    return [sorted({index[one]["patient"] for one in hits.ids}) for hits in found]


IDS = ["healthy/P01-left.png", "healthy/P03-left.png"]


@pytest.mark.parametrize("columns", [["patient"], ("patient",), {"patient"}, "patient"])
def test_columns_however_they_are_listed(index, columns):
    expected = left(index, IDS, "patient")
    assert "P01" not in expected[0] and "P03" not in expected[1]
    assert left(index, IDS, columns) == expected


def test_columns_that_can_be_read_once(index):
    assert left(index, IDS, iter(["patient"])) == left(index, IDS, "patient")
    assert left(index, IDS, (one for one in ["patient"])) == left(index, IDS, "patient")


def test_values_that_can_be_read_once_go_for_every_query(index):
    expected = left(index, IDS, {"patient": ["P05", "P07"]})
    assert all({"P05", "P07"}.isdisjoint(patients) for patients in expected)
    assert left(index, IDS, {"patient": iter(["P05", "P07"])}) == expected
    assert left(index, IDS, iter([{"patient": iter(["P05", "P07"])}, {"patient": ["P05", "P07"]}])) == expected


@pytest.mark.parametrize(
    "wrong", [1, True, b"patient", [1], [("patient", "P03")], ["patient", None], ["patient", {"label": "x"}], {1: "x"}]
)
def test_what_names_no_column(index, wrong):
    with pytest.raises(UsageError, match="column"):
        left(index, IDS, wrong)


def test_a_value_that_no_file_can_hold(index):
    with pytest.raises(UsageError, match="is not Unicode"):
        left(index, IDS, {"patient": "\ud800"})
