"""A column of whole numbers that is compared often is sorted once, and gives the rows that reading all of it gives."""

from __future__ import annotations

import numpy as np

from retr.index.rows import columns
from retr.index.rows.columns import Columns


def test_a_column_is_sorted_after_some_comparisons_and_read_no_more(make, monkeypatch):
    store = make(1000, 1000)
    ages = store.table(["age"])["age"].to_numpy()
    read = []
    part = Columns._part
    monkeypatch.setattr(Columns, "_part", lambda self, *given: read.append(given) or part(self, *given))
    for age in range(columns._ORDERED_AFTER + 3):
        allowed = store.allowed(f"age = {age}")
        np.testing.assert_array_equal(allowed.rows, np.flatnonzero(ages == age))
        np.testing.assert_array_equal(np.flatnonzero(allowed.mask), allowed.rows)
        if age == columns._ORDERED_AFTER:
            before = len(read)
    assert len(read) == before
    # what keeps many rows is read, and no row is numbered
    allowed = store.allowed("age > 10")
    assert allowed.rows is None
    np.testing.assert_array_equal(allowed.mask, ages > 10)
    assert len(read) > before
